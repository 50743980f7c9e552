"""The whole state of a batch as one packed JSON document, written and read a line of its manifest at a time.

As a whole, the text and the objects of 5,000 rows took 30 MiB. Each line of the manifest is on a line of its own::

    {"leg":8,"state":{"version":1,...,"lines":[
    {"key": "a", "index": 0, ...},
    {"key": "b", "index": 1, ...}
    ]}}

A document of any other layout is read as a whole.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, Final

from airflow_provider_vidu.batches.lines import checked_line
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.parsing import parse
from airflow_provider_vidu.exceptions import ViduConfigError

MOST_BYTES: Final = 256 * 1024 * 1024
"""The largest document that is read, unpacked. Others may write to the store; 100,000 rows take about 80 MiB."""
MOST_VALUES: Final = 5_000_000
"""The most JSON values in a document, or in another object of a journal; a row has about twenty."""
_MOST_LEGS: Final = 2**31
_MOST_GENERATIONS: Final = 10_000
"""The most states; each stands for a leg whose process has died."""

_LINES_BEGIN: Final = b'"lines":[\n'
_LINES_END: Final = b"]}}\n"
_PIECE_BYTES: Final = 64 * 1024


def state_name(generation: int) -> str:
    """Return the name of the object that holds the state of a generation, from 0."""
    return f"state-{generation:06d}.json.gz" if generation else "state.json.gz"


def latest_generation(known: int, is_there: Callable[[str], bool]) -> int:
    """Return the generation of the newest state.

    :param known: the generation to begin with.
    :param is_there: whether there is an object of a name.
    :raises ViduConfigError: when there is no end: some stores, and pages at their address, have an answer for any name.
    """
    last = known + _MOST_GENERATIONS
    for generation in range(known, last):
        if not is_there(state_name(generation + 1)):
            return generation
        if generation == known and is_there(state_name(last)):  # to ask for each would take a quarter of an hour
            break
    raise ViduConfigError(
        f"The batch has more than {_MOST_GENERATIONS:,} states, by its store, so nothing was ordered. Check that the "
        "store's address is that of a store, and that it reports files that do not exist as missing."
    )


def packed(leg: int, state: BatchState) -> bytes:
    """Return the state after a leg; equal states have equal bytes."""
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    content = bytearray()
    for text in _texts(leg, state):
        content += packer.compress(text)
    return bytes(content + packer.flush())


def _texts(leg: int, state: BatchState) -> Iterator[bytes]:
    head = json.dumps({"leg": leg, "state": state.to_json()}, separators=(",", ":")).encode()
    yield head.removesuffix(_LINES_END.strip()) + b"\n"
    for number, row in enumerate(state.lines.ended.values(), 1):
        yield row.text if number == len(state.lines) else row.text[:-1] + b",\n"
    yield _LINES_END


def unpacked(content: bytes) -> tuple[int, BatchState]:
    """Return the leg and the state that :func:`packed`, or an earlier version, has written.

    :raises Exception: of many kinds, when it is damaged, or holds too much.
    """
    with gzip.GzipFile(fileobj=BytesIO(content)) as file:
        document = _Document(file)
        head = document.line()
        if not head.endswith(_LINES_BEGIN):
            return _read(b"".join([head, *iter(document.piece, b"")]))
        leg, state = _read(head + _LINES_END)
        while (text := document.line()) != _LINES_END:
            document.count_values(text)
            line = checked_line(json_of(text.rstrip(b",\n")))
            state.lines[line["key"]] = line
        state.check_size()
        if document.piece():
            raise ValueError("it does not end after its lines")
        return leg, state


def _read(document: bytes) -> tuple[int, BatchState]:
    known = json_of(document)
    if not isinstance(leg := known["leg"], int) or not 0 <= leg < _MOST_LEGS:  # it is a part of names
        raise ValueError("a number of legs that is none")
    return leg, BatchState.from_json(known["state"])


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


class _Document:
    """A document that is unpacked piece by piece, within the limits."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._left = MOST_BYTES
        self._values = 0

    def line(self) -> bytes:
        """Return the next line, with its end; empty after the last one."""
        return self._counted(self._file.readline(self._left + 1))

    def piece(self) -> bytes:
        """Return the next bytes; none at the end. A read of all would allocate as many as there may be."""
        return self._counted(self._file.read(_PIECE_BYTES))

    def count_values(self, text: bytes) -> None:
        """Count the values of a line; raises ValueError when there are too many."""
        self._values += value_count(text, 0)
        if self._values > MOST_VALUES:
            raise ValueError("it holds too many values")

    def _counted(self, text: bytes) -> bytes:
        self._left -= len(text)
        if self._left < 0:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes, unpacked")
        return text
