"""The events with which a try of a batch begins: which rows it orders again. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from airflow_provider_vidu.batches.jobs import Event, Open, opened, row_name
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.values import moment
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.order import Order, OrderRecord

MOST_UNWANTED: Final = 100
"""How many rows that the batch does not wait for are named to the clip pages; the note is an XCom."""


def reopened(line: Mapping[str, Any]) -> Open | None:
    """Return the generation of a failed row that is paid for and may have a result; None to order it again."""
    if not line.get("paid") or not line.get("generation_id"):
        return None
    submitted = moment(line.get("submitted_at"))
    at = 0.0 if submitted is None else submitted.timestamp()
    known: dict[str, Any] = {name: line.get(name) for name in ("credits", "seed", "endpoint", "prompt", "model")}
    is_shared, request = bool(line.get("reused_from")), line.get("request", "")
    known |= {"request": request, "index": line.get("index", -1), "is_shared": is_shared}
    return Open(line["generation_id"], at, **known)


def begun(
    state: BatchState,
    order: Order,
    now: float,
    timeout: float,
    *,
    is_new: bool,
    dag_id: str | None = None,
    owner: str = "",
    keys: Collection[str] | None = None,
    shares: bool = False,
) -> tuple[list[Event], bool]:
    """Return the events with which a try begins, and whether it gives up what the order before a clear has open.

    A batch with a name is run by several task instances. The first try of another one is not a clear, although its DAG
    run began later: it orders the rows without a file. A clear that orders everything again leaves the rows of other
    task instances alone.

    :param order: which order of the task instance the try belongs to.
    :param now: epoch seconds.
    :param timeout: seconds that the batch may take.
    :param is_new: whether a clear orders everything again.
    :param dag_id: the DAG of the task; None outside of one.
    :param owner: identifies the task instance, over all of its tries; empty outside of a task.
    :param keys: of the try's rows; None for all that the state has.
    :param shares: whether a row may take the generation of an equal one with another key.
    :raises ViduConfigError: when a retry has none of the rows that an earlier try has paid for: it would pay for all
        again.
    """
    earlier = state.order_of(owner)
    was_cleared = earlier is not None and earlier.was_cleared(order, "")
    is_anew = state.order is None or (was_cleared and is_new)
    record = OrderRecord(order.number, "", now, request=_digest(keys or ())).handled_by(order)
    if earlier is not None and not was_cleared and keys is not None and not (shares or state.has_others(owner)):
        is_paid = bool(state.open or state.stored)
        if is_paid and earlier.differs(record.request) and not any(map(state.knows, keys)):
            raise _changed("None of the rows is one that an earlier try has begun.")
    event: Event = {
        "e": "order", "anew": is_anew, "again": is_anew and was_cleared, "order": record.to_json(), "dag": dag_id,
        **({"owner": owner} if owner else {}), "since": now, "deadline": now + timeout,
    }  # fmt: skip
    if is_anew:
        if keys is not None and state.has_others(owner):
            event["keys"] = [key for key in keys if state.knows(key)]  # other tasks were not cleared
        return [event], was_cleared
    failed = state.failed_keys(retryable_only=earlier is not None and not was_cleared)
    if earlier is None:  # no user has decided to pay for these again
        failed = [key for key in failed if not state.lines.ended[key].is_uncertain]
    return [event, *_ordered_again(state, [key for key in failed if keys is None or key in keys])], False


def changed_rows(state: BatchState, owner: str, keys: Collection[str]) -> ViduConfigError | None:
    """Return the error of a try whose rows change with each of its legs; None if they do not.

    Each leg parses the DAG file and renders the rows again. Without it, each would order the rows that are new to it.
    """
    order = state.order_of(owner)
    gone, new = sum(key not in keys for key in state.open), sum(not state.knows(key) for key in keys)
    if not gone or not new or order is None or not order.differs(_digest(keys)):
        return None
    return _changed(f"{gone} open generations are of rows that are no longer there, and {new} rows are new.")


def _digest(keys: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(keys)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _changed(what: str) -> ViduConfigError:
    return ViduConfigError(
        f"The rows are not those with which the task began, so nothing more was ordered. {what} A row without a key is "
        "known by its content, so that must be the same each time the DAG file is parsed and the rows are rendered: no "
        "random seed, no current time. Give each row a key. Clear the task to order the rows without a file."
    )


def _ordered_again(state: BatchState, failed: Iterable[str]) -> list[Event]:
    """Return the events that order failed rows again; the wait for those that are paid for is resumed."""
    events: list[Event] = []
    back: list[str] = []
    for key in failed:
        if (job := reopened(state.lines[key])) is not None:
            events.append(opened(key, job))
        else:
            back.append(key)
    return [*events, {"e": "back", "keys": back}] if back else events


def removed_rows(state: BatchState, owner: str, keys: Collection[str]) -> dict[str, Any]:
    """Return what the clip pages need of rows that are no longer among a task's rows; nothing if there are none.

    Nothing either where other task instances have run the batch: then they may be theirs.
    """
    if state.has_others(owner):
        return {}
    unwanted = [key for key in state.open if key not in keys]
    count = len(unwanted) + sum(key not in keys for kept in (state.intents, state.lines.ended) for key in kept)
    named = [row_name(key) for key in unwanted[:MOST_UNWANTED]]
    return {"removed": count, "unwanted": named} if count else {}
