"""What a batch's task waits for before a leg (another task instance's leg, its connection), and what it must find."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_vidu.batches.arguments import MOST_IN_FLIGHT
from airflow_provider_vidu.batches.plan import Pending
from airflow_provider_vidu.batches.rows import HIDDEN_FOLDER
from airflow_provider_vidu.common.progress import duration
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.common.values import mapping, number
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError, ViduTimeoutError
from airflow_provider_vidu.links import is_task_instance
from airflow_provider_vidu.tasks.deferral import batch_resumable

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.journal import Journal
    from airflow_provider_vidu.operators.batch import ViduBatchOperator
    from airflow_provider_vidu.orders.records import RecordStore
    from airflow_provider_vidu.stores.destination import Destination

LOST_CONNECTION_SECONDS: Final = 300.0
"""Before a batch checks an unusable connection again, while its generations are open."""
HELD_SECONDS: Final = 60.0
"""Before a task looks again whether another one is still in the middle of their batch."""
_NAMED_IDS: Final = 20


def open_journal(
    operator: ViduBatchOperator, journal: Journal, name: str, event: Any, timeout: float, *, was_resumed: bool
) -> None:
    """Open the journal; wait while another task instance is in the middle of the batch.

    :param name: the batch's name.
    :param event: the trigger's; it holds the deadline if the task has waited before.
    :param timeout: seconds that the task may take, if it has not waited yet.
    :param was_resumed: whether the task has begun its batch.
    :raises ViduTimeoutError: when the task's timeout expires first.
    :raises ViduError: when the task is killed, or the journal cannot be read.
    """
    from airflow_provider_vidu.batches.journal import HeldBatchError

    deadline = number(mapping(event).get("deadline")) or time.time() + timeout
    while True:
        try:
            journal.open()
            return
        except HeldBatchError as held:
            now = time.time()
            if operator._killed:
                raise
            if now >= deadline:
                raise ViduTimeoutError(
                    f"The timeout of {duration(timeout)} expired. {held.reason} Raise the timeout and clear the task "
                    "to continue.",
                    conn_id=operator.vidu_conn_id,
                ) from held
            operator.log.info("%s Waiting until its leg has ended.", held.reason)
        if operator.deferrable:
            method = "execute_resumed" if was_resumed else "execute_awaited"
            wait(operator, Pending([], 1, deadline, now + HELD_SECONDS, f"{name}#held"), method)
        time.sleep(min(HELD_SECONDS, deadline - now))


@contextmanager
def paused_without_connection(
    operator: ViduBatchOperator, journal: Journal, name: str, *, was_resumed: bool
) -> Iterator[None]:
    """Wait in the triggerer if the connection is unusable while generations are paid for, or let Airflow retry.

    :param name: the batch's name.
    :param was_resumed: whether the task has begun its batch.
    :raises ViduConfigError: when nothing is paid for.
    :raises ViduError: when the task cannot wait.
    """
    try:
        yield
    except ViduConfigError as error:
        state, deadline = journal.state, journal.state.deadline_of(journal.owner)
        with suppress(ViduError):
            journal.end()
        if not (state.open or state.intents):
            raise
        if not (operator.deferrable and was_resumed and state.open and deadline > time.time()):
            raise batch_resumable(error) from error
        operator.log.warning("The connection %s is unusable; waiting, because rows are open.", operator.vidu_conn_id)
        resume_at = time.time() + LOST_CONNECTION_SECONDS
        token = f"{name}#{state.orders}"
        wait(operator, Pending(list(state.open.values()), len(state.open), deadline, resume_at, token))


def was_begun(context: Any) -> bool:
    """Whether an earlier try of the task, before any clear, has begun its batch; known since Airflow 3.3.

    :raises ViduError: when the note of that try cannot be read.
    """
    from airflow_provider_vidu.orders.records import order_of

    earlier = None if (notes := _notes(context)) is None else notes.load()
    return earlier is not None and not earlier.was_cleared(order_of(context), "")


def note_begun(context: Any, log: Any) -> None:
    """Note outside of the batch's own folder that the task has begun it: a retry may not find the folder."""
    if (notes := _notes(context)) is None:
        return
    from airflow_provider_vidu.orders.order import OrderRecord
    from airflow_provider_vidu.orders.records import order_of

    order = order_of(context)
    try:
        notes.save(OrderRecord(order.number, "", time.time()).handled_by(order))
    except Exception as error:  # noqa: BLE001 - the journal holds what matters, as long as it is there
        log.warning("Could not note that the batch has begun: %s", redacted(error))


def forget_unless_paid(context: Any, journal: Journal, log: Any) -> None:
    """Remove that note when a leg fails before anything may have been paid for: a retry needs no folder then."""
    state = journal.state
    if state.ordered[0] or state.intents or state.uncertain or (notes := _notes(context)) is None:
        return
    try:
        notes.clear()
    except Exception as error:  # noqa: BLE001 - the leg's own error matters
        log.warning("Could not remove the note that the batch has begun: %s", redacted(error))


