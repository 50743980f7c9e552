"""Parquet files made by hand, so that each number in them can be a lie.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

PLAIN, RLE, DELTA_LENGTHS, DELTA_TEXTS, DICTIONARY = 0, 3, 6, 7, 8
TEXT, FIXED = 6, 7
Fields = Mapping[int, Any]
_CODECS = {"none": 0, "snappy": 1, "gzip": 2, "brotli": 4, "zstd": 6, "lz4_raw": 7}


def unsigned(number: int) -> bytes:
    """Return a number as Thrift's compact protocol and Parquet's encodings write it."""
    written = b""
    while number > 127:
        written, number = written + bytes([number & 127 | 128]), number >> 7
    return written + bytes([number])


def zigzag(number: int) -> bytes:
    """Return a number with a sign."""
    return unsigned(number * 2 if number >= 0 else -number * 2 - 1)


def thrift(fields: Fields) -> bytes:
    """Return a struct in Thrift's compact protocol; a value may be a pair of its type and its bytes."""
    written, last = b"", 0
    for number in sorted(fields):
        kind, content = _value(fields[number])
        step, last = number - last, number
        written += (bytes([step << 4 | kind]) if step < 16 else bytes([kind]) + zigzag(number)) + content
    return written + b"\0"


def long(number: int) -> tuple[int, bytes]:
    """Return a field of 64 bits."""
    return 6, zigzag(number)


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, bool):
        return (1 if value else 2), b""
    if isinstance(value, int):
        return 5, zigzag(value)
    if isinstance(value, str):
        return 8, unsigned(len(value)) + value.encode()
    if isinstance(value, Mapping):
        return 12, thrift(value)
    written = [_value(item) for item in value]
    return 9, bytes([0xF0 | written[0][0]]) + unsigned(len(written)) + b"".join(content for _, content in written)


def cells(*texts: bytes) -> bytes:
    """Return texts as a page of PLAIN holds them."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def repeated(value: int, count: int) -> bytes:
    """Return a level or an index that is repeated, in one byte, as the hybrid encoding of Parquet writes it."""
    return unsigned(count << 1) + bytes([value])


def levels(*runs: bytes) -> bytes:
    """Return the levels of a page."""
    return struct.pack("<I", len(b"".join(runs))) + b"".join(runs)


def page(kind: int, content: bytes, count: int, codec: str = "none", encoding: int = PLAIN, **lies: int) -> bytes:
    """Return a page with its header.

    :param kind: 0 for data, 1 for an index, 2 for a dictionary, 3 for data of version 2.
    :param count: how many values it says that it has.
    :param lies: ``unpacked`` or ``packed``, a size other than the real one.
    """
    packed = content if codec == "none" else pa.Codec(codec).compress(content).to_pybytes()
    details: dict[int, Fields] = {
        0: {5: {1: count, 2: encoding, 3: RLE, 4: RLE}},
        1: {6: {}},
        2: {7: {1: count, 2: encoding}},
        3: {8: {1: count, 2: 0, 3: count, 4: encoding, 5: 0, 6: 0, 7: codec != "none"}},
    }
    sizes = {2: lies.get("unpacked", len(content)), 3: lies.get("packed", len(packed))}
    return thrift({1: kind, **sizes, **details.get(kind, {})}) + packed


def column(name: str = "prompt", **facts: int) -> dict[int, Any]:
    """Return a column of the schema.

    :param facts: ``kind``, ``length`` of a cell, ``repetition`` (0 required, 1 optional, 2 repeated), ``converted``.
    """
    numbers = {"kind": 1, "length": 2, "repetition": 3, "converted": 6, "scale": 7, "precision": 8}
    return {3: 0, **{numbers[fact]: value for fact, value in facts.items()}, 4: name}


def parquet(
    pages: Sequence[bytes],
    rows: int = 1,
    codec: str = "none",
    schema: Sequence[Fields] = (),
    path: Sequence[str] = ("prompt",),
    **footer: Any,
) -> bytes:
    """Return a file with one column; its footer says that there are ``rows`` values, which take ten bytes.

    :param pages: a dictionary first, if there is one.
    :param schema: the column, with what contains it; a required text if omitted.
    :param footer: ``groups``, how many row groups consist of these pages; ``entries`` of metadata; ``columns``, in
        place of the one.
    """
    schema = schema or [column(kind=TEXT, converted=0)]
    leaf = schema[-1]
    length = sum(map(len, pages))
    dictionary = len(pages[0]) if len(pages) > 1 else 0
    metadata = {
        1: leaf[1], 2: [PLAIN, RLE, DICTIONARY], 3: list(path), 4: _CODECS[codec], 5: long(rows), 6: long(10),
        7: long(length), 9: long(4 + dictionary), **({11: long(4)} if dictionary else {}),
    }  # fmt: skip
    columns = footer.get("columns", [{2: long(4), 3: metadata}])
    groups = [{1: columns, 2: long(10), 3: long(rows)}] * footer.get("groups", 1)
    root = {4: "schema", 5: 1}
    written = {1: 1, 2: [root, *schema], 3: long(rows * len(groups)), 4: groups}
    end = thrift(written | ({5: footer["entries"]} if "entries" in footer else {}))
    return b"PAR1" + b"".join(pages) + end + struct.pack("<I", len(end)) + b"PAR1"
