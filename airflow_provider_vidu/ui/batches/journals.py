"""Follows the journal of a batch beneath a preview root, within limits. Runs in threads.

What is read was written by a task, so nothing in it is trusted: an object that is too large, or not what it should be,
ends the look. A journal is shown only to those who may see a DAG that has run its batch: the journal itself names
these, since an XCom may name any folder.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_vidu.batches.rows import HIDDEN_FOLDER
from airflow_provider_vidu.batches.snapshot import state_name
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.parsing import TooManyValuesError, parse
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.stores.places import root_of
from airflow_provider_vidu.ui.playing.preview import (
    AbsentError,
    Preview,
    PreviewError,
    open_beneath,
    preview_root,
    roots,
)

MAX_PACKED_BYTES: Final = 4 * 1024 * 1024
MAX_STATE_BYTES: Final = 16 * 1024 * 1024
"""The largest state that is read, unpacked: about 20,000 rows."""
MAX_VALUES: Final = 500_000
"""The most JSON values of a journal; a row has about twenty. 15 KiB of gzip hold five million empty lists, which took
400 MB, and the process for ten seconds."""
MAX_QUOTES: Final = 6 * MAX_VALUES
"""The most quotation marks: what is between each two of them is an object while values are counted."""
MAX_ROWS: Final = 30_000
MAX_DAGS: Final = 1_000
MAX_OBJECT_BYTES: Final = 4 * 1024 * 1024
SMALL_BYTES: Final = 128 * 1024
"""A journal's object that is unpacked no larger does not wait until larger ones of others are parsed."""
LOOK_SECONDS: Final = 2.0
"""A look reads no further objects after this time; the next one continues there."""
MAX_KEPT: Final = 8
MAX_KEPT_BYTES: Final = 48 * 1024 * 1024
MAX_KEPT_VALUES: Final = 3 * MAX_VALUES
MAX_COSTS: Final = 1_000
_DAMAGE: Final = (
    LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError, zlib.error,
    ViduError,
)  # fmt: skip
"""What the content of an object raises that this package has not written."""
UNREADABLE: Final = "The batch's journal cannot be read: it was written by another version, or is damaged."
_IN_MANIFEST: Final = "its manifest, once the batch has written it, has those that had ended then."
TOO_LARGE: Final = f"The batch is too large to be shown here. Of its rows, {_IN_MANIFEST}"
NO_ROOT: Final = (
    f"The folder of the batch is not beneath [vidu] preview_roots, so its rows cannot be shown here: {_IN_MANIFEST}"
)
NOT_OF_DAG: Final = "The journal in the folder of this batch does not belong to this DAG."
BUSY: Final = "The batch's journal is being read; the page retries."
NO_JOURNAL: Final = (
    "The API server finds no journal of the batch (.vidu/) in its folder: the folder was moved or removed, or is not "
    "shared with it. Where the task finds none either, it orders nothing more and fails, and a clear resumes nothing: "
    "unless it finds the manifest, it orders all rows again, and pays for them. So put the folder back, with its "
    ".vidu/, before you clear the task."
)


