"""The errors of this provider, as one tree.

::

    ViduError
    ├── ViduConfigError               × the connection or an argument is wrong
    │   └── ViduConnectionNotFoundError × there is no Airflow connection with that id
    ├── ViduTransportError            ↻ no answer: refused, reset, silent, TLS, DNS
    ├── ViduResponseError             ↻ not an answer of Vidu: HTML, broken JSON, wrong types
    ├── ViduAPIError                  ↻ an error answer of the service
    │   ├── ViduRateLimitError        ↻ too many requests, or no concurrency left
    │   ├── ViduServerError           ↻ an internal error of the service
    │   ├── ViduBusyError             ↻ still being processed, retry later
    │   ├── ViduUnavailableError      ↻ refused before anything was sent or charged; a later attempt may succeed
    │   ├── ViduImageDownloadError    ↻ the service could not fetch an image or a video; a retry may help
    │   ├── ViduRequestError          × the request is wrong
    │   │   ├── ViduImageError        × an image or a video is unusable
    │   │   ├── ViduPolicyError       × prompt, image or result refused by the content policy
    │   │   └── ViduConflictError     × the generation is not in a state that allows it
    │   ├── ViduAuthError             × the key was refused
    │   ├── ViduCreditError           × no credits or quota left
    │   └── ViduNotFoundError         × the service does not find this generation
    ├── ViduBudgetError               × a limit on credits was reached: nothing more is submitted
    ├── ViduPricePendingError         ↻ the rest of a budget may be spent by generations whose price is not known yet
    ├── ViduSubmitUnknownError        × a create was sent and its outcome is unknown: never repeat it blindly
    ├── ViduSubmitUncertainError      ↻ the same, but the next try searches for the generation first
    ├── ViduGenerationFailedError     × the service reports that the generation failed
    ├── ViduGenerationInterruptedError ↻ it failed for a reason that is often temporary; a new submit may succeed
    ├── ViduBatchFailedError          × too many rows of a batch failed for good
    ├── ViduBatchIncompleteError      ↻ too many rows of a batch failed; a retry orders the temporary ones again
    ├── ViduMissingVideoError         × success was reported without a usable URL
    ├── ViduTimeoutError              – the timeout expired (Airflow does not retry it)
    └── ViduDownloadError             ↻ the file could not be fetched or stored
        ├── ViduDownloadRefusedError  × not fetched: scheme, address, size, or it is not a video
        ├── ViduURLExpiredError       × the URL is no longer valid and there is no id to request a new one with
        ├── ViduIncompleteError       ↻ fewer (or more) bytes than announced
        └── ViduStorageError          ↻ the destination could not be written

``↻`` a retry may help (``retryable`` is true). ``×`` a retry cannot help: the class is also ``AirflowFailException``,
so Airflow fails the task at once whatever ``retries`` says. The ``advice`` of a class says what to do; it ends the
message of an error answer, after the service's own words.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, TypeVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
)

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import number

MESSAGE_CHARS = 1000
_Error = TypeVar("_Error", bound="ViduError")
MAY_FINISH: Final = "The generation may still finish: wait for it again by its id"
_CANCELLED: Final = (
    "The task has cancelled the generation: raise the timeout, and clear the task, which submits, and pays for, a new "
    "one."
)
_CONTEXT = ("generation_id", "conn_id", "status_code", "code", "trace_id", "retry_after")


class ViduError(AirflowException):
    """Base of all errors that this provider raises on purpose.

    :param message: what happened and what to do, without secrets; URLs lose their queries.
    :param generation_id: the generation it happened to.
    :param conn_id: the Airflow connection that was used.
    :param status_code: the HTTP status of the answer.
    :param code: the service's code for the error (``reason``, ``err_code``, ``error.code``).
    :param trace_id: the service's trace id, for its support.
    :param retry_after: seconds to wait, according to the service.
    """

    retryable: ClassVar[bool] = True
    advice: ClassVar[str] = "The log names the reason."
    """What to do about errors of the class: ends the message of an error answer, and is shown on the clip pages.

    It names no host, connection or secret, because everyone who may see a clip can read it.
    """
    # Airflow's own exceptions carry the status that its API server would answer; here it is Vidu's.
    status_code: int | None  # type: ignore[assignment]

    def __init__(
        self,
        message: str,
        *,
        generation_id: str | None = None,
        conn_id: str | None = None,
        status_code: int | None = None,
        code: str | None = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.reason = redacted(message, MESSAGE_CHARS)
        self.generation_id = generation_id
        self.conn_id = conn_id
        # Airflow's triggerer ends over an event with an integer of more than 64 bits, for all of its triggers.
        is_one = isinstance(status_code, int) and 0 <= status_code < 1000
        self.status_code = status_code if is_one else None
        self.code = redacted(code) if code else None
        self.trace_id = redacted(trace_id) if trace_id else None
        self.retry_after = retry_after
        super().__init__(self.reason)

    def __str__(self) -> str:
        """Return the message, followed by all known context."""
        known = {
            "generation": self.generation_id and redacted(self.generation_id),
            "connection": self.conn_id and redacted(self.conn_id),
            "HTTP status": self.status_code,
            "code": self.code,
            "trace id": self.trace_id,
            "retry after": None if self.retry_after is None else f"{self.retry_after:g} s",
        }
        details = ", ".join(f"{name} {value}" for name, value in known.items() if value not in (None, ""))
        return f"{self.reason} ({details})" if details else self.reason

    def with_context(self, *, generation_id: str | None = None, conn_id: str | None = None) -> ViduError:
        """Set the generation and the connection if they are not set yet; return self."""
        self.generation_id = self.generation_id or generation_id
        self.conn_id = self.conn_id or conn_id
        return self

    def without_frames(self) -> ViduError:
        """Drop the traceback and the errors behind it, whose frames may hold answers of megabytes; return self."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self

    def restated(self, kind: type[_Error], message: str) -> _Error:
        """Return an error of another class with the same context."""
        return kind(message, **{name: getattr(self, name) for name in _CONTEXT})

    def details(self) -> dict[str, Any]:
        """Return type, message and context as plain JSON, for an event or a log."""
        known = {name: getattr(self, name) for name in _CONTEXT}
        return {"type": type(self).__name__, "message": self.reason, **known}


