"""The journal of a batch: its state beside its files, as small objects that are never changed.

::

    .vidu/<batch>/state.json.gz                the state after leg 8
    .vidu/<batch>/leg-000009/000001.jsonl      events of leg 9, in order, each object written once
    .vidu/<batch>/leg-000009/000002.jsonl

An object appears whole or not at all, and only if its name is free. So the objects of a leg are one sequence, whoever
writes them: a process that takes over an unfinished leg ends it with an object of its own (a *seal*), and the process
that was believed dead fails at its next object instead of ordering on. No listing is needed: names are numbers.
"""

from __future__ import annotations

import gzip
import io
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
MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest object that is read, unpacked. Others may write to the store; 100,000 rows take about 80 MiB."""
MOST_VALUES: Final = 5_000_000
"""The most JSON values in an object; a row has about twenty."""
_DAMAGE: Final = (
    ValueError, TypeError, KeyError, AttributeError, AssertionError, ArithmeticError, RecursionError, EOFError, OSError,
    zlib.error, ViduConfigError,
)  # fmt: skip
"""What the content of an object raises that this package has not written."""


class Journal:
    """The journal of one batch, written by one leg at a time.

    :param destination: the folder of the batch's files.
    :param batch: the batch's name, a plain file name.
    :param sleep: waits for the given seconds.
    """

    def __init__(
        self, destination: Destination, batch: str, sleep: Callable[[float], None] = time.sleep, log: Any = None
    ) -> None:
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

        :raises ViduStorageError: when the store cannot be reached.
        :raises ViduConfigError: when an object cannot be read: what is paid for would be unknown.
        """
        self._leg = 0
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
            elif not is_ended:
                self._seal()

    def append(self, *events: Event) -> None:
        """Record events durably, and apply them to the state.

        :raises ViduStorageError: when they could not be written.
        :raises ViduError: when another process has taken the batch over.
        """
        for event in events:
            self.state.apply(event)
        self._events += len(events)
        self._unwritten.append(_lines(events))
        self._flush()

    def end(self, *events: Event) -> None:
        """Record the last events of this leg; write the whole state if there is enough news, and tidy up."""
        is_due = self._events + len(events) >= SNAPSHOT_EVENTS or any(event["e"] == "returned" for event in events)
        self.append(*events, {"e": "end"})
        self._finished_legs[self._leg] = self._next - 1
        if not is_due:
            return
        content = json.dumps({"leg": self._leg, "state": self.state.to_json()}, separators=(",", ":"))
        try:
            write_file(self._file("state.json.gz"), gzip.compress(content.encode(), 6), "application/gzip")
            self._tidy()
        except ViduStorageError as error:  # the objects hold the same
            if self._log is not None:
                self._log.warning("The batch's state could not be summed up: %s", error)

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
            self._unwritten.append(_lines([{"e": "leg", "by": self._token, "at": time.time()}]))
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
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes, unpacked")
    return unpacked


def _damaged(file: StoredFile, error: Exception) -> ViduConfigError:
    """Return the error of an object that this package cannot have written, or that was damaged since."""
    return ViduConfigError(
        f"The journal of the batch is damaged: {sanitized(file.uri, 300)} cannot be read ({type(error).__name__}: "
        f"{redacted(error, 100)}). It records what is paid for, so nothing was ordered. Restore it, or give the batch "
        "another name to order all rows anew."
    )


def _lines(events: Iterable[Event]) -> bytes:
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)
