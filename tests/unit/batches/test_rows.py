"""The rows of a batch: keys, arguments and names of files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airflow_provider_vidu.batches.arguments import check_naming
from airflow_provider_vidu.batches.reading.files import read_rows
from airflow_provider_vidu.batches.rows import Row, check_names, rows_of, stem
from airflow_provider_vidu.exceptions import ViduConfigError
from tests.rows import each_row

NOTHING = {"prompt": None, "model": None, "images": None, "endpoint": None, "parameters": None, "body": None}


def test_a_row_overrides_the_defaults():
    """Parameters are merged; other fields are parameters; empty ones are omitted; numbers in text become numbers."""
    defaults = {"model": "m", "images": None, "endpoint": None, "parameters": {"duration": 4, "seed": 1}}
    given = {"key": "a", "prompt": "x", "duration": "8", "style": "anime", "images": "", "parameters": '{"bgm": true}'}
    (row,) = rows_of([given], defaults)
    merged = {"duration": 8, "seed": 1, "style": "anime", "bgm": True}
    assert (row.key, row.arguments) == ("a", {**NOTHING, "prompt": "x", "model": "m", "parameters": merged})


def test_a_derived_key_does_not_depend_on_the_place():
    """A row that is inserted orders nothing again; equal rows are two rows."""
    first = rows_of(["a cat", "a dog", "a cat"], {})
    second = rows_of(["new", "a cat", "a dog", "a cat"], {})
    assert [row.key for row in second[1:]] == [row.key for row in first]
    assert len({row.key for row in second}) == 4


def test_what_pandas_makes_of_a_table():
    """Whole numbers in a column with gaps are floats, and the index is a column: neither makes the row unusable."""
    first, second = rows_of(
        [
            {"__index_level_0__": 7, "key": 1.0, "name": 12.0, "prompt": "a cat", "duration": 4.0},
            {"Unnamed: 0": 8, "key": float("nan"), "prompt": "a dog"},
        ],
        {},
    )
    assert (first.key, first.name, first.problem) == ("1", "12", None)
    assert first.arguments == {**NOTHING, "prompt": "a cat", "parameters": {"duration": 4}}
    assert (second.key, second.arguments) == (rows_of(["a dog"], {})[0].key, {**NOTHING, "prompt": "a dog"})


@each_row("name", ["parameters", " body "])
def test_the_values_of_json_texts_are_counted_over_all_rows(monkeypatch, name):
    """In a file each text is one value: half a gigabyte of them became ten of objects."""
    monkeypatch.setattr("airflow_provider_vidu.batches.rows.MOST_VALUES", 1_000)
    row = {name: '{"a": [' + "[]," * 100 + "1]}"}
    assert len(rows_of([row] * 4, {})) == 4
    with pytest.raises(ViduConfigError, match="The JSON texts of rows hold more than 1,000 values"):
        rows_of([row] * 5, {})
    assert len(rows_of([{name: '{"prompt": "a, b"}', "key": str(n)} for n in range(900)], {})) == 900


def test_a_key_that_is_given_twice_is_refused():
    """Before anything is ordered."""
    with pytest.raises(ViduConfigError, match="same key: 'a'"):
        rows_of([{"key": "a", "prompt": "x"}, {"key": "a", "prompt": "y"}], {})


@each_row(
    ("given", "words"),
    [
        (7, "must be an object or a prompt"),
        ({"key": 1.5, "prompt": "x"}, "must be text or a whole number"),
        ({"prompt": "x", "parameters": "[1]"}, "parameters must be a JSON object"),
        ({"body": {"a": 1}, "prompt": "x"}, "body replaces all other fields"),
        ({"prompt": "x", "name": "../up"}, "is not usable"),
        ({"prompt": "x", "name": ".vidu/state"}, "is not usable"),
        (ViduConfigError("Line 3 is not JSON"), "Line 3"),
        ("", "The row is empty"),
        (" \n", "The row is empty"),
        ({"prompt": "", "images": None, "duration": float("nan")}, "The row is empty"),
        ({"key": "a", "Prompt": "a dog"}, "the field 'Prompt'. Write it in lower case"),
    ],
)
def test_a_bad_row_is_a_row_with_a_problem(given, words):
    """It does not hide the others."""
    bad, good = rows_of([given, "a cat"], {})
    assert words in str(bad.problem)
    assert good.problem is None


class Unrendered:
    """As the output of a task that was not rendered, because a subclass does not list the field."""

    def __iter__(self):
        raise TypeError("'XComArg' object is not iterable")


@pytest.mark.parametrize("given", ["a.csv", {"prompt": "x"}, 7, b"x", Unrendered()])
def test_rows_that_are_no_list(given):
    """They are refused as a whole."""
    with pytest.raises(ViduConfigError, match="must be a list of rows"):
        rows_of(given, {})


def test_names_of_files():
    """A value makes no folder, a template does; unsafe characters lead to a hash; an own name wins."""
    row = Row("a/b", 3, {"prompt": "A cat", "model": "m"})
    assert stem(row, "{model}/{index}", None) == "m/00003"
    assert stem(row, "{key}", None).startswith("a_b-")
    assert stem(Row("k", 0, {}, name="films/one"), "{key}", None) == "films/one"


@each_row("device", ["con", "PRN", "aux.txt", "nul", "com0", "COM9", "lpt1", "LPT5.mp4", "conin$", "CONOUT$"])
def test_no_name_is_a_device(device):
    """What Windows takes for a device is the name of no folder and of no file."""
    for row, template in ((Row("k", 0, {}), device + "/{key}"), (Row(device, 0, {}), "{key}")):
        assert device not in stem(row, template, None).split("/")


def test_rows_with_the_same_file_are_refused():
    """Also where a file system ignores case."""
    with pytest.raises(ViduConfigError, match="same file name: 'clip'"):
        check_names([Row("a", 0, {}, name="Clip"), Row("clip", 1, {})], "{key}")
    check_names([Row("a", 0, {}), Row("b", 1, {})], "{generation_id}")


def test_a_row_whose_file_has_no_name_is_not_ordered():
    """Its generation would be paid for, and its file not stored; the prompt of a body counts."""
    rows = [Row("a", 0, {"prompt": None}), Row("b", 1, {"prompt": "x"}), Row("c", 2, {"body": {"prompt": "y"}})]
    for naming in ("{prompt}/{key}", "{prompt}/{generation_id}"):
        checked = check_names(rows, naming)
        assert [row.problem is None for row in checked] == [False, True, True]
    assert stem(rows[2], "{prompt}/{key}", None) == "y/c"


@pytest.mark.parametrize("template", ["clip", "{prompt}", "{key", "{nothing}-{key}", "{index:05d}", "{key[0]}"])
def test_a_naming_that_is_wrong_for_all_rows(template):
    """It is refused when the DAG is parsed."""
    with pytest.raises(ViduConfigError, match="naming"):
        check_naming(template)


class Frame:
    """A table of pandas, as far as it is looked at: a loop over it yields the names of its columns."""

    columns = ("prompt", "duration")
    iloc = None

    def __iter__(self):
        """Yield the columns."""
        return iter(self.columns)

    def to_dict(self, orient):
        """Return the rows."""
        assert orient == "records"
        return [{"prompt": "a", "duration": float("nan")}, {"prompt": "b", "duration": 4.0}]


class Arrow:
    """A table of Arrow, which is not iterable."""

    def to_pylist(self):
        """Return the rows."""
        return [{"prompt": "a"}, {"prompt": "b", "duration": 4}]


class Lazy(Sequence):
    """The outputs of mapped tasks, whose text does not show the items."""

    def __init__(self, *items):
        self._items = items

    def __getitem__(self, index):
        """Return an item."""
        return self._items[index]

    def __len__(self):
        """Return how many there are."""
        return len(self._items)

    def __repr__(self):
        """Return what Airflow does."""
        return f"LazyXComSequence([{len(self)} items])"


class Array:
    """An array of numpy, which has no truth value."""

    dtype = "object"

    def __init__(self, *items):
        self._items = items

    def tolist(self):
        """Return the items."""
        return list(self._items)

    def __ne__(self, other):
        """Return an array, too."""
        return self

    def __bool__(self):
        """Refuse."""
        raise ValueError("The truth value of an array is ambiguous")


@pytest.mark.parametrize("table", [Frame(), Arrow()], ids=["pandas", "arrow"])
def test_a_table_is_its_rows(table):
    """Not the names of its columns, each of which would be ordered and paid for as a prompt."""
    rows = rows_of(table, {})
    assert [(row.arguments["prompt"], row.arguments["parameters"]) for row in rows] == [
        ("a", None),
        ("b", {"duration": 4}),
    ]


@pytest.mark.parametrize("kind", [Lazy, Array])
def test_a_derived_key_shows_the_content_of_sequences(kind):
    """Another content has another key, or it would be served by an earlier file; the same one has the same key."""
    rows = rows_of([{"prompt": "a", "images": kind("x.png")}, {"prompt": "a", "images": kind("y.png")}], {})
    (again,) = rows_of([{"prompt": "a", "images": ["x.png"]}], {})
    assert rows[0].key == again.key
    assert not rows[1].key.startswith(rows[0].key)


def test_names_of_different_types_in_a_row():
    """They are a problem of the row at most."""
    (row,) = rows_of([{"prompt": "a", "parameters": {1: 2, "b": 3}}], {})
    assert row.key


def test_a_key_is_no_message():
    """Passwords are masked in messages; two keys must stay two, and the rows of a batch that was begun its own."""
    keys = ["sftp://user:one@h/a", "sftp://user:two@h/a"]
    assert [row.key for row in rows_of([{"key": key, "prompt": "x"} for key in keys], {})] == keys


NO_ROWS = {
    "no heading": "a red kite\na blue kite\na green kite\n",
    "no heading, two columns": "a red kite,4\na blue kite,4\n",
    "a web page": "<!DOCTYPE html>\n<html>\n<body>\nSign in\n",
    "an error of S3": "<?xml version='1.0'?>\n<Error>\n<Code>AccessDenied</Code>\n",
    "an error in words": "Error: the export failed\nPlease try again later\n",
    "a pointer of Git LFS": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "JSON": '{\n "error": "expired"\n}\n',
    "a heading in Chinese": "提示词\n红色的风筝\n",
    "a heading in words": "key,model,The prompt\na,viduq2,a red kite\n",
}


@each_row("kind", NO_ROWS)
def test_a_file_that_is_none_of_rows_orders_nothing(kind, tmp_path):
    """A gateway ignores, or passes on, parameters that it does not know: each line was ordered without its prompt."""
    path = tmp_path / "rows.csv"
    path.write_text(NO_ROWS[kind], "utf-8")
    rows = rows_of(read_rows(str(path)), {"model": "viduq2", "images": ["https://example.com/a.png"]})
    assert rows
    for row in rows:
        assert "must name its columns" in str(row.problem)
        assert "kite" not in str(row.problem)


@each_row(
    "row",
    [
        {"seed": 1, "camera-control": "pan", "$ref": "x", "a.b[0]": 2, "_x": 3},
        {"Unnamed: 0": 7, "duration": 4},
        {"prompt": "a kite", "My notes": "x"},
        {"images": ["https://example.com/a.png"], "备注": "x"},
    ],
)
def test_parameters_alone_are_a_row(row):
    """Such as seeds for one picture; beside what is ordered, any field is a parameter, as documented."""
    assert [one.problem for one in rows_of([row], {"images": ["https://example.com/a.png"]})] == [None]
