"""Reads the rows of a batch from a file in any storage: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, BinaryIO, Final

from airflow_provider_vidu.batches.settings import FORMATS, RowsFormat
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.orders.media_files import opened_input
from airflow_provider_vidu.stores.places import split_connection

_BY_EXTENSION: Final[dict[str, RowsFormat]] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"
}  # fmt: skip
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_MOST_CELL_CHARS: Final = 10_000_000


def format_of(path: str, given: str | None = None) -> RowsFormat:
    """Return the format of a file of rows.

    :param given: the user's word; None to decide by the extension.
    :raises ViduConfigError: when it is unknown.
    """
    if given is not None:
        if given not in FORMATS:
            raise ViduConfigError(f"rows_format must be one of {', '.join(FORMATS)}, not {sanitized(given, 40)!r}.")
        return given
    name = path.rpartition("/")[2].lower()
    found = _BY_EXTENSION.get(f".{name.rpartition('.')[2]}" if "." in name else "")
    if found is None:
        raise ViduConfigError(
            f"The extension of {sanitized(path, 120)!r} names no format. Set rows_format to {', '.join(FORMATS)}."
        )
    return found


def uri_of(rows: Any) -> str | None:
    """Return the URI of the file that holds the rows, without its connection; None if they come from no file."""
    if not isinstance(rows, str) and not hasattr(rows, "parts"):
        return None
    spot = split_connection(str(rows).strip())[1]
    return None if spot is None else spot.uri


def read_rows(path: Any, rows_format: str | None = None, storage_conn_id: str | None = None) -> Iterator[Any]:
    """Yield the rows of a file, unchecked; a line that cannot be read is yielded as its error.

    :param path: a local path, a URL of an object store, or a path object.
    :param rows_format: ``jsonl``, ``csv`` or ``parquet``; None to decide by the extension.
    :param storage_conn_id: the Airflow connection of its store.
    :raises ViduConfigError: when the file is missing, not allowed, too large, or not of that format.
    :raises ViduStorageError: when its store failed for a possibly transient reason.
    """
    kind = format_of(str(path), rows_format)
    with opened_input(path, "rows", storage_conn_id) as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ViduConfigError(f"The file of rows is larger than {MAX_FILE_BYTES:,} bytes: split it.")
    if kind == "parquet":
        yield from _parquet(io.BytesIO(content))
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ViduConfigError(f"The file of rows is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    yield from (_csv(text) if kind == "csv" else _jsonl(text))


def _jsonl(text: str) -> Iterator[Any]:
    if text.lstrip().startswith("["):
        yield from _array(text)
        return
    # Not splitlines: U+2028 is a line end there, and valid inside a JSON text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield ViduConfigError(f"Line {number} of the file of rows is not JSON: {redacted(line.strip(), 80)}")


def _array(text: str) -> Iterable[Any]:
    try:
        listed: list[Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ViduConfigError(f"The file of rows is not JSON: {redacted(error, 120)}.") from None
    return listed


def _csv(text: str) -> Iterator[Any]:
    csv.field_size_limit(_MOST_CELL_CHARS)
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield ViduConfigError(f"Line {reader.line_num} of the file of rows is not CSV: {redacted(error, 120)}.")
            continue
        if "" in row:
            yield ViduConfigError(f"Line {reader.line_num} of the file of rows has more cells than the heading.")
        else:
            yield row


def _parquet(file: BinaryIO) -> Iterator[Any]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise ViduConfigError(
            "Parquet files need pyarrow. Install it with: pip install 'airflow-provider-vidu[parquet]'."
        ) from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except Exception as error:  # pyarrow has errors of its own
        raise ViduConfigError(f"The file of rows is not readable Parquet: {redacted(error, 160)}.") from error
