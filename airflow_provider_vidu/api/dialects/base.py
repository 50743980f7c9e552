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
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import quote

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.dialects import answers
from airflow_provider_vidu.api.dialects.answers import STATUSES, speaks_of_a_generation, state_word
from airflow_provider_vidu.api.dialects.created import (
    ID_FIELDS,
    accepted,
    created_id,
    created_ids,
    created_object,
    located_id,
    salvaged,
    strict_id,
)
from airflow_provider_vidu.api.dialects.errors import (
    ERRORS,
    ErrorClass,
    ErrorText,
    advice_for,
    error_class,
    error_text,
    is_error,
    is_known,
    refuses,
)
from airflow_provider_vidu.api.dialects.identity import chosen
from airflow_provider_vidu.api.dialects.task_list import Page
from airflow_provider_vidu.api.messages import IF_IT_LASTS, ApiAnswer, ApiRequest
from airflow_provider_vidu.common.text import UNPRINTABLE, redacted, sanitized
from airflow_provider_vidu.common.values import bounded, objects, text, web_url, without_media
from airflow_provider_vidu.exceptions import ViduAPIError, ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.models import Cancellation, Credits, Generation, GenerationStatus
from airflow_provider_vidu.polling.retries import retry_after

MAX_ID_CHARS: Final = 1024
MAX_NAMED_IDS: Final = 5
_SEE_OTHER: Final = 303
MAX_URI_CHARS: Final = 4096
MAX_ID_NUMBER: Final = 10**40
"""An id of digits is smaller by far; Python refuses to write very long numbers."""
_UNFIT_ID: Final = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]+")
"""What stands in a URL as it is."""
_SMALL_BYTES: Final = 8 * 1024
"""The JSON of a shorter answer cannot be longer than what is kept, however it is escaped."""
# new-api names the request in a header, too.
_TRACE_HEADERS: Final = ("x-oneapi-request-id", "x-trace-id", "x-request-id")

UPLOADS: Final = "/tools/v2/files/uploads"
"""The upload service, beside ``/ent/v2`` under the connection's base URL: several clients of the official API and
of resellers agree on it, and so on the name ``uri`` in its last answer. The vendor's pages do not describe it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that the service has opened: its id, and the signed URL that takes the bytes."""

    id: str
    put_url: str = field(repr=False)


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
    if not is_usable_id(generation_id):
        raise ViduConfigError(
            f"generation_id {sanitized(generation_id, 60)!r} is too long, all dots, or holds control characters or "
            "others that cannot be encoded."
        )
    return generation_id


def is_usable_id(generation_id: str) -> bool:
    """Whether an id can be asked for: not too long, not all dots, without control characters."""
    if len(generation_id) > MAX_ID_CHARS or _UNFIT_ID.search(generation_id) or not generation_id.strip(" ."):
        return False
    return _SURROGATE.search(generation_id) is None


def is_safe_id(generation_id: str) -> bool:
    """Whether an id of an answer can be asked for and be logged: no line end and no override of any alphabet.

    Where U+FFFD stands for what no store takes, it would name something else.
    """
    return is_usable_id(generation_id) and not UNPRINTABLE.search(generation_id) and "\ufffd" not in generation_id


