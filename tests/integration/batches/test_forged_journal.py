"""A batch whose journal another writer of its destination has forged."""

from __future__ import annotations

import json
import time
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.batches import journal, plan, state
from airflow_provider_vidu.batches.arguments import MOST_IN_FLIGHT
from airflow_provider_vidu.batches.jobs import Open
from airflow_provider_vidu.batches.leg.submitter import Submitter
from airflow_provider_vidu.batches.state import MOST_INTENTS
from airflow_provider_vidu.operators import ViduBatchOperator, ViduBudget, batch_waits
from tests.integration.batches.batch_task import BatchTask

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("no_first_wait", "quick_backoff", "variables"),
    pytest.mark.vidu_sandbox(price=10, concurrency=50),
]


def forge(folder, events: list[dict[str, Any]]) -> None:
    """Write the first leg of the batch ``series``, as a process that has died would leave it."""
    leg = folder / ".vidu" / "series" / "leg-000001"
    leg.mkdir(parents=True)
    order = {"e": "order", "order": {"order": 2}, "since": 1, "deadline": 2}
    (leg / "000001.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in [order, *events]))


def intents(count: int) -> list[dict[str, Any]]:
    """Return creates of unknown outcome, each of which the account's list can be searched for."""
    known = {"order": 0, "at": time.time() - 100, "marked": True}
    return [
        {"e": "intent", "key": f"k{n}", "lost": True, "record": {**known, "marker": f"m{n}", "request": f"r{n}"}}
        for n in range(count)
    ]


@pytest.mark.fault("attacks", "a forged journal holds thousands of creates of unknown outcome", outcome="refused",
                   seen="nothing is requested, and the budget of the DAG has no entry")  # fmt: skip
def test_more_creates_than_any_batch_has_under_way(connect, sandbox, tmp_path, variables):
    """Each would become a Variable, and some requests for the account's list."""
    connect("ent-v2")
    forge(tmp_path, intents(MOST_INTENTS + 1))
    task = BatchTask(tmp_path, [{"prompt": "a cat"}], batch="series", budget=ViduBudget(credits=100))
    with pytest.raises(exceptions.ViduConfigError, match=r"journal of the batch is damaged: .*000001\.jsonl"):
        task.run()
    assert (sandbox.requests(), variables.keys("vidu_spent_")) == ([], [])


@pytest.mark.fault("attacks", "a forged journal holds millions of rows, in any number of files", outcome="refused",
                   seen="the error names the file; nothing is requested")  # fmt: skip
@pytest.mark.parametrize("limit", ["rows", "values"])
def test_more_rows_than_any_batch_has(connect, sandbox, tmp_path, monkeypatch, limit):
    """Two million of them took half a minute to read, and each create half a second more."""
    connect("ent-v2")
    line = {"status": "stored", "generation_id": "g", "credits": 4}
    forge(tmp_path, [{"e": "line", "line": {"key": f"k{n}", **line}} for n in range(40)])
    first = tmp_path / ".vidu" / "series" / "leg-000001" / "000001.jsonl"
    for number in range(2, 4):
        copied = first.read_text().replace(': "k', f': "{number}k') if limit == "rows" else '{"e": "alive"}\n' * 200
        first.with_name(f"{number:06d}.jsonl").write_text(copied)
    monkeypatch.setattr(*((state, "MOST_KEPT", 100) if limit == "rows" else (journal, "MOST_READ_VALUES", 500)))
    damaged = rf"journal of the batch is damaged: .*000003\.jsonl cannot be read .*more than \d+ {limit}"
    with pytest.raises(exceptions.ViduConfigError, match=damaged):
        BatchTask(tmp_path, [{"prompt": "a cat"}], batch="series", max_credits=1000).run()
    assert sandbox.requests() == []


def test_a_batch_may_have_its_limit_under_way():
    """No batch of ours is refused for its intents: each counts as in flight."""
    assert MOST_INTENTS == MOST_IN_FLIGHT


@pytest.mark.parametrize("ends", ["timeout", "kill"])
def test_a_search_for_many_creates_ends_with_the_task(connect, sandbox, tmp_path, monkeypatch, ends):
    """A timeout of five seconds took twenty with 3,000 of them, and as long as the service is slow."""
    connect("ent-v2")
    forge(tmp_path, intents(30))
    search, searched = Submitter.search, []

    def slowly(submitter, row, *known):
        searched.append(row.key)
        if ends == "kill":
            task.operator.on_kill()
        else:
            monkeypatch.setattr(time, "time", lambda now=time.time: now() + 60)
        return search(submitter, row, *known)

    monkeypatch.setattr(Submitter, "search", slowly)
    task = BatchTask(tmp_path, [{"prompt": "a cat"}], batch="series", timeout=30)
    with pytest.raises(exceptions.ViduError, match="killed" if ends == "kill" else "timeout of"):
        task.run()
    assert len(searched) == 1
    assert sandbox.creates == []


def test_open_generations_of_other_rows_are_one_line_of_the_log(connect, sandbox, tmp_path, monkeypatch):
    """A journal of 50,000 of them wrote as many lines in each leg."""
    connect("ent-v2")
    forge(tmp_path, [{"e": "id", "key": f"k{n}\n", "id": f"g{n}", "at": 1} for n in range(40)])
    log = MagicMock()
    monkeypatch.setattr(ViduBatchOperator, "log", log)
    assert BatchTask(tmp_path, [{"prompt": "a cat"}], batch="series").run()["stored"] == 1
    told = [call.args[0] % call.args[1:] for call in log.warning.call_args_list]
    (line,) = [line for line in told if "no longer among the rows" in line]
    assert "g0" in line
    assert "and 35 more" in line
    assert "\n" not in line


def test_a_trigger_watches_no_more_than_a_batch_has_at_once(tmp_path):
    """The triggerer is shared, and the column of its arguments ends at 64 KiB."""
    jobs = [Open(f"g{n}", 1.0, endpoint="lip-sync") for n in range(MOST_IN_FLIGHT + 50)]
    with pytest.raises(TaskDeferred) as deferred:
        batch_waits.wait(BatchTask(tmp_path, []).operator, plan.Pending(jobs, 1, 2.0, None, "series#1"))
    trigger = deferred.value.trigger
    assert (len(trigger.jobs), len(trigger.endpoints)) == (MOST_IN_FLIGHT, MOST_IN_FLIGHT)
