"""Files of rows: JSON lines, CSV and Parquet."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from airflow_provider_vidu.batches.reading import format_of, read_rows
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.prompts import load_prompts


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


def test_csv(tmp_path):
    """Quoted cells may hold line ends; a row with surplus cells is its error."""
    path = tmp_path / "a.csv"
    path.write_text('prompt,duration\n"a\nb",4\nx,4,5\ny\n', "utf-8")
    first, bad, last = read_rows(str(path))
    assert (first, last) == ({"prompt": "a\nb", "duration": "4"}, {"prompt": "y", "duration": None})
    assert "more cells" in str(bad)


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
