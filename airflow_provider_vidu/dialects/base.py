"""What every dialect must be able to say; decisions only, no I/O.

A dialect turns an intention (ask for a generation, create one) into an :class:`ApiRequest` and an
:class:`ApiAnswer` into a :class:`Generation` or an error of the tree. Both the sync and the async
shell ask here, so they cannot drift apart. A new dialect is one module with one subclass, entered
in ``dialects/__init__.py``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import quote

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.exceptions import ViduAPIError, ViduConfigError, ViduResponseError
from airflow_provider_vidu.models import Cancellation, Credits, Found, Generation, GenerationStatus
from airflow_provider_vidu.policy import retry_after
from airflow_provider_vidu.text import one_line, shown
from airflow_provider_vidu.wire import IF_IT_LASTS, ApiAnswer, ApiRequest

MAX_ID_CHARS: Final = 1024
MAX_ID_NUMBER: Final = 10**40
"""An id of digits is smaller by far; Python refuses to write very long numbers."""
_UNFIT_ID = re.compile(r"[\x00-\x1f\x7f]")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]+")
"""What stands in a URL as it is."""

ErrorClass = type[ViduAPIError]

# A used-up balance comes as 403 or 429 and only the code tells; an unknown id comes as 400. Resellers
# of either dialect run the same gateways.
GATEWAY_ERRORS: Final[Mapping[str, ErrorClass]] = {
    "insufficient_user_quota": exceptions.ViduCreditError,
    "insufficient_quota": exceptions.ViduCreditError,
    "task_not_exist": exceptions.ViduNotFoundError,
    "task_not_found": exceptions.ViduNotFoundError,
}

BY_STATUS: Final[Mapping[int, ErrorClass]] = {
    401: exceptions.ViduAuthError,
    402: exceptions.ViduCreditError,
    403: exceptions.ViduAuthError,
    404: exceptions.ViduNotFoundError,
    408: exceptions.ViduServerError,
    409: exceptions.ViduConflictError,
    425: exceptions.ViduBusyError,
    429: exceptions.ViduRateLimitError,
}
"""What a status means where no code says it better; other 4xx are wrong requests, 5xx server errors."""


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What an error answer says: the service's word, its message and its trace id, as far as present.

    ``others`` are further words that may say better what the error is (an error's type beside its code).
    """

    code: str | None = None
    others: tuple[str, ...] = ()
    message: str | None = None
    trace_id: str | None = None


def checked_id(generation_id: object) -> str:
    """Return ``generation_id`` when it can be one, as the earliest moment to refuse a bad one.

    A whole number is what a DAG with ``render_template_as_native_obj`` makes of an id of digits.

    :raises ViduConfigError: when it is neither text nor a whole number, empty, longer than 1,024 characters, a
        rendered ``None``, or holds control characters.
    """
    if isinstance(generation_id, int) and not isinstance(generation_id, bool) and 0 <= generation_id < MAX_ID_NUMBER:
        generation_id = str(generation_id)
    if not isinstance(generation_id, str):
        raise ViduConfigError(
            f"generation_id must be a string, not {type(generation_id).__name__}.{_hint_for_id(generation_id)}"
        )
    if not generation_id.strip() or generation_id == "None":
        raise ViduConfigError(
            f"generation_id is {'empty' if not generation_id.strip() else 'the word None'}: "
            "the task before it handed over no id. Check its XCom."
        )
    # A segment of dots would be folded away on the wire, encoded or not.
    if len(generation_id) > MAX_ID_CHARS or _UNFIT_ID.search(generation_id) or not generation_id.strip("."):
        raise ViduConfigError(
            f"generation_id {one_line(generation_id, 60)!r} is too long, all dots, or holds control characters."
        )
    try:
        generation_id.encode()
    except UnicodeEncodeError:
        raise ViduConfigError("generation_id holds characters that cannot be encoded.") from None
    return generation_id


