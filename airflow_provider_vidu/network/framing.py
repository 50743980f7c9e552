"""Finds an answer's head and body on the wire: one tolerant reader for both HTTP clients. No I/O.

``http.client`` and aiohttp each refuse heads that the other one (and curl) reads: long or many header lines, odd names
and values, a line without a colon, ``Transfer-Encoding: identity``, a repeated length, ``chunked`` announced for a
body that is not. The content of such an answer is paid for, so it is read here: by RFC 9112 where that says how to
recover, elsewhere as curl does. After an answer with odd framing its connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

MOST_HEAD_BYTES: Final = 512 * 1024
"""The most bytes of all heads of an exchange, including interim ones; curl's limit is 300 KiB."""

MOST_INTERIM: Final = 100
"""The most interim answers (1xx) before the final one; a waiting gateway sends one now and then."""

SWITCHING_PROTOCOLS: Final = 101

_READ: Final = (
    "content-length", "transfer-encoding", "connection", "proxy-connection", "keep-alive", "content-encoding",
    "content-type", "location", "content-location", "operation-location", "retry-after", "retry-after-ms",
    "x-oneapi-request-id", "x-trace-id", "x-request-id",
)  # fmt: skip
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "proxy-connection", "keep-alive"})
_LISTS: Final = _FRAMING | {"content-encoding"}
"""Repeated fields of these names form one list; of other names the first field counts."""
_TLS_ALERT: Final = b"\x15\x03"
"""How a server of https answers a request in plain text (RFC 8446, 6)."""
_MOST_FIELDS: Final = 100
_MOST_VALUE_BYTES: Final = 7000
"""Longer values are omitted: aiohttp takes lines of 8,190 bytes, and truncation could leave part of a secret."""
_MOST_REASON_CHARS: Final = 1000
"""A longer one is omitted, for the same reason."""
_MOST_OVERHEAD: Final = 16 * 1024
"""Bytes of chunk sizes, extensions and trailers beyond one per byte of the body: thousands of one-byte chunks keep an
event loop busy."""
_MOST_LINE: Final = 64 * 1024

_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"(?i)HTTP/([0-9]{1,2})(?:\.([0-9]{1,2}))?[ \t]+([1-9][0-9]{2})(?![0-9])([^\n]*)\n")
_FIELD: Final = re.compile(
    rb"(?im)^(" + b"|".join(name.encode("ascii") for name in _READ) + rb")[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f][\x00-\x20\x7f-\x9f]*")
_LENGTH: Final = re.compile("[0-9]{1,19}")
_CHUNK_SIZE: Final = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r*", re.DOTALL)
# The beginning of JSON, a page, gzip or zlib, but never of a chunk size.
_NOT_A_CHUNK: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[\"<]|\x1f\x8b|x[\x01\x5e\x9c\xda]")


class FramingError(ValueError):
    """The answer is not HTTP, ends too early, or continues without content."""


