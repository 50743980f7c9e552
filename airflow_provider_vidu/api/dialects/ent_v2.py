"""``ent-v2``: the official API (platform.vidu.com, "/ent/v2") and resellers that keep its shape.

Models, durations and prompt limits change every few months, so they are not checked here: fields pass through and the
API answers ``FieldInvalid``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import quote

from airflow_provider_vidu.api.calls import Call, Upload
from airflow_provider_vidu.api.dialects import answers, task_list
from airflow_provider_vidu.api.dialects.base import SMALL_BYTES, Dialect
from airflow_provider_vidu.api.dialects.created import created_id
from airflow_provider_vidu.api.dialects.errors import is_error, said_by
from airflow_provider_vidu.api.dialects.levels import job_and_inner
from airflow_provider_vidu.api.dialects.raw import bounded
from airflow_provider_vidu.api.dialects.task_list import Page
from airflow_provider_vidu.api.endpoints import ENDPOINTS, Endpoint, Medium, endpoint_for, named, typed
from airflow_provider_vidu.api.ids import MAX_ID_CHARS, checked_id, is_safe_id
from airflow_provider_vidu.api.messages import IF_IT_LASTS, TOO_LARGE, ApiAnswer, ApiRequest, fill
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.text import UNPRINTABLE, sanitized
from airflow_provider_vidu.common.values import mapping, number, objects, text, trimmed, web_url, whole, without_media
from airflow_provider_vidu.exceptions import (
    ViduAPIError,
    ViduConfigError,
    ViduNotFoundError,
    ViduRequestError,
    ViduResponseError,
)
from airflow_provider_vidu.models import Cancellation, Credits
from airflow_provider_vidu.polling.state_lists import Form, StateList

_MAX_TOKEN_CHARS: Final = 4096
"""A longer token may not fit into the URL of the request for the next page."""
_MAX_ENTRIES: Final = 5_000
"""The limit on entries in one page; the requested size is at most 100."""
_KEPT_VALUES: Final = 20_000
"""The values kept of a page: 50 pages are held at a time, and {} takes twenty times its bytes in memory."""
_MIN_KEPT_VALUES: Final = 100
"""The values kept of each entry in any case."""
_BALANCE_FIELDS: Final = frozenset(
    {"remains", "remaining_credits", "packages", "credits", "concurrency_limit", "current_concurrency", "queue_count",
     "data"}
)  # fmt: skip
_UPLOADS: Final = "/tools/v2/files/uploads"
"""The upload service, beside ``/ent/v2`` under the base URL. The vendor's pages do not describe it; several clients of
the official API and of resellers agree on it, and on ``uri`` in its last answer."""
_MAX_URI_CHARS: Final = 4096


class EntV2(Dialect):
    """``/ent/v2/…`` with ``Authorization: Token KEY``; ids are decimal strings beyond 2^53."""

    name: ClassVar[str] = "ent-v2"
    auth_scheme: ClassVar[str] = "Token"
    root: ClassVar[str] = "/ent/v2"
    status_field: ClassVar[str] = "state"
    key_hint: ClassVar[str] = (
        "api.vidu.com (global) and api.vidu.cn (China) are two platforms: a key of one is refused by the other."
    )
    default_host: ClassVar[str | None] = "https://api.vidu.com"
    default_query_path: ClassVar[str] = "/ent/v2/tasks/{id}/creations"
    default_create_path: ClassVar[str] = "/ent/v2/{endpoint}"
    has_balance: ClassVar[bool] = True
    has_list: ClassVar[bool] = True
    has_state_list: ClassVar[bool] = True
    has_uploads: ClassVar[bool] = True

    def _target(self, body: Mapping[str, Any], endpoint: str | None) -> str:
        """Return the path of ``endpoint``, or of the one inferred from the fields."""
        if endpoint and endpoint.startswith("/"):
            return endpoint
        if "{endpoint}" in self.create_path:
            return self._beside_create(endpoint or endpoint_for(body))
        return self.create_path

    def sent(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a create's body with the numbers and flags that a template has turned into text."""
        return typed(body)

    def _query_path(self, endpoint: str | None) -> str:
        """Return the template of a query's path; the one-click products have a query of their own.

        An ``endpoint`` that contains ``{id}`` is itself the path, as documented for parts of one-click productions.
        """
        own = named(endpoint).query if endpoint else None
        if endpoint and "{id}" in endpoint:
            own = endpoint
        return self.query_path if own is None else own if own.startswith("/") else self._beside_create(own)

    def can_cancel(self, endpoint: str | None = None) -> bool:
        """Whether there is a cancel: not for one-click products, nor if the id is in a query string."""
        path = self.query_path.partition("?")[0]
        return not (endpoint and named(endpoint).query) and fill(path, id="x") != path

    def cancel(self, generation_id: str, endpoint: str | None = None) -> Call[Cancellation]:
        """Return the call that cancels, at ``…/{id}/cancel`` beside the query."""
        if not self.can_cancel(endpoint):
            return super().cancel(generation_id, endpoint)
        path, mark, query = self.query_path.partition("?")
        template = path.removesuffix("/creations") + "/cancel" + mark + query
        request = ApiRequest("POST", fill(template, id=checked_id(generation_id)), {"id": generation_id})
        return Call(request, self.read_cancel)

    def credits(self) -> Call[Credits]:
        """Return the call for the balance, beside the creates."""
        return Call(ApiRequest("GET", self._beside_create("credits")), self.read_credits)

    def search(self, query: str = "") -> Call[Page]:
        """Return the call for a page of the list, beside the creates."""
        path = f"{self._beside_create('tasks')}{'?' if query else ''}{query}"
        return Call(ApiRequest("GET", path, lists=True), self.read_page)

    def can_list_states(self, endpoint: str | None = None) -> bool:
        """Whether the list may show a generation: not of a product with a query of its own [I]."""
        return not endpoint or self._query_path(endpoint) == self.query_path

    def list_states(self, generation_ids: Sequence[str], form: Form) -> Call[StateList]:
        """Return the call that reads the states of several generations from the list."""
        query = task_list.query_of(generation_ids, form)
        request = ApiRequest("GET", f"{self._beside_create('tasks')}?{query}", lists=True)
        return Call(request, partial(self.read_states, frozenset(generation_ids)))

    def upload(self) -> Call[Upload]:
        """Return the call that opens an upload."""
        return Call(ApiRequest("POST", _UPLOADS, {"scene": "vidu"}), self.read_upload)

    def finish_upload(self, upload: Upload, etag: str) -> Call[str]:
        """Return the call that ends an upload; most clients send the ``ETag`` without its quotes."""
        request = ApiRequest("PUT", fill(_UPLOADS + "/{id}/finish", id=upload.id), {"etag": etag.strip().strip('"')})
        return Call(request, lambda answer: self.read_uploaded(answer, upload))

    def marked(self, body: Mapping[str, Any], marker: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Put the marker into ``payload``, which the service echoes, unless the user has set it.

        An endpoint without a documented ``payload`` would refuse it (``FieldUnwanted``).
        """
        takes_payload = self._endpoint(body, endpoint).takes_payload
        return {**body, "payload": marker} if takes_payload and not body.get("payload") else None

    def with_callback(self, body: Mapping[str, Any], url: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Put the address into ``callback_url``, unless the user has set it or the endpoint takes none."""
        takes_callback = self._endpoint(body, endpoint).takes_callback
        return {**body, "callback_url": url} if takes_callback and not body.get("callback_url") else None

    def is_synchronous(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the answer to the create of ``body`` is the result: speech, voices, subjects, prompts."""
        return self._endpoint(body, endpoint).is_synchronous

    def medium(self, body: Mapping[str, Any], endpoint: str | None = None) -> Medium | None:
        """Return the medium of the result of ``body``; None for an endpoint outside of the table."""
        product = self._endpoint(body, endpoint)
        return product.result if product.name in ENDPOINTS else None

    def is_listed(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the list certainly shows the create of ``body``; see :attr:`Endpoint.is_listed`."""
        return self._endpoint(body, endpoint).is_listed

    def _endpoint(self, body: Mapping[str, Any], endpoint: str | None) -> Endpoint:
        if endpoint:
            return named(endpoint)
        if "{endpoint}" in self.create_path:
            return named(endpoint_for(body))
        single = named(self.create_path)
        if single.name in ENDPOINTS:
            return single
        try:
            return named(endpoint_for(body))  # a reseller's only path takes every kind of request
        except ViduConfigError:
            return single

    def read_cancel(self, answer: ApiAnswer) -> Cancellation:
        """Return the result of a cancel; a refusal is returned, not raised.

        :raises ViduError: when the answer is not about the generation (key, rate, failures of the service).
        """
        if answer.ok:
            return Cancellation(accepted=True, reason="the service accepted the cancel")
        error = self.error(answer)
        if isinstance(error, (ViduRequestError, ViduNotFoundError)):
            return Cancellation(accepted=False, reason=f"the service refused the cancel: {said_by(answer)}")
        raise error

    def read_page(self, answer: ApiAnswer) -> Page:
        """Return a page of the list; entries without a usable id are counted, but omitted."""
        payload, _ = job_and_inner(self._object(answer))
        entries = _entries(payload)
        if entries is None:
            return Page()
        if len(entries) > _MAX_ENTRIES:
            raise ViduResponseError(
                f"The page of the list has {len(entries):,} entries; at most {_MAX_ENTRIES:,} are read.",
                status_code=answer.status,
                code=TOO_LARGE,
            )
        token = text(payload.get("next_page_token"))
        if token is not None and len(token) > _MAX_TOKEN_CHARS:
            raise ViduResponseError(
                f"The list's next_page_token has {len(token):,} characters; at most {_MAX_TOKEN_CHARS:,} are sent. "
                f"{IF_IT_LASTS}",
                status_code=answer.status,
            )
        is_full = value_count(answer.body, _KEPT_VALUES) > _KEPT_VALUES
        most = max(_MIN_KEPT_VALUES, _KEPT_VALUES // len(entries)) if is_full and entries else None
        media = answer.may_hold_media
        named = ((created_id(entry), entry) for entry in entries)
        return Page(
            generations=tuple(
                answers.read(name, dict(entry), answer.redact, may_hold_media=media, most_values=most)
                for name, entry in named
                if name and is_safe_id(name)
            ),
            count=len(entries),
            token=token,
            tells_end="next_page_token" in payload,
            size=len(answer.body),
        )

    def read_states(self, requested: Collection[str], answer: ApiAnswer) -> StateList:
        """Return the states of requested generations in an answer of the list.

        :raises ViduError: when the answer is an error, or not a list of tasks.
        """
        # Only the words of states are kept, so they alone are searched for secrets: a page of prompts takes longer to
        # search than to parse. Errors quote the answer, so they are made of the one that redacts.
        payload = replace(answer, redact=str).json_or_none() if answer.ok else None
        if not isinstance(payload, dict) or is_error(payload):
            payload = self._object(answer)
        job, _ = job_and_inner(payload)
        entries = _entries(job)
        if entries is None and payload:  # {} is how some servers write an answer in which everything is empty
            raise ViduResponseError(
                f"The answer has no list of tasks: {answer.snippet()}. {IF_IT_LASTS}", status_code=answer.status
            )
        return task_list.states_in(entries or (), requested, bool(text(job.get("next_page_token"))), answer.redact)

    def read_upload(self, answer: ApiAnswer) -> Upload:
        """Return the upload that the answer to :meth:`upload` opens.

        :raises ViduResponseError: when the answer lacks a usable id or a web address that takes the bytes.
        """
        payload, _ = job_and_inner(self._object(answer))
        upload_id, put_url = text(payload.get("id")), web_url(trimmed(text(payload.get("put_url")) or ""))
        if upload_id is None or put_url is None:
            raise ViduResponseError(
                f"The upload service answered without an id or a URL to upload to: {answer.snippet()}",
                status_code=answer.status,
            )
        if not is_safe_id(upload_id):
            raise ViduResponseError(
                f"The upload service answered with an id that is not used, because it has more than {MAX_ID_CHARS:,} "
                f"characters or contains unprintable ones: {sanitized(repr(upload_id), 120)}. {IF_IT_LASTS}",
                status_code=answer.status,
            )
        return Upload(upload_id, put_url)

    def read_uploaded(self, answer: ApiAnswer, upload: Upload) -> str:
        """Return the address of the uploaded file for requests."""
        uri = text(job_and_inner(self._object(answer))[0].get("uri")) or ""
        # It becomes part of a request, and may be logged.
        is_usable = uri and len(uri) <= _MAX_URI_CHARS and not UNPRINTABLE.search(uri)
        return uri if is_usable else f"ssupload:?id={upload.id}"

    def read_credits(self, answer: ApiAnswer) -> Credits:
        """Return the balance: the sum over the kinds of credits, and the account's concurrency."""
        payload = self._object(answer)
        job, _ = job_and_inner(payload)
        # The page's table says remaining_credits, its example remains.
        kinds = list(objects(job.get("remains"))) or list(objects(job.get("remaining_credits"))) or [job]

        def total(name: str) -> float | None:
            values = [value for value in (number(kind.get(name)) for kind in kinds) if value is not None]
            return sum(values) if values else None

        def count(name: str) -> int | None:
            value = whole(total(name))
            return value if isinstance(value, int) else None

        return Credits(
            remaining=whole(job.get("remaining_credits") if (listed := total("credit_remain")) is None else listed),
            concurrency_limit=count("concurrency_limit"),
            current_concurrency=count("current_concurrency"),
            queue_count=count("queue_count"),
            raw=bounded(without_media(payload)) if len(answer.body) > SMALL_BYTES else payload,
        )

    def probe(self) -> Call[ViduAPIError | ViduResponseError | None]:
        """Read the balance: it costs nothing and needs a valid key."""
        return Call(self.credits().request, self.probe_verdict)

    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Whether the answer is a balance, under any name that resellers use."""
        return answer.ok and not is_error(payload) and not _BALANCE_FIELDS.isdisjoint(payload)

    def _beside_create(self, name: str) -> str:
        """Return the path of ``name``, which may have several segments; ``{id}`` in it stays."""
        segments = name.split("/")
        if not all(segment.strip(".") for segment in segments):
            raise ViduConfigError(
                f"endpoint {sanitized(name, 60)!r} is neither a name nor a path that starts with a slash."
            )
        encoded = "/".join(
            segment if segment == "{id}" else quote(segment, safe="", errors="replace") for segment in segments
        )
        if "{endpoint}" in self.create_path:
            return self.create_path.replace("{endpoint}", encoded)
        return f"{self.create_path.rpartition('/')[0]}/{encoded}"


def _entries(payload: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    listed = payload.get("tasks")
    if listed is None and "next_page_token" in payload:
        return []  # how some servers write an empty list
    return [mapping(entry) for entry in listed] if isinstance(listed, list) else None
