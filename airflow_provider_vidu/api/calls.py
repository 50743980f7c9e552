"""One operation of the API as a value: made by a dialect, carried out by either client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from airflow_provider_vidu.api.json_values import as_json, unfit
from airflow_provider_vidu.api.messages import ApiAnswer, ApiRequest
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduSubmitUnknownError

T = TypeVar("T")


class Call(NamedTuple, Generic[T]):
    """A request, and the function that reads its answer.

    :param request: the request; ``request.bills`` says whether sending it twice could cost twice.
    :param read: returns the result, or raises the :class:`ViduError` that the answer means.
    """

    request: ApiRequest
    read: Callable[[ApiAnswer], T]


@dataclass(frozen=True, slots=True)
class Upload:
    """An open upload: its id, and the signed URL to send the bytes to."""

    id: str
    put_url: str = field(repr=False)


def checked_body(fields: object) -> dict[str, Any]:
    """Return the body of a create as plain JSON.

    :raises ViduConfigError: when it is not an object, is empty, or is not JSON serializable.
    """
    if not isinstance(fields, Mapping):
        raise ViduConfigError(f"body must be a JSON object, not {type(fields).__name__}.")
    body: dict[str, Any] = as_json(fields)
    if not body:
        raise ViduConfigError("The request is empty: there is nothing to submit.")
    if problem := unfit(body):
        raise ViduConfigError(problem)
    return body


def unknown_outcome(error: ViduError, conn_id: str, what: str = "create") -> ViduSubmitUnknownError:
    """Return the error of a request that bills, was sent, and ended with ``error``.

    :param what: the name of the request in the message.
    """
    return ViduSubmitUnknownError(
        f"The {what} was sent, but its outcome is unknown, and it may have been billed: {error.reason} It is not "
        "repeated. Check the account's list of generations: if it is there, use its id; otherwise clear the task to "
        "submit again.",
        generation_id=error.generation_id,
        conn_id=conn_id,
        status_code=error.status_code,
        code=error.code,
        trace_id=error.trace_id,
    )
