"""The event of :class:`~airflow_provider_vidu.triggers.ViduBatchTrigger`. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

BATCH_KIND: Final = "batch"
EVENT_VERSION: Final = 1
TOKEN_KEY: Final = "vidu_batch"  # noqa: S105 - an XCom's key
"""The XCom that names the order of a batch, for the check before its jobs are cancelled."""
MOST_NAMED: Final = 300
"""How many ended generations an event names; it is stored in Airflow's database."""


def make_batch_event(token: str, ended: Collection[str], problem: str | None = None) -> dict[str, Any]:
    """Return the event as plain JSON. It is a hint only: the task reads what is open from its own state.

    :param token: of the batch's order.
    :param ended: ids of generations that have ended.
    :param problem: why the trigger gave up, if it did.
    """
    named = list(ended)[:MOST_NAMED]
    return {"version": EVENT_VERSION, "kind": BATCH_KIND, "token": token, "ended": named, "problem": problem}


def ended_in(event: object, token: str) -> set[str] | None:
    """Return the ids that an event names as ended; None, so that all are polled, if it is of another order or kind."""
    if not isinstance(event, Mapping) or event.get("kind") != BATCH_KIND or event.get("token") != token:
        return None
    ended = event.get("ended")
    if event.get("problem") or not isinstance(ended, list):
        return None
    return {one for one in ended if isinstance(one, str)}