def _hint_for_id(wrong: object) -> str:
    if isinstance(wrong, Mapping):
        return ' Pass generation=generate.output, or the id alone: generate.output["generation_id"].'
    if isinstance(wrong, float):
        return " Native template rendering has made a number of it: take the id from an XCom, without a template."
    return " The task before it handed over no id: check its XCom." if wrong is None else ""


def status_words(**words: str) -> dict[str, GenerationStatus]:
    """Return a look-up table from ``waiting="pending queued", running="processing"`` and so on."""
    return {word: GenerationStatus(status) for status, listed in words.items() for word in listed.split()}


class Dialect(ABC):
    """One way to speak with a Vidu service.

    :param query_path: the path of a query with ``{id}`` where the id goes; None for the dialect's own.
    :param create_path: the path of a create, with ``{endpoint}`` where the dialect has several.
    """

    name: ClassVar[str]
    auth_scheme: ClassVar[str]
    default_host: ClassVar[str | None] = None
    default_query_path: ClassVar[str]
    default_create_path: ClassVar[str]
    root: ClassVar[str]
    """The leading path segment(s); a host that already ends in it is accepted."""
    status_field: ClassVar[str] = "status"
    statuses: ClassVar[Mapping[str, GenerationStatus]]
    errors: ClassVar[Mapping[str, ErrorClass]]
    """Error codes, lower-case, and what they mean whatever the status is."""

    def __init__(self, query_path: str | None = None, create_path: str | None = None) -> None:
        self.query_path = query_path or self.default_query_path
        self.create_path = create_path or self.default_create_path

    # -- what to send ---------------------------------------------------------------------------

    def query(self, generation_id: str, endpoint: str | None = None) -> ApiRequest:
        """Return the request that asks for the state of ``generation_id``.

        :param endpoint: where it was submitted, if a dialect has products with a query of their own.
        """
        return ApiRequest("GET", fill(self.query_path, id=checked_id(generation_id)))

    @abstractmethod
    def create(self, body: Mapping[str, Any], endpoint: str | None = None) -> ApiRequest:
        """Return the request that submits ``body`` (billed)."""

    def cancel(self, generation_id: str, endpoint: str | None = None) -> ApiRequest | None:
        """Return the request that cancels, or None if the dialect, or the product of ``endpoint``, has none."""
        return None

    def credits(self) -> ApiRequest | None:
        """Return the request that asks for the balance, or None where the dialect has none."""
        return None

    def search(self) -> ApiRequest | None:
        """Return the request that lists recent generations, or None where the dialect has none."""
        return None

    def marked(self, body: Mapping[str, Any], marker: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Return ``body`` with a marker that the service hands back, or None if there is no place for it.

        :raises ViduConfigError: when the fields do not say which endpoint the request is for.
        """
        return None

    def is_synchronous(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the answer to the create of ``body`` is the result, so that there is nothing to poll."""
        return False

    @abstractmethod
    def probe(self) -> ApiRequest:
        """Return a harmless request whose answer tells whether host and key are right."""

    def probe_verdict(self, answer: ApiAnswer) -> ViduAPIError | ViduResponseError | None:
        """Return what is wrong according to the answer to :meth:`probe`, or None when all is fine."""
        if 300 <= answer.status < 400 or answer.status in (401, 429) or answer.status >= 500:
            return self.error(answer)  # such a status speaks for itself, with or without a body
        payload = answer.json_or_none()
        if not isinstance(payload, dict):
            return ViduResponseError(f"no JSON came back: {answer.snippet()}", status_code=answer.status)
        if self._is_expected(answer, payload):
            return None
        error = None if answer.ok else self.error(answer)
        if error is None or isinstance(error, (exceptions.ViduNotFoundError, exceptions.ViduRequestError)):
            return ViduResponseError(
                f"the answer is not a Vidu service's: {answer.snippet()}", status_code=answer.status
            )
        return error

    @abstractmethod
    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Whether this is how a service of this dialect answers :meth:`probe` when all is fine."""

    # -- what the answers mean ------------------------------------------------------------------

    def read_generation(self, generation_id: str, answer: ApiAnswer) -> Generation:
        """Return what the answer to a query says.

        :raises ViduAPIError: for an error answer, as the class that fits it.
        :raises ViduResponseError: for an answer that is not one of this dialect.
        """
        payload = self._object(answer)
        if not self._speaks_of_a_generation(payload):
            raise ViduResponseError(
                f"The answer has no {self.status_field}. It begins: {answer.snippet()}. {IF_IT_LASTS}",
                status_code=answer.status,
            )
        return self._generation(generation_id, payload)

    def read_created(self, answer: ApiAnswer, *, synchronous: bool = False) -> Generation:
        """Return the generation that a create has submitted.

        :param synchronous: whether the answer is the result, so that one without a state is a success.
        :raises ViduAPIError: for an error answer.
        :raises ViduResponseError: when the answer carries no id.
        """
        payload = self._object(answer)
        found = self._created_id(payload)
        if found is None:
            raise ViduResponseError(
                f"The create was answered without an id: {answer.snippet()}", status_code=answer.status
            )
        generation = self._generation(found, payload)
        if synchronous and not generation.provider_status:
            return generation.model_copy(update={"status": GenerationStatus.SUCCEEDED})
        return generation

    def read_credits(self, answer: ApiAnswer) -> Credits:
        """Return the balance that the answer to :meth:`credits` tells."""
        return Credits(raw=self._object(answer))

    def read_search(self, answer: ApiAnswer, marker: str) -> Found:
        """Return which generation in the answer to :meth:`search` carries ``marker``."""
        return Found()

    def read_list(self, answer: ApiAnswer) -> list[Generation]:
        """Return the generations that the answer to :meth:`search` lists."""
        return []

    def read_cancel(self, answer: ApiAnswer) -> Cancellation:
        """Return what the answer to :meth:`cancel` means; a refusal is told, not raised.

        :raises ViduError: when the answer says nothing about the generation (key, rate, trouble).
        """
        if answer.ok:
            return Cancellation(accepted=True, reason="the service has accepted the cancel")
        error = self.error(answer)
        if isinstance(error, (exceptions.ViduRequestError, exceptions.ViduNotFoundError)):
            return Cancellation(accepted=False, reason=f"the service refused the cancel: {error.reason}")
        raise error

    def may_pass(self, generation: Generation) -> bool:
        """Whether a failed generation failed for a reason that a new submit may not meet again."""
        return False

    def was_cancelled(self, generation: Generation) -> bool:
        """Whether a failed generation was cancelled (by us, or by somebody at the service)."""
        return generation.failed and "cancel" in f"{generation.provider_status} {generation.error_code}".lower()

    def error(self, answer: ApiAnswer) -> ViduAPIError | ViduResponseError:
        """Return the error that an answer with a failing status stands for."""
        payload = answer.json_or_none()
        told = self._error_text(payload) if isinstance(payload, Mapping) else ErrorText()
        known: dict[str, Any] = {
            "status_code": answer.status,
            "code": told.code,
            "trace_id": told.trace_id,
            "retry_after": retry_after(answer.headers),
        }
        if 300 <= answer.status < 400:
            return ViduResponseError(_redirect_message(answer), **known)
        if answer.status in (403, 404) and payload is None and answer.body.strip():
            # A firewall refuses in HTML, and an ingress without its service says "404" in plain text while
            # the gateway is redeployed; the refusal of a key and "no such generation" come as JSON.
            return ViduResponseError(
                f"Something in front of the service answered: {answer.snippet()}. {IF_IT_LASTS}", **known
            )
        kind = self._error_class(answer.status, (told.code, *told.others))
        return kind(_error_message(kind, answer, told), **known)

    def _object(self, answer: ApiAnswer) -> dict[str, Any]:
        if not answer.ok:
            raise self.error(answer)
        payload = answer.json()
        if not isinstance(payload, dict):
            raise ViduResponseError(
                f"The answer is JSON but no object: {answer.snippet()}. {IF_IT_LASTS}", status_code=answer.status
            )
        return payload

    def _error_class(self, status: int, codes: Iterable[str | None]) -> ErrorClass:
        known = (self.errors.get(code.lower()) or GATEWAY_ERRORS.get(code.lower()) for code in codes if code)
        if by_code := next(filter(None, known), None):
            return by_code
        default = exceptions.ViduServerError if status >= 500 else exceptions.ViduRequestError
        return BY_STATUS.get(status, default)

    def _status(self, word: str | None) -> GenerationStatus:
        return self.statuses.get((word or "").strip().lower(), GenerationStatus.UNKNOWN)

    @abstractmethod
    def _speaks_of_a_generation(self, payload: Mapping[str, Any]) -> bool:
        """Whether a query's answer has the shape of this dialect (a create's may hold just an id)."""

    @abstractmethod
    def _generation(self, generation_id: str, payload: dict[str, Any]) -> Generation:
        """Read the fields of a query's answer."""

    @abstractmethod
    def _created_id(self, payload: Mapping[str, Any]) -> str | None:
        """Return the id in a create's answer."""

    @abstractmethod
    def _error_text(self, payload: Mapping[str, Any]) -> ErrorText:
        """Return code, message and trace id of an error body."""


