"""The list of tasks, with the documented filters and pages (``vidu_api_full.md``, section 2)."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from airflow_provider_vidu.sandbox.bodies import ent
from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.official.fields import Refused
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.generations import Generation, State
from airflow_provider_vidu.sandbox.world.world import stored_image

Query = Mapping[str, list[str]]
DEFAULT_PAGE: Final = 10
LARGEST_PAGE: Final = 100
#: The age limit of listed tasks if the request names no start time, in sandbox seconds.
DEFAULT_AGE: Final = 7 * 86_400.0


@dataclass(frozen=True)
class Entry:
    """A task in the list; ``created_at`` in wall-clock epoch seconds."""

    generation: Generation
    state: State
    created_at: float

    @property
    def place(self) -> tuple[float, str]:
        """The sort key: the time, then the id."""
        return self.created_at, self.generation.id.zfill(24)


@dataclass(frozen=True)
class Page:
    """The entries of one page, and the token of the next one (empty on the last)."""

    entries: list[Entry]
    next_token: str


@dataclass(frozen=True)
class Filters:
    """What a query asks for; None where it does not say."""

    ids: frozenset[str] | None
    words: tuple[list[str] | None, ...]
    begin: float | None
    end: float | None

    @classmethod
    def of(cls, query: Query, settings: Settings) -> Filters:
        """Return the filters of a query; :class:`Refused` if a time is invalid."""
        words = tuple(query.get(name) for name in ("states", "model_versions", "templates", "resolutions"))
        return cls(
            _ids(query, settings.task_ids),
            words,
            _moment(query, "created_at.from"),
            _moment(query, "created_at.to"),
        )

    def match(self, entry: Entry, now: float) -> bool:
        """Whether a task belongs into the list at ``now``, in sandbox seconds."""
        one, request = entry.generation, entry.generation.request
        if self.begin is None and now - one.created_at > DEFAULT_AGE:
            return False
        if self.begin is not None and entry.created_at < self.begin:
            return False
        if self.end is not None and entry.created_at > self.end:
            return False
        values = (entry.state.word, one.model, request.get("template", ""), request.get("resolution", ""))
        is_named = self.ids is None or one.id in self.ids
        return is_named and all(
            wanted is None or value in wanted for wanted, value in zip(self.words, values, strict=True)
        )


def page(entries: Iterable[Entry], filters: Filters, query: Query, now: float) -> Page:
    """Return the page for ``query``, newest first; :class:`Refused` if the query is invalid."""
    size = _whole(query, "pager.pagesz", DEFAULT_PAGE)
    if not 1 <= size <= LARGEST_PAGE:
        raise Refused("PageSizeOutOfRange", f"pager.pagesz must be 1 to {LARGEST_PAGE}, got {size}")
    wanted = [one for one in entries if filters.match(one, now)]
    wanted.sort(key=lambda one: one.place, reverse=True)
    token = query.get("pager.page_token", [""])[0]
    if token:
        last = _place(token)
        wanted = [one for one in wanted if one.place < last]
    else:
        wanted = wanted[_whole(query, "pager.page", 0) * size :]
    shown = wanted[:size]
    return Page(shown, _token(shown[-1]) if len(wanted) > size else "")


def listed(shown: Page, urls: Mapping[str, list[dict[str, str]]], settings: Settings) -> Answer:
    """Return the answer with a page of tasks; ``urls`` holds those of succeeded tasks, by id."""
    tasks = [_row(entry, urls.get(entry.generation.id, []), settings) for entry in shown.entries]
    answer = json_answer({"tasks": tasks, "next_page_token": shown.next_token})
    return dataclasses.replace(answer, listed=tuple(entry.generation.id for entry in shown.entries))


def _row(entry: Entry, urls: list[dict[str, str]], settings: Settings) -> dict[str, Any]:
    one, request = entry.generation, entry.generation.request
    images = request.get("images")
    body = {
        "id": one.id,
        "key_id": "1",
        "type": ent.task_type(one.endpoint),
        settings.state_field: entry.state.word,
        "template": request.get("template", ""),
        "model": one.model,
        "prompt": one.prompt,
        "images": [stored_image(image) for image in images] if isinstance(images, list) else [],
        "duration": request.get("duration", 0),
        "resolution": request.get("resolution", ""),
        "aspect_ratio": request.get("aspect_ratio", ""),
        "creations": ent.creations(one, urls),
        "created_at": ent.written_time(entry.created_at, settings),
        "credits": 0 if entry.state.failed else one.credits,
    }
    if settings.list_payload:
        body["payload"] = request.get("payload", "")
        body["err_code"] = ent.error_code(one, entry.state)
    return body


def _ids(query: Query, form: str) -> frozenset[str] | None:
    """Return the requested ids; the array's syntax is not documented."""
    given = query.get("task_ids")
    if given is None or form == "ignored":
        return None
    if form == "json":
        try:
            named = json.loads(given[0])
        except (ValueError, RecursionError):
            named = None
        return frozenset(str(name) for name in named) if isinstance(named, list) else frozenset()
    return frozenset(given if form == "repeated" else given[0].split(","))


def _whole(query: Query, name: str, default: int) -> int:
    value = query.get(name, [""])[0]
    if not value:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise Refused("FieldInvalid", f"{name} must be a whole number of 0 or more")
    return int(value)


def _moment(query: Query, name: str) -> float | None:
    """Return a time from ISO text or epoch seconds; the format is not documented."""
    value = query.get(name, [""])[0]
    if not value:
        return None
    try:
        return float(value) if value.replace(".", "", 1).isdecimal() else datetime.fromisoformat(value).timestamp()
    except ValueError:
        raise Refused("FieldInvalid", f"{name} must be a time such as 2026-01-20T06:52:02Z") from None


def _token(entry: Entry) -> str:
    moment, name = entry.place
    return base64.urlsafe_b64encode(f"{moment!r} {name}".encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _place(token: str) -> tuple[float, str]:
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("utf-8", "surrogatepass")
        moment, _, name = text.partition(" ")
        return float(moment), name
    except (ValueError, binascii.Error):
        raise Refused("FieldInvalid", "pager.page_token is unknown") from None