class Head(NamedTuple):
    """The head of an answer.

    :param fields: the header fields used by this package, by lower-case name, without those about framing.
    :param length: the body's length in bytes; None if chunks or the connection's end delimit it.
    :param is_sure: whether a body shorter than ``length`` is truncated.
    :param keeps: whether the connection may carry another answer.
    """

    status: int
    reason: str
    fields: dict[str, str]
    chunked: bool
    length: int | None
    is_sure: bool
    keeps: bool

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Parse a head, skipping lines that cannot be parsed.

        :param raw: the bytes from the status line to the empty line.
        :raises FramingError: when they do not begin with a status line.
        """
        line = _STATUS.match(raw)
        if line is None:
            raise FramingError("the answer does not begin with a status line of HTTP/1")
        fields = _fields(raw, line.end())
        status = int(line[3])
        codings = {part.partition(";")[0].strip().lower() for part in _listed(fields, "transfer-encoding")}
        lengths = {part.strip() for part in _listed(fields, "content-length")} - {""}
        chunked = "chunked" in codings
        is_clear = len(lengths) == 1 and _LENGTH.fullmatch(next(iter(lengths))) is not None
        # Any coding overrides a length (RFC 9112, 6.3), except "identity", which is not one.
        length = int(next(iter(lengths))) if is_clear and codings <= {"", "identity"} else None
        if status < 200 or status in (204, 304):
            chunked, length = False, 0
        is_plain = (
            status != SWITCHING_PROTOCOLS
            and codings <= {"", "chunked"}
            and not (chunked and lengths)
            and (is_clear or not lengths)
            and not (status == 204 and (codings or lengths - {"0"}))  # neither is allowed: what they announce may come
        )
        reason = _clean(line[4])
        return cls(
            status,
            reason if len(reason) <= _MOST_REASON_CHARS else "",
            {name: value for name, value in fields.items() if name not in _FRAMING},
            chunked,
            length,
            "identity" not in codings,
            is_plain and (chunked or length is not None) and _is_kept((int(line[1]), int(line[2] or 0)), fields),
        )

    @property
    def has_body(self) -> bool:
        """Whether a body may follow."""
        return self.status >= 200 and self.status not in (204, 304)

    @property
    def is_interim(self) -> bool:
        """Whether another head follows."""
        return self.status < 200 and self.status != SWITCHING_PROTOCOLS


def _fields(raw: bytes, start: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    for match in islice(_FIELD.finditer(raw, start), _MOST_FIELDS):
        name, value = match[1].decode("ascii").lower(), _clean(match[2])
        if name in fields:
            value = f"{fields[name]}, {value}" if name in _LISTS else fields[name]
        if len(value.encode()) <= _MOST_VALUE_BYTES:
            fields[name] = value
    return fields


def _listed(fields: Mapping[str, str], name: str) -> Sequence[str]:
    return fields[name].split(",") if name in fields else ()


def _clean(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    bare = text.strip()  # of the line's end, and of blanks
    return bare if bare.isprintable() else _CONTROLS.sub(" ", text).strip()


def _is_kept(version: tuple[int, int], fields: dict[str, str]) -> bool:
    options = ",".join([fields[name] for name in ("connection", "proxy-connection") if name in fields]).lower()
    return "close" not in options if version >= (1, 1) else "keep-alive" in options or "keep-alive" in fields


class AnswerReader:
    """Takes the bytes of one answer as they arrive and sets :attr:`head` once it is complete."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.ended = False
        """Whether the body is complete; without a length or chunks, only once the connection ends."""
        self.is_spoiled = False
        """Whether the connection is unusable: it sent more than the answer, or not in the announced framing."""
        self._begun = False
        self._buffer = bytearray()
        self._searched = 0
        self._head_bytes = 0
        self._interim = 0
        self._left = 0
        self._chunks: _Chunks | None = None
        self._until_close = False

    @property
    def failure(self) -> str | None:
        """What is wrong behind the bytes of the body that were returned last, if anything.

        Never the error itself: its traceback holds the frames that it went through, and the answer in them.
        """
        return None if self._chunks is None else self._chunks.failure

    @property
    def keeps(self) -> bool:
        """Whether the connection may carry another answer."""
        return self.ended and not self.is_spoiled and self.head is not None and self.head.keeps

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes and return those of the body, also where a :attr:`failure` follows them.

        :raises FramingError: unless it is a finite HTTP answer.
        """
        if self.head is None:
            self._begun = True
            self._buffer += data
            if not self._find_head():
                return b""
            data = bytes(self._buffer)
            self._buffer.clear()
        return self._body(data) if data else b""

    def end(self) -> None:
        """Note that the connection has ended; raises FramingError when the answer is incomplete."""
        self.is_spoiled = True
        if self.failure is not None:
            raise FramingError(self.failure)
        if self.head is None and self._buffer.find(b"\n") > 0:
            self._take_head(bytes(self._buffer) + b"\n\n")  # the status has arrived
        if self.head is None:
            cut = "within the head of its answer" if self._begun else "without an answer"
            raise FramingError(f"the server closed the connection {cut}")
        is_last = self._chunks is not None and self._chunks.is_last
        if self._until_close or is_last or not self.head.is_sure:
            self.ended = True
        if not self.ended:
            raise FramingError("the connection ended before the answer did")

    def _find_head(self) -> bool:
        """Take the complete heads; return whether the final one is among them."""
        while self.head is None:
            if self._buffer.startswith((b"\r", b"\n")):  # an extra empty line after the previous answer
                length = len(self._buffer)
                self._buffer = self._buffer.lstrip(b"\r\n")
                self._head_bytes += length - len(self._buffer)
                self._check_size()
            if self._buffer.startswith(_TLS_ALERT):
                raise FramingError("the server speaks TLS on this port: write https:// before the host")
            if len(self._buffer) >= 5 and self._buffer[:5].upper() != b"HTTP/":
                raise FramingError("the answer does not begin with a status line of HTTP/1")
            end = _END_OF_HEAD.search(self._buffer, self._searched)
            if end is None:
                self._searched = max(0, len(self._buffer) - 2)
                self._check_size(len(self._buffer))
                return False
            raw = bytes(self._buffer[: end.end()])
            del self._buffer[: end.end()]
            self._searched = 0
            self._head_bytes += len(raw)
            self._check_size()
            self._take_head(raw)
        return True

    def _check_size(self, unread: int = 0) -> None:
        if self._head_bytes + unread > MOST_HEAD_BYTES:
            raise FramingError(f"the head of the answer is larger than {MOST_HEAD_BYTES:,} bytes")

    def _take_head(self, raw: bytes) -> None:
        head = Head.parse(raw)
        if head.is_interim:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                raise FramingError(f"more than {MOST_INTERIM} interim answers (1xx) arrived, but no final one")
            return
        self.head = head
        if head.chunked:
            self._chunks = _Chunks()
        elif head.length is None:
            self._until_close = True
        else:
            self._left = head.length
            self.ended = not head.length

    def _body(self, data: bytes) -> bytes:
        if self.ended:
            self.is_spoiled = True
            return b""
        if self._chunks is not None and self._chunks.has_not_begun and _NOT_A_CHUNK.match(data):
            self._chunks, self._until_close, self.is_spoiled = None, True, True
        if self._until_close:
            return data
        if self._chunks is not None:
            body, is_surplus = self._chunks.feed(data)
            self.ended = self._chunks.ended
        else:
            body = data[: self._left]
            self._left -= len(body)
            self.ended, is_surplus = not self._left, len(body) < len(data)
        self.is_spoiled |= is_surplus
        return body


class _Chunks:
    """Decodes a chunked body; line ends without a carriage return and blanks around a size are accepted."""

    def __init__(self) -> None:
        self.is_last = False
        """Whether the last chunk has arrived; its trailers may be missing."""
        self.ended = False
        self.failure: str | None = None
        """Why nothing more is read. What came before it counts: the id of a create may be in it."""
        self._is_first = True
        self._left = 0
        self._line = b""
        self._overhead = 0
        self._received = 0

    @property
    def has_not_begun(self) -> bool:
        """Whether only blanks have arrived."""
        return self._is_first and not self._line.strip()

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take the next bytes; return those of the body, and whether others followed its end.

        :raises FramingError: when they are not chunks, from their first byte on.
        """
        if self.failure is not None:
            raise FramingError(self.failure)
        body: list[bytes] = []
        try:
            is_surplus = self._take(data, body)
        except FramingError as error:
            self.failure = str(error)
            if not body:
                raise
            is_surplus = True
        return b"".join(body), is_surplus

    def _take(self, data: bytes, body: list[bytes]) -> bool:
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                body.append(piece)
                self._left -= len(piece)
                self._received += len(piece)
                at += len(piece)
                if not self._left and data[at : at + 2] == b"\r\n":  # faster than the search for a line's end below
                    self._overhead += 2
                    at += 2
                continue
            end = data.find(b"\n", at) + 1
            line = self._line + data[at : end or len(data)]
            self._overhead += (end or len(data)) - at
            if self._overhead > _MOST_OVERHEAD + self._received or len(line) > _MOST_LINE:
                raise FramingError("the answer's chunks contain little but their sizes")
            if not end:
                self._line = line
                break
            self._line, at = b"", end
            self._take_line(line[:-1])
        return at < len(data) and self.ended

    def _take_line(self, line: bytes) -> None:
        is_empty = not line.strip()
        if self.is_last:
            self.ended = is_empty  # any other line is a trailer
        elif not is_empty:  # an empty one ends the chunk before it
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise FramingError("the answer's chunks are malformed")
            self._is_first = False
            self._left = int(size[1], 16)
            self.is_last = not self._left


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer: status, headers with lower-case names, body length, and the beginning of an error body."""

    status: int
    headers: Mapping[str, str]
    length: int | None = None
    body: bytes = b""
