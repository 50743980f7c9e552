"""Searches the account's list for a lost create, by its marker or by its likeness. No I/O.

Documented entries show model, prompt and images, but no ``payload`` (https://platform.vidu.com/docs/tasks-list). The
answer to a query does (https://platform.vidu.com/docs/get-generation), so candidates are queried. A search without a
result leads to a new paid create, so an undecided entry counts as "it may be this one".
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, Final

from airflow_provider_vidu.api.dialects.task_list import ZONE_MARGIN_SECONDS, Listing, Page, created_at
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.values import is_cut, text
from airflow_provider_vidu.models import Generation, SearchResult

CLOCK_SKEW_SECONDS: Final = 300.0
"""How far the clocks of the worker and the service may differ."""
SHOWN_SECONDS: Final = 7 * 86_400.0
"""The list shows 7 days by default; whether ``created_at.from`` reaches further back is not documented."""
MAX_QUERIED: Final = 50
"""How many entries are queried for their payload at most."""
_KINDS: Final[Mapping[str, str]] = {"start-end2video": "headtailimg2video", "reference2video": "character2video"}
"""Other names of endpoints in the service's answers."""
_MOST_COMBINING: Final = 100
_OURS: Final = object()


@dataclass(frozen=True, slots=True)
class Likeness:
    """The features that identify a create on the list, small enough for a stored record.

    :param prompt: a digest of the prompt; empty if there is no comparable one.
    :param images: for each image its host and a digest of its URL; both empty for an inlined one.
    :param payload: a digest of the user's own payload, if any.
    :param is_listed: whether the list certainly shows such creates; if not, their absence proves nothing.
    """

    model: str = ""
    prompt: str = ""
    images: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    payload: str = ""
    is_listed: bool = True

    @classmethod
    def of(cls, body: Mapping[str, Any], path: str = "", *, is_listed: bool = True) -> Likeness:
        """Return the likeness of the create with this body, sent to this path."""
        images = body.get("images")
        listed = images if isinstance(images, (list, tuple)) else ()
        # With is_rec the service replaces the prompt.
        prompt = "" if body.get("is_rec") else text(body.get("prompt")) or ""
        return cls(
            model=text(body.get("model")) or "",
            prompt=_prompt_digest(prompt),
            images=tuple(map(_image, listed)),
            kind=path.partition("?")[0].rstrip("/").rpartition("/")[2],
            payload=_digest(text(body.get("payload")) or ""),
            is_listed=is_listed,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**asdict(self), "images": [list(pair) for pair in self.images]}

    @classmethod
    def from_json(cls, stored: object) -> Likeness | None:
        """Read what :meth:`to_json` wrote; None for anything else."""
        if not isinstance(stored, Mapping):
            return None
        texts = {name: text(stored.get(name)) or "" for name in ("model", "prompt", "kind", "payload")}
        listed = stored.get("images")
        pairs = [pair for pair in listed if isinstance(pair, list)] if isinstance(listed, list) else []
        return cls(
            **texts,
            images=tuple((str(pair[0]), str(pair[1])) for pair in pairs if len(pair) == 2),
            is_listed=stored.get("is_listed") is not False,
        )

    def fits(self, generation: Generation) -> bool | None:
        """Whether an entry is this create: True, False, or None if its fields do not decide."""
        entry = generation.raw
        shown_prompt = text(entry.get("prompt")) or ""
        prompt = "" if is_cut(shown_prompt) else _prompt_digest(shown_prompt)
        if self.prompt and prompt and prompt != self.prompt:
            return False
        images = self._images_fit(entry.get("images"))
        if images is False:
            return False
        identified = bool(self.prompt and prompt) or images is True
        shown = text(entry.get("model")) or ""
        same_model = not self.model or not shown or _bare(shown) == _bare(self.model)
        listed, kind = entry.get("images"), (text(entry.get("type")) or "").lower()
        same_number = images is True or not isinstance(listed, list) or len(listed) in (0, len(self.images))
        same_kind = kind in ("", self.kind.lower(), _KINDS.get(self.kind.lower()))
        return True if identified and same_model and same_number and same_kind else None

    def _images_fit(self, shown: object) -> bool | None:
        """Compare URLs: a service that echoes them shows ours, or other ones of the same host."""
        theirs = list(map(_image, shown)) if isinstance(shown, list) else []
        if not theirs or not all(digest for _, digest in self.images):
            return None
        if self.images and sorted(theirs) == sorted(self.images):
            return True
        ours, hosts = set(self.images), {host for host, _ in self.images}
        return False if any(image not in ours and image[0] in hosts for image in theirs) else None


