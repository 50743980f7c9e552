"""What every dialect must be able to say; decisions only, no I/O.

A dialect makes a :class:`Call` of each intention (query a generation, create one): the request, and how its answer
becomes a :class:`Generation` or an error of the tree. Both clients carry these calls, so they cannot drift apart. A new
dialect is one module with one subclass, entered in ``dialects/__init__.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final, NoReturn

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.calls import Call
from airflow_provider_vidu.api.dialects import answers
from airflow_provider_vidu.api.dialects.answers import speaks_of_a_generation
from airflow_provider_vidu.api.dialects.created import (
    ID_FIELDS,
    accepted,
    created_ids,
    created_object,
    located_id,
    salvaged,
    strict_id,
)
from airflow_provider_vidu.api.dialects.errors import (
    ErrorText,
    advice_for,
    error_class,
    error_text,
    is_error,
    is_known,
    refuses,
)
from airflow_provider_vidu.api.dialects.identity import checked_id, chosen, is_safe_id
from airflow_provider_vidu.api.dialects.levels import state_word
from airflow_provider_vidu.api.dialects.task_list import Page
from airflow_provider_vidu.api.messages import IF_IT_LASTS, ApiAnswer, ApiRequest, fill
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.common.values import objects, without_media
from airflow_provider_vidu.exceptions import ViduAPIError, ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.models import Cancellation, Credits, Generation
from airflow_provider_vidu.polling.retries import retry_after

MAX_NAMED_IDS: Final = 5
_LOCATIONS: Final = ("location", "operation-location", "content-location")
_SEE_OTHER: Final = 303
_PROXY_WANTS_PASSWORD: Final = 407
SMALL_BYTES: Final = 8 * 1024
"""The JSON of a shorter answer cannot be longer than what is kept, however it is escaped."""
# new-api names the request in a header, too.
_TRACE_HEADERS: Final = ("x-oneapi-request-id", "x-trace-id", "x-request-id")


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that the service has opened: its id, and the signed URL that takes the bytes."""

    id: str
    put_url: str = field(repr=False)


