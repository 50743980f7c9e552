"""Reads the rows of a Parquet file, within limits. The bytes are given, so it does no I/O.

A file of some kilobytes can hold gigabytes: equal cells are stored once, pages are compressed, and the sizes and counts
in the footer may be false. So the footer and the headers of all pages are read here before pyarrow, which trusts the
footer. The headers can be trusted: no decoder of pyarrow goes beyond the size in them
(https://github.com/apache/arrow/blob/main/cpp/src/parquet/column_reader.cc, ``DecompressIfNeeded``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final

from airflow_provider_vidu.batches.reading.thrift import INTEGERS, TEXTS, CompactReader, Lists
from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError

_MOST_UNPACKED_BYTES: Final = 1024 * 1024 * 1024
_BATCH_ROWS: Final = 1_000
_BATCH_BYTES: Final = 256 * 1024 * 1024
_MOST_METADATA_BYTES: Final = 1_000_000
"""The most bytes of the footer and of the pages' headers, where a text counts as one: three of them become several
hundred in pyarrow."""
_PARQUET: Final = b"PAR1"
_ARROW_SCHEMA: Final = b"ARROW:schema"
"""The entry with the schema of the writer, in which all fields may be the same one: 60 KB take ten gigabytes. It is not
needed: JSON has no types like those that Parquet's own schema lacks."""
# What the lists of a Parquet footer hold: the schema, the row groups with their columns, and others.
# https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_COLUMN: Final[Lists] = {3: {2: INTEGERS, 3: TEXTS, 8: {}, 13: {}, 16: {2: INTEGERS, 3: INTEGERS}, 17: {2: INTEGERS}}}
_FOOTER: Final[Lists] = {2: {}, 4: {1: _COLUMN, 4: {}}, 5: {}, 7: {}}
_ENCRYPTED: Final = 8
"""The field of a column that says how it is encrypted."""
_CHUNK_DETAILS: Final = 3
_SIZE_STATISTICS: Final = 16
_DAMAGED: Final = "its metadata is damaged"
_INDEX_PAGE: Final = 1
_DICTIONARY_PAGE: Final = 2
# Kinds of pages: the field of the header with the details, and the field of these with the encoding.
_PAGES: Final = {0: (5, 2), 2: (7, 2), 3: (8, 4)}
# With these, the values of a page take no more than the page, or have a fixed length. Of DELTA_LENGTH_BYTE_ARRAY and
# DELTA_BYTE_ARRAY, a hundred bytes can become gigabytes; pyarrow cannot read them as dictionaries.
_ENCODINGS: Final = frozenset({0, 2, 3, 4, 5, 8, 9})
_OLD_PADDING_BYTES: Final = 100
"""How far pyarrow reads beyond a column: old writers did not count the header of its dictionary."""


def parquet_rows(content: bytes, check_values: Callable[[int], None], most_columns: int) -> Iterator[Any]:
    """Yield the rows of a file.

    :param check_values: raises if a number of values is too large.
    :param most_columns: how many columns it may have.
    :raises ViduConfigError: when it is too large, or is not Parquet.
    """
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise ViduConfigError(
            "Parquet files need pyarrow. Install it with: pip install 'airflow-provider-vidu[parquet]'."
        ) from None
    values = unpacked = 0
    try:
        reader = CompactReader(content, _MOST_METADATA_BYTES)
        end, groups = _footer(content, reader, most_columns)
        metadata = parquet.read_metadata(arrow.BufferReader(_PARQUET + end))
        # Views, of which pyarrow copies nothing: the columns of a false footer may all be the whole file.
        opened = parquet.ParquetFile(arrow.BufferReader(content), metadata=metadata)
        _check_histograms(opened.schema, groups)
        texts = _checked_texts(opened, reader, check_values)
        # As dictionaries, equal cells take memory once, however many there are.
        opened = parquet.ParquetFile(arrow.BufferReader(content), metadata=metadata, read_dictionary=texts)
        for group in range(opened.num_row_groups):  # pyarrow cannot join lists of texts of two groups
            for batch in opened.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                sizes = list(map(_size, batch.columns))
                size = sum(size for _, size in sizes)
                values, unpacked = values + sum(count for count, _ in sizes), unpacked + size
                check_values(values)
                check_unpacked(unpacked)
                rows = 1 if size > _BATCH_BYTES else _BATCH_ROWS
                for start in range(0, batch.num_rows, rows):
                    yield from batch.slice(start, rows).to_pylist()
    except ViduConfigError:
        raise
    except Exception as error:  # pyarrow has errors of its own
        raise ViduConfigError(f"The file of rows is not readable Parquet: {redacted(error, 160)}.") from error


def _footer(content: bytes, reader: CompactReader, most_columns: int) -> tuple[bytes, list[Any]]:
    """Return the end of a Parquet file, from its footer on, unless it takes far more memory than its bytes.

    :return: also what the footer says of the row groups.

    :raises ViduConfigError: when it does.
    :raises ValueError: when it is damaged, or too long.
    """
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    if not content.endswith(_PARQUET) or start < len(_PARQUET):
        raise ValueError("its footer is missing, damaged or encrypted")
    reader.position = start
    footer = reader.struct(_FOOTER)
    schema = footer.get(2, [])
    # Asked about such a column, pyarrow would end the process.
    if any(_ENCRYPTED in chunk for group in footer.get(4, ()) for chunk in group.get(1, ())):
        raise ValueError("it is encrypted")
    columns = sum(not element.get(5) for element in schema)
    if max(columns, len(schema) - columns) > most_columns:
        raise ViduConfigError(f"The file of rows has more than {most_columns:,} columns.")
    # The path of each column holds the names of all that contain it.
    check_unpacked(len(schema) * sum(len(element.get(4, b"")) for element in schema))
    return content[start:].replace(_ARROW_SCHEMA, bytes(len(_ARROW_SCHEMA))), footer.get(4, [])


