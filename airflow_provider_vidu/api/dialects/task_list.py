"""The account's list of generations and its paging. Decisions, no I/O.

Documented (https://platform.vidu.com/docs/tasks-list): ``created_at.from``, ``created_at.to``, ``states``,
``pager.page`` from 0, ``pager.pagesz`` (10 if omitted, at most 100), ``pager.page_token``; the answer holds ``tasks``
and ``next_page_token``. Not documented: the order, the format of times, and how an array is written. So only answers
count: a list proves that something is missing only if its end was reached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

from airflow_provider_vidu.api.dialects.identity import ID_NAMES
from airflow_provider_vidu.api.dialects.levels import MAX_WORD_CHARS, STATUSES, state_word, status_of
from airflow_provider_vidu.common.values import MILLISECONDS_ABOVE, moment, percent, text
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Generation, Snapshot
from airflow_provider_vidu.polling.state_lists import Form, StateList

PAGE_SIZE: Final = 100
SMALLEST_PAGE: Final = 10
"""The documented default size. A shorter page is the last one even if the service ignores ``pager.pagesz``."""
MAX_PAGES: Final = 50
"""The limit on requests for one listing."""
MAX_ENTRIES: Final = MAX_PAGES * PAGE_SIZE
"""The limit on what one listing keeps: a page may have more entries than were requested, or omit those filtered out."""
MAX_BYTES: Final = 48 * 1024 * 1024
"""The same for the bytes of its answers; 5,000 entries with signed URLs and prompts take half of it."""
ZONE_MARGIN_SECONDS: Final = 86_400.0
"""How much earlier than needed a listing begins: a service may read the time in its own zone."""
_FIRST: Final = 1.0
"""The first time that counts as one, in epoch seconds."""
_WITHOUT_ZONE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ Tt][0-9:.,]+)?")


def epoch_of(name: str, value: datetime | str | float | None) -> float | None:
    """Return a point in time in epoch seconds; None stays None.

    :param value: an aware datetime, an ISO 8601 string or epoch seconds.
    :raises ViduConfigError: when it is something else.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ViduConfigError(f"{name} must be a time with a zone, not {value}.")
        # Also a trigger's argument, which is read again as a number: datetime.min and datetime.max stand for all.
        return min(max(value.timestamp(), _FIRST), MILLISECONDS_ABOVE)
    parsed = moment(value)
    if parsed is None or isinstance(value, bool):
        raise ViduConfigError(f"{name} must be a time (aware datetime, ISO 8601 or epoch seconds), not {value!r}.")
    return parsed.timestamp()


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the list.

    :param generations: the entries that have an id.
    :param count: the number of entries; None if the answer contains no list.
    :param tells_end: whether the answer has a field for the token, so that an empty one means the end.
    :param size: the bytes of the answer.
    """

    generations: tuple[Generation, ...] = ()
    count: int | None = None
    token: str | None = None
    tells_end: bool = False
    size: int = 0


@dataclass(kw_only=True, eq=False)
class Listing:
    """A walk through the list's pages: :attr:`query` is the next request, :meth:`take` takes its answer.

    :param created_from: epoch seconds; older generations are omitted.
    :param created_to: epoch seconds; newer generations are omitted.
    :param states: the service's own words; None for every state.
    :param limit: how many generations are returned at most.
    :param reach: epoch seconds; a list that is sorted newest first is read no further back than this.
    :param enough: called with the new generations of each page; true ends the walk.
    :param is_bare: whether only the id, the state and the time of each entry are kept.
    """

    created_from: float | None = None
    created_to: float | None = None
    states: Iterable[str] | None = None
    limit: int = MAX_ENTRIES
    reach: float | None = None
    enough: Callable[[Sequence[Generation]], bool] | None = None
    is_bare: bool = False

    def __post_init__(self) -> None:
        self._states = _words(self.states)
        self._size = PAGE_SIZE
        self._begin()

    def _begin(self) -> None:
        self._entries: dict[str, Generation] = {}
        self._pages = 0
        self._bytes = 0
        self._number = 0
        self._largest = 0
        self._token: str | None = None
        self._ignores_tokens = False
        self._over = self.limit <= 0
        self._oldest: float | None = None
        self.is_sorted = True
        """Whether every entry so far has a date and none is newer than the one before."""
        self.ended = False
        """Whether the list's end was reached."""
        self.entries = 0
        """The number of entries in all pages."""

    @property
    def query(self) -> str | None:
        """The query of the next request, percent-encoded, or None at the end of the walk."""
        if self._over:
            return None
        # The English page writes "paper.page" and "paper.pagesz", every other source "pager".
        fields: list[tuple[str, str]] = [("pager.pagesz", str(self._size))]
        fields.append(("pager.page_token", self._token) if self._token else ("pager.page", str(self._number)))
        if self.created_from is not None:
            fields.append(("created_at.from", _written(self.created_from)))
        if self.created_to is not None:
            fields.append(("created_at.to", _written(self.created_to)))
        fields += [("states", word) for word in self._states]
        return urlencode(fields)

    @property
    def generations(self) -> list[Generation]:
        """The matching generations in the list's order (newest first, as far as known)."""
        wanted = [entry for entry in self._entries.values() if self._is_wanted(entry)]
        return wanted[: self.limit]

    @property
    def has_reached(self) -> bool:
        """Whether the list was read back to ``reach``."""
        return self.reach is not None and self.is_sorted and self._oldest is not None and self._oldest < self.reach

    @property
    def complete(self) -> bool:
        """Whether no matching generation can be missing."""
        return self.ended or self.has_reached

    def shrink(self) -> bool:
        """Restart with small pages after one that was too large; False if they are small already.

        Entries echo the images of their requests if these were inlined.
        """
        if self._size == SMALLEST_PAGE:
            return False
        self._size = SMALLEST_PAGE
        self._begin()
        return True

    def take(self, page: Page) -> None:
        """Take the answer to :attr:`query`."""
        asked_by_token = self._token is not None
        self._pages += 1
        self._bytes += page.size
        self.entries += page.count or 0
        new = [entry for entry in page.generations if entry.id not in self._entries]
        self._number += bool(new)
        self._keep(new)
        if not page.count and (page.count is None or not page.token):
            # An empty first page is the end only if the answer looks like the documented one.
            self.ended = page.count == 0 and (self._pages > 1 or page.tells_end)
            self._over = True
        elif page.token and page.token == self._token:
            self._over = True
        elif page.count and not new:
            # The service repeats itself. One that returns tokens and ignores them may still count pages.
            self._over = not asked_by_token or self._ignores_tokens
            self._ignores_tokens, self._token = True, None
        elif self._is_last(page, asked_by_token):
            self.ended = self._over = True
        else:
            self._token = None if self._ignores_tokens else page.token
            self._over = (
                self._pages >= MAX_PAGES
                or len(self._entries) >= MAX_ENTRIES
                or self._bytes >= MAX_BYTES
                or len(self.generations) >= self.limit
                or self.has_reached
                or (self.enough is not None and self.enough(new))
            )
        self._largest = max(self._largest, page.count or 0)

    def _is_last(self, page: Page, asked_by_token: bool) -> bool:
        if page.token:
            return False
        is_short = (page.count or 0) < max(SMALLEST_PAGE, self._largest)
        return (asked_by_token and not self._ignores_tokens) or (page.tells_end and is_short)

    def _keep(self, generations: Iterable[Generation]) -> None:
        for generation in generations:
            created = created_at(generation)
            self._entries[generation.id] = _bare(generation, created) if self.is_bare else generation
            if created is None or (self._oldest is not None and created > self._oldest):
                self.is_sorted = False
            else:
                self._oldest = created

    def _is_wanted(self, generation: Generation) -> bool:
        """Whether an entry matches the filters, which the service may ignore."""
        created = created_at(generation)
        if created is not None and not (
            (created if self.created_from is None else self.created_from)
            <= created
            <= (created if self.created_to is None else self.created_to)
        ):
            return False
        return not self._states or generation.provider_status.lower() in self._states