@dataclass(slots=True)
class _Followed:
    """How far a journal has been read."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    state: BatchState = field(default_factory=BatchState)
    generation: int = 0
    version: str = ""
    leg: int = 0
    next: int = 1
    is_ended: bool = True
    latest: str = ""
    bytes: int = 0
    values: int = 0
    is_behind: bool = True
    parsing: float = 0.0
    """The seconds of a processor that its parsing took, of all looks together."""


_kept: OrderedDict[str, _Followed] = OrderedDict()
_costs: OrderedDict[str, float] = OrderedDict()
_kept_lock = threading.Lock()
_parser = ThreadPoolExecutor(1, "vidu-journals")
"""Parsing keeps the other threads waiting, and what is unpacked and parsed takes much memory: one journal at a time.
All in one thread: the C library keeps for each thread what that has allocated once, and eight kept 400 MB."""
_quick_parser = ThreadPoolExecutor(1, "vidu-small-journals")
"""The same for small objects, which take milliseconds: the large ones of a DAG held up every other DAG's batches."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a look at a journal has found.

    :param state: a state that no one else changes; None if there is a problem.
    :param is_behind: whether there are further objects, which the next look reads.
    :param problem: why there is no state, for the page.
    :param is_gone: whether that is because there is no journal.
    """

    state: BatchState | None = None
    is_behind: bool = False
    problem: str | None = None
    is_gone: bool = False


def read_journal(folder: str, batch: str, dag_id: str) -> Read:
    """Return the state of a batch, by its journal.

    :param folder: the URI of the batch's folder, with a slash at its end; not trusted.
    :param batch: the batch's name, a plain file name.
    :param dag_id: a DAG that the reader may see.
    """
    base = _base(folder, batch)
    if preview_root(base + "x") is None:
        return Read(problem=NO_ROOT)
    followed = _followed(base)
    began, before = time.thread_time(), followed.parsing
    try:
        return _read(followed, base, dag_id)
    finally:
        with _kept_lock:
            _forget_what_is_too_much()  # only now is known how much it is
            _costs[base] = time.thread_time() - began + followed.parsing - before
            _costs.move_to_end(base)
            while len(_costs) > MAX_COSTS:
                _costs.popitem(last=False)


def latest_cost(folder: str, batch: str) -> float:
    """Return the seconds of a processor that the latest look at a journal took; 0 if that is not known.

    It may have ended after the page that wanted it: a page of many large journals reads each of them again.
    """
    with _kept_lock:
        return _costs.get(_base(folder, batch), 0.0)


def _base(folder: str, batch: str) -> str:
    return f"{folder}{HIDDEN_FOLDER}/{batch}/"


def _read(followed: _Followed, base: str, dag_id: str) -> Read:
    # Where another look is at it, this one shows what is known: a store may be slow.
    if not followed.lock.acquire(timeout=0 if followed.leg else LOOK_SECONDS):
        if not followed.leg:
            return Read(is_behind=True, problem=BUSY)
    else:
        try:
            _follow(followed, base)
        except AbsentError:
            _forget(base)
            return Read(problem=NO_JOURNAL, is_gone=True)
        except PreviewError as error:
            if str(error) == TOO_LARGE:
                _forget(base)
            return Read(problem=str(error))
        except _DAMAGE:
            _forget(base)
            return Read(problem=UNREADABLE)
        finally:
            followed.lock.release()
    return _known(followed, dag_id)


def known_state(folder: str, batch: str, dag_id: str) -> BatchState | None:
    """Return the state that earlier looks have read, for when the store is too slow; None if they have read nothing.

    The parameters are those of :func:`read_journal`.
    """
    base = _base(folder, batch)
    with _kept_lock:
        followed = _kept.get(base)
    if followed is None or preview_root(base + "x") is None:
        return None
    return _known(followed, dag_id).state


def _known(followed: _Followed, dag_id: str) -> Read:
    state = followed.state
    if dag_id not in state.dags:
        if followed.is_behind:  # what names the DAG may be among what was not read yet
            return Read(is_behind=True, problem=BUSY)
        is_gone = state.order is None and not state.dags
        return Read(problem=NO_JOURNAL if is_gone else NOT_OF_DAG, is_gone=is_gone)
    # Copies of plain dicts are atomic: another look may be applying events meanwhile.
    copied = replace(
        state,
        orders_of=dict(state.orders_of),
        times_of=dict(state.times_of),
        intents=dict(state.intents),
        open=dict(state.open),
        lines=state.lines.copy(),
        earlier=dict(state.earlier),
    )
    return Read(copied, followed.is_behind)


def _forget(base: str) -> None:
    with _kept_lock:
        _kept.pop(base, None)


def _followed(base: str) -> _Followed:
    with _kept_lock:
        found = _kept.setdefault(base, _Followed())
        _kept.move_to_end(base)
        _forget_what_is_too_much()
        return found


def _forget_what_is_too_much() -> None:
    while len(_kept) > MAX_KEPT or (len(_kept) > 1 and _is_too_much(_kept.values())):
        _kept.popitem(last=False)


def _is_too_much(kept: Collection[_Followed]) -> bool:
    return sum(one.bytes for one in kept) > MAX_KEPT_BYTES or sum(one.values for one in kept) > MAX_KEPT_VALUES


def _follow(followed: _Followed, base: str) -> None:
    """Read what was written since the last look; as ``batches.journal.Journal`` does, but only to read.

    :raises AbsentError: when what earlier looks have read is not there any more.
    """
    until = time.monotonic() + LOOK_SECONDS
    is_packed = _read_snapshot(followed, base, until)
    followed.is_behind = is_first = True
    # At least one object, however long the store took so far: of one that is always slow, nothing would be read.
    while is_first or time.monotonic() < until:
        is_first = False
        if followed.is_ended:
            followed.leg, followed.next, followed.is_ended = followed.leg + 1, 1, False
        place = f"{base}leg-{followed.leg:06d}/{followed.next:06d}.jsonl"
        content = _content(place, MAX_OBJECT_BYTES)
        if content is None:
            followed.is_behind = False
            if not is_packed and _is_gone(followed, base):
                raise AbsentError(base)
            return
        followed.latest = place
        _parse(_apply, followed, content, is_small=len(content) <= SMALL_BYTES)


def _is_gone(followed: _Followed, base: str) -> bool:
    """Whether neither the state nor the last object is there, although a look has read one of them."""
    if followed.latest and (preview := _opened(followed.latest)) is not None:
        preview.close()
        return False
    # The objects are removed once the state is written, which may have been after it was looked for.
    if not followed.latest and not followed.version:
        return False
    return not _read_snapshot(followed, base, time.monotonic() + LOOK_SECONDS)


def _parse(apply: Callable[[_Followed, bytes], None], followed: _Followed, content: bytes, *, is_small: bool) -> None:
    parser = _quick_parser if is_small else _parser
    parser.submit(_timed, apply, followed, content).result()


def _timed(apply: Callable[[_Followed, bytes], None], followed: _Followed, content: bytes) -> None:
    began = time.thread_time()
    try:
        apply(followed, content)
    finally:
        followed.parsing += time.thread_time() - began


def _apply(followed: _Followed, content: bytes) -> None:
    """Add the events of an object."""
    followed.bytes += len(content)
    # In one text of all lines: a list for each of millions of empty ones would take as long as their values.
    for event in _parsed(followed, b"[" + b",".join(content.splitlines()) + b"]"):
        followed.state.apply(event)
        followed.is_ended = followed.is_ended or event.get("e") in ("end", "seal")
    followed.next += 1
    _check_size(followed)


def _parsed(followed: _Followed, content: bytes) -> Any:
    """Return the value of JSON, unless it and what was read before it hold too much.

    :raises PreviewError: in that case.
    """
    if followed.bytes > MAX_STATE_BYTES or content.count(b'"') > MAX_QUOTES:
        raise PreviewError(TOO_LARGE)
    followed.values += value_count(content, 0)
    if followed.values > MAX_VALUES:
        raise PreviewError(TOO_LARGE)
    try:
        return parse(content, most_values=MAX_VALUES)
    except TooManyValuesError:
        raise PreviewError(TOO_LARGE) from None


def _check_size(followed: _Followed) -> None:
    state = followed.state
    rows = max(len(state.lines) + len(state.open) + len(state.intents), len(state.earlier))
    if rows > MAX_ROWS or len(state.dags) > MAX_DAGS:
        raise PreviewError(TOO_LARGE)


def _read_snapshot(followed: _Followed, base: str, until: float) -> bool:
    """Read the packed state if it has changed; return whether there is one."""
    while time.monotonic() < until and (newer := _opened(base + state_name(followed.generation + 1))) is not None:
        newer.close()
        followed.generation += 1
    if (preview := _opened(base + state_name(followed.generation))) is None:
        return False
    with closing(preview):
        version = f"{followed.generation} {preview.etag}"
        if version == followed.version:
            return True
        if preview.size > MAX_PACKED_BYTES:
            raise PreviewError(TOO_LARGE)
        packed = preview.read(0, preview.size)
    _parse(_apply_snapshot, followed, packed, is_small=_quick_parser.submit(_unpacks_small, packed).result())
    followed.version = version
    return True


def _unpacks_small(packed: bytes) -> bool:
    unpacking = zlib.decompressobj(31)
    return len(unpacking.decompress(packed, SMALL_BYTES)) < SMALL_BYTES


def _apply_snapshot(followed: _Followed, packed: bytes) -> None:
    """Go on from a packed state, unless it is older than what was read."""
    unpacking = zlib.decompressobj(31)
    content = unpacking.decompress(packed, MAX_STATE_BYTES)
    if unpacking.unconsumed_tail:
        raise PreviewError(TOO_LARGE)
    known = _Followed(bytes=len(content))
    snapshot = _parsed(known, content)
    leg = int(snapshot["leg"])
    if leg >= followed.leg or not followed.version:
        followed.state = BatchState.from_json(snapshot["state"])
        followed.leg, followed.next, followed.is_ended = leg, 1, True
        followed.bytes, followed.values = known.bytes, known.values
        _check_size(followed)


def _content(uri: str, most: int) -> bytes | None:
    """Return the content of a small file beneath a preview root; None if there is none."""
    if (preview := _opened(uri)) is None:
        return None
    with closing(preview):
        if preview.size > most:
            raise PreviewError(TOO_LARGE)
        return preview.read(0, preview.size)


def _opened(uri: str) -> Preview | None:
    """Return a file beneath a preview root, opened; None if there is none."""
    found = root_of(uri, roots())
    assert found is not None
    try:
        return open_beneath(*found)
    except AbsentError:
        return None
