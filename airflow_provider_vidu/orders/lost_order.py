"""Recovers what an earlier try has submitted: by its id, or from the account's list if the outcome is unknown."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.api.dialects.lost_create import CLOCK_SKEW_SECONDS, Likeness
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduCreditError,
    ViduError,
    ViduNotFoundError,
    ViduRateLimitError,
    ViduRequestError,
    ViduResponseError,
    ViduServerError,
    ViduSubmitUncertainError,
    ViduSubmitUnknownError,
)
from airflow_provider_vidu.models import Generation, SearchResult
from airflow_provider_vidu.network.limits import TOTAL_TIMEOUTS
from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.polling.failures import failure, is_doubtful
from airflow_provider_vidu.tasks.deferral import not_resumed

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook

SETTLE_SECONDS: Final = 20.0
"""Seconds after a create before a search without a result proves that nothing was created."""

GRACE_SECONDS: Final = 60.0
"""How old a create must be before "no such generation" is accepted for its id."""
GRACE_PAUSE_SECONDS: Final = 5.0

NAMED_CANDIDATES: Final = 20


def intent_of(
    hook: ViduHook,
    body: Mapping[str, Any],
    endpoint: str | None,
    *,
    number: int,
    request: str,
    is_durable: bool = True,
) -> tuple[OrderRecord, Mapping[str, Any]]:
    """Return the record of a create that is about to be sent, and the body with its marker.

    :param number: of the order.
    :param request: a digest of the request.
    :param is_durable: whether the record is stored, so that a later try can search for the create.
    """
    # A random marker: names would be the same in another Airflow, or in a recreated run.
    marker = f"airflow:{uuid.uuid4().hex}"
    dialect = hook.config.dialect
    marked = dialect.marked(body, marker, endpoint) if is_durable else None
    looks = None
    if is_durable and dialect.has_list:
        path, is_listed = dialect.target(body, endpoint), dialect.is_listed(body, endpoint)
        looks = Likeness.of(body, path, is_listed=is_listed).to_json()
    now = time.time()
    record = OrderRecord(
        number, marker, now, marked is not None, request=request, began=now, looks=looks, service=_service_of(hook)
    )
    return record, marked or body


def _service_of(hook: ViduHook) -> str:
    """Name the connection and its address, as a record keeps them. Not the key, which may be a new one."""
    return f"{hook.vidu_conn_id} ({hook.config.base_url})"


class Sends:
    """The steps right before each send of a create, as ``ViduHook._submit`` calls them; counts the sends.

    :param checks: raise if the create is no longer wanted. Called before a repetition, too, which may come minutes
        after the intent: meanwhile, others may have spent the budget, or taken the claim over.
    :param renew: stores the intent again with the time of a repetition, from which a search for it counts.
    """

    def __init__(self, *checks: Callable[[], object], renew: Callable[[], None]) -> None:
        self._checks = checks
        self._renew = renew
        self.count = 0

    def __call__(self) -> None:
        """Check whether the create is still wanted, and count it as sent.

        :raises Exception: of a check; nothing is sent then.
        """
        for check in self._checks:
            check()
        self.count += 1
        if self.count > 1:
            self._renew()


def named_id(record: OrderRecord, error: ViduSubmitUnknownError) -> str | None:
    """Return the generation to follow after a create of unknown outcome; None if the list decides, or nothing does.

    If there is a list, it decides, because the id in an error may be another generation's. Otherwise that id is all
    there is. Either way, budgets count the create as possibly spent until its price is known.
    """
    return None if record.is_searchable else error.generation_id or None


def find_lost(
    hook: ViduHook, record: OrderRecord, log: Any, sleep: Callable[[float], None], *, is_cleared: bool = False
) -> str | None:
    """Search for the generation of an intent without an id; None if the list proves that there is none.

    :param is_cleared: whether the search follows a clear, so that the next clear submits a new generation.
    :raises ViduSubmitUnknownError: if the list is inconclusive.
    :raises ViduSubmitUncertainError: if it need not be that of the account which has the create; after a clear, it is
        inconclusive.
    """
    if not record.is_searchable:
        raise _unknown(hook.vidu_conn_id)
    is_elsewhere = bool(record.service) and record.service != _service_of(hook)
    if is_elsewhere and not record.marked:
        raise _elsewhere(hook, record, is_cleared=is_cleared)
    age = max(time.time() - record.at, 0.0)  # another worker's clock may be ahead
    if age < SETTLE_SECONDS:
        sleep(SETTLE_SECONDS - age)
    result = _search(hook, record, log)
    if result.generation_id is not None:
        log.info("The list shows generation %s, the result of a create with an unknown outcome.", result.generation_id)
    elif is_elsewhere:
        raise _elsewhere(hook, record, is_cleared=is_cleared)
    elif not result.complete:
        raise _unknown(hook.vidu_conn_id, result.candidates, searches_again=not is_cleared)
    return result.generation_id


def queried(
    hook: ViduHook,
    record: OrderRecord,
    generation_id: str,
    endpoint: str | None,
    log: Any,
    sleep: Callable[[float], None],
) -> Generation:
    """Query the generation of an earlier try; right after its create the service may not find it yet.

    :raises ViduError: when it is not known what became of it: it is paid for, so nothing may be submitted instead.
    """
    for left in reversed(range(round(GRACE_SECONDS / GRACE_PAUSE_SECONDS) + 1)):
        try:
            generation = hook.get_generation(generation_id, endpoint=endpoint)
        except (ViduAuthError, ViduCreditError, ViduRequestError) as error:
            # It is paid for, and the key may be valid at the next try.
            raise not_resumed(error, generation_id) from error
        except ViduNotFoundError:
            if not left or time.time() - record.at >= GRACE_SECONDS:
                raise
        else:
            if is_doubtful(generation):  # a new submit would pay for it again
                raise ViduResponseError(
                    "An earlier try submitted a generation. The service reports a failure without naming a "
                    f"generation, so nothing is resubmitted: {failure(generation).reason}",
                    generation_id=generation_id,
                    conn_id=hook.vidu_conn_id,
                )
            return generation
        log.info("The service does not find generation %s yet; retrying.", generation_id)
        sleep(GRACE_PAUSE_SECONDS)
    raise AssertionError("not reached")


def _search(hook: ViduHook, record: OrderRecord, log: Any) -> SearchResult:
    longest = TOTAL_TIMEOUTS * hook.config.timeout + SETTLE_SECONDS + CLOCK_SKEW_SECONDS
    # A record of an older version holds only one of the two times.
    began = record.began or record.at - longest
    try:
        return hook.find_generation(
            record.marker if record.marked else None,
            created_from=began - CLOCK_SKEW_SECONDS,
            created_to=record.at + longest,
            like=Likeness.from_json(record.looks),
        )
    except ViduRateLimitError as error:
        # Not "the account is full": a task that waited for a slot would report that nothing was submitted.
        message = (
            f"The list of generations could not be read: {error.reason.rstrip('.')}. An earlier create may have been "
            "carried out, so nothing is resubmitted. A retry searches for it again."
        )
        raise error.restated(ViduSubmitUncertainError, message) from error
    except ViduError as error:
        if not _has_no_list(error):
            raise
        log.warning("Cannot search the service for an earlier try's generation: %s", error)
        return SearchResult()


def _has_no_list(error: ViduError) -> bool:
    """Whether a search failed because the service has no list, rather than for a transient reason."""
    if isinstance(error, (ViduNotFoundError, ViduRequestError, ViduResponseError)):
        return True  # a gateway without that path may answer with a page
    status = 501 if isinstance(error, ViduServerError) else 403 if isinstance(error, ViduAuthError) else None
    return status is not None and error.status_code == status


def _unknown(conn_id: str, candidates: Sequence[str] = (), *, searches_again: bool = False) -> ViduSubmitUnknownError:
    clear = "clear this task to submit a new one"
    if searches_again:
        clear = "clear this task: it searches once more; if that is inconclusive too, a second clear submits a new one"
    what = (
        "Its id was never received, and the service cannot be searched for it or does not list such generations. "
        "Check the account's generations at the service"
    )
    if candidates:
        more = len(candidates) - NAMED_CANDIDATES
        what = (
            "The account's list does not show which generation is this task's. It may be one of these: "
            f"{', '.join(candidates[:NAMED_CANDIDATES])}{f' and {more} more' if more > 0 else ''}. Compare them at the "
            "service"
        )
    return ViduSubmitUnknownError(
        "An earlier try of this task was interrupted while it submitted a generation, which may have been created "
        f"and billed, so nothing is resubmitted. {what}: if it is there, wait for it with "
        f"ViduGenerationSensor(generation_id=…); if not, {clear}.",
        conn_id=conn_id,
    )


def _elsewhere(hook: ViduHook, record: OrderRecord, *, is_cleared: bool) -> ViduError:
    return (ViduSubmitUnknownError if is_cleared else ViduSubmitUncertainError)(
        f"A create was interrupted that the connection {sanitized(record.service, 300)} had sent, and may have been "
        f"carried out and billed there. This try's connection is {_service_of(hook)}, whose list cannot show that, so "
        "nothing is submitted. Set the connection back: a retry, or clearing the task, then searches there before it "
        "submits anything. To give that generation up, clear the task with this connection, a second time if it fails "
        "so again (a batch: with on_clear='new').",
        conn_id=hook.vidu_conn_id,
    )


def uncertain(error: ViduError) -> ViduSubmitUncertainError:
    """Return the error of a create of unknown outcome whose generation a retry can search for."""
    cause = error.__cause__ if isinstance(error.__cause__, ViduError) else error
    follows = (
        "A retry queries the generation that the answer names, or searches for it, before it submits anything."
        if error.generation_id
        else "A retry, or clearing the task, searches for the generation before it submits anything."
    )
    message = f"The create was sent, but its outcome is unknown: {cause.reason.rstrip('.')}. {follows}"
    return error.restated(ViduSubmitUncertainError, message)
