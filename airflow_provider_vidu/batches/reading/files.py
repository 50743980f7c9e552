"""Reads the rows of a batch from a file in any storage: JSON lines, CSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from airflow_provider_vidu.batches.arguments import FORMATS, RowsFormat
from airflow_provider_vidu.batches.reading.parquet import check_unpacked, parquet_rows
from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.parsing import MOST_VALUES
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.media.fields import read_json
from airflow_provider_vidu.orders.media.files import opened_input
from airflow_provider_vidu.stores.places import split_connection

_BY_EXTENSION: Final[dict[str, RowsFormat]] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"
}  # fmt: skip
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_MOST_CELL_CHARS: Final = 10_000_000
_DELIMITERS: Final = ",;\t|"
"""What separates cells; the first one that the heading holds, or else the first one."""
_NAMED_DELIMITER: Final = re.compile(r"sep=([^\r\n\"])(?:\r\n|\r|\n)")
"""A first line for Excel, which names what separates the cells."""
_ARRAY: Final = re.compile(rb"\s*\[")
# A string may lack its end: otherwise each quotation mark in it would be tried as the beginning of another one.
_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
_PIECE_BYTES: Final = 64 * 1024
_QUOTED: Final = re.compile('"[^"]*"')
_REQUIRED: Final = frozenset({"prompt", "body"})
"""The columns of which a row needs one. Excel omits the last cells of lines in which they are empty, and no others."""
# A small file can hold far more than its bytes: megabytes of "[]," take gigabytes as objects, a heading of thousands of
# columns is repeated in each row. See :mod:`.parquet` for files in that format.
_MOST_LINES: Final = 2_000_000
_MOST_LINE_CHARS: Final = 50_000_000
_TOO_LONG: Final = f"it has more than {_MOST_LINE_CHARS:,} characters"
_MOST_COLUMNS: Final = 1_000
_MOST_CELLS: Final = 1_000_000
"""The most signs in a row that may separate cells; texts hold them, too."""
_MOST_ROW_VALUES: Final = 20_000
_SHORT_CHARS: Final = 100


def format_of(path: str, given: str | None = None) -> RowsFormat:
    """Return the format of a file of rows.

    :param given: the user's word; None to decide by the extension.
    :raises ViduConfigError: when it is unknown.
    """
    if given is not None:
        found, fault = given, f"rows_format {sanitized(given, 40)!r} is unknown."
    else:
        name = path.rpartition("/")[2].lower()
        found = _BY_EXTENSION.get(f".{name.rpartition('.')[2]}" if "." in name else "", "")
        fault = f"The extension of {sanitized(path, 120)!r} names no format."
    if found not in FORMATS:
        raise ViduConfigError(f"{fault} Set rows_format to {', '.join(FORMATS)}.")
    return found


def uri_of(rows: Any) -> str | None:
    """Return the URI of the file that holds the rows, without its connection; None if they come from no file."""
    if not isinstance(rows, str) and not hasattr(rows, "parts"):
        return None
    spot = split_connection(str(rows).strip())[1]
    return None if spot is None else spot.uri


def rows_in(given: Any, rows_format: str | None = None, storage_conn_id: str | None = None) -> Any:
    """Return the rows that an argument holds, unchecked: a list, also as JSON text, or what a file holds.

    :raises ViduConfigError: when it is empty, or its file cannot be read.
    """
    named = given.strip() if isinstance(given, str) else given
    if isinstance(named, str) and named in ("", "None"):
        raise ViduConfigError(
            "rows is empty: check the XCom or the param that it is templated from. Nothing was ordered."
        )
    if isinstance(named, str) and named.startswith("[") and named.endswith("]"):
        return read_json("rows", named, "list")
    if isinstance(named, str) or hasattr(named, "parts"):
        return read_rows(named, rows_format, storage_conn_id)
    return named


def read_rows(path: Any, rows_format: str | None = None, storage_conn_id: str | None = None) -> Iterator[Any]:
    """Yield the rows of a file, unchecked; a line that cannot be read is yielded as its error.

    :param path: a local path, a URL of an object store, or a path object.
    :param rows_format: ``jsonl``, ``csv`` or ``parquet``; None to decide by the extension.
    :raises ViduConfigError: when the file is missing, not allowed, too large, or not of that format.
    :raises ViduStorageError: when its store failed for a possibly transient reason.
    """
    kept = 0
    for row in _rows_in_file(path, format_of(str(path), rows_format), storage_conn_id):
        kept += _kept_bytes(row)
        check_unpacked(kept)
        yield row


def _kept_bytes(row: Any) -> int:
    """Return how many bytes the texts of a row take: one emoji makes each character of a text four."""
    left, size = [row], 0
    while left:
        item = left.pop()
        if isinstance(item, str):
            # JSON within it is parsed later, and its escapes with it.
            size += max(sys.getsizeof(item), 4 * len(item) if "\\u" in item else 0)
        elif isinstance(item, (list, tuple)):
            left += item
        elif isinstance(item, dict):
            left += item.values()
            left += [name for name in item if len(name) > _SHORT_CHARS]  # rows of a table share the short ones
    return size


def _rows_in_file(path: Any, kind: RowsFormat, storage_conn_id: str | None) -> Iterator[Any]:
    with opened_input(path, "rows", storage_conn_id) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ViduConfigError(f"The file of rows is larger than {MAX_FILE_BYTES:,} bytes: split it.")
    if kind == "parquet":
        yield from parquet_rows(content, _check_values, _MOST_COLUMNS)
        return
    content = content.removeprefix(codecs.BOM_UTF8)
    _check_text(content)
    if content.count(b"\n") + content.count(b"\r") > _MOST_LINES:
        raise ViduConfigError(f"The file of rows has more than {_MOST_LINES:,} lines: split it.")
    yield from (_csv(content) if kind == "csv" else _jsonl(content))


def _check_text(content: bytes) -> None:
    """Refuse what is not UTF-8, piece by piece: as a whole, the text may take four times as much as its bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces, held = memoryview(content), 0
    for start in range(0, len(content) + 1, _PIECE_BYTES):
        piece = pieces[start : start + _PIECE_BYTES]
        try:
            decoder.decode(piece, final=start + _PIECE_BYTES > len(content))
        except UnicodeDecodeError as error:
            place = start - held + error.start
            raise ViduConfigError(f"The file of rows is not UTF-8 text: {error.reason} at byte {place}.") from None
        held = len(decoder.getstate()[0])


