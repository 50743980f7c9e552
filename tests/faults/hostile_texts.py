"""Texts as a fuzzer would choose them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

#: Rendered a second time, this would be the key.
TEMPLATE = "{{ conn.vidu_default.password }}"

#: What no id may be; refused before anything is sent.
REFUSED_IDS: dict[str, Any] = {
    "NUL": "a\0b",
    "CRLF and a header": "a\r\nX-Evil: 1",
    "line feed": "a\nb",
    "lone surrogate": "a\ud800b",
    "a million characters": "x" * 1_000_000,
    "bytes": b"a",
    "fraction": 911088422699962368.5,
    "list": ["a"],
    "empty": "",
    "parent folder": "..",
    "rendered None": "None",
    "another URL": "https://evil.example/x",
    "right-to-left override": "a\u202egpj.exe",
    "zero width": "a\u200bb\ufeffc",
    "line separator": "a\u2028b",
}

#: What an id may well be; the service gets exactly this.
VERBATIM_IDS: dict[str, str] = {
    "path traversal": "../../../etc/passwd",
    "encoded traversal": "..%2f..%2fetc%2fpasswd",
    "backslashes": "..\\..\\windows\\win.ini",
    "encoded CRLF": "a%0d%0aX-Evil:%201",
    "query and fragment": "a?admin=1&x=2#top",
    "other host": "//evil.example/x",
    "user info": "@evil.example/",
    "template": TEMPLATE,
    "template block": "{% for x in conn %}{{ x }}{% endfor %}",
    "placeholder": "{id}{task_id}{0.__class__}",
    "format": "%s%n%(secret)s",
    "shell": "$(id);`id`|id&",
    "SQL": "'; DROP TABLE xcom; --",
    "look-alike": "\u0440\u0430ypal",
    "combining": "e\u0301" * 20,
    "astral": "😀" * 50,
    "device": "con",
    "stream": "a.mp4:evil",
    "number": "911088422699962368",
    "1,024 characters": "x" * 1024,
}

#: Refused destinations: nothing may be fetched for them.
REFUSED_DESTINATIONS: dict[str, Any] = {
    "parent folder": "/data/../../etc/passwd",
    "backslash parent": "/data\\..\\..\\x",
    "parent in a URL": "s3://bucket/../other/x",
    "NUL": "/data/a\0.mp4",
    "CRLF": "/data/a\r\nb.mp4",
    "lone surrogate": "/data/a\ud800.mp4",
    "rendered None": "None",
    "empty": "",
    "root": "/",
    "bytes": b"/data/a.mp4",
}

#: Forges a log line, clears the screen, turns the writing round, and cuts C strings off.
FORGED = "x\r\n[2026-01-01] ERROR forged\n\x1b[2J\x1b[31mred\x07\x00\x9b1m\x85\u2028\u2029\u202ertl\u2066"
#: What must not come out of it in a message, a log line or an event.
CONTROL = frozenset(
    map(chr, itertools.chain(range(32), range(127, 160), range(0x202A, 0x202F), range(0x2066, 0x206A)))
) | {
    "\u2028",
    "\u2029",
    "\u200e",
    "\u200f",
}


def is_one_clean_line(text: str) -> bool:
    """Whether nothing in ``text`` ends a line or speaks to a terminal."""
    return not CONTROL & set(text)


def bomb(gigabytes: int = 10) -> Iterator[bytes]:
    """Yield the pieces of a valid gzip stream of zeros, about a thousandth of what it inflates to."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = pack.compress(bytes(1 << 20)) + pack.flush(zlib.Z_FULL_FLUSH)  # may be repeated
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for _ in range(16 * gigabytes):
        yield block * 64
