"""An answer as data: a status, headers, and a content that is read in slices."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from airflow_provider_vidu.sandbox.media import mp4

JSON_TYPE = "application/json; charset=utf-8"
_BLOCK = 65_521


class _Unset:
    """The type of :data:`UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


#: "No override given"; not None, because JSON's null is an override.
UNSET: Final = _Unset()


class Content(Protocol):
    """A body of known size, readable in any order without holding all of it."""

    @property
    def size(self) -> int:
        """The size in bytes."""

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` up to, excluding, ``stop``, both within 0..size."""


@dataclass(frozen=True)
class Bytes:
    """A body held in memory."""

    data: bytes = b""

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        """Return a slice."""
        return self.data[start:stop]


def _filler(start: int, stop: int) -> bytes:
    """Return filler bytes for the positions ``start`` to ``stop``.

    The period is a prime, so that a misplaced part changes the digest.
    """
    first = start % _BLOCK
    repeats = (first + stop - start) // _BLOCK + 1
    return (_PATTERN * repeats)[first : first + stop - start]


_PATTERN = bytes((i * 131 + (i >> 8) * 29 + 7) & 0xFF for i in range(_BLOCK))


@dataclass(frozen=True)
class Padded:
    """``head`` and a ``free`` box that is generated while it is read, ``size`` bytes in total.

    ValueError unless ``size`` is that of ``head``, or at least 16 bytes more, enough for a box.
    """

    head: bytes
    size: int

    def __post_init__(self) -> None:
        rest = self.size - len(self.head)
        if rest < 0 or 0 < rest < 16:
            least = len(self.head) + 16
            raise ValueError(f"size must be {len(self.head)} or at least {least} bytes for this clip, not {self.size}")

    def read(self, start: int, stop: int) -> bytes:
        """Return a slice, using no more memory than its size."""
        prefix = self.head
        if self.size > len(prefix):
            prefix += mp4.free_box_header(self.size - len(self.head))
        part = prefix[start:stop]
        return part + _filler(start + len(part), stop) if start + len(part) < stop else part


@dataclass(frozen=True)
class Repeated:
    """``before``, ``filler`` times the byte ``x``, then ``after``: a huge answer."""

    before: bytes
    filler: int
    after: bytes

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.before) + self.filler + len(self.after)

    def read(self, start: int, stop: int) -> bytes:
        """Return a slice, using no more memory than its size."""
        head, tail = len(self.before), len(self.before) + self.filler
        middle = max(0, min(stop, tail) - max(start, head))
        return self.before[start:stop] + b"x" * middle + self.after[max(0, start - tail) : max(0, stop - tail)]


@dataclass
class Answer:
    """An answer: HTTP status, headers, and the part ``start``..``stop`` of a content (``stop`` None: to its end).

    ``listed`` holds the ids of the generations in the answer to a list.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=Bytes)
    start: int = 0
    stop: int | None = None
    listed: tuple[str, ...] = ()

    @property
    def length(self) -> int:
        """The size of the body in bytes."""
        return (self.content.size if self.stop is None else self.stop) - self.start

    def body(self) -> bytes:
        """Return the whole body; only for small ones."""
        return self.content.read(self.start, self.start + self.length)


def json_answer(body: Any, status: int = 200) -> Answer:
    """Return ``body`` as a JSON answer."""
    data = json.dumps(body, separators=(",", ":")).encode()
    return Answer(status, {"Content-Type": JSON_TYPE}, Bytes(data))


def text_answer(body: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Answer:
    """Return ``body`` as a text answer."""
    return Answer(status, {"Content-Type": content_type}, Bytes(body.encode()))