class _Final(AirflowFailException):
    """Marks the errors that a retry cannot fix."""

    retryable: ClassVar[bool] = False


class ViduConfigError(_Final, ViduError):
    """The connection or an argument is missing or wrong; the message names the field."""

    advice = "The connection or an argument is missing or invalid: fix what the log names."


# It inherits its advice: readers of a page must not learn which connections exist. Both bases have a status_code.
class ViduConnectionNotFoundError(ViduConfigError, AirflowNotFoundException):  # type: ignore[misc]
    """There is no Airflow connection with the given id."""


class ViduTransportError(ViduError):
    """No answer arrived; ``sent`` says whether the request may have reached the service.

    :param sent: false if not even a connection was established, so nothing can have happened.
    """

    advice = "The service gave no answer: if this persists, check the connection's host, proxy and TLS settings."

    def __init__(self, message: str, *, sent: bool = True, **known: Any) -> None:
        super().__init__(message, **known)
        self.sent = sent

    def details(self) -> dict[str, Any]:
        """Return the details of every error, and whether the request may have arrived."""
        return {**super().details(), "sent": self.sent}


class ViduResponseError(ViduError):
    """The answer is not one of Vidu's: HTML, truncated JSON, a list, wrong types."""

    advice = "The answer did not come from Vidu: if this persists, check the connection's host."


class ViduAPIError(ViduError):
    """The service answered with an error."""


class ViduRateLimitError(ViduAPIError):
    """Too many requests, or all concurrent generations are in use; nothing was created."""

    advice = "Too many requests or concurrent generations: send fewer, or retry later."


class ViduServerError(ViduAPIError):
    """The service reports an internal error (5xx)."""

    advice = "The service reports an internal error, which is often temporary: retry later."


class ViduBusyError(ViduAPIError):
    """The service is still processing the generation."""

    advice = "The service is still processing this: retry later."


class ViduUnavailableError(ViduAPIError):
    """A gateway refused before it sent or charged anything, for an often temporary reason."""

    advice = "The gateway cannot serve this at the moment: retry later. Nothing was created or charged."


class ViduImageDownloadError(ViduAPIError):
    """The service could not fetch an image or a video; a retry may help."""

    advice = "The service could not fetch an image or a video: retry, and if this persists, check its address."


class ViduRequestError(_Final, ViduAPIError):
    """The request itself is wrong; sending it again has the same outcome."""

    advice = "The service refused the request: change what it names. The same request will be refused again."


class ViduImageError(ViduRequestError):
    """An image or a video of the request has a wrong format, size or content."""

    advice = "The service cannot use an image or a video of the request: replace it."


class ViduPolicyError(ViduRequestError):
    """The prompt, an image or the result was refused by the content policy."""

    advice = "The content policy refused the prompt, an input or the result: change it."


class ViduConflictError(ViduRequestError):
    """The generation is not in a state that allows the request (such as a cancel while it runs)."""

    advice = "The generation is not in a state that allows this: check its state."


class ViduAuthError(_Final, ViduAPIError):
    """The API key was refused, or does not permit this request."""

    advice = "The service refused the API key: check the connection's password and auth_scheme."


class ViduCreditError(_Final, ViduAPIError):
    """No credits or quota are left."""

    advice = "No credits or quota are left: top up the account."