def note_returned(context: Any, log: Any) -> None:
    """Note that the summary was returned: if the task runs again after its success, it was cleared."""
    from airflow_provider_vidu.orders.tries import record_returned

    if _notes(context) is not None:
        record_returned(context, log, keeps=False)


def _notes(context: Any) -> RecordStore | None:
    """Return where the task can note something for its retries; None before Airflow 3.3, and outside of a task.

    Before, it would be a Variable for each task, which nothing removes.
    """
    if context is None or context.get("task_state_store") is None or not is_task_instance(context.get("ti")):
        return None
    from airflow_provider_vidu.orders.records import store_for

    return store_for(context)


def wait(operator: ViduBatchOperator, pending: Pending, method: str = "execute_resumed") -> NoReturn:
    """Leave the worker until the trigger's event.

    :param method: of the operator, with which the task resumes.
    """
    from airflow_provider_vidu.tasks.deferral import deferral_timeout
    from airflow_provider_vidu.triggers import ViduBatchTrigger

    now = time.time()
    jobs = pending.jobs[:MOST_IN_FLIGHT]  # a batch has no more at once, but a forged journal may
    trigger = ViduBatchTrigger(
        vidu_conn_id=operator.vidu_conn_id,
        jobs={job.id: round(job.at) for job in jobs},
        endpoints={job.id: job.endpoint for job in jobs if job.endpoint},
        token=pending.token,
        wanted=pending.wanted,
        deadline=pending.deadline,
        deferred_at=now,
        resume_at=pending.resume_at,
        poll_interval=operator.poll_interval,
        max_failures=operator.max_failures,
        cancel_on_kill=operator.cancel_on_kill,
    )
    operator.defer(trigger=trigger, method_name=method, timeout=deferral_timeout(pending.deadline, now))


def check_journal(journal: Journal, name: str, destination: Destination) -> None:
    """Refuse to begin a batch again beside its manifest: its files may have been moved without the hidden folder.

    :raises ViduConfigError: when there is a manifest, and no trace in the journal.
    :raises ViduStorageError: when the store does not say whether there is one; a missing permission is no reason.
    """
    if journal.state.order is not None:
        return
    from airflow_provider_vidu.stores.base import of_store
    from airflow_provider_vidu.stores.schemes import is_forbidden

    try:
        manifest = _manifest_there(name, destination)
    except ViduStorageError as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and is_forbidden(of_store(cause, destination.file(HIDDEN_FOLDER).uri)):
            return
        raise
    if manifest is None:
        return
    with suppress(ViduError):
        journal.end()
    raise ViduConfigError(
        f"There is a manifest of batch {name}, {manifest}, but what is paid for is not in "
        f"{sanitized(destination.file(f'{HIDDEN_FOLDER}/{name}').uri, 300)}/, so nothing was ordered. Restore that "
        "folder: a copy of the files omits it easily, because its name begins with a dot. To order all rows again, "
        "remove both, or give the batch another name."
    )


def _manifest_there(name: str, destination: Destination) -> str | None:
    """Return the address of a batch's manifest; None if there is none."""
    from airflow_provider_vidu.batches.manifest import manifest_name
    from airflow_provider_vidu.stores.small_files import is_there

    manifest = destination.file(manifest_name(name))
    return sanitized(manifest.uri, 300) if is_there(manifest) else None


def vanished(journal: Journal, name: str, destination: Destination, event: Any) -> ViduConfigError:
    """Return the error of a task that has begun its batch, and finds no trace of it after a wait or in a retry.

    There may be a journal of the same name, which other tasks have begun.

    It is not retryable: before Airflow 3.3, a retry would order all rows again.
    """
    there, manifest = "this task is not in the journal", None
    if journal.state.order is None:  # a clear will find what this finds
        there = "there is no journal"
        with suppress(ViduError):
            manifest = _manifest_there(name, destination)
    with suppress(ViduError):
        journal.end()
    known = mapping(event)
    waited_for = sanitized(str(known.get("token") or "").rpartition("#")[0], 120)
    begun = f"it waited for {waited_for}" if waited_for else "in an earlier try or leg"
    ended = known.get("ended")
    ids = ", ".join(sanitized(one, 80) for one in ended[:_NAMED_IDS]) if isinstance(ended, list) else ""
    return ViduConfigError(
        f"The task has begun its batch ({begun}), but {there} of batch {name} in "
        f"{sanitized(destination.file(HIDDEN_FOLDER).uri, 300)}. Its generations are paid for, so nothing was ordered"
        f"{f' (ended: {ids})' if ids else ''}. Either the folder was removed, or it is on the disk of another worker, "
        "or destination or batch renders to another value each time, such as the current time: use a value of the DAG "
        "run. Or the task executes several operators, of which it keeps only one order or batch: make each a task of "
        "its own. Restore the folder, or clear the task to order all rows again"
        f"{f', once you have removed the manifest {manifest}' if manifest else ''}."
    )
