"""Files of rows: JSON lines, CSV and Parquet."""

from __future__ import annotations

import importlib.util
import sys
import tracemalloc
from decimal import Decimal

import pytest

from airflow_provider_vidu.batches.reading import files
from airflow_provider_vidu.batches.reading.files import format_of, read_rows
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.prompts import load_prompts
from fault_table import REFUSED
from tests.rows import each_row


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [("s3://b/a.jsonl", None, "jsonl"), ("a.CSV", None, "csv"), ("a.pq", None, "parquet"), ("a.txt", "csv", "csv")],
)
def test_the_format(name, given, found):
    """The user's word wins over the extension."""
    assert format_of(name, given) == found


@pytest.mark.parametrize(("name", "given"), [("a.txt", None), ("v1.2/rows", None), ("a.csv", "xml")])
def test_an_unknown_format(name, given):
    """The error names the choices."""
    with pytest.raises(ViduConfigError, match="jsonl, csv, parquet"):
        format_of(name, given)


def test_json_lines(tmp_path):
    """Empty lines are skipped; a line that cannot be read is its error, and hides no other."""
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"prompt": "a\u2028b"}\r\n\n{bad\n"a dog"\n', "utf-8")
    first, bad, last = read_rows(str(path))
    assert (first, last) == ({"prompt": "a\u2028b"}, "a dog")
    assert "Line 3" in str(bad)


def test_a_json_array(tmp_path):
    """It counts as a file of rows, too."""
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "x"}, "y"]', "utf-8")
    assert list(read_rows(str(path))) == [{"prompt": "x"}, "y"]


