"""The journal of a batch: its state beside its files, as small objects that are never changed.

::

    .vidu/<batch>/state.json.gz                the state after leg 5
    .vidu/<batch>/state-000001.json.gz         a newer one, after leg 8
    .vidu/<batch>/leg-000009/000001.jsonl      events of leg 9, in order, each object written once
    .vidu/<batch>/leg-000009/000002.jsonl

An object appears whole or not at all, and only if its name is free. So the objects of a leg are one sequence, even if
two processes write them: a process that takes over an unfinished leg ends it with an object of its own (a *seal*), and
the process that was considered dead fails at its next object instead of ordering on. No listing is needed: names are
numbers.

Only the state is replaced, from leg to leg; then the objects of these legs are removed. That process may still be
writing the state of its leg, and replace a newer one much later. So the state after a seal gets another name (a new
*generation*), and the state with the highest number counts. What was read while another process wrote a state and
removed objects is read again.

A batch with a name may be run by several task instances at a time. Each leg names its task instance. A retry of that
one takes an unfinished leg over at once; another one waits until the leg has ended, or shows no sign of life.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow_provider_vidu.batches.jobs import Event
from airflow_provider_vidu.batches.rows import HIDDEN_FOLDER
from airflow_provider_vidu.batches.snapshot import (
    MOST_VALUES,
    latest_generation,
    lines_of,
    packed,
    state_name,
    unpacked,
)
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.common.values import mapping, number, text
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError
from airflow_provider_vidu.stores.base import DestinationExistsError, StoredFile
from airflow_provider_vidu.stores.small_files import MOST_AHEAD_SECONDS, content_of, create_file, is_there, write_file

if TYPE_CHECKING:
    from airflow_provider_vidu.stores.destination import Destination

T = TypeVar("T")
logger = logging.getLogger(__name__)

WRITES: Final = 4
"""How often an object is tried to be written: the id of a paid generation depends on it."""
PAUSE_SECONDS: Final = 1.0
SNAPSHOT_EVENTS: Final = 64
"""The events after which the end of a leg writes the whole state."""
MOST_READ_VALUES: Final = 4 * MOST_VALUES
"""The most JSON values of all objects after the state: a leg of 100,000 rows that never defers writes six million."""
BEAT_SECONDS: Final = 60.0
"""Without other events, a leg shows so often that it is alive."""
DEAD_SECONDS: Final = 600.0
"""After so long without a sign of life, another task instance takes a leg over: more than a create and its repetitions
take, or the upload of a row's files."""
WATCH_SECONDS: Final = 1.5 * BEAT_SECONDS
"""How long a leg that seems dead is watched before it is taken over: the other worker's clock may be late."""
MOST_WATCHED: Final = 3
"""How many legs are watched before the task looks at its own timeout: other writers may begin legs for ever."""
_DAMAGE: Final = (
    ValueError, TypeError, KeyError, AttributeError, AssertionError, ArithmeticError, RecursionError, EOFError, OSError,
    zlib.error, ViduConfigError,
)  # fmt: skip
"""What the content of an object raises that this package has not written."""


class HeldBatchError(ViduError):
    """Another task instance works on the batch at this moment."""


