"""``ent-v2``: the official API (platform.vidu.com, "/ent/v2") and resellers that keep its shape.

The lists of models, durations and prompt limits change every few months, so nothing of the kind is
checked here: fields pass through and the API answers ``FieldInvalid``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import quote

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.dialects.base import Dialect, ErrorClass, ErrorText, checked_id, fill, status_words
from airflow_provider_vidu.dialects.endpoints import ENDPOINTS, Endpoint, endpoint_for, named, typed
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Artifact, Credits, Found, Generation, GenerationStatus
from airflow_provider_vidu.text import one_line
from airflow_provider_vidu.values import first_text, mapping, moment, number, percent, text, web_url, whole
from airflow_provider_vidu.wire import ApiAnswer, ApiRequest

BALANCE_FIELDS: Final = frozenset(
    {"remains", "credits", "concurrency_limit", "current_concurrency", "queue_count", "data"}
)

PASSING_FAILURES: Final = frozenset({"internalservicefailure", "imagedownloadfailure", "systemthrottling"})
"""``err_code`` of a failed generation that a new submit may not meet again."""


class EntV2(Dialect):
    """``/ent/v2/…`` with ``Authorization: Token KEY``; ids are decimal strings beyond 2^53."""

    name: ClassVar[str] = "ent-v2"
    auth_scheme: ClassVar[str] = "Token"
    root: ClassVar[str] = "/ent/v2"
    status_field: ClassVar[str] = "state"
    default_host: ClassVar[str | None] = "https://api.vidu.com"
    default_query_path: ClassVar[str] = "/ent/v2/tasks/{id}/creations"
    default_create_path: ClassVar[str] = "/ent/v2/{endpoint}"

    # scheduled, preparation, scheduling and canceled are undocumented but have been seen.
    statuses: ClassVar[Mapping[str, GenerationStatus]] = status_words(
        succeeded="success",
        failed="failed canceled cancelled",
        waiting="created queueing scheduled preparation scheduling",
        running="processing",
    )
    errors: ClassVar[Mapping[str, ErrorClass]] = {
        **dict.fromkeys(
            ("badrequest", "fieldlacking", "fieldunwanted", "fielditemcountoutofrange", "fieldinvalid",
             "pagesizeoutofrange", "modelunavailable", "usercancelled"),
            exceptions.ViduRequestError,
        ),
        **dict.fromkeys(
            ("imageformatinvalid", "imagecheckbodyjointsfailed", "imagecheckfacefailed",
             "imageobjectsundetected"),
            exceptions.ViduImageError,
        ),
        "imagedownloadfailure": exceptions.ViduImageDownloadError,
        **dict.fromkeys(
            ("taskpromptpolicyviolation", "auditsubmitillegal", "creationpolicyviolation"),
            exceptions.ViduPolicyError,
        ),
        "operationinprocess": exceptions.ViduBusyError,
        "creditinsufficient": exceptions.ViduCreditError,
        **dict.fromkeys(("unauthorized", "forbidden"), exceptions.ViduAuthError),
        **dict.fromkeys(("tasknotfound", "creationnotfound", "notfound"), exceptions.ViduNotFoundError),
        "conflict": exceptions.ViduConflictError,
        **dict.fromkeys(
            ("quotaexceeded", "toomanyrequests", "systemthrottling"), exceptions.ViduRateLimitError
        ),
        "internalservicefailure": exceptions.ViduServerError,
    }  # fmt: skip

    def create(self, body: Mapping[str, Any], endpoint: str | None = None) -> ApiRequest:
        """Return the create request for ``endpoint``, or for the one that the fields are for.

        :raises ViduConfigError: when they fit several, or ``endpoint`` is not the name of one.
        """
        if endpoint and endpoint.startswith("/"):
            path = endpoint
        elif "{endpoint}" in self.create_path:
            path = self._beside_create(endpoint or endpoint_for(body))
        else:
            path = self.create_path
        return ApiRequest("POST", path, typed(body), bills=True)

    def query(self, generation_id: str, endpoint: str | None = None) -> ApiRequest:
        """Return the request for a generation's state; the one-click products have a query of their own.

        :param endpoint: where it was submitted. One with ``{id}`` inside is itself the path of the query: some
            parts of a one-click production are documented so.
        """
        own = endpoint if endpoint and "{id}" in endpoint else named(endpoint).query if endpoint else None
        if own is None:
            return super().query(generation_id)
        path = own if own.startswith("/") else self._beside_create(own)
        return ApiRequest("GET", fill(path, id=checked_id(generation_id)))

    def cancel(self, generation_id: str, endpoint: str | None = None) -> ApiRequest | None:
        """Return the cancel request; it lies beside the query: ``…/{id}/cancel``. One-click products have none."""
        if endpoint and named(endpoint).query:
            return None
        path = super().query(generation_id).path.removesuffix("/creations") + "/cancel"
        return ApiRequest("POST", path, {"id": generation_id})

    def credits(self) -> ApiRequest | None:
        """Return the request for the balance; it lies beside the creates."""
        return ApiRequest("GET", self._beside_create("credits"))

    def search(self) -> ApiRequest | None:
        """Return the request that lists the generations of the last 7 days."""
        return ApiRequest("GET", self._beside_create("tasks"))

    def marked(self, body: Mapping[str, Any], marker: str, endpoint: str | None = None) -> Mapping[str, Any] | None:
        """Put the marker into ``payload``, which the service echoes; a payload of the user's own stays.

        An endpoint that documents no ``payload`` gets none: it would refuse the request (``FieldUnwanted``).
        """
        takes_payload = self._endpoint(body, endpoint).takes_payload
        return {**body, "payload": marker} if takes_payload and not body.get("payload") else None

    def is_synchronous(self, body: Mapping[str, Any], endpoint: str | None = None) -> bool:
        """Whether the answer to the create of ``body`` is the result: speech, voices, subjects, prompts."""
        return self._endpoint(body, endpoint).is_synchronous

    def _endpoint(self, body: Mapping[str, Any], endpoint: str | None) -> Endpoint:
        """Return what is known of the endpoint that a request goes to."""
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

    def read_search(self, answer: ApiAnswer, marker: str) -> Found:
        """Look for the marker among the listed payloads.

        How the list is paged is not documented, so a list with a further page, or with entries that
        show no payload, proves nothing when the marker is not on it.
        """
        payload = self._object(answer)
        entries = _entries(payload)
        if entries is None:
            return Found()
        # The last order wins where a deleted and repeated DAG run has left two with one marker.
        matches = [entry for entry in entries if entry.get("payload") == marker]
        newest = max(matches, key=lambda entry: str(entry.get("created_at") or ""), default=None)
        complete = not payload.get("next_page_token") and all("payload" in entry for entry in entries)
        found = first_text(newest.get("id"), newest.get("task_id")) if newest is not None else None
        return Found(generation_id=found, complete=complete)

    def read_list(self, answer: ApiAnswer) -> list[Generation]:
        """Return the listed generations; an entry without an id is left out."""
        entries = _entries(self._object(answer)) or []
        named = ((self._created_id(entry), entry) for entry in entries)
        return [self._generation(name, dict(entry)) for name, entry in named if name]

    def read_credits(self, answer: ApiAnswer) -> Credits:
        """Return the balance: the sum over the kinds of credits, and how busy the account is."""
        payload = self._object(answer)
        remains = payload.get("remains")
        kinds = [mapping(kind) for kind in remains] if isinstance(remains, list) else []
        kinds = kinds or [payload]

        def total(name: str) -> float | None:
            found = [value for value in (number(kind.get(name)) for kind in kinds) if value is not None]
            return sum(found) if found else None

        def count(name: str) -> int | None:
            value = total(name)
            return None if value is None else int(value)

        return Credits(
            remaining=whole(total("credit_remain")),
            concurrency_limit=count("concurrency_limit"),
            current_concurrency=count("current_concurrency"),
            queue_count=count("queue_count"),
            raw=payload,
        )

    def may_pass(self, generation: Generation) -> bool:
        """Judge by ``err_code``: trouble of the service, or an image it could not fetch."""
        return (generation.error_code or "").lower() in PASSING_FAILURES

    def probe(self) -> ApiRequest:
        """Ask for the balance: it costs nothing and needs a valid key."""
        return ApiRequest("GET", self._beside_create("credits"))

    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Expect a balance, under whatever name a reseller gives it."""
        return answer.ok and not BALANCE_FIELDS.isdisjoint(payload)

    def _beside_create(self, name: str) -> str:
        """Return the path of ``name``, which may have several segments; ``{id}`` in it stays."""
        segments = name.split("/")
        if not all(segment.strip(".") for segment in segments):
            raise ViduConfigError(
                f"endpoint {one_line(name, 60)!r} is neither a name nor a path starting with a slash."
            )
        encoded = "/".join(segment if segment == "{id}" else quote(segment, safe="") for segment in segments)
        if "{endpoint}" in self.create_path:
            return self.create_path.replace("{endpoint}", encoded)
        return f"{self.create_path.rpartition('/')[0]}/{encoded}"

    def _speaks_of_a_generation(self, payload: Mapping[str, Any]) -> bool:
        return text(payload.get("state")) is not None or "creations" in payload

    def _generation(self, generation_id: str, payload: dict[str, Any]) -> Generation:
        word = text(payload.get("state"))
        status = self._status(word)
        artifacts = tuple(_artifacts(payload.get("creations")))
        first = next((found for found in artifacts if found.url), None)
        code = text(payload.get("err_code"))
        return Generation(
            id=generation_id,
            status=status,
            provider_status=word or "",
            video_url=first.url if first else None,
            cover_url=first.cover_url if first else None,
            progress=percent(payload.get("progress")),
            model=text(payload.get("model")),
            credits=whole(payload.get("credits")),
            error_code=code if status is GenerationStatus.FAILED else None,
            error_message=first_text(payload.get("message"), payload.get("err_msg"))
            if status is GenerationStatus.FAILED
            else None,
            created_at=moment(payload.get("created_at")),
            updated_at=moment(payload.get("updated_at")),
            completed_at=moment(payload.get("completed_at")),
            artifacts=artifacts,
            raw=payload,
        )

    def _created_id(self, payload: Mapping[str, Any]) -> str | None:
        return first_text(payload.get("task_id"), payload.get("id"))

    def _error_text(self, payload: Mapping[str, Any]) -> ErrorText:
        metadata, error = mapping(payload.get("metadata")), mapping(payload.get("error"))
        return ErrorText(
            # Resellers answer some refusals in their own gateway's shape.
            code=first_text(payload.get("reason"), _word(payload.get("code")), error.get("code"), error.get("type")),
            others=tuple(filter(None, (_word(payload.get("code")), text(error.get("type"))))),
            message=first_text(payload.get("message"), error.get("message")),
            trace_id=first_text(metadata.get("trace_id"), payload.get("trace_id")),
        )


def _word(code: object) -> str | None:
    """Return a code that is a word; the official API repeats the HTTP status in ``code``."""
    return code if isinstance(code, str) and code.strip() and not code.strip().isdigit() else None


def _entries(payload: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    listed = payload.get("tasks")
    return [mapping(entry) for entry in listed] if isinstance(listed, list) else None


def _artifacts(creations: object) -> list[Artifact]:
    listed = creations if isinstance(creations, list) else []
    return [_artifact(mapping(creation)) for creation in listed if isinstance(creation, Mapping)]


def _artifact(creation: Mapping[str, Any]) -> Artifact:
    video = mapping(creation.get("video"))
    size = mapping(video.get("resolution"))
    width, height = number(size.get("width")), number(size.get("height"))
    return Artifact(
        id=text(creation.get("id")),
        url=web_url(creation.get("url")),
        cover_url=web_url(creation.get("cover_url")),
        watermarked_url=web_url(creation.get("watermarked_url")),
        duration=number(video.get("duration")),
        fps=number(video.get("fps")),
        width=int(width) if width is not None else None,
        height=int(height) if height is not None else None,
    )