@each_row(
    ("text", "expected"),
    [
        ("[ ]", []),
        (' [1, "a,]\\"[" , {"a": [1, {}, "}"]}, [], null] \n', [1, 'a,]"[', {"a": [1, {}, "}"]}, [], None]),
        ("[1,]", "Expecting value at line 1, column 4"),
        ('[\n"a",\n  nul]', "Expecting value at line 3, column 3"),
        ('[{"a":\n nul}]', "Expecting value at line 2, column 2"),
        ("[1 2]", "Extra data at line 1, column 4"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        *((text, "its list does not end, or something follows it") for text in ("[1", '["a', "[1}", "[1]]", "[1] 2")),
    ],
)
def test_the_elements_of_a_json_array(tmp_path, text, expected):
    """Each is parsed by itself; the error names its place in the file."""
    (tmp_path / "a.json").write_text(text, "utf-8")
    if isinstance(expected, list):
        assert list(read_rows(f"{tmp_path}/a.json")) == expected
        return
    with pytest.raises(ViduConfigError, match=f"The file of rows is not JSON: .*{expected}"):
        list(read_rows(f"{tmp_path}/a.json"))


def test_csv(tmp_path):
    """Quoted cells may hold line ends; a row with surplus cells is its error."""
    path = tmp_path / "a.csv"
    path.write_text('prompt,duration\n"a\nb",4\nx,4,5\ny\n', "utf-8")
    first, bad, last = read_rows(str(path))
    assert (first, last) == ({"prompt": "a\nb", "duration": "4"}, {"prompt": "y", "duration": None})
    assert "more cells" in str(bad)


CAT = {"key": "a", "prompt": "a cat"}


@each_row(
    ("text", "expected"),
    [
        ("key;prompt\na;a cat\n", [CAT]),
        ("key\tprompt\r\na\ta cat\r\n", [CAT]),
        ("key|prompt\na|a cat\n", [CAT]),
        ("sep=,\r\nprompt\r\na cat\r\n", [{"prompt": "a cat"}]),
        ("\ufeffsep=:\nkey:prompt\na:a cat\n", [CAT]),
        ("sep=1,prompt\na,a cat\n", [{"sep=1": "a", "prompt": "a cat"}]),
        ('"key;1",prompt\na,a cat\n', [{"key;1": "a", "prompt": "a cat"}]),
        ("prompt\na cat; a dog\n", [{"prompt": "a cat; a dog"}]),
        ("\r\nkey,prompt\r\n\r\na,a cat\r\n,\r\n , \r\n", [CAT]),
        ("key,prompt,\na,a cat,\na,a cat\n", [CAT, CAT]),
        ("\n", []),
    ],
)
def test_csv_as_spreadsheets_write_it(tmp_path, text, expected):
    """Semicolons, tabs, bars and what a first line for Excel names separate cells.

    Lines without a cell are empty, and a column without a name may be, too. Each of these lines would be a row
    without its prompt otherwise, and be paid for.
    """
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert list(read_rows(f"{tmp_path}/a.csv")) == expected


def test_a_cell_in_a_column_without_a_name(tmp_path):
    """A table of pandas has the numbers of its rows in one."""
    (tmp_path / "a.csv").write_text(",key,prompt\n0,a,a cat\n,a,a cat\n", "utf-8")
    bad, good = read_rows(f"{tmp_path}/a.csv")
    assert "Line 2 of the file of rows has a cell in a column without a name" in str(bad)
    assert good == CAT


@each_row(
    ("text", "problem"),
    [
        ("key,prompt\na\n", "has fewer cells than the heading: none for 'prompt'"),
        ("key,images,prompt,seed\na,a.png\n", "has fewer cells than the heading: none for 'prompt'"),
        ("key,body\na\n", "has fewer cells than the heading: none for 'body'"),
        ("key,prompt,body\na\n", "has fewer cells than the heading: none for 'body'"),
        ("key,prompt,seed\na,a c", "has no cell for 'seed', and the file ends without a line end"),
    ],
)
def test_a_line_without_its_last_cells(tmp_path, text, problem):
    """Of a row without its prompt, and of a file that was cut off, the rest would be paid for."""
    (tmp_path / "a.csv").write_text(text, "utf-8")
    (bad,) = read_rows(f"{tmp_path}/a.csv")
    assert f"Line 2 of the file of rows {problem}" in str(bad)


@each_row(
    "text",
    [
        "key,prompt,seed\na,a cat\n",
        "key,prompt,body\r\na,a cat\r\n",
        "key,body,prompt\ra,{}\r",
        "key,seed\na\n",
        "key,prompt,\na,a cat",
    ],
)
def test_a_line_without_empty_cells(tmp_path, text):
    """Excel omits the last cells of lines in which they are empty."""
    (tmp_path / "a.csv").write_bytes(text.encode())
    (row,) = read_rows(f"{tmp_path}/a.csv")
    assert row["key"] == "a"


def test_two_columns_of_one_name(tmp_path):
    """The cells of one would be lost, a prompt among them; the error quotes nothing of the file."""
    (tmp_path / "a.csv").write_text("key,prompt, prompt\na,a cat,\n", "utf-8")
    with pytest.raises(ViduConfigError, match="Column 3 of the file of rows has the name of an earlier one"):
        list(read_rows(f"{tmp_path}/a.csv"))


@each_row("path", ["http://127.0.0.1:9/a.csv", "HTTPS://example.com/a.csv?sig=hush", "https://example.com/a.parquet"])
def test_rows_at_a_web_address(path):
    """A client of fsspec would fetch them, past the connection's proxy, from any address a template could name."""
    with pytest.raises(ViduConfigError, match="is a web address, which is not fetched") as raised:
        list(read_rows(path, "csv"))
    assert "hush" not in str(raised.value)


def test_a_missing_file(tmp_path):
    """The error names it."""
    with pytest.raises(ViduConfigError, match=r"rows: the file .*none\.csv cannot be read: it does not exist"):
        list(read_rows(f"{tmp_path}/none.csv"))


def test_parquet_without_its_package(tmp_path, monkeypatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ViduConfigError, match=r"airflow-provider-vidu\[parquet\]"):
        list(read_rows(f"{tmp_path}/a.parquet"))


def test_an_error_quotes_no_line(tmp_path):
    """A path from a template may name any file of the worker, and its lines would stand in logs and the manifest."""
    (tmp_path / "airflow.cfg").write_text("fernet_key = 81HqDtbq\nsql_alchemy_conn = postgresql://u:word@db\n")
    read = list(read_rows(f"{tmp_path}/airflow.cfg", "jsonl"))
    assert [isinstance(row, ViduConfigError) for row in read] == [True, True]
    assert not any(word in str(row) for row in read for word in ("fernet", "81Hq", "word"))
    (tmp_path / "airflow.cfg").write_text("[core]\nfernet_key = 81HqDtbq\n")
    with pytest.raises(ViduConfigError, match="is not JSON: Expecting value at line 1, column 2") as raised:
        list(read_rows(f"{tmp_path}/airflow.cfg", "jsonl"))
    assert "81Hq" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", ",".join(f"a{number}" for number in range(1_001)) + "\nx\n", "more than 1,000 columns"),
        ("a.json", "[" + "[]," * 2_600_000 + "1]", "more than 5,000,000 values"),
        ("a.jsonl", "\n" * 2_000_001, "more than 2,000,000 lines"),
        ("c.jsonl", ('{"x":[' + "[]," * 19_000 + "1]}\n") * 300, "more than 5,000,000 values"),
        ("b.csv", "a\n" + "\r" * 2_000_001, "more than 2,000,000 lines"),
        ("d.csv", "a,b\n" + ('"\n",' + "," * 99) * 10_001, "more than 1,000,000 cells"),
        ("e.csv", ('"\n",' + "," * 99) * 10_001, "more than 1,000,000 cells"),
        ("b.json", "[" + '"aa",' * 5_000_000 + "1]", "more than 5,000,000 values"),
    ],
)
def test_a_small_file_of_very_much(tmp_path, name, content, words):
    """It is refused before it takes gigabytes of objects, or minutes."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ViduConfigError, match=words):
        for _ in read_rows(f"{tmp_path}/{name}"):
            pass


def test_the_cells_of_all_rows_are_counted(tmp_path, monkeypatch):
    """No row is large, and the file is; five million cells take seconds to read, so here it is fewer."""
    monkeypatch.setattr(files, "MOST_VALUES", 50_000)
    (tmp_path / "c.csv").write_text(",".join(map(str, range(1_000))) + ("\n" + "a," * 999) * 51)
    with pytest.raises(ViduConfigError, match="more than 50,000 values"):
        list(read_rows(f"{tmp_path}/c.csv"))


ROW = '{"prompt": "' + "x" * 500 + '"}'


@pytest.mark.parametrize(("name", "line"), [("a.csv", "x" * 500), ("a.jsonl", ROW), ("a.json", f",{ROW}")])
def test_a_file_takes_little_more_than_its_bytes(tmp_path, monkeypatch, name, line):
    """As one text, of which one emoji makes each character four bytes, half a gigabyte of CSV took seven."""
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 2_500_000)  # so much is set aside at first
    first = {"a.csv": "prompt", "a.jsonl": '"\U0001f600"', "a.json": '["\U0001f600"'}[name]
    last = [',"\U0001f600"', ',"y"]'] if name == "a.json" else ['"\U0001f600"'] * 2
    (tmp_path / name).write_text("\n".join([first, *[line] * 4_000, *last]))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(f"{tmp_path}/{name}"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4_002 + (name != "a.csv")
    assert peak < 2.5 * (tmp_path / name).stat().st_size


@each_row(
    ("name", "line"),
    [
        ("a.csv", "\U0001f600" + "x" * 600_000),
        ("a.jsonl", '{"prompt": "\\ud83d\\ude00' + "x" * 600_000 + '"}'),
        ("a.jsonl", '{"\U0001f600' + "x" * 600_000 + '": 1}'),
        ("a.csv", r'"{""p"": ""\ud83d\ude00' + "x" * 600_000 + '""}"'),
    ],
)
def test_texts_of_four_bytes_a_character(tmp_path, monkeypatch, name, line):
    """All rows are kept: one emoji in each would take four times the bytes of the file."""
    monkeypatch.setattr("airflow_provider_vidu.batches.reading.parquet._MOST_UNPACKED_BYTES", 5_000_000)
    (tmp_path / name).write_text("\n".join(["parameters", line] if name == "a.csv" else [line]), "utf-8")
    assert len(list(read_rows(f"{tmp_path}/{name}"))) == 1
    (tmp_path / name).write_text("\n".join([*(["parameters"] if name == "a.csv" else []), line, line, line]), "utf-8")
    with pytest.raises(ViduConfigError, match="unpacks to more than 5,000,000 bytes"):
        list(read_rows(f"{tmp_path}/{name}"))


def test_a_line_that_is_too_long(tmp_path, monkeypatch):
    """Lines of JSON fail alone. Of CSV, what follows may be the rest of a cell."""
    monkeypatch.setattr(files, "_MOST_LINE_CHARS", 100)
    (tmp_path / "a.jsonl").write_text('"' + "x" * 100 + '"\n"y"\n')
    first, second = read_rows(f"{tmp_path}/a.jsonl")
    assert "Line 1 of the file of rows is not read: it has more than" in str(first)
    assert second == "y"
    for line in ("x" * 101, '"' + "x\n" * 51 + '"'):
        (tmp_path / "a.csv").write_text("prompt\na\n" + "b\n" * 100 + line)
        with pytest.raises(ViduConfigError, match="A line of the file of rows is not read: it has more than"):
            list(read_rows(f"{tmp_path}/a.csv"))
    (tmp_path / "a.json").write_text('["y", ["' + "x" * 100 + '"]]')
    with pytest.raises(ViduConfigError, match="Row 2 of the file of rows is not read: it has more than"):
        list(read_rows(f"{tmp_path}/a.json"))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize(
    ("content", "place"), [(b"ab\xc3\xa9cd\xffe", 6), (b"abcd\xe2\x82", 4), (b"\xef\xbb\xbfa\xffbc", 1)]
)
def test_what_is_not_utf8(tmp_path, monkeypatch, size, content, place):
    """The error names the byte, wherever the pieces begin that are checked."""
    monkeypatch.setattr(files, "_PIECE_BYTES", size)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ViduConfigError, match=rf"not UTF-8 text: .* at byte {place}\."):
        list(read_rows(f"{tmp_path}/a.csv"))


def test_a_line_of_very_many_values(tmp_path):
    """It fails alone."""
    (tmp_path / "a.jsonl").write_text('"x"\n{"a": [' + "{}," * 10_000 + "{}]}\n")
    first, second = read_rows(f"{tmp_path}/a.jsonl")
    assert first == "x"
    assert "more than 20,000 values" in str(second)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_of_few_bytes_and_very_much(tmp_path, monkeypatch):
    """Equal cells are stored once, and a list of nothing takes no bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    monkeypatch.setattr("airflow_provider_vidu.batches.reading.parquet._MOST_UNPACKED_BYTES", 5_000_000)
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 10, pa.int32()), ["x" * 1_000_000])
    pyarrow.parquet.write_table(pa.table({"prompt": cells}), tmp_path / "a.parquet")
    empty = pa.ListArray.from_arrays([0, 6_000_000], pa.nulls(6_000_000, pa.int8()))
    pyarrow.parquet.write_table(pa.table({"list": empty}), tmp_path / "b.parquet")
    for name, words in (("a", "unpacks to more than 5,000,000 bytes"), ("b", "more than 5,000,000 values")):
        with pytest.raises(ViduConfigError, match=words):
            list(read_rows(f"{tmp_path}/{name}.parquet"))


