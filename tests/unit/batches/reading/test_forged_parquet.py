"""Parquet files whose footer or pages lie about how much they hold."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_vidu.batches.reading.files import read_rows
from airflow_provider_vidu.exceptions import ViduConfigError
from fault_table import REFUSED
from tests.rows import each_row

pa = pytest.importorskip("pyarrow", reason="only `make setup` installs it")
from tests.forged_parquet import (  # noqa: E402 - it needs pyarrow
    DELTA_LENGTHS,
    DELTA_TEXTS,
    DICTIONARY,
    FIXED,
    TEXT,
    cells,
    column,
    levels,
    long,
    page,
    parquet,
    repeated,
    unsigned,
)

MB = 1_000_000
LONG = cells(*[b"x" * MB] * 20)
ROW_OF_FIRST = b"\1" + repeated(0, 1)
UNPACKS, VALUES = "unpacks to more than 5,000,000 bytes", "more than 5,000,000 values"
MANY = 2**31 - 1
BILLION_LENGTHS = unsigned(1 << 30) + b"\1" + unsigned(1 << 30) + bytes(3)
ONE = page(0, cells(b"a"), 1)
META = {1: TEXT, 2: [0], 3: ["prompt"], 4: 0, 5: long(1), 6: long(10), 7: long(len(ONE)), 9: long(4)}
DECIMAL = column(kind=TEXT, converted=5, scale=2, precision=30)


@pytest.fixture
def limit(monkeypatch):
    """Files may unpack to five megabytes."""
    monkeypatch.setattr("airflow_provider_vidu.batches.reading.parquet._MOST_UNPACKED_BYTES", 5 * MB)


def read(tmp_path, content):
    """Return the rows of a file."""
    (tmp_path / "a.parquet").write_bytes(content)
    return list(read_rows(f"{tmp_path}/a.parquet"))


@pytest.mark.fault("attacks", "Parquet files of some kilobytes whose footer or page headers lie about sizes and counts",
                   outcome=REFUSED, says="unpacks to more than")  # fmt: skip
@each_row(
    ("content", "words"),
    [
        (parquet([page(0, LONG, 20, "zstd")], 20, "zstd"), UNPACKS),
        (parquet([page(0, LONG, 20, "gzip")], 20, "gzip"), UNPACKS),
        (parquet([page(3, LONG, 20, "zstd")], 20, "zstd"), UNPACKS),
        (parquet([page(0, LONG[: 2 * len(LONG) // 20], 2, "zstd")] * 3, 6, "zstd"), UNPACKS),
        (parquet([page(0, cells(b"x" * MB), 1, "zstd")], 1, "zstd", groups=6), UNPACKS),
        (parquet([page(2, LONG, 20, "zstd"), page(0, ROW_OF_FIRST, 1, "zstd", DICTIONARY)], 1, "zstd"), UNPACKS),
        # Counts: the footer says 1.
        (parquet([page(0, levels(repeated(0, MANY)), MANY)], schema=[column(kind=TEXT, repetition=1)]), VALUES),
        (parquet([page(2, b"", MANY), page(0, ROW_OF_FIRST, 1, encoding=DICTIONARY)]), VALUES),
        # What pyarrow does not read as a dictionary.
        (
            parquet([page(2, b"z" * 1000, 1), page(0, b"\1" + repeated(0, 6000), 6000, encoding=DICTIONARY)],
                    schema=[column(kind=FIXED, length=1000)]),
            UNPACKS,
        ),
        (
            parquet([page(2, cells(b"\1" * MB), 1), page(0, b"\1" + repeated(0, 6), 6, encoding=DICTIONARY)],
                    schema=[DECIMAL]),
            UNPACKS,
        ),
        # A hundred bytes of lengths.
        (parquet([page(0, BILLION_LENGTHS, 5, encoding=DELTA_LENGTHS)]), "hides how much"),
        (parquet([page(0, bytes(20), 5, encoding=DELTA_TEXTS)]), "'prompt' .*hides how much"),
        # The footer itself.
        (parquet([ONE], columns=[{2: long(4)}] * 400_000), "too much metadata"),
        (parquet([ONE], schema=[{3: 0, 4: "n" * 6000, 5: 999}, *[column(kind=TEXT)] * 999]), UNPACKS),
        (parquet([ONE], schema=[column(kind=TEXT)] * 1001), "more than 1,000 columns"),
        (parquet([ONE], schema=[*[{3: 0, 4: "g", 5: 1}] * 1001, column(kind=TEXT)]), "more than 1,000 columns"),
    ],
)  # fmt: skip
def test_a_file_that_lies(tmp_path, limit, content, words):
    """It is refused before it is unpacked: a footer of ten bytes stood for gigabytes of memory."""
    before = pa.default_memory_pool().max_memory()
    assert len(content) < 2 * MB + 400_000 * 3
    with pytest.raises(ViduConfigError, match=words):
        read(tmp_path, content)
    assert pa.default_memory_pool().max_memory() <= max(before, 6 * MB)


@each_row("codec", ["zstd", "gzip", "snappy", "brotli", "lz4_raw"])
def test_a_page_that_unpacks_to_more_than_its_header_says(tmp_path, codec):
    """Every decoder of pyarrow ends at the size in the header, so that this size can be believed."""
    content = parquet([page(0, LONG, 20, codec, unpacked=1000)], 20, codec)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ViduConfigError, match="not readable Parquet"):
        read(tmp_path, content)
    assert pa.default_memory_pool().max_memory() <= max(before, 6 * MB)


@each_row(
    "content",
    [
        parquet([page(0, cells(b"a"), 1, unpacked=-1)]),
        parquet([page(0, cells(b"a"), 1, packed=2**32 + 5)]),
        parquet([page(0, cells(b"a"), -1)]),
        parquet([page(4, cells(b"a"), 1)]),
        parquet([cells(b"a")]),
        parquet([ONE])[:-1] + b"E",
        parquet([ONE])[:-8] + b"\xff\xff\xff\xffPAR1",
        b"PAR1",
        # pyarrow ends the process when it is asked about these columns.
        parquet([ONE], columns=[{2: long(4), 3: META}] * 2),
        parquet([ONE], columns=[{2: long(4), 3: META, 8: {2: {1: ["prompt"]}}}]),
        parquet([ONE], schema=[{3: 0, 4: "group"}, column(kind=TEXT)]),
        parquet([ONE], columns=[{2: long(4), 3: {**META, 16: {2: [long(1)] * 4}}}]),
        parquet([ONE], columns=[{2: long(4), 3: {**META, 16: {3: [long(1)] * 2}}}]),
        parquet(
            [ONE], columns=[{2: long(4), 3: META | {1: FIXED, 16: {1: long(1)}}}], schema=[column(kind=FIXED, length=5)]
        ),
    ],
)
def test_a_damaged_file(tmp_path, content):
    """It ends with an error of this package."""
    with pytest.raises(ViduConfigError, match="not readable Parquet"):
        read(tmp_path, content)


@each_row(
    ("content", "rows"),
    [
        (parquet([page(0, cells(b"a", b"b"), 2, "zstd")], 2, "zstd"), [{"prompt": "a"}, {"prompt": "b"}]),
        (parquet([ONE] * 2, 2, groups=2), [{"prompt": "a"}] * 4),
        (parquet([page(1, b"index", 0), ONE]), [{"prompt": "a"}]),
        (
            parquet([ONE], columns=[{2: long(4), 3: {**META, 16: {1: long(1), 2: [long(1)], 3: [long(1)]}}}]),
            [{"prompt": "a"}],
        ),
        (parquet([page(3, cells(b"a"), 1, "snappy")], codec="snappy"), [{"prompt": "a"}]),
        (parquet([page(0, cells(b"\1\2"), 1)], schema=[DECIMAL]), [{"prompt": Decimal("2.58")}]),
        # 60 kilobytes of Arrow's own schema take ten gigabytes, so it is not read.
        (parquet([ONE], entries=[{1: "ARROW:schema", 2: "no"}]), [{"prompt": "a"}]),
    ],
)
def test_a_file_that_does_not_lie(tmp_path, limit, content, rows):
    """It is read."""
    assert read(tmp_path, content) == rows


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"dictionary_pagesize_limit": 1000}])
def test_lists_in_several_row_groups(tmp_path, options):
    """A part of the file may begin in one group and end in the next; pyarrow cannot join lists of texts then."""
    import pyarrow.parquet as pq

    table = pa.table({"prompt": [f"p{i}" for i in range(1500)], "images": [[f"a{i}", "b"] for i in range(1500)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700, **options)
    assert list(read_rows(f"{tmp_path}/a.parquet")) == table.to_pylist()
