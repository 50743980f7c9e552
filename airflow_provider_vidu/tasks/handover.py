"""Distinguishes a user's kill from a triggerer's hand-over, before a remote job is cancelled; completes a cancel.

Airflow 3.3 calls ``on_kill`` also when it hands a trigger to another triggerer, and older versions cancel the coroutine
in both cases. The task instance distinguishes the two: while it is deferred and its XCom names this generation, another
triggerer waits for it; once it has ended, or its XCom names another generation, none does. A new try starts without an
XCom, and then publishes this generation (a retry) or another (a clear, which has cancelled this one if it recorded it).
A triggerer that wakes up minutes late may see any of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar
from uuid import UUID

from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.links import ID_KEY, resolved
from airflow_provider_vidu.polling.retries import Attempts

T = TypeVar("T")

_ATTEMPTS: Final = 30
_PAUSE_SECONDS: Final = 2.0
_QUERY_SECONDS: Final = 20.0
"""The timeout of a query; one that Airflow never answers counts as failed."""
ENDED: Final = frozenset({"failed", "success", "skipped", "removed", "upstream_failed"})
STILL_WAITED_FOR: Final = "%s is not cancelled: as far as Airflow shows, its task still waits, in another triggerer."
"""Logged by a trigger that ends. A loop's iteration that was marked as success shows nothing else (Airflow 3.4)."""
_CANCEL_RETRIES: Final = 5
"""An uncancelled job keeps costing money, and nothing cancels it later: the delays grow to half a minute."""

_detached: set[asyncio.Task[None]] = set()
"""Keeps references: a task without one may be collected before it has run."""


async def detached(work: Coroutine[Any, Any, None]) -> None:
    """Do the work of a trigger's ``on_kill``, which Airflow 3.3 cancels about a second after it starts, to its end."""
    task = asyncio.create_task(work)
    _detached.add(task)
    task.add_done_callback(_detached.discard)
    await asyncio.shield(task)


async def persistently(cancel: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a request that cancels a generation; it is retried.

    :raises ViduError: the error of the last attempt.
    """
    attempts = Attempts(_CANCEL_RETRIES, bills=False)
    while True:
        try:
            return await cancel()
        except ViduError as error:
            delay = attempts.after(error)
        await asyncio.sleep(delay)


async def is_handed_over(ti: Any, generation_id: str, pause: float = _PAUSE_SECONDS, *, key: str = ID_KEY) -> bool:
    """Whether the task instance still works on this generation, in any process.

    :param generation_id: the generation, or what else the task has published under ``key``.
    :param pause: seconds between two queries, while the state is inconclusive.
    :raises ViduError: when the state cannot be read; then nothing may be cancelled.
    """
    from asgiref.sync import sync_to_async

    failed: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            # In a thread of its own: thread-sensitive calls share one, and one that hangs would block them all.
            async with asyncio.timeout(_QUERY_SECONDS):
                state, published = await sync_to_async(_look, thread_sensitive=False)(ti, key)
        except Exception as error:  # noqa: BLE001 - the API server may be restarting; the answer decides over money
            failed = error
        else:
            failed = None
            if (known := verdict(state, published, generation_id)) is not None:
                return known
        await asyncio.sleep(pause)
    if failed is not None:
        raise ViduError(
            f"Could not read the task's state ({type(failed).__name__}), so nothing is cancelled.",
            generation_id=generation_id,
        ) from failed
    return True  # a minute in transit or running, and no other generation: when in doubt, it is still wanted


async def state_and_generation(ti: Any) -> tuple[str | None, Any]:
    """Return a task instance's state, and while it is deferred the generation that it has published.

    What it does not have is None, and both are if they cannot be read.
    """
    from asgiref.sync import sync_to_async

    try:
        async with asyncio.timeout(_QUERY_SECONDS):
            look = sync_to_async(_look, thread_sensitive=False)
            state, _ = await look(ti, None)
            return await look(ti, ID_KEY) if state == "deferred" else (state, None)
    except Exception:  # noqa: BLE001 - the caller continues without them
        return None, None


def verdict(state: str | None, published: object, generation_id: str) -> bool | None:
    """Return whether the wait for a generation continues elsewhere, or None if that is not certain yet.

    :param published: the id that the task instance has published; None if it has not (yet).
    """
    if state in ENDED or published not in (None, generation_id):
        return False
    # Retried, cleared and resumed tasks look alike until they publish an id, wait or end.
    return True if (state, published) == ("deferred", generation_id) else None


def _look(ti: Any, key: str | None) -> tuple[str | None, Any]:
    """Return the task instance's state, and what it has published under a key; None if no key is given."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    look = _look_at_airflow if AIRFLOW_V_3_0_PLUS else _look_into_database
    state, published = look(ti, key)
    return state, resolved(published)


def _look_at_airflow(ti: Any, key: str | None) -> tuple[str | None, Any]:
    """Query the API server, as a triggerer of Airflow 3 does."""
    return _state(ti), None if key is None else _published(ti, key)


def _state(ti: Any) -> str | None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    of_run = states.get(ti.run_id) or {}
    # A mapped task is listed by its id and index.
    names = (ti.task_id, f"{ti.task_id}_{ti.map_index}")
    state = next((of_run[name] for name in names if name in of_run), None)
    state = None if state is None else str(getattr(state, "value", state))
    # Of a task in a loop (Airflow 3.4), Airflow reports the latest iteration. If an earlier one was cleared alone, that
    # has succeeded long ago while this one waits, and a triggerer that shuts down must not cancel the job.
    return None if state == "success" and _is_iteration(ti) else state


def _is_iteration(ti: Any) -> bool:
    """Whether a task instance is an iteration: an unmapped one in a region. A mapped one may be outside loops."""
    region_id = getattr(ti, "region_id", None)
    return isinstance(region_id, UUID) and region_id.int != 0 and ti.map_index in (None, -1)


def _published(ti: Any, key: str) -> Any:
    from airflow.providers.common.compat.sdk import XCom

    return XCom.get_one(key=key, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def _look_into_database(ti: Any, key: str | None) -> tuple[str | None, Any]:
    """Query the metadata database, to which a triggerer of Airflow 2 has access."""
    from airflow.models import TaskInstance, XCom
    from airflow.utils.session import create_session

    where = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}
    with create_session() as session:
        row = session.query(TaskInstance).filter_by(**where).one_or_none()
        state = str(row.state) if row is not None and row.state else None
        return state, None if key is None else XCom.get_one(key=key, session=session, **where)