def _hint_for_id(wrong: object) -> str:
    if isinstance(wrong, Mapping):
        return ' Pass generation=generate.output, or the id alone: generate.output["generation_id"].'
    if isinstance(wrong, float):
        return " Native template rendering has made a number of it: take the id from an XCom, without a template."
    return " The task before it handed over no id: check its XCom." if wrong is None else ""


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
    """What the state is called in this dialect, for messages; both names are read."""
    key_hint: ClassVar[str] = ""
    """What to check besides, if the key is refused."""
    statuses: ClassVar[Mapping[str, GenerationStatus]] = STATUSES
    errors: ClassVar[Mapping[str, ErrorClass]] = ERRORS
    """Error words, lower-case, and what they mean whatever the status is: the same in all dialects."""

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

    def search(self, query: str = "") -> ApiRequest | None:
        """Return the request for a page of the list of generations, or None where the dialect has no list.

        :param query: what to ask for, percent-encoded; see ``task_list.Listing.query``.
        """
        return None

    def marked(self, body: Mapping[str, Any], marker: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Return ``body`` with a marker that the service hands back, or None if there is no place for it.

        :raises ViduConfigError: when the fields do not say which endpoint the request is for.
        """
        return None

    def upload(self) -> ApiRequest | None:
        """Return the request that opens an upload, or None if the dialect has no upload service. It costs nothing."""
        return None

    def finish_upload(self, upload: Upload, etag: str) -> ApiRequest:
        """Return the request that ends an upload.

        :param etag: the ``ETag`` of the answer to the bytes; most clients send it without its quotes.
        """
        return ApiRequest("PUT", fill(UPLOADS + "/{id}/finish", id=upload.id), {"etag": etag.strip().strip('"')})

    def is_synchronous(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the answer to the create of ``body`` is the result, so that there is nothing to poll."""
        return False

    def is_listed(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the list surely shows the create of ``body``, so that a list without it proves that there is none."""
        return True

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
        error = None if answer.ok and not is_error(payload) else self.error(answer)
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
        """Return what the answer to a query says, whatever dialect it is written in.

        :raises ViduAPIError: for an error answer, as the class that fits it.
        :raises ViduResponseError: for an answer that says nothing of a generation.
        """
        payload = self._asked_for(generation_id, answer)
        generation = self._generation(generation_id, payload, answer)
        if generation.provider_status or speaks_of_a_generation(payload):
            return generation
        error = self.error(answer, of_create=False) if is_error(payload) else None
        if isinstance(error, ViduAPIError):
            raise error
        raise ViduResponseError(
            f"The answer has no {self.status_field}. It begins: {answer.snippet()}. {IF_IT_LASTS}",
            status_code=answer.status,
        )

    def _asked_for(self, generation_id: str, answer: ApiAnswer) -> dict[str, Any]:
        """Return the object in the answer to a query that speaks of the generation that was asked for."""
        if not answer.ok:
            raise self.error(answer, of_create=False)
        payload = answer.json()
        found = chosen(generation_id, payload)
        if found is not None:
            return found
        if not isinstance(payload, dict) and not any(objects(payload)):
            raise self._no_object(answer)
        raise ViduResponseError(
            f"The answer speaks of another generation than the one that was asked for: {answer.snippet()}. "
            f"{IF_IT_LASTS}",
            status_code=answer.status,
        )

    def read_created(self, answer: ApiAnswer, *, synchronous: bool = False) -> Generation:
        """Return the generation that a create has submitted.

        :param answer: the answer to the create.
        :param synchronous: whether the endpoint answers with the result itself (speech, voices, subjects, prompt
            recommendations): then an answer without a state is a success.
        :raises ViduAPIError: for an error answer, also one with a status of success.
        :raises ViduResponseError: when the answer carries no id.
        """
        if not answer.ok and answer.status != _SEE_OTHER:
            raise self._with_id(self.error(answer), answer)
        payload = self._created_payload(answer)
        found = created_ids(payload, synchronous=synchronous)
        if is_error(payload) and state_word(payload) is None:
            error = self.error(answer)
            # An id beside a refusal is that of the request, or of nothing; beside an unknown word it is kept.
            if not found or refuses(payload) or is_known(error_text(payload, answer.redact).words):
                raise self._with_id(error, answer)
        if len(found) > 1:
            named = ", ".join(sanitized(repr(name), 120) for name in found[:MAX_NAMED_IDS])
            raise ViduResponseError(
                f"The create was answered with several ids, and nothing tells which is the generation's: {named}. "
                f"{answer.snippet()}",
                status_code=answer.status,
            )
        if not found and not (with_context := self._located(answer)):
            raise ViduResponseError(
                f"The create was answered without an id: {answer.snippet()}", status_code=answer.status
            )
        generation_id = self._usable(found[0] if found else with_context, answer)
        return accepted(self._generation(generation_id, payload, answer), synchronous=synchronous)

    def _located(self, answer: ApiAnswer) -> str:
        """Return the id that the ``Location`` header of a create's answer names; empty where it names none."""
        location = answer.headers.get("location", "")
        return located_id(location, self.query_path, is_success=answer.ok) or ""

    def _created_payload(self, answer: ApiAnswer) -> dict[str, Any]:
        """Return the answer to a create as an object: a paid id counts, however damaged the rest of the answer is.

        :raises ViduError: when the answer is damaged and holds no id, or is not an object.
        """
        if not answer.ok:  # 303: what the body says is a note for people
            if with_context := self._located(answer):
                return {"task_id": with_context}
            raise self.error(answer)
        try:
            payload = created_object(answer.json())
            damage: ViduError = self._no_object(answer)
        except ViduError as error:
            damage = error
            payload = salvaged(answer.documents(ID_FIELDS))
        if payload is not None:
            return payload
        if with_context := self._located(answer):
            return {"task_id": with_context}
        raise damage

    def _usable(self, generation_id: str, answer: ApiAnswer) -> str:
        """Return the id of a create if it is safe; another one is shown escaped, and then nowhere."""
        found = generation_id.strip()
        if is_safe_id(found):
            return found
        raise ViduResponseError(
            "The create was answered with an id that is not used, because it is too long or could forge a log line: "
            f"{sanitized(repr(generation_id), 120)}",
            status_code=answer.status,
        )

    def read_json(self, answer: ApiAnswer) -> Any:
        """Return an answer that nothing here models, as parsed JSON; None where it has no body.

        :raises ViduAPIError: for an error answer, also one with a status of success.
        :raises ViduResponseError: when it is not JSON.
        """
        if not answer.ok:
            raise self.error(answer)
        if not answer.body.strip() and answer.lost is None:
            return None
        try:
            payload = answer.json()
        except ViduError as error:
            raise self._with_id(error, answer) from None
        if isinstance(payload, dict) and is_error(payload) and not speaks_of_a_generation(payload):
            raise self.error(answer)
        return without_media(payload) if answer.may_hold_media else payload

    def read_credits(self, answer: ApiAnswer) -> Credits:
        """Return the balance that the answer to :meth:`credits` tells."""
        return Credits(raw=self._kept(self._object(answer), answer))

    def read_page(self, answer: ApiAnswer) -> Page:
        """Return the page of the list that the answer to :meth:`search` holds."""
        return Page()

    def read_upload(self, answer: ApiAnswer) -> Upload:
        """Return the upload that the answer to :meth:`upload` opens.

        :raises ViduResponseError: when the answer lacks a usable id or a web address that takes the bytes.
        """
        payload = self._object(answer)
        found, put_url = text(payload.get("id")), web_url(payload.get("put_url"))
        if found is None or put_url is None:
            raise ViduResponseError(
                f"The upload service answered without an id and an address to upload to: {answer.snippet()}",
                status_code=answer.status,
            )
        if not is_safe_id(found):
            raise ViduResponseError(
                f"The upload service answered with an id that is not used, because it has more than {MAX_ID_CHARS:,} "
                f"characters or holds some that cannot be printed: {sanitized(repr(found), 120)}. {IF_IT_LASTS}",
                status_code=answer.status,
            )
        return Upload(found, put_url)

    def read_uploaded(self, answer: ApiAnswer, upload: Upload) -> str:
        """Return the address that a request may name the uploaded file by."""
        uri = text(self._object(answer).get("uri")) or ""
        # It goes into a request, and may get into logs.
        fits = uri and len(uri) <= MAX_URI_CHARS and not UNPRINTABLE.search(uri)
        return uri if fits else f"ssupload:?id={upload.id}"

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

    def error(self, answer: ApiAnswer, *, of_create: bool = True) -> ViduAPIError | ViduResponseError:
        """Return the error that an error answer stands for.

        :param answer: an answer whose status, or whose body, says error.
        :param of_create: false for the answer to a query: that a gateway has no channel for a model then says nothing
            of the generation, and is a failure of the gateway that may pass.
        """
        payload = answer.json_or_none()
        told = self._error_text(answer, payload)
        known: dict[str, Any] = {
            "status_code": answer.status,
            "code": told.code,
            "trace_id": told.trace_id or next(filter(None, map(answer.headers.get, _TRACE_HEADERS)), None),
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
        detail = told.message or answer.snippet()
        if answer.ok and told.status is None and not is_known(told.words, of_create=of_create):
            # The body says error in a word that is not in the table: whether a create was carried out is unknown.
            return ViduResponseError(f"The service answered with success, and an error inside: {detail}", **known)
        kind = error_class(answer.status, told, of_create=of_create)
        advice = advice_for(kind, told.code) if of_create else kind.advice
        if kind is exceptions.ViduAuthError and self.key_hint:
            advice = f"{advice} {self.key_hint}"
        return kind(f"{advice} It said: {detail}" if detail else f"{advice} It gave no reason.", **known)

    def _error_text(self, answer: ApiAnswer, payload: Any = None) -> ErrorText:
        payload = answer.json_or_none() if payload is None else payload
        if isinstance(payload, list):
            payload = next(objects(payload), None)
        return error_text(payload, answer.redact) if isinstance(payload, Mapping) else ErrorText()

    def _with_id(self, error: ViduError, answer: ApiAnswer) -> ViduError:
        """Keep the id that an error answer to a create holds: what it names may have been billed."""
        payload = answer.json_or_none()
        values = [payload] if payload is not None else [found.value for found in answer.documents(ID_FIELDS)]
        ids = {strict_id(value) for value in values if isinstance(value, Mapping)} - {None}
        found_id = ids.pop() if len(ids) == 1 else None
        error.generation_id = found_id if found_id is not None and is_safe_id(found_id) else None
        return error

    def _object(self, answer: ApiAnswer) -> dict[str, Any]:
        """Return the object in an answer that is not of a generation; an error, also with status 200, is raised."""
        payload = self._parsed(answer)
        if is_error(payload):
            raise self.error(answer)
        return payload

    def _parsed(self, answer: ApiAnswer) -> dict[str, Any]:
        if not answer.ok:
            raise self.error(answer)
        payload = answer.json()
        if isinstance(payload, list) and len(payload) == 1:
            payload = payload[0]
        if not isinstance(payload, dict):
            raise self._no_object(answer)
        return payload

    def _no_object(self, answer: ApiAnswer) -> ViduResponseError:
        return ViduResponseError(
            f"The answer is JSON but no object: {answer.snippet()}. {IF_IT_LASTS}", status_code=answer.status
        )

    def _generation(self, generation_id: str, payload: dict[str, Any], answer: ApiAnswer) -> Generation:
        return answers.read(
            generation_id,
            payload,
            answer.redact,
            may_hold_media=answer.may_hold_media,
            may_be_long=len(answer.body) > _SMALL_BYTES,
        )

    def _kept(self, payload: dict[str, Any], answer: ApiAnswer) -> dict[str, Any]:
        """Return what is kept of an answer: without inline media, and not too long for an XCom."""
        return bounded(without_media(payload)) if len(answer.body) > _SMALL_BYTES else payload

    def _created_id(self, payload: Mapping[str, Any]) -> str | None:
        """Return the id in a create's answer, or in an entry of a list."""
        return created_id(payload)


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

    The template of a query may end in a query string, and that may hold the id: ``/v1/video/query?id={id}``.

    :raises ViduConfigError: when it does not start with a slash, lacks a placeholder or has another.
    """
    found = set(re.findall(r"\{([^{}]*)\}", template))
    named = {"id" if name in ("task_id", "generation_id") else name for name in found}
    of_a_query = "id" in required
    allowed = {"id"} if of_a_query else {"endpoint"}
    bare = re.sub(r"\{[^{}]*\}", "", template)
    if not template.startswith("/") or not template.isascii() or re.search(r"[\s#\x00-\x1f\x7f]", bare):
        raise ViduConfigError(f"{field} must be a path such as /v2/tasks/{{id}}, without spaces or a fragment.")
    if bare.count("?") > (1 if of_a_query else 0):
        only = "may have one query string" if of_a_query else "must have no query string"
        raise ViduConfigError(f"{field} {only}: {sanitized(template, 80)!r}.")
    if "{" in bare or "}" in bare:
        raise ViduConfigError(f"{field} holds a brace that belongs to no placeholder.")
    if missing := set(required) - named:
        raise ViduConfigError(f"{field} lacks the placeholder {{{missing.pop()}}}.")
    if extra := named - allowed:
        raise ViduConfigError(f"{field} holds an unknown placeholder {{{sanitized(extra.pop(), 40)}}}.")
    return template


def _redirect_message(answer: ApiAnswer) -> str:
    target = redacted(answer.headers.get("location", "nowhere"))
    return (
        f"The service redirects to {target}. The API key never follows a redirect: "
        "put the final address into the connection's host."
    )