def created_at(generation: Generation) -> float | None:
    """Return when an entry was created, in epoch seconds; None for a time without a zone, which may be hours off."""
    written = generation.raw.get("created_at")
    if generation.created_at is None or (isinstance(written, str) and _WITHOUT_ZONE.fullmatch(written.strip())):
        return None
    return generation.created_at.timestamp()


def _bare(generation: Generation, created: float | None) -> Generation:
    """Return an entry without its answer, which may have 64 kB: thousands took a triggerer gigabytes."""
    return Generation(
        id=generation.id,
        status=generation.status,
        provider_status=generation.provider_status,
        created_at=None if created is None else generation.created_at,
    )


def query_of(generation_ids: Sequence[str], form: Form) -> str:
    """Return the query for named generations, percent-encoded."""
    names = {
        Form.REPEATED: list(generation_ids),
        Form.COMMA: [",".join(generation_ids)],
        Form.JSON: [json.dumps(generation_ids, separators=(",", ":"))],
    }[form]
    fields = [("pager.pagesz", str(PAGE_SIZE)), ("pager.page", "0"), *(("task_ids", name) for name in names)]
    return urlencode(fields, safe=",")


def states_in(
    entries: Iterable[Mapping[str, Any]], requested: Collection[str], has_more: bool, redact: Callable[[str], str]
) -> StateList:
    """Return what the entries of a list show of requested generations.

    Entries without an id or a state are ignored, and so are several of one id that disagree.

    :param redact: removes secrets from the word of a state.
    """
    states: dict[str, Snapshot] = {}
    disputed: set[str] = set()
    is_foreign = False
    for entry in entries:
        names = [name for name in map(text, map(entry.get, ID_NAMES)) if name is not None]
        name = next((name for name in names if name in requested), None)
        if name is None:
            is_foreign |= bool(names)
        elif (word := state_word(entry)) is not None:
            shown = word if word.lower() in STATUSES else redact(word)
            seen = _snapshot(shown.strip()[:MAX_WORD_CHARS], percent(entry.get("progress")))
            if states.setdefault(name, seen) != seen:
                disputed.add(name)
    for name in disputed:
        del states[name]
    return StateList(states, is_foreign, has_more)


# Thousands of waits, a handful of states. The word is short: the cache would keep hundreds of words of megabytes.
@lru_cache(maxsize=512)
def _snapshot(word: str, progress: int | None) -> Snapshot:
    return Snapshot(status_of(word), word, progress)


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _words(states: Iterable[str] | None) -> tuple[str, ...]:
    listed = (states,) if isinstance(states, str) else tuple(states or ())
    if any(not isinstance(word, str) or not word.strip() for word in listed):
        raise ViduConfigError(f"states must be the service's words, such as success, not {list(listed)!r}.")
    return tuple(word.strip().lower() for word in listed)
