"""The journal of a batch: its state beside its files, as small objects that are never changed.

::

    .vidu/<batch>/state.json.gz                the state after leg 8
    .vidu/<batch>/leg-000009/000001.jsonl      events of leg 9, in order, each object written once
    .vidu/<batch>/leg-000009/000002.jsonl

An object appears whole or not at all, and only if its name is free. So the objects of a leg are one sequence, even if
two processes write them: a process that takes over an unfinished leg ends it with an object of its own (a *seal*), and
the process that was believed dead fails at its next object instead of ordering on. No listing is needed: names are
numbers.

A batch with a name may be run by several task instances at a time. Each leg names its task instance. A retry of that
one takes an unfinished leg over at once; another one waits until the leg has ended, or shows no sign of life.
"""

from __future__ import annotations

import gzip
import json
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.batches.rows import HIDDEN_FOLDER
from airflow_provider_vidu.batches.state import BatchState, Event
from airflow_provider_vidu.common.parsing import parse
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.common.values import mapping, number, text
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError
from airflow_provider_vidu.stores.base import DestinationExistsError, StoredFile
from airflow_provider_vidu.stores.small_files import content_of, create_file, write_file

if TYPE_CHECKING:
    from airflow_provider_vidu.stores.destination import Destination

WRITES: Final = 4
"""How often an object is tried to be written: the id of a paid generation depends on it."""
PAUSE_SECONDS: Final = 1.0
SNAPSHOT_EVENTS: Final = 64
"""The events after which the end of a leg writes the whole state."""
BEAT_SECONDS: Final = 60.0
"""Without other events, a leg shows so often that it is alive."""
DEAD_SECONDS: Final = 600.0
"""After so long without a sign of life, another task instance takes a leg over: more than a create and its repetitions
take, or the upload of a row's files."""
WATCH_SECONDS: Final = 1.5 * BEAT_SECONDS
"""How long a leg that seems dead is watched before it is taken over: the other worker's clock may be late."""
MOST_AHEAD_SECONDS: Final = 3600.0
"""A sign of life from a later time proves nothing: no worker's clock is so far ahead."""
MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest object that is read, unpacked. Others may write to the store; 100,000 rows take about 80 MiB."""
MOST_VALUES: Final = 5_000_000
"""The most JSON values in an object; a row has about twenty."""
_DAMAGE: Final = (
    ValueError, TypeError, KeyError, AttributeError, AssertionError, ArithmeticError, RecursionError, EOFError, OSError,
    zlib.error, ViduConfigError,
)  # fmt: skip
"""What the content of an object raises that this package has not written."""


class HeldBatchError(ViduError):
    """Another task instance works on the batch at this moment."""


class Journal:
    """The journal of one batch, written by one leg at a time.

    :param destination: the folder of the batch's files.
    :param batch: the batch's name, a plain file name.
    :param sleep: waits for the given seconds.
    :param owner: identifies the task instance, over all of its tries; empty outside of a task.
    """

    def __init__(
        self,
        destination: Destination,
        batch: str,
        sleep: Callable[[float], None] = time.sleep,
        log: Any = None,
        owner: str = "",
    ) -> None:
        self.owner = owner
        self._holder = ""
        """The task instance whose leg was read last."""
        self._holder_at = 0.0
        """The last sign of life of that leg, in epoch seconds."""
        self._shown_at = 0.0
        self._destination = destination
        self._folder = f"{HIDDEN_FOLDER}/{batch}"
        self._sleep = sleep
        self._log = log
        self._unwritten: list[bytes] = []
        self._leg = 0
        self._next = 1
        self._events = 0
        self._finished_legs: dict[int, int] = {}
        """The objects of each leg that the next snapshot makes superfluous; the number, without a seal."""
        self._token = secrets.token_hex(8)
        self.state = BatchState()

    def open(self) -> BatchState:
        """Read the state, end a leg that another process has left unfinished, and begin a new one.

        :raises HeldBatchError: when another task instance is in the middle of a leg.
        :raises ViduStorageError: when the store cannot be reached.
        :raises ViduConfigError: when an object cannot be read: what is paid for would be unknown.
        """
        self._leg, self._events, self._finished_legs, self.state = 0, 0, {}, BatchState()
        file = self._file("state.json.gz")
        if (stored := content_of(file)) is not None:
            try:
                snapshot = json_of(_unpacked(stored))
                self._leg, self.state = int(snapshot["leg"]), BatchState.from_json(snapshot["state"])
            except _DAMAGE as error:
                raise _damaged(file, error) from None
        while True:
            self._leg, self._next = self._leg + 1, 1
            is_ended = self._read_leg()
            if self._next == 1:
                if self._claim():
                    return self.state
                self._leg -= 1  # read it again: another process has begun it
            elif not is_ended and not self._ends_while_watched():
                self._seal()

    def _ends_while_watched(self) -> bool:
        """Return whether an unfinished leg has ended meanwhile, if it is another task instance's.

        :raises HeldBatchError: when that one is alive: by its clock, or because it goes on writing.
        """
        if "" in (self._holder, self.owner) or self._holder == self.owner:
            return False
        seen = self._next
        if not -MOST_AHEAD_SECONDS <= time.time() - self._holder_at < DEAD_SECONDS:
            self._sleep(WATCH_SECONDS)
            if self._read_leg():
                return True
            if self._next == seen:
                return False
        raise HeldBatchError(
            f"Another task instance ({sanitized(self._holder, 300)}) works on this batch at this moment."
        )

    def beat(self) -> None:
        """Show other task instances that this leg is alive, if it has not done so for a while."""
        if self._is_beat_due:
            self.append()

    @property
    def _is_beat_due(self) -> bool:
        return bool(self.owner) and time.time() - self._shown_at >= BEAT_SECONDS

    def append(self, *events: Event) -> None:
        """Record events durably, and apply them to the state.

        :raises ViduStorageError: when they could not be written.
        :raises ViduError: when another process has taken the batch over.
        """
        if self._is_beat_due:  # most events hold no time: a leg may store files, or reuse some, for hours
            self._shown_at = time.time()
            events = (*events, {"e": "alive", "at": self._shown_at})
        for event in events:
            self.state.apply(event)
        self._events += len(events)
        self._unwritten.append(_lines(events))
        self._flush()

    def end(self, *events: Event) -> None:
        """Record the last events of this leg; write the whole state if there is enough news, and tidy up."""
        is_due = self._events + len(events) >= SNAPSHOT_EVENTS or any(event["e"] == "returned" for event in events)
        if events:
            self.append(*events)
        # Before the leg ends: a write that is late must not replace the state after another process's leg.
        is_written = is_due and self._write_state()
        self.append({"e": "end"})
        self._finished_legs[self._leg] = self._next - 1
        if is_written:
            self._tidy()

    def _write_state(self) -> bool:
        """Write the whole state; return whether that has worked."""
        content = json.dumps({"leg": self._leg, "state": self.state.to_json()}, separators=(",", ":"))
        try:
            write_file(self._file("state.json.gz"), gzip.compress(content.encode(), 6), "application/gzip")
        except ViduStorageError as error:  # the objects hold the same
            if self._log is not None:
                self._log.warning("The batch's state could not be summed up: %s", error)
            return False
        return True

    def _tidy(self) -> None:
        """Remove, best effort, the objects that the whole state has replaced."""
        try:
            for leg, count in self._finished_legs.items():
                for number in range(1, count + 1):
                    self._object(leg, number).remove()
        except ViduError as error:
            if self._log is not None:
                self._log.debug("Objects of the batch's journal remain: %s", error)
        self._finished_legs = {}

    def _read_leg(self) -> bool:
        """Read the objects of a leg; return whether it was ended."""
        is_ended = False
        for file, events in self._objects():
            for event in events:
                self._note_life(event)
                try:
                    self.state.apply(event)
                except _DAMAGE as error:
                    raise _damaged(file, error) from None
                self._events += 1
                is_ended = is_ended or event.get("e") in ("end", "seal")
                if event.get("e") == "end":
                    self._finished_legs[self._leg] = self._next
                elif event.get("e") == "seal":  # it stays, against the process that may still live
                    self._finished_legs[self._leg] = self._next - 1
            self._next += 1
        return is_ended

    def _note_life(self, event: Event) -> None:
        """Note whose leg is read, and until when it has shown that it is alive."""
        if event.get("e") == "leg":
            self._holder, self._holder_at = text(event.get("owner")) or "", 0.0
        times = (number(one.get("at")) for one in (event, mapping(event.get("record"))))
        self._holder_at = max([self._holder_at, *filter(None, times)])

    def _objects(self) -> Iterator[tuple[StoredFile, list[Event]]]:
        while (content := content_of(file := self._object(self._leg, self._next))) is not None:
            try:
                events = lines_of(content)
                if not all(isinstance(event, dict) for event in events):
                    raise TypeError("an event is not an object")
            except _DAMAGE as error:
                raise _damaged(file, error) from None
            yield file, events

    def _claim(self) -> bool:
        """Begin a leg; return whether no other process was faster."""
        try:
            own = {"owner": self.owner} if self.owner else {}
            self._shown_at = time.time()
            self._unwritten.append(_lines([{"e": "leg", "by": self._token, "at": self._shown_at, **own}]))
            self._flush()
        except _TakenError:
            self._unwritten.clear()
            return False
        return True

    def _seal(self) -> None:
        """End another process's leg; what it has written meanwhile is read first."""
        while True:
            try:
                self._unwritten.append(_lines([{"e": "seal", "by": self._token, "at": time.time()}]))
                self._flush()
            except _TakenError:
                self._unwritten.clear()
                if self._read_leg():
                    return
            else:
                self._finished_legs[self._leg] = self._next - 2
                return

    def _flush(self) -> None:
        """Write what is unwritten, one object after the other; a failure is tried again, with the same content."""
        while self._unwritten:
            content = self._unwritten[0]
            for left in reversed(range(WRITES)):
                try:
                    self._write(content)
                    break
                except ViduStorageError as error:
                    if not left:
                        raise
                    if self._log is not None:
                        self._log.warning("The batch's journal could not be written; trying again: %s", error)
                    self._sleep(PAUSE_SECONDS)
            self._next += 1
            del self._unwritten[0]

    def _write(self, content: bytes) -> None:
        file = self._object(self._leg, self._next)
        try:
            create_file(file, content, "application/x-ndjson")
        except DestinationExistsError:
            # Either an earlier attempt whose answer was lost, or another process.
            if content_of(file) != content:
                raise _TakenError(
                    f"Another process has taken over the batch (see {file.uri}), so this one stops and orders nothing "
                    "more."
                ) from None

    def _object(self, leg: int, number: int) -> StoredFile:
        return self._file(f"leg-{leg:06d}/{number:06d}.jsonl")

    def _file(self, name: str) -> StoredFile:
        return self._destination.file(f"{self._folder}/{name}")