def _jsonl(content: bytes) -> Iterator[Any]:
    if _ARRAY.match(content):
        yield from _array(content)
        return
    values = 0
    # Not splitlines: U+2028 is a line end there, and valid inside a JSON text.
    for number, line in enumerate(io.BytesIO(content), 1):
        if len(line) > _MOST_LINE_CHARS:
            yield ViduConfigError(f"Line {number} of the file of rows is not read: {_TOO_LONG}.")
            continue
        if not line.decode().strip():
            continue
        values += value_count(line, 0)
        _check_values(values)
        try:
            yield _value(line, _MOST_ROW_VALUES)
        except (ValueError, RecursionError) as error:
            yield ViduConfigError(f"Line {number} of the file of rows is not JSON: {_why_not_json(error)}.")


def _array(content: bytes) -> Iterator[Any]:
    """Yield the elements of a JSON array, each decoded by itself: one emoji makes each character of a text four bytes.

    :raises ViduConfigError: at the first one that cannot be read.
    """
    _check_values(value_count(content, MOST_VALUES))
    for start, end in _elements(content):
        try:
            yield json.loads(content[start:end].decode())
        except (ValueError, RecursionError) as error:
            raise ViduConfigError(f"The file of rows is not JSON: {_why_not_json(error, content, start)}.") from None