class ViduNotFoundError(_Final, ViduAPIError):
    """The service does not find this generation."""

    advice = "The service does not find this: check the id (for a create, the endpoint) and the connection's host."


class ViduBudgetError(_Final, ViduError):
    """A limit that the user has set on credits was reached."""

    advice = "A limit on credits was reached: raise it if the money is to be spent, then clear the task."


class ViduPricePendingError(ViduError):
    """The rest of a budget may be spent by generations whose price is not known yet; nothing was submitted."""

    advice = "The price of open generations is not known yet: retry when they have ended."


class ViduSubmitUnknownError(_Final, ViduError):
    """A create was sent, and it is unknown whether it was carried out (and billed)."""

    advice = "The generation may exist: check the account's list, then wait for its id, or clear the task."


class ViduSubmitUncertainError(ViduError):
    """A create was sent and its outcome is unknown; the next try searches for the generation before it submits."""

    advice = "The generation may exist: a retry, or clearing the task, searches for it before it submits anything."


class ViduGenerationFailedError(_Final, ViduError):
    """The service reports that the generation failed, was cancelled or expired."""

    advice = "Change what the reason names, if anything. Clearing the task submits a new generation."


class ViduGenerationInterruptedError(ViduError):
    """The generation failed for an often temporary reason: a new submit may succeed."""

    advice = "This failure is often temporary: a retry, or clearing the task, submits a new generation."


class ViduBatchFailedError(_Final, ViduError):
    """Too many rows of a batch failed, and a retry would not change that."""

    advice = "Correct the rows that the manifest names, then clear the task: rows with a file are not ordered again."


class ViduBatchIncompleteError(ViduError):
    """Too many rows of a batch failed, some of them for an often temporary reason."""

    advice = "A retry, or clearing the task, orders the failed rows again. Rows with a file are kept."


class ViduMissingVideoError(_Final, ViduError):
    """The service reports success without a usable URL."""

    advice = "The service reports success without a usable URL: contact its support with the generation's id."


class ViduTimeoutError(ViduError, AirflowSensorTimeout):
    """The timeout expired. Airflow treats it as a sensor's timeout: no retry, and ``soft_fail`` applies."""

    advice = "The generation may still finish: raise the timeout, or wait for its id again."

    retryable: ClassVar[bool] = False

    def after_cancel(self) -> ViduTimeoutError:
        """Return the error of a wait at whose end the service has cancelled the generation: nothing will finish."""
        return self.restated(ViduTimeoutError, self.reason.partition(MAY_FINISH)[0] + _CANCELLED)


class ViduDownloadError(ViduError):
    """The file could not be fetched or stored."""

    advice = "The file could not be fetched or stored: if this persists, check its source and its destination."


class ViduDownloadRefusedError(_Final, ViduDownloadError):
    """The file was not fetched or not published: its scheme, address, size or content is not allowed."""

    advice = "This file was not stored: change what the message names, such as a limit, a host or the destination."


class ViduURLExpiredError(_Final, ViduDownloadError):
    """The URL is no longer valid, and there is no generation id to request a new one with."""

    advice = "The URL has expired: pass the generation's id, so that a new URL can be requested."


class ViduIncompleteError(ViduDownloadError):
    """The transfer ended with fewer or more bytes than announced."""

    advice = "The transfer was cut short: retry, and if this persists, check the file's source."


class ViduStorageError(ViduDownloadError):
    """The destination could not be written; nothing was published."""

    advice = "The destination could not be written: if this persists, check its path and its credentials."


@contextlib.contextmanager
def forgetting_variables() -> Iterator[None]:
    """Clear the variables of the frames that an error has left on its way here, and of those of the errors behind it.

    A timeout or a signal may raise within a library that holds the request, and so the key. Error trackers collect
    variables; the lines of the traceback stay. An error that is being handled by the caller keeps its variables.
    """
    before = sys.exception()
    try:
        yield
    except BaseException as error:
        left, seen = [error], {id(before)}
        while left:
            if id(item := left.pop()) not in seen:
                seen.add(id(item))
                traceback.clear_frames(item.__traceback__)
                left += [behind for behind in (item.__cause__, item.__context__) if behind is not None]
        raise


def from_details(details: Mapping[str, Any]) -> ViduError:
    """Rebuild an error from :meth:`ViduError.details`; an unknown type becomes a plain ViduError.

    :param details: what ``details()`` returned, possibly in another version of the provider.
    """
    named = globals().get(str(details.get("type")))
    kind = named if isinstance(named, type) and issubclass(named, ViduError) else ViduError
    known = {name: details.get(name) for name in _CONTEXT}
    known["retry_after"] = number(known["retry_after"])
    error = kind(str(details.get("message") or "the reason was not recorded"), **known)
    if isinstance(error, ViduTransportError):
        error.sent = details.get("sent") is not False
    return error
