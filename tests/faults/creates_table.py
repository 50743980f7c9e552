"""The faults of a create: those of polls and of the documentation, aimed at creates, and those of creates alone."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vidu.api.clients.sync_client import SyncClient
from airflow_provider_vidu.orders.records import StateStore
from airflow_provider_vidu.sandbox.faults.refusals import REFUSALS
from tests.documented_answers import REFUSALS as DOCUMENTED
from tests.faults import test_polling_answers, test_polling_statuses, test_polling_transport
from tests.faults.creates_world import CreateWorld
from tests.faults.polling_world import Fault, acted, answered


def refused(name: str) -> Fault:
    """Return the row of a refusal by name, which the sandbox sends before anything is charged."""
    return Fault(f"refused: {name}", acted(refusal=name))


def killed(when: str, owner: type, method: str, **where: Any) -> Fault:
    """Return the row of a worker that dies once."""

    def arrange(world: Any) -> None:
        assert isinstance(world, CreateWorld)
        world.kill(owner, method, **where)

    return Fault(f"kill -9 {when}", arrange)


def carried_out(fault: Fault) -> Fault:
    """Return the row of a create that is carried out, and answered by this fault all the same."""

    def arrange(world: Any) -> None:
        world.performs = True
        fault.arrange(world)

    return Fault(f"carried out, then {fault.name}", arrange)


_LOSING = ("408", "500", "502 in HTML", "504, empty")
FAULTS: list[Fault] = [
    *(refused(name) for name in REFUSALS),
    *(Fault(f"answered {row}", answered(row.status, row.body)) for row in DOCUMENTED),
    *test_polling_transport.FAULTS,
    *test_polling_statuses.FAULTS,
    *test_polling_answers.GARBAGE,
    *(carried_out(fault) for fault in test_polling_statuses.FAULTS if fault.name in _LOSING),
    Fault("the answer is lost", acted(lose_answer=True)),
    Fault("the answer is packed", acted(gzip=True)),
    Fault("the answer comes in chunks", acted(chunked=True)),
    Fault("the answer calls itself a page", acted(content_type="text/html")),
    killed("before the intent is stored", StateStore, "save"),
    killed("after the intent is stored", StateStore, "save", is_after=True),
    killed("after the answer", SyncClient, "submit", is_after=True),
    killed("after the id is stored", StateStore, "save", nth=2, is_after=True),
]
BY_DAY = {
    "refused: video_queue_full",  # waits for a slot
    "refused: get_channel_failed",  # repeated in the worker
    "answered 401 bad_key",
    "400 CreditInsufficient",  # final
    "carried out, then 502 in HTML",  # created, and searched for
    "reset before the answer",  # not created, and searched for
    "the answer is packed",  # survived
    "kill -9 after the answer",
}
"""One fault for each behaviour; the others run at night."""
assert {fault.name for fault in FAULTS} >= BY_DAY


def each_create(test: Any) -> Any:
    """Run a test with each fault, in each dialect that it makes sense for."""
    rows = [
        pytest.param(
            fault, dialect, id=f"{fault.name}-{dialect}", marks=[] if fault.name in BY_DAY else [pytest.mark.nightly]
        )
        for fault in FAULTS
        for dialect in fault.dialects
    ]
    return pytest.mark.parametrize(("fault", "dialect"), rows)(test)