class _TakenError(ViduError):
    """An object of the journal has the name that this process was about to use."""


def json_of(content: bytes) -> Any:
    """Return the value of JSON that others may have written.

    :raises ValueError, RecursionError: when it is not JSON, is nested too deeply, or holds too many values.
    """
    return parse(content, most_values=MOST_VALUES)


def lines_of(content: bytes) -> list[Any]:
    """Return the values of lines of JSON that others may have written.

    :raises ValueError, RecursionError: as :func:`json_of`; also when there are too many lines.
    """
    if content.count(b"\n") + content.count(b"\r") > MOST_VALUES:  # the list of them would take eight times their bytes
        raise ValueError("it has too many lines")
    values: list[Any] = json_of(b"[" + b",".join(content.splitlines()) + b"]")
    return values


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    unpacked = unpacker.decompress(content, MOST_BYTES + 1)  # a file object would allocate as much at once
    if len(unpacked) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes, unpacked")
    if not unpacker.eof:
        raise EOFError("it is cut off")
    return unpacked


def _damaged(file: StoredFile, error: Exception) -> ViduConfigError:
    """Return the error of an object that this package cannot have written, or that was damaged since."""
    return ViduConfigError(
        f"The journal of the batch is damaged: {sanitized(file.uri, 300)} cannot be read ({type(error).__name__}: "
        f"{redacted(error, 100)}). It records what is paid for, so nothing was ordered. Restore it, or give the batch "
        "another name to order all rows again."
    )


def _lines(events: Iterable[Event]) -> bytes:
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)
