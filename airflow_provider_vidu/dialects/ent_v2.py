"""``ent-v2``: the official API (platform.vidu.com, "/ent/v2") and resellers that keep its shape.

The lists of models, durations and prompt limits change every few months, so nothing of the kind is
checked here: fields pass through and the API answers ``FieldInvalid``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from airflow_provider_vidu.dialects.answers import job_and_inner
from airflow_provider_vidu.dialects.base import UPLOADS, Dialect, checked_id, fill
from airflow_provider_vidu.dialects.errors import is_error
from airflow_provider_vidu.dialects.task_list import Page
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Credits
from airflow_provider_vidu.values import mapping, number, objects, text, whole
from airflow_provider_vidu.wire import ApiAnswer, ApiRequest

ENDPOINT_BY_IMAGES: Final = ("text2video", "img2video", "start-end2video")
"""The endpoint for 0, 1 and 2 images where the user names none; three and more are references."""

BALANCE_FIELDS: Final = frozenset(
    {"remains", "remaining_credits", "packages", "credits", "concurrency_limit", "current_concurrency", "queue_count",
     "data"}
)  # fmt: skip


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

    def create(self, body: Mapping[str, Any], endpoint: str | None = None) -> ApiRequest:
        """Return the create request for ``endpoint``, or for the one that the number of images suggests."""
        if endpoint and endpoint.startswith("/"):
            return ApiRequest("POST", endpoint, body, bills=True)
        name = endpoint or endpoint_for(body.get("images"))
        return ApiRequest("POST", fill(self.create_path, endpoint=name), body, bills=True)

    def cancel(self, generation_id: str) -> ApiRequest | None:
        """Return the cancel request, beside the query: ``…/{id}/cancel``; None where the id is in a query string."""
        path, mark, query = self.query_path.partition("?")
        if fill(path, id="x") == path:
            return None  # /v1/video/query?id={id}: nothing there has a path of its own
        template = path.removesuffix("/creations") + "/cancel" + mark + query
        return ApiRequest("POST", fill(template, id=checked_id(generation_id)), {"id": generation_id})

    def credits(self) -> ApiRequest | None:
        """Return the request for the balance; it lies beside the creates."""
        return ApiRequest("GET", self._beside_create("credits"))

    def search(self, query: str = "") -> ApiRequest | None:
        """Return the request for a page of the list; it lies beside the creates."""
        return ApiRequest("GET", f"{self._beside_create('tasks')}{'?' if query else ''}{query}")

    def upload(self) -> ApiRequest | None:
        """Return the request that opens an upload."""
        return ApiRequest("POST", UPLOADS, {"scene": "vidu"})

    def marked(self, body: Mapping[str, Any], marker: str) -> Mapping[str, Any] | None:
        """Put the marker into ``payload``, which the service echoes; a payload of the user's own stays."""
        return None if body.get("payload") else {**body, "payload": marker}

    def read_page(self, answer: ApiAnswer) -> Page:
        """Return a page of the list; an entry without an id is counted and left out."""
        payload = self._object(answer)
        entries = _entries(payload)
        if entries is None:
            return Page()
        named = ((self._created_id(entry), entry) for entry in entries)
        return Page(
            generations=tuple(self._generation(name, dict(entry)) for name, entry in named if name),
            count=len(entries),
            token=text(payload.get("next_page_token")),
            tells_end="next_page_token" in payload,
        )

    def read_credits(self, answer: ApiAnswer) -> Credits:
        """Return the balance: the sum over the kinds of credits, and how busy the account is."""
        payload = self._object(answer)
        job, _ = job_and_inner(payload)
        # The page's table calls it remaining_credits, and its example remains.
        kinds = list(objects(job.get("remains"))) or list(objects(job.get("remaining_credits"))) or [job]

        def total(name: str) -> float | None:
            found = [value for value in (number(kind.get(name)) for kind in kinds) if value is not None]
            return sum(found) if found else None

        def count(name: str) -> int | None:
            value = total(name)
            return None if value is None else int(value)

        return Credits(
            remaining=whole(job.get("remaining_credits") if (listed := total("credit_remain")) is None else listed),
            concurrency_limit=count("concurrency_limit"),
            current_concurrency=count("current_concurrency"),
            queue_count=count("queue_count"),
            raw=payload,
        )

    def probe(self) -> ApiRequest:
        """Ask for the balance: it costs nothing and needs a valid key."""
        return ApiRequest("GET", self._beside_create("credits"))

    def _is_expected(self, answer: ApiAnswer, payload: Mapping[str, Any]) -> bool:
        """Expect a balance, under whatever name a reseller gives it."""
        return answer.ok and not is_error(payload) and not BALANCE_FIELDS.isdisjoint(payload)

    def _beside_create(self, name: str) -> str:
        if "{endpoint}" in self.create_path:
            return fill(self.create_path, endpoint=name)
        return f"{self.create_path.rpartition('/')[0]}/{name}"


def endpoint_for(images: object) -> str:
    """Return the create endpoint that fits a number of images.

    :raises ViduConfigError: when ``images`` is no list.
    """
    if images is not None and (isinstance(images, (str, bytes)) or not isinstance(images, Sequence)):
        raise ViduConfigError(f"images must be a list, not {type(images).__name__}.")
    count = len(images or ())
    return ENDPOINT_BY_IMAGES[count] if count < len(ENDPOINT_BY_IMAGES) else "reference2video"


def _entries(payload: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    listed = payload.get("tasks")
    return [mapping(entry) for entry in listed] if isinstance(listed, list) else None