class Journal:
    """The journal of one batch, written by one leg at a time.

    :param batch: the batch's name, a plain file name.
    :param owner: identifies the task instance, over all of its tries; empty outside of a task.
    """

    def __init__(
        self,
        destination: Destination,
        batch: str,
        sleep: Callable[[float], None] = time.sleep,
        log: Any = logger,
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
        self._generation = 0
        self._digest = ""
        """Of the state as it was read; of none if there was none."""
        self._is_sealed = False
        """Whether a leg after the state was sealed, or may have written it without an answer."""
        self._leg, self._next = 0, 1
        self._watched = self._events = 0
        self._values = 0
        """Of the JSON that was read since the whole state."""
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
        self._watched = 0
        while not self._begins_leg():
            pass  # another process was faster
        return self.state

    def _begins_leg(self) -> bool:
        """Read everything and begin a leg; return False if another process has written a state meanwhile."""
        self._events, self._values, self._finished_legs, self._is_sealed = 0, 0, {}, False
        self._read_state()
        while True:
            self._leg, self._next = self._leg + 1, 1
            is_ended = self._read_leg()
            if self._next > 1:
                if not is_ended and not self._ends_while_watched():
                    self._seal()
                continue
            self._leg -= 1
            if self._is_sealed and not self._begin_generation():
                return False
            if self._claim():  # else another process has begun the leg, and it is read
                return self._is_latest_state()

    def _read_state(self) -> None:
        self._generation = latest_generation(self._generation, lambda name: is_there(self._file(name)))
        self._leg, self.state = 0, BatchState()
        file = self._state_file(self._generation)
        stored = content_of(file)
        self._digest = _digest(stored)
        if stored is not None:
            try:
                self._leg, self.state = unpacked(stored)
            except _DAMAGE as error:
                raise _damaged(file, error) from None

    def _begin_generation(self) -> bool:
        """Store the state under a new name; return whether no other process was faster."""
        file, content = self._state_file(self._generation + 1), packed(self._leg, self.state)
        try:
            self._tried(partial(create_file, file, content, "application/gzip"))
        except DestinationExistsError:
            # Either an earlier attempt whose answer was lost, or another process.
            if content_of(file) != content:
                return False
        self._generation, self._digest, self._is_sealed = self._generation + 1, _digest(content), False
        return True

    def _is_latest_state(self) -> bool:
        """Whether the state that was read is still the latest one.

        Otherwise objects may have been removed before they were read, and a leg begun that has ended long ago.
        """
        if is_there(self._state_file(self._generation + 1)):
            return False
        return _digest(content_of(self._state_file(self._generation))) == self._digest

    def _ends_while_watched(self) -> bool:
        """Return whether an unfinished leg has ended meanwhile, if it is another task instance's.

        :raises HeldBatchError: when that one is alive: by its clock, or because it goes on writing.
        """
        if "" in (self._holder, self.owner) or self._holder == self.owner:
            return False
        if is_there(self._object(self._leg + 1, 1)):  # another leg has begun, so this one is over: only read the rest
            return self._read_leg()
        seen = self._next
        is_silent = not -MOST_AHEAD_SECONDS <= time.time() - self._holder_at < DEAD_SECONDS
        if is_silent and self._watched < MOST_WATCHED:
            self._watched += 1
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
        self.append({"e": "end"} if is_written or not is_due else self._seal_event)
        self._finished_legs[self._leg] = self._next - 1
        if is_written:
            self._tidy()

    def _write_state(self) -> bool:
        """Write the whole state; return whether that has certainly worked."""
        try:
            write_file(self._state_file(self._generation), packed(self._leg, self.state), "application/gzip")
        except ViduStorageError as error:  # the objects hold the same
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
                    self.state.check_size()
                except _DAMAGE as error:
                    raise _damaged(file, error) from None
                self._events += 1
                is_ended = is_ended or event.get("e") in ("end", "seal")
                if event.get("e") == "end":
                    self._finished_legs[self._leg] = self._next
                elif event.get("e") == "seal":  # it stays, against the process that may still live
                    self._finished_legs[self._leg] = self._next - 1
                    self._is_sealed = True
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
                self._values += value_count(content, 0)
                if self._values > MOST_READ_VALUES:
                    raise ValueError(f"with those before it, it holds more than {MOST_READ_VALUES:,} values")
                events = lines_of(content)
                if not all(isinstance(event, dict) for event in events):
                    raise TypeError("an event is not an object")
            except _DAMAGE as error:
                raise _damaged(file, error) from None
            yield file, events

    def _claim(self) -> bool:
        """Begin the next leg; return whether no other process was faster."""
        self._leg += 1
        try:
            own = {"owner": self.owner} if self.owner else {}
            self._shown_at = time.time()
            self._unwritten.append(_lines([{"e": "leg", "by": self._token, "at": self._shown_at, **own}]))
            self._flush()
        except _TakenError:
            self._unwritten.clear()
            self._leg -= 1
            return False
        return True

    def _seal(self) -> None:
        """End another process's leg; what it has written meanwhile is read first."""
        while True:
            try:
                self._unwritten.append(_lines([self._seal_event]))
                self._flush()
            except _TakenError:
                self._unwritten.clear()
                if self._read_leg():
                    return
            else:
                self._finished_legs[self._leg] = self._next - 2
                self._is_sealed = True
                return

    @property
    def _seal_event(self) -> Event:
        return {"e": "seal", "by": self._token, "at": time.time()}

    def _flush(self) -> None:
        """Write what is unwritten, one object after the other."""
        while self._unwritten:
            content = self._unwritten[0]
            self._tried(partial(self._write, content))
            self._next += 1
            del self._unwritten[0]

    def _tried(self, write: Callable[[], T]) -> T:
        """Write something; a failure is tried again, with the same content."""
        left = WRITES
        while True:
            try:
                return write()
            except ViduStorageError as error:
                if not (left := left - 1):
                    raise
                self._log.warning("The batch's journal could not be written; trying again: %s", error)
                self._sleep(PAUSE_SECONDS)

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

    def _state_file(self, generation: int) -> StoredFile:
        return self._file(state_name(generation))

    def _object(self, leg: int, number: int) -> StoredFile:
        return self._file(f"leg-{leg:06d}/{number:06d}.jsonl")

    def _file(self, name: str) -> StoredFile:
        return self._destination.file(f"{self._folder}/{name}")


class _TakenError(ViduError):
    """An object of the journal has the name that this process was about to use."""


def _digest(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _damaged(file: StoredFile, error: Exception) -> ViduConfigError:
    """Return the error of an object that this package cannot have written, or that was damaged since."""
    return ViduConfigError(
        f"The journal of the batch is damaged: {sanitized(file.uri, 300)} cannot be read ({type(error).__name__}: "
        f"{redacted(error, 100)}). It records what is paid for, so nothing was ordered. Restore it, or give the batch "
        "another name to order all rows again."
    )


def _lines(events: Iterable[Event]) -> bytes:
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)