def fill(template: str, **values: str) -> str:
    """Put percent-encoded values into a path template; ``{task_id}`` and ``{generation_id}`` mean ``{id}``.

    ``str.format`` is not used, because a template is user input and could reach into objects.
    """
    for name, value in values.items():
        encoded = value if _UNRESERVED.fullmatch(value) else quote(value, safe="")
        for alias in (name, "task_id", "generation_id") if name == "id" else (name,):
            template = template.replace("{" + alias + "}", encoded)
    return template


def check_template(field: str, template: str, *, required: Iterable[str] = ()) -> str:
    """Return a path template from the connection after checking it.

    :raises ViduConfigError: when it does not start with a slash, lacks a placeholder or has another.
    """
    found = set(re.findall(r"\{([^{}]*)\}", template))
    named = {"id" if name in ("task_id", "generation_id") else name for name in found}
    allowed = {"id"} if "id" in required else {"endpoint"}
    bare = re.sub(r"\{[^{}]*\}", "", template)
    if not template.startswith("/") or not template.isascii() or re.search(r"[\s?#\x00-\x1f]", bare):
        raise ViduConfigError(f"{field} must be a path such as /v2/tasks/{{id}}, without query or spaces.")
    if "{" in bare or "}" in bare:
        raise ViduConfigError(f"{field} holds a brace that belongs to no placeholder.")
    if missing := set(required) - named:
        raise ViduConfigError(f"{field} lacks the placeholder {{{missing.pop()}}}.")
    if extra := named - allowed:
        raise ViduConfigError(f"{field} holds an unknown placeholder {{{one_line(extra.pop(), 40)}}}.")
    return template


def _redirect_message(answer: ApiAnswer) -> str:
    target = shown(answer.headers.get("location", "nowhere"))
    return (
        f"The service redirects to {target}. The API key never follows a redirect: "
        "put the final address into the connection's host."
    )


_ADVICE: Final[Mapping[ErrorClass, str]] = {
    exceptions.ViduAuthError: "The API key was refused: check the connection's password and auth_scheme.",
    exceptions.ViduCreditError: "No credits or quota are left: top up the account.",
    exceptions.ViduNotFoundError: (
        "The service does not know this: check the id (of a create, the endpoint) and the connection's host."
    ),
    exceptions.ViduRateLimitError: "Too many requests or concurrent generations: ask less often, or later.",
    exceptions.ViduServerError: "The service is in trouble, which may pass.",
    exceptions.ViduBusyError: "The service is still at work on it: ask again later.",
    exceptions.ViduImageDownloadError: "The service could not fetch an image, which may pass.",
}


def _error_message(kind: ErrorClass, answer: ApiAnswer, told: ErrorText) -> str:
    advice = _ADVICE.get(kind, "The service refused the request; the same one again will be refused as well.")
    detail = told.message or answer.snippet()
    return f"{advice} It said: {detail}" if detail else f"{advice} It gave no reason."