def zigzag(number, length=0):
    """Return a number as the footer of a Parquet file stores it, in at least ``length`` bytes."""
    number, stored = number * 2, b""
    while number > 127 or len(stored) + 1 < length:
        stored, number = stored + bytes([number & 127 | 128]), number >> 7
    return stored + bytes([number])


@pytest.mark.fault("attacks", "a Parquet file of 600 bytes: a list of one long text, 300 times; a size that is a lie",
                   outcome=REFUSED, says="unpacks to more than")  # fmt: skip
@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
@pytest.mark.parametrize("lies", [False, True])
def test_parquet_is_measured_before_it_is_unpacked(tmp_path, monkeypatch, lies):
    """Neither the number of rows nor the footer says how much the cells take: a gigabyte of memory, or all of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr("airflow_provider_vidu.batches.reading.parquet._MOST_UNPACKED_BYTES", 5_000_000)
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * 1_000_000])
    column = cells if lies else pa.ListArray.from_arrays(pa.array([0, 300], pa.int32()), cells)
    pq.write_table(pa.table({"prompt": column}), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    if lies:
        content = (tmp_path / "a.parquet").read_bytes()
        size = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0).total_uncompressed_size
        told = zigzag(size)
        assert told in content
        (tmp_path / "a.parquet").write_bytes(content.replace(told, zigzag(1000, len(told))))
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ViduConfigError, match="unpacks to more than 5,000,000 bytes"):
        next(iter(read_rows(f"{tmp_path}/a.parquet")))
    assert pa.default_memory_pool().max_memory() <= max(before, 100_000_000)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
@pytest.mark.parametrize("options", [{}, {"store_schema": False, "use_dictionary": False}])
def test_parquet_of_every_kind(tmp_path, options):
    """Lists, objects, maps, gaps and numbers are those that pyarrow reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({
        "prompt": ["a", None, "b"] * 500, "images": [["x", "yy"], [], None] * 500, "number": [1, None, 2] * 500,
        "object": [{"k": "v", "n": 1}, None, {"k": None, "n": 2}] * 500, "empty": pa.nulls(1500),
        "map": pa.array([[("a", "1")], [], None] * 500, pa.map_(pa.string(), pa.string())),
        "pair": pa.array([[1.0, 2.0]] * 1500, pa.list_(pa.float64(), 2)),
        "fixed": pa.array([b"abc"] * 1500, pa.binary(3)),
        "price": [Decimal("1.5")] * 1500, "deep": [[["q"]]] * 1500,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet", **options)
    assert list(read_rows(f"{tmp_path}/a.parquet")) == pq.read_table(tmp_path / "a.parquet").to_pylist()


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet(tmp_path):
    """Columns keep their types; a file that is none is refused."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["a", "b"], "duration": [4, None]}), tmp_path / "a.parquet")
    assert list(read_rows(f"{tmp_path}/a.parquet")) == [
        {"prompt": "a", "duration": 4},
        {"prompt": "b", "duration": None},
    ]
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(ViduConfigError, match="not readable Parquet"):
        list(read_rows(f"{tmp_path}/b.parquet"))


def test_prompts_for_mapped_tasks(tmp_path):
    """Rows become arguments of the generate operator; a bad row fails all, because nothing may be missing."""
    path = tmp_path / "a.csv"
    path.write_text("key,prompt,duration\na,a cat,4\nb,a dog,\n", "utf-8")
    assert load_prompts(path) == [{"prompt": "a cat", "parameters": {"duration": 4}}, {"prompt": "a dog"}]
    path.write_text("key,prompt\na,a cat,4\n", "utf-8")
    with pytest.raises(ViduConfigError, match="more cells"):
        load_prompts(path)