def _check_histograms(schema: Any, groups: list[Any]) -> None:
    """Refuse statistics of sizes that do not fit their columns: asked about such a column, pyarrow ends the process.

    :param groups: what the footer says of the row groups.
    :raises ValueError: when there are some.
    """
    # https://github.com/apache/arrow/blob/main/cpp/src/parquet/size_statistics.cc, SizeStatistics::Validate
    columns = [schema.column(number) for number in range(len(schema))]
    for column, chunk in (
        (column, chunk) for group in groups for column, chunk in zip(columns, group.get(1, ()), strict=False)
    ):
        sizes = _struct_in(_struct_in(chunk, _CHUNK_DETAILS), _SIZE_STATISTICS)
        levels = {2: column.max_repetition_level, 3: column.max_definition_level}
        if any(len(found) != most + 1 for field, most in levels.items() if (found := sizes.get(field))):
            raise ValueError(_DAMAGED)
        if 1 in sizes and column.physical_type != "BYTE_ARRAY":
            raise ValueError(_DAMAGED)


def _struct_in(struct: dict[int, Any], field: int) -> dict[int, Any]:
    """Return a struct in a struct; an empty one if the field is of another kind, which pyarrow skips."""
    found = struct.get(field)
    return found if isinstance(found, dict) else {}


def _checked_texts(opened: Any, reader: CompactReader, check_values: Callable[[int], None]) -> list[str]:
    """Return the paths of the columns of text.

    :raises ViduConfigError: when the file holds more than its reader has memory for.
    :raises ValueError: when it is damaged.
    """
    groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    if any(group.num_columns != len(opened.schema) for group in groups):  # asked about others, pyarrow ends the process
        raise ValueError(_DAMAGED)
    chunks = [(number, group.column(number)) for group in groups for number in range(group.num_columns)]
    columns = [opened.schema.column(number) for number in range(len(opened.schema))]
    check_values(sum(max(chunk.num_values, 0) for _, chunk in chunks))
    check_unpacked(sum(max(chunk.total_uncompressed_size, 0) for _, chunk in chunks))
    # The footer may lie. A page cannot: no more is unpacked than its own header says.
    values = unpacked = 0
    for number, chunk in chunks:
        count, size, dictionary = _pages(reader, chunk)
        values += count
        unpacked += size + max(count, _BATCH_ROWS) * _cell(columns[number], dictionary)
        check_values(values)
        check_unpacked(unpacked)
    return [column.path for column in columns if _is_text(column)]


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY" and column.converted_type != "DECIMAL")


def _cell(column: Any, dictionary: int) -> int:
    """Return how much a value of a column may take beyond the pages: only texts can be read as a dictionary.

    :param dictionary: the bytes of the column's dictionary.
    """
    if _is_text(column):
        return 0
    return dictionary if column.physical_type == "BYTE_ARRAY" else max(column.length, 0)


def _pages(reader: CompactReader, chunk: Any) -> tuple[int, int, int]:
    """Return what the headers of a column's pages say: the numbers of values, of bytes, and of bytes of the dictionary.

    :raises ViduConfigError: when they are encoded in a way that hides how much they hold.
    :raises ValueError: when they are damaged.
    """
    start, first = chunk.data_page_offset, chunk.dictionary_page_offset or 0
    start = first if 0 < first < start else start
    reader.position, end = _count(start), start + chunk.total_compressed_size + _OLD_PADDING_BYTES
    seen = values = unpacked = dictionary = 0
    while seen < chunk.num_values and reader.position < end:
        header = reader.struct()
        kind, size, packed = (_count(header.get(field)) for field in (1, 2, 3))
        reader.position += packed
        if kind == _INDEX_PAGE:
            continue
        details, encoding = _PAGES[kind]
        page = header[details]
        if page[encoding] not in _ENCODINGS:
            raise ViduConfigError(
                f"The column {sanitized(chunk.path_in_schema, 60)!r} of the file of rows is encoded in a way that "
                "hides how much it holds (DELTA_BYTE_ARRAY or DELTA_LENGTH_BYTE_ARRAY). Write it plain."
            )
        count = _count(page[1])
        values, unpacked = values + count, unpacked + max(size, packed)
        if kind == _DICTIONARY_PAGE:
            dictionary = max(dictionary, size, packed)
        else:
            seen += count
    return values, unpacked, dictionary


def _count(number: object) -> int:
    if type(number) is not int or not 0 <= number < 1 << 31:
        raise ValueError(_DAMAGED)
    return number


def _size(array: Any) -> tuple[int, int]:
    """Return how many values an Arrow array holds, and the bytes that they take if each has a text of its own."""
    if hasattr(array, "dictionary"):
        compute = import_module("pyarrow.compute")
        lengths = compute.binary_length(array.dictionary).take(array.indices)
        return len(array), len(array) + (compute.sum(lengths).as_py() or 0)
    if not array.type.num_fields:
        return len(array), array.nbytes
    if hasattr(array, "keys"):  # a map, which has no flatten
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        inner = [part.slice(begin, end - begin) for part in (array.keys, array.items)]
    else:
        inner = array.flatten()
    sizes = list(map(_size, inner if isinstance(inner, list) else [inner]))
    return len(array) + sum(count for count, _ in sizes), sum(size for _, size in sizes)


def check_unpacked(size: int) -> None:
    """Refuse, with a ViduConfigError, a file of rows that takes too much memory."""
    if size > _MOST_UNPACKED_BYTES:
        raise ViduConfigError(f"The file of rows unpacks to more than {_MOST_UNPACKED_BYTES:,} bytes: split it.")
