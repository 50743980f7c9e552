"""The interface of every dialect; decisions only, no I/O.

For each operation (query a generation, create one) a dialect makes a :class:`Call`: the request, and how its answer
becomes a :class:`Generation` or a :class:`ViduError`. Both clients send these calls, so they cannot drift apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, NoReturn

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.calls import Call, Upload
from airflow_provider_vidu.api.dialects import answers
from airflow_provider_vidu.api.dialects.answers import describes_generation
from airflow_provider_vidu.api.dialects.created import (
    ID_FIELDS,
    created_ids,
    created_object,
    located_id,
    salvaged,
    strict_id,
    written_out,
)
from airflow_provider_vidu.api.dialects.errors import error_of, error_text, is_error, is_known, refuses
from airflow_provider_vidu.api.dialects.identity import chosen
from airflow_provider_vidu.api.dialects.levels import state_word
from airflow_provider_vidu.api.dialects.task_list import Page
from airflow_provider_vidu.api.endpoints import Medium
from airflow_provider_vidu.api.ids import checked_id, is_safe_id
from airflow_provider_vidu.api.messages import IF_IT_LASTS, ApiAnswer, ApiRequest, fill, unwrapped
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import objects, without_media
from airflow_provider_vidu.exceptions import ViduAPIError, ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.models import Cancellation, Credits, Generation, Snapshot
from airflow_provider_vidu.polling.state_lists import Form, StateList

_MAX_NAMED_IDS: Final = 5
_LOCATIONS: Final = ("location", "operation-location", "content-location")
_SEE_OTHER: Final = 303
SMALL_BYTES: Final = 8 * 1024
"""A shorter answer is kept whole: even fully escaped, its JSON is within the limit."""


@dataclass(init=False, unsafe_hash=True)
class Dialect(ABC):
    """The requests of one family of Vidu services, and how their answers are read.

    :param query_path: the path of a query, with ``{id}`` for the id; None for the dialect's own.
    :param create_path: the path of a create, with ``{endpoint}`` if the dialect has several; None for its own.
    """

    name: ClassVar[str]
    """What the connection's field ``dialect`` holds."""
    auth_scheme: ClassVar[str]
    """The authorization scheme (``Bearer``, ``Token``) of a connection that names none."""
    default_host: ClassVar[str | None] = None
    """The host of a connection without one; None if it must name one."""
    default_query_path: ClassVar[str]
    """The path of a query, with ``{id}`` for the id."""
    default_create_path: ClassVar[str]
    """The path of a create, with ``{endpoint}`` if the dialect has several."""
    root: ClassVar[str]
    """The leading path segment(s); a host that already ends in it is accepted."""
    status_field: ClassVar[str] = "status"
    """The name of the state's field in messages; both names are read."""
    key_hint: ClassVar[str] = ""
    """Further advice on a refused key."""
    has_balance: ClassVar[bool] = False
    """Whether :meth:`credits` is available."""
    has_list: ClassVar[bool] = False
    """Whether the service lists the account's generations."""
    has_state_list: ClassVar[bool] = False
    """Whether the service's list may be asked for named generations."""
    has_uploads: ClassVar[bool] = False
    """Whether the service accepts uploads."""

    query_path: str
    create_path: str

    def __init__(self, query_path: str | None = None, create_path: str | None = None) -> None:
        self.query_path = query_path or self.default_query_path
        self.create_path = create_path or self.default_create_path

    def query(self, generation_id: str, endpoint: str | None = None) -> Call[Generation]:
        """Return the call that reads the state of ``generation_id``.

        :param endpoint: where it was submitted, for products with a query of their own.
        :raises ViduConfigError: when the id is invalid.
        """
        return Call(self._query(generation_id, endpoint), partial(self.read_generation, generation_id))

    def poll(self, generation_id: str, endpoint: str | None = None) -> Call[Generation | Snapshot]:
        """Return the call of :meth:`query` that reads only the state of a generation that has not ended."""
        return Call(self._query(generation_id, endpoint), partial(self.read_poll, generation_id))

    def _query(self, generation_id: str, endpoint: str | None) -> ApiRequest:
        return ApiRequest("GET", fill(self._query_path(endpoint), id=checked_id(generation_id)))

    def _query_path(self, endpoint: str | None) -> str:
        return self.query_path

    def create(self, body: Mapping[str, Any], endpoint: str | None = None) -> Call[Generation]:
        """Return the call that submits ``body`` (billed).

        :param endpoint: the name of a create, or a path that starts with a slash; if omitted, the dialect decides.
        :raises ViduConfigError: when the endpoint does not exist, or cannot be inferred from the fields.
        """
        request = ApiRequest("POST", self.target(body, endpoint), self.sent(body), bills=True)
        return Call(request, partial(self.read_created, synchronous=self.is_synchronous(body, endpoint)))

    def target(self, body: Mapping[str, Any], endpoint: str | None = None) -> str:
        """Return the path that :meth:`create` goes to. The files in ``body`` may be paths: they need not be read.

        :raises ViduConfigError: as :meth:`create` does.
        """
        if endpoint is not None and not isinstance(endpoint, str):
            raise ViduConfigError(f"endpoint must be text, not {type(endpoint).__name__}.")
        return self._target(body, endpoint)

    @abstractmethod
    def _target(self, body: Mapping[str, Any], endpoint: str | None) -> str: ...

    def sent(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a create's body as the service expects it."""
        return body

    def can_cancel(self, endpoint: str | None = None) -> bool:
        """Whether a generation submitted to ``endpoint`` can be cancelled."""
        return False

    def cancel(self, generation_id: str, endpoint: str | None = None) -> Call[Cancellation]:
        """Return the call that cancels a generation.

        :raises ViduConfigError: when the dialect, or the product of ``endpoint``, cannot cancel.
        """
        self._lacks("cancel")

    def credits(self) -> Call[Credits]:
        """Return the call that reads the balance; raises ViduConfigError when the dialect does not report it."""
        self._lacks("balance")

    def search(self, query: str = "") -> Call[Page]:
        """Return the call for a page of the list of generations.

        :param query: the query string, percent-encoded; see ``task_list.Listing.query``.
        :raises ViduConfigError: unless :attr:`has_list`.
        """
        self._lacks("list of generations: name the generations by their ids")

    def can_list_states(self, endpoint: str | None = None) -> bool:
        """Whether the list may show a generation that was submitted to ``endpoint``."""
        return False

    def list_states(self, generation_ids: Sequence[str], form: Form) -> Call[StateList]:
        """Return the call that reads the states of several generations.

        :param generation_ids: at most 100 ids for which :func:`.polling.state_lists.may_be_listed` is true.
        :param form: how they are written.
        :raises ViduConfigError: unless :attr:`has_state_list`.
        """
        self._lacks("list of generations: query each by its id")

    def upload(self) -> Call[Upload]:
        """Return the call that opens an upload. It costs nothing.

        :raises ViduConfigError: unless :attr:`has_uploads`.
        """
        self._lacks("upload service")

    def finish_upload(self, upload: Upload, etag: str) -> Call[str]:
        """Return the call that ends an upload after the store's ``etag``; it returns the file's address."""
        self._lacks("upload service")

    def _lacks(self, what: str) -> NoReturn:
        raise ViduConfigError(f"The dialect {self.name} has no {what}.")

    def marked(self, body: Mapping[str, Any], marker: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Return ``body`` with a marker that the service echoes, or None if the endpoint takes no marker."""
        return None

    def with_callback(self, body: Mapping[str, Any], url: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Return ``body`` with an address to which the service reports the end, or None if it reports none."""
        return None

    def is_synchronous(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the answer to the create of ``body`` is already the result."""
        return False

    def medium(self, body: Mapping[str, Any], endpoint: str | None = None) -> Medium | None:
        """Return the medium of the result of ``body``; None if it is unknown."""
        return None

    def is_listed(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the list certainly shows the create of ``body``, so that its absence proves that there is none."""
        return True

    @abstractmethod
    def probe(self) -> Call[ViduAPIError | ViduResponseError | None]:
        """Return a harmless call that checks host and key; its result is None, or the problem."""

    def probe_verdict(self, answer: ApiAnswer) -> ViduAPIError | ViduResponseError | None:
        """Return the problem that the answer to :meth:`probe` shows, or None if there is none."""
        if 300 <= answer.status < 400 or answer.status in (401, 429) or answer.status >= 500:
            return self.error(answer)  # the status is enough, with or without a body
        payload = answer.json_or_none()
        if not isinstance(payload, dict):
            return ViduResponseError(f"the answer is not JSON: {answer.snippet()}", status_code=answer.status)
        if self._is_expected(answer, payload):
            return None
        error = None if answer.ok and not is_error(payload) else self.error(answer)
        if error is None or isinstance(error, (exceptions.ViduNotFoundError, exceptions.ViduRequestError)):
            return ViduResponseError(
                f"the answer is not that of a Vidu service: {answer.snippet()}", status_code=answer.status
            )
        return error

    @abstractmethod
    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Whether a service of this dialect answers :meth:`probe` like this if host and key are right."""

    def read_generation(self, generation_id: str, answer: ApiAnswer) -> Generation:
        """Return the generation in the answer to a query, in any dialect.

        :raises ViduAPIError: for an error answer, as the class that fits it.
        :raises ViduResponseError: for an answer without a generation.
        """
        return self._described(generation_id, self._requested(generation_id, answer), answer)

    def read_poll(self, generation_id: str, answer: ApiAnswer) -> Generation | Snapshot:
        """Return what :meth:`read_generation` returns, or just its state if it has not ended."""
        payload = self._requested(generation_id, answer)
        state = None if answer.may_hold_media else answers.unfinished(payload, answer.redact)
        return self._described(generation_id, payload, answer) if state is None else state

    def _described(self, generation_id: str, payload: dict[str, Any], answer: ApiAnswer) -> Generation:
        generation = self._generation(generation_id, payload, answer)
        if generation.provider_status or describes_generation(payload):
            return generation
        error = self.error(answer, of_create=False) if is_error(payload) else None
        if isinstance(error, ViduAPIError):
            raise error
        raise ViduResponseError(
            f"The answer has no {self.status_field}. It begins: {answer.snippet()}. {IF_IT_LASTS}",
            status_code=answer.status,
        )

    def _requested(self, generation_id: str, answer: ApiAnswer) -> dict[str, Any]:
        """Return the object in the answer to a query that describes ``generation_id``."""
        answer = unwrapped(answer)
        if not answer.ok:
            raise self.error(answer, of_create=False)
        payload = answer.json()
        match = chosen(generation_id, payload)
        if match is not None:
            return match
        if not isinstance(payload, dict) and not any(objects(payload)):
            raise self._no_object(answer)
        raise ViduResponseError(
            f"The answer describes another generation than the requested one: {answer.snippet()}. {IF_IT_LASTS}",
            status_code=answer.status,
        )

    def read_created(self, answer: ApiAnswer, *, synchronous: bool = False) -> Generation:
        """Return the generation that a create has submitted.

        :param synchronous: whether the endpoint answers with the result itself (speech, voices, subjects, prompt
            recommendations): then an answer without a state is a success.
        :raises ViduAPIError: for an error answer, even with a status of success.
        :raises ViduResponseError: when the answer does not contain exactly one id.
        """
        if not answer.ok and answer.status != _SEE_OTHER:
            raise self._with_id(self.error(answer), answer)
        if b'"isBase64Encoded"' in answer.body:  # otherwise the id is read from the envelope as it is
            inner = unwrapped(answer)
            if inner is not answer:
                return self.read_created(inner, synchronous=synchronous)
        payload = self._created_payload(answer)
        ids = created_ids(payload, synchronous=synchronous)
        if is_error(payload) and state_word(payload) is None:
            error = self.error(answer)
            # An id beside a refusal is not a generation's; beside an unknown word it may be.
            if not ids or refuses(payload) or is_known(error_text(payload, answer.redact).words):
                raise self._with_id(error, answer)
        if len(ids) > 1:
            named = ", ".join(sanitized(repr(name), 120) for name in ids[:_MAX_NAMED_IDS])
            raise ViduResponseError(
                f"The answer to the create has several ids, and it is unclear which is the generation's: {named}. "
                f"{answer.snippet()}",
                status_code=answer.status,
            )
        generation_id = self._safe_id(ids[0] if ids else self._located(answer), answer)
        made = answers.accepted(self._generation(generation_id, payload, answer), synchronous=synchronous)
        made._is_damaged = answer.json_or_none() is None
        return made

    def _located(self, answer: ApiAnswer) -> str:
        """Return the id in a header of a create's answer that names the job's address; empty if there is none."""
        locations = (answer.headers.get(name, "") for name in _LOCATIONS)
        ids = (located_id(location, self.query_path, is_success=answer.ok) for location in locations)
        return next(filter(None, ids), "")

    def _created_payload(self, answer: ApiAnswer) -> dict[str, Any]:
        """Return the answer to a create as an object, even a damaged one if it contains the paid id; else raise."""
        payload: dict[str, Any] | None = None
        if not answer.ok:  # 303: its body is text for people
            damage: ViduError = self.error(answer)
        else:
            try:
                payload = created_object(answer.json())
                damage = self._no_object(answer)
            except ViduError as error:
                damage = error
                payload = salvaged(answer.documents(ID_FIELDS)) or written_out(answer)
        if payload is not None:
            return payload
        if located := self._located(answer):
            return {"task_id": located}
        raise damage

    def _safe_id(self, generation_id: str, answer: ApiAnswer) -> str:
        if is_safe_id(safe := generation_id.strip()):
            return safe
        problem = f"no id: {answer.snippet()}"
        if generation_id:
            shown = sanitized(repr(generation_id), 120)
            problem = f"an id that is not used, because it is too long or could forge a log line: {shown}"
        raise ViduResponseError(f"The answer to the create has {problem}", status_code=answer.status)

    def read_json(self, answer: ApiAnswer) -> Any:
        """Return an answer that has no model here, as parsed JSON; None if it has no body.

        :raises ViduAPIError: for an error answer, even with a status of success.
        :raises ViduResponseError: when it is not JSON.
        """
        if not answer.ok:
            raise self.error(answer)
        if not answer.body.strip() and answer.lost is None:
            return None
        try:
            payload = answer.json(is_whole=True)
        except ViduError as error:
            raise self._with_id(error, answer) from None
        if isinstance(payload, dict) and is_error(payload) and not describes_generation(payload):
            raise self.error(answer)
        return without_media(payload) if answer.may_hold_media else payload

    def error(self, answer: ApiAnswer, *, of_create: bool = True) -> ViduAPIError | ViduResponseError:
        """Return the error that an error answer means.

        :param answer: an answer that reports an error in its status or its body.
        :param of_create: false for the answer to a query: a gateway without a channel for the model is then a transient
            failure of the gateway, not of the generation.
        """
        return error_of(answer, self.key_hint, of_create=of_create)

    def _with_id(self, error: ViduError, answer: ApiAnswer) -> ViduError:
        """Keep the id in an error answer to a create: that generation may have been billed."""
        payload = answer.json_or_none()
        values = [payload] if payload is not None else [document.value for document in answer.documents(ID_FIELDS)]
        ids = {strict_id(value) for value in values if isinstance(value, Mapping)} - {None}
        generation_id = ids.pop() if len(ids) == 1 else None
        error.generation_id = generation_id if generation_id is not None and is_safe_id(generation_id) else None
        return error

    def _object(self, answer: ApiAnswer) -> dict[str, Any]:
        """Return the object in an answer, or raise the error that it means (even with a status of success)."""
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
            f"The answer is JSON, but not an object: {answer.snippet()}. {IF_IT_LASTS}", status_code=answer.status
        )

    def _generation(self, generation_id: str, payload: dict[str, Any], answer: ApiAnswer) -> Generation:
        return answers.read(
            generation_id,
            payload,
            answer.redact,
            may_hold_media=answer.may_hold_media,
            may_be_long=len(answer.body) > SMALL_BYTES,
        )
