"""What is known of stored files: whether each is still there, and what its bytes prove it to be. Runs in threads.

A task's record says what was stored once. A file may have been removed since, or another one put in its place.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, Literal

from airflow_provider_vidu.ui.playing.preview import AbsentError, Preview, PreviewError, opened

MAX_LOOKED_AT: Final = 24
"""The most files of one root that one look at a page opens."""
LOOK_SECONDS: Final = 10.0
"""After this time a look opens no further file: its store is slow."""
PAGE_SECONDS: Final = 10.0
"""A page of a clip shows no older knowledge of its files than this."""
SHEET_SECONDS: Final = 600.0
"""A sheet shows no older knowledge of files that were there than this."""
GONE_SECONDS: Final = 30.0
"""A file that was not there is looked for again after this time."""
MAX_KNOWN: Final = 2_000

Lost = Literal["missing", "replaced", "kept"]
"""``kept``: a file that was there before, in the place of this clip's (``overwrite="skip"``)."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a look at a stored file has found.

    :param at: when, by the monotonic clock.
    :param size: its size in bytes; None if it was not there, or cannot be looked at.
    :param is_absent: whether it was not there.
    :param kind: the content type that its bytes prove; None if they were not read, or it cannot be shown.
    :param is_read: whether its bytes were read.
    :param sizes: the sizes of the records that it was compared with right after a look.
    """

    at: float
    size: int | None = None
    is_absent: bool = False
    kind: str | None = None
    is_read: bool = False
    sizes: frozenset[int] = frozenset()

    def lost(self, size: int) -> Lost | None:
        """Return what became of a file that was stored with a size; None if it is there, or not known."""
        if self.is_absent:
            return "missing"
        return "replaced" if self.size is not None and self.size != size else None


_known: OrderedDict[str, Known] = OrderedDict()
_lock = threading.Lock()


def look(wanted: Iterable[tuple[str, int, bool]], most_age: float) -> dict[str, Known]:
    """Return what is known of stored files; what is too old is looked at again.

    So is a file of another size than its record's, once for each record: it may have been stored again since the look.
    Of these, only so many are opened: the next look goes on from there. A file that was never looked at is missing.

    :param wanted: the URI of each file, the size that its record names, and whether its bytes must be read to learn its
        content type.
    :param most_age: seconds after which what is known of a file that was there is too old.
    """
    found: dict[str, Known] = {}
    looks_left, until = MAX_LOOKED_AT, time.monotonic() + LOOK_SECONDS
    for uri, size, must_read in dict.fromkeys(wanted):
        with _lock:
            known = _known.get(uri)
        if looks_left and _must_look(known, size, most_age, must_read=must_read) and time.monotonic() < until:
            looks_left -= 1
            sizes = frozenset[int]() if known is None or _is_old(known, most_age) else known.sizes
            known = replace(_looked(uri, known, reads=must_read), sizes=sizes | {size})
            _keep(uri, known)
        if known is not None:
            found[uri] = known
    return found


def note(uri: str, *, size: int | None) -> None:
    """Take note of what sending a file has shown.

    :param size: the size that it has; None if it was not there.
    """
    with _lock:
        before = _known.get(uri)
    if before is None or before.size != size or before.is_absent != (size is None):
        _keep(uri, Known(time.monotonic(), size=size, is_absent=size is None))


def _must_look(known: Known | None, size: int, most_age: float, *, must_read: bool) -> bool:
    if known is None or (must_read and not known.is_read and not known.is_absent):
        return True
    return _is_old(known, most_age) or (known.lost(size) == "replaced" and size not in known.sizes)


def _is_old(known: Known, most_age: float) -> bool:
    return time.monotonic() - known.at > (min(most_age, GONE_SECONDS) if known.size is None else most_age)


def _keep(uri: str, known: Known) -> None:
    with _lock:
        _known[uri] = known
        _known.move_to_end(uri)
        while len(_known) > MAX_KNOWN:
            _known.popitem(last=False)


def _looked(uri: str, before: Known | None, *, reads: bool) -> Known:
    now = time.monotonic()
    try:
        preview = opened(uri)
    except AbsentError:
        return Known(now, is_absent=True)
    except PreviewError:
        return Known(now, is_read=True)
    with closing(preview):
        if before is not None and before.is_read and before.size == preview.size:
            return replace(before, at=now)  # it was read once
        return Known(now, preview.size, kind=_kind_of(preview) if reads else None, is_read=reads)


def _kind_of(preview: Preview) -> str | None:
    try:
        preview.sniff()
    except PreviewError:
        return None
    return preview.content_type