@dataclass(eq=False)
class Search:
    """The search for one create: which pages to read, and what they prove.

    :param marker: the marker in the create's payload, if any.
    :param since: epoch seconds before which it cannot have been created; None if unknown.
    :param until: epoch seconds after which it cannot have been created; None if unknown.
    :param like: its likeness; None if only the marker is known.
    :param now: epoch seconds.
    """

    marker: str | None
    _: KW_ONLY
    since: float | None = None
    until: float | None = None
    like: Likeness | None = None
    now: float

    def __post_init__(self) -> None:
        self._entries: dict[str, Generation] = {}
        self._queried: dict[str, str] = {}
        self._is_filtered = self.since is not None
        self._listing = self._begin(None if self.since is None else self.since - ZONE_MARGIN_SECONDS)

    @property
    def query(self) -> str | None:
        """The query of the next request, or None at the end of the search."""
        return self._listing.query

    def take(self, page: Page) -> None:
        """Take the answer to :attr:`query`."""
        self._listing.take(page)
        for entry in page.generations:
            self._entries.setdefault(entry.id, entry)
        if self._listing.query is None and self._is_filtered and not self._listing.entries:
            # Nothing was created since then, or the service reads the time differently.
            self.drop_filter()

    def drop_filter(self) -> bool:
        """Restart without the filter by time, which the service refused; False if there was none."""
        if not self._is_filtered:
            return False
        self._is_filtered = False
        self._listing = self._begin(None)
        return True

    def shrink(self) -> bool:
        """Restart with small pages after one that was too large; False if they are small already."""
        return self._listing.shrink()

    @property
    def undecided(self) -> str | None:
        """The id of the next entry to query for :meth:`take_payload`; None if no payload can decide."""
        if self.marker is None and not (self.like and self.like.payload):
            return None  # the create had no payload to compare
        ours, fitting, unclear = self._sorted()
        if ours or len(self._queried) >= MAX_QUERIED:
            return None
        return next((name for name in fitting or unclear if name not in self._queried), None)

    def take_payload(self, name: str, generation: Generation | None) -> None:
        """Take the answer to a query of :attr:`undecided`; None if the query failed."""
        self._queried[name] = "" if generation is None else _payload(generation)

    def result(self) -> SearchResult:
        """Return what the pages and the queried payloads prove."""
        ours, fitting, unclear = self._sorted()
        if ours:
            # A deleted and repeated DAG run may have left two orders with one marker: the last one counts.
            return SearchResult(
                generation_id=max(ours, key=lambda name: created_at(self._entries[name]) or 0.0), complete=True
            )
        complete = self._is_complete()
        if complete and len(fitting) == 1:
            return SearchResult(generation_id=fitting[0], complete=True)
        candidates = tuple(fitting or unclear)
        proves_absence = complete and not candidates and (self.like is None or self.like.is_listed)
        return SearchResult(complete=proves_absence, candidates=candidates)

    def _sorted(self) -> tuple[list[str], list[str], list[str]]:
        """Return the entries that are this create, that fit, and that may be it."""
        shows_payloads = any(_payload(entry) for entry in self._entries.values())
        verdicts = {name: self._judge(name, entry, shows_payloads) for name, entry in self._entries.items()}
        ours, fitting, unclear = (
            [name for name, verdict in verdicts.items() if verdict is kind] for kind in (_OURS, True, None)
        )
        return ours, fitting, unclear

    def _begin(self, created_from: float | None) -> Listing:
        return Listing(created_from=created_from, reach=self.since, enough=self._holds_marker)

    def _holds_marker(self, generations: Iterable[Generation]) -> bool:
        return self.marker is not None and any(_payload(entry) == self.marker for entry in generations)

    def _is_complete(self) -> bool:
        if self.since is not None and self.now - self.since > SHOWN_SECONDS and not self._listing.has_reached:
            return False
        return self._listing.complete

    def _judge(self, name: str, entry: Generation, shows_payloads: bool) -> object:
        payload = self._queried.get(name) or _payload(entry)
        if self.marker is not None:
            if payload == self.marker:
                return _OURS
            if payload or shows_payloads:
                return False
        elif payload and not is_cut(payload) and self.like is not None and _digest(payload) != self.like.payload:
            return False
        created = created_at(entry)
        if created is not None and not (self.since or 0.0) <= created <= (self.until or created):
            return False
        fits = None if self.like is None else self.like.fits(entry)
        # An entry without a time may belong to any order.
        return None if fits and created is None and self.since is not None else fits


def _payload(generation: Generation) -> str:
    """Return an entry's payload; an empty one proves nothing: some lists add missing fields."""
    return text(generation.raw.get("payload")) or ""


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:24] if content else ""


def _prompt_digest(prompt: str) -> str:
    return _digest(" ".join(_normalized(prompt).split()))


def _normalized(prompt: str) -> str:
    """Return a prompt in normal form, unless that takes long: runs of combining characters are sorted by insertion.

    No language has long ones (Unicode's Stream-Safe Text Format ends them after 30).
    """
    length = 0
    for sign in prompt if not prompt.isascii() else "":
        length = length + 1 if unicodedata.combining(sign) else 0
        if length > _MOST_COMBINING:
            return prompt
    return unicodedata.normalize("NFC", prompt)


def _image(address: object) -> tuple[str, str]:
    if not isinstance(address, str) or not address.strip().lower().startswith(("http://", "https://")):
        return "", ""
    try:
        host = split_url(address.strip()).hostname or ""
    except ValueError:
        host = ""
    return host, _digest(address.strip())


def _bare(model: str) -> str:
    """Return a model's name for comparison: a create says "viduq2-pro", the list's filter "q2-pro"."""
    return "".join(sign for sign in model.lower().removeprefix("vidu") if sign.isalnum())