@dataclass(init=False, unsafe_hash=True)
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
    has_list: ClassVar[bool] = False
    """Whether there is a list of the account's generations."""
    has_uploads: ClassVar[bool] = False
    """Whether there is an upload service."""

    query_path: str
    create_path: str

    def __init__(self, query_path: str | None = None, create_path: str | None = None) -> None:
        self.query_path = query_path or self.default_query_path
        self.create_path = create_path or self.default_create_path

    def query(self, generation_id: str, endpoint: str | None = None) -> Call[Generation]:
        """Return the call that asks for the state of ``generation_id``.

        :param endpoint: where it was submitted, if a dialect has products with a query of their own.
        :raises ViduConfigError: when the id cannot be one.
        """
        request = ApiRequest("GET", fill(self._query_path(endpoint), id=checked_id(generation_id)))
        return Call(request, partial(self.read_generation, generation_id))

    def _query_path(self, endpoint: str | None) -> str:
        """Return the template of a query's path."""
        return self.query_path

    def create(self, body: Mapping[str, Any], endpoint: str | None = None) -> Call[Generation]:
        """Return the call that submits ``body`` (billed).

        :param endpoint: the name of a create, or a path that starts with a slash; if omitted, the dialect decides.
        :raises ViduConfigError: when there is no such endpoint, or the fields do not say which one they are for.
        """
        request = self._create_request(body, endpoint)
        return Call(request, partial(self.read_created, synchronous=self.is_synchronous(body, endpoint)))

    @abstractmethod
    def _create_request(self, body: Mapping[str, Any], endpoint: str | None) -> ApiRequest:
        """Return the request that submits ``body``."""

    def can_cancel(self, endpoint: str | None = None) -> bool:
        """Whether a generation that was submitted to ``endpoint`` can be cancelled."""
        return False

    def cancel(self, generation_id: str, endpoint: str | None = None) -> Call[Cancellation]:
        """Return the call that cancels a generation.

        :raises ViduConfigError: when the dialect, or the product of ``endpoint``, has no cancel.
        """
        self._lacks("cancel")

    def credits(self) -> Call[Credits]:
        """Return the call that asks for the balance.

        :raises ViduConfigError: when the dialect has none.
        """
        self._lacks("balance")

    def search(self, query: str = "") -> Call[Page]:
        """Return the call for a page of the list of generations.

        :param query: what to ask for, percent-encoded; see ``task_list.Listing.query``.
        :raises ViduConfigError: when the dialect has no list, see :attr:`has_list`.
        """
        self._lacks("list of generations: name the generations by their ids")

    def upload(self) -> Call[Upload]:
        """Return the call that opens an upload. It costs nothing.

        :raises ViduConfigError: when the dialect has no upload service, see :attr:`has_uploads`.
        """
        self._lacks("upload service")

    def finish_upload(self, upload: Upload, etag: str) -> Call[str]:
        """Return the call that ends an upload whose bytes were answered with ``etag``; it reads the file's address."""
        self._lacks("upload service")

    def _lacks(self, what: str) -> NoReturn:
        raise ViduConfigError(f"The dialect {self.name} has no {what}.")

    def marked(self, body: Mapping[str, Any], marker: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Return ``body`` with a marker that the service hands back, or None if there is no place for it.

        :raises ViduConfigError: when the fields do not say which endpoint the request is for.
        """
        return None

    def is_synchronous(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the answer to the create of ``body`` is the result, so that there is nothing to poll."""
        return False

    def is_listed(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the list surely shows the create of ``body``, so that a list without it proves that there is none."""
        return True

    @abstractmethod
    def probe(self) -> Call[ViduAPIError | ViduResponseError | None]:
        """Return a harmless call that tells whether host and key are right: None, or what is wrong."""

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
        if not found and not (located := self._located(answer)):
            raise ViduResponseError(
                f"The create was answered without an id: {answer.snippet()}", status_code=answer.status
            )
        generation_id = self._usable(found[0] if found else located, answer)
        return accepted(self._generation(generation_id, payload, answer), synchronous=synchronous)

    def _located(self, answer: ApiAnswer) -> str:
        """Return the id in a header of a create's answer that says where the job is; empty where none does."""
        named = (answer.headers.get(name, "") for name in _LOCATIONS)
        found = (located_id(location, self.query_path, is_success=answer.ok) for location in named)
        return next(filter(None, found), "")

    def _created_payload(self, answer: ApiAnswer) -> dict[str, Any]:
        """Return the answer to a create as an object: a paid id counts, however damaged the rest of the answer is.

        :raises ViduError: when the answer is damaged and holds no id, or is not an object.
        """
        payload: dict[str, Any] | None = None
        if not answer.ok:  # 303: what the body says is a note for people
            damage: ViduError = self.error(answer)
        else:
            try:
                payload = created_object(answer.json())
                damage = self._no_object(answer)
            except ViduError as error:
                damage = error
                payload = salvaged(answer.documents(ID_FIELDS))
        if payload is not None:
            return payload
        if located := self._located(answer):
            return {"task_id": located}
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

    def error(self, answer: ApiAnswer, *, of_create: bool = True) -> ViduAPIError | ViduResponseError:
        """Return the error that an error answer stands for.

        :param answer: an answer whose status, or whose body, says error.
        :param of_create: false for the answer to a query: that a gateway has no channel for a model then says nothing
            of the generation, and is a failure of the gateway that may pass.
        """
        payload = answer.json_or_none()
        first = next(objects(payload), None) if isinstance(payload, list) else payload
        told = error_text(first, answer.redact) if isinstance(first, Mapping) else ErrorText()
        known: dict[str, Any] = {
            "status_code": answer.status,
            "code": told.code,
            "trace_id": told.trace_id or next(filter(None, map(answer.headers.get, _TRACE_HEADERS)), None),
            "retry_after": retry_after(answer.headers),
        }
        if 300 <= answer.status < 400:
            return ViduResponseError(
                f"The service redirects to {redacted(answer.headers.get('location', 'nowhere'))}. The API key never "
                "follows a redirect: put the final address into the connection's host.",
                **known,
            )
        if answer.status == _PROXY_WANTS_PASSWORD:
            return ViduResponseError(
                "The proxy requires a user and a password: put them into the proxy's URL.", **known
            )
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

    def _with_id(self, error: ViduError, answer: ApiAnswer) -> ViduError:
        """Keep the id that an error answer to a create holds: what it names may have been billed."""
        payload = answer.json_or_none()
        values = [payload] if payload is not None else [found.value for found in answer.documents(ID_FIELDS)]
        ids = {strict_id(value) for value in values if isinstance(value, Mapping)} - {None}
        found_id = ids.pop() if len(ids) == 1 else None
        error.generation_id = found_id if found_id is not None and is_safe_id(found_id) else None
        return error

    def _object(self, answer: ApiAnswer) -> dict[str, Any]:
        """Return the object in an answer that is not of a generation.

        :raises ViduAPIError: for an error answer, also one with a status of success.
        """
        if not answer.ok:
            raise self.error(answer)
        payload = answer.json()
        if isinstance(payload, list) and len(payload) == 1:
            payload = payload[0]
        if not isinstance(payload, dict):
            raise self._no_object(answer)
        if is_error(payload):
            raise self.error(answer)
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
            may_be_long=len(answer.body) > SMALL_BYTES,
        )