def _elements(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each element of a JSON array begins and ends.

    :raises ViduConfigError: when one is too long, or the array does not end, and the file with it.
    """
    depth = count = start = 0
    for mark in _MARK.finditer(content):
        sign = content[mark.start()]
        depth += (sign in b"[{") - (sign in b"]}")
        if depth == 1 and sign in b"[":
            start = mark.end()
        elif mark.end() - start > _MOST_LINE_CHARS:
            raise ViduConfigError(f"Row {count + 1} of the file of rows is not read: {_TOO_LONG}.")
        elif not depth or (depth == 1 and sign in b","):
            if depth or count or content[start : mark.start()].strip():
                yield start, mark.start()
            count, start = count + 1, mark.end()
            if not depth:
                break
    if depth or content[start - 1 :].strip() != b"]":
        raise ViduConfigError("The file of rows is not JSON: its list does not end, or something follows it.")


def _check_values(count: int) -> None:
    if count > MOST_VALUES:
        raise ViduConfigError(f"The file of rows holds more than {MOST_VALUES:,} values: split it.")


def _value(text: bytes, most_values: int) -> Any:
    if len(text) > most_values and value_count(text, most_values) > most_values:
        raise ValueError(f"it holds more than {most_values:,} values")
    return json.loads(text.decode())


def _why_not_json(error: Exception, content: bytes = b"", start: int = 0) -> str:
    """Return the reason without a quote: a path from a template may name a file that is not for its reader.

    :param content: what the parsed text is a part of.
    :param start: where it begins there.
    """
    if isinstance(error, json.JSONDecodeError):
        line = content.count(b"\n", 0, start) + error.lineno
        column = error.colno + (start - content.rfind(b"\n", 0, start) - 1 if error.lineno == 1 else 0)
        return f"{error.msg} at line {line}, column {column}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else redacted(error, 100)


def _csv(content: bytes) -> Iterator[Any]:
    csv.field_size_limit(_MOST_CELL_CHARS)
    first = _NAMED_DELIMITER.fullmatch(next(_Lines(content), ""))
    lines = _Lines(content, delimiter := first[1] if first else _delimiter(_Lines(content)))
    if first:
        next(lines)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names = _heading(reader)
    known = dict.fromkeys(filter(None, names))
    values = 0
    while True:
        lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield ViduConfigError(f"Line {reader.line_num} of the file of rows is not CSV: {redacted(error, 120)}.")
            continue
        values += sum(map(bool, cells))
        _check_values(values)
        if not any(map(str.strip, cells)):  # a spreadsheet writes an empty line as commas; a row would be paid for
            continue
        named = list(zip(names, cells, strict=False))
        if len(cells) > len(names):
            yield ViduConfigError(f"Line {reader.line_num} of the file of rows has more cells than the heading.")
        elif any(cell.strip() for name, cell in named if not name):
            yield ViduConfigError(f"Line {reader.line_num} of the file of rows has a cell in a column without a name.")
        elif problem := _lack(names, cells, is_unended=not lines.latest.endswith(("\n", "\r"))):
            yield ViduConfigError(f"Line {reader.line_num} of the file of rows {problem}.")
        else:
            yield {**known, **{name: cell for name, cell in named if name}}


def _lack(names: Sequence[str], cells: Sequence[str], *, is_unended: bool) -> str | None:
    """Return why a line with too few cells is not the row that its author meant; None for any other line.

    :param is_unended: whether the file ends within the line.
    """
    missing = list(filter(None, names[len(cells) :]))
    if missing and is_unended:
        return f"has no cell for {missing[0]!r}, and the file ends without a line end: it may have been cut off"
    filled = {name for name, cell in zip(names, cells, strict=False) if cell.strip()}
    if (lacking := _REQUIRED.intersection(missing)) and not _REQUIRED & filled:
        return f"has fewer cells than the heading: none for {min(lacking)!r}"
    return None


class _Lines(Iterator[str]):
    """The lines of a text with their ends.

    Iterating raises :class:`ViduConfigError` when a row is too long, or may have too many cells: quotation marks make
    one row of any number of lines.

    :param content: UTF-8.
    :param delimiter: what separates cells; None if that is not known yet.
    """

    def __init__(self, content: bytes, delimiter: str | None = None) -> None:
        self._file = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")
        self._delimiter = delimiter
        self.latest = ""
        self.begin_row()

    def begin_row(self) -> None:
        """Note that the next line begins a row."""
        self._chars = self._cells = 0

    def __next__(self) -> str:
        self.latest = self._file.readline(_MOST_LINE_CHARS + 1)
        self._chars += len(self.latest)
        if self._chars > _MOST_LINE_CHARS:
            raise ViduConfigError(f"A line of the file of rows is not read: {_TOO_LONG}, or begins a row that has.")
        self._cells += self.latest.count(self._delimiter) if self._delimiter else 0
        if self._cells > _MOST_CELLS:
            raise ViduConfigError(
                f"A row of the file of rows is not read: it may have more than {_MOST_CELLS:,} cells."
            )
        if not self.latest:
            raise StopIteration
        return self.latest


def _delimiter(lines: Iterable[str]) -> str:
    """Return what separates the cells: spreadsheets of many countries write semicolons, and some programs tabs.

    With commas assumed, the whole line would be one unknown field, and its prompt would not be one.
    """
    heading = _QUOTED.sub("", next(filter(None, (line.rstrip("\r\n") for line in lines)), ""))
    return next((mark for mark in _DELIMITERS if mark in heading), _DELIMITERS[0])


def _heading(reader: Any) -> list[str]:
    """Return the names of the columns; those of columns without a name are empty."""
    try:
        names = [name.strip() for name in next((cells for cells in reader if cells), [])]
    except csv.Error as error:
        raise ViduConfigError(f"The heading of the file of rows is not CSV: {redacted(error, 120)}.") from None
    if len(names) > _MOST_COLUMNS:
        raise ViduConfigError(f"The file of rows has more than {_MOST_COLUMNS:,} columns.")
    for index, name in enumerate(names):
        if name and name in names[:index]:  # not quoted, like no line of the file
            raise ViduConfigError(
                f"Column {index + 1} of the file of rows has the name of an earlier one, whose cells would be lost."
            )
    return names
