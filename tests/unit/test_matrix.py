"""The matrix agrees with what the package says of itself."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import matrix
from tests.rows import each_row

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


@each_row("cell", matrix.cells(), ids=lambda cell: cell.name)
def test_each_cell_is_pinned(cell) -> None:
    """Its constraints hold this very Airflow, and no address."""
    pins = cell.constraints.read_text("utf-8")
    assert f"\napache-airflow=={cell.airflow}\n" in pins
    assert "://" not in pins


def test_the_lowest_cell_is_the_lowest() -> None:
    """Every dependency stands there at the version that pyproject.toml gives as the lowest."""
    pins = matrix.LOWEST.constraints.read_text("utf-8").splitlines()
    lowest = [re.sub(r"\[.*?\]", "", pin) for pin in matrix.lowest_versions()]
    assert set(lowest) <= set(pins)
    assert len(lowest) == len(PROJECT["dependencies"]) + 5
    assert all(re.search(r"==[0-9.]+$", pin) for pin in lowest)


def test_oldest_and_newest_are_of_every_change() -> None:
    """What .ci/run takes are the two ends of the table, each with the whole run."""
    oldest, newest = matrix.ends(matrix.cells())
    assert (oldest.airflow, newest.airflow) == (next(iter(matrix.MATRIX)), list(matrix.MATRIX)[-1])
    assert oldest.goes == newest.goes == ("tests", "run")


@each_row("name", matrix.AT_NIGHT)
def test_what_the_ends_omit_is_in_the_whole_matrix(name) -> None:
    """It is there, the two ends omit it, and every cell of the whole matrix with these tests runs it."""
    left_out = f"--ignore=tests/{name}"
    assert (matrix.ROOT / "tests" / name).exists()
    assert all(left_out in cell.arguments["tests"] for cell in matrix.ends(matrix.cells()))
    assert not any(left_out in cell.arguments.get("tests", ()) for cell in matrix.cells())


def test_each_airflow_has_a_run_of_its_own() -> None:
    """Every Airflow of the table gets scheduler and triggerer once, every cell gets some test."""
    assert {cell.airflow for cell in matrix.cells() if "run" in cell.goes and not cell.title} == set(matrix.MATRIX)
    assert all(set(cell.goes) <= set(matrix.GOES) and cell.goes for cell in matrix.cells())


def test_only_tests_of_tools_are_left_out() -> None:
    """What the cells do not run is there, and looks at nothing of the package that users install."""
    for name in matrix.OF_THE_HOUSE:
        tree = ast.parse((Path(__file__).parent / f"test_{name}.py").read_text("utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not [module for module in modules if module.startswith("airflow_provider_vidu")]


def test_decisions_are_tested_on_each_python() -> None:
    """What most cells leave out is there, and runs on every Python in some cell."""
    for name in matrix.WITHOUT_AIRFLOW:
        assert list((matrix.ROOT / "tests/unit" / name).glob("test_*.py"))
        left_out = f"--ignore=tests/unit/{name}"
        tested = {cell.python for cell in matrix.cells() if left_out not in cell.arguments.get("tests", (left_out,))}
        assert tested == {cell.python for cell in matrix.cells()}


def test_each_python_of_the_classifiers_is_in_it() -> None:
    """A Python that the package says it supports has a cell."""
    said = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)}
    assert said == {cell.python for cell in matrix.cells()}


def test_a_cell_that_cannot_be_installed_is_told(tmp_path, monkeypatch) -> None:
    """It is one red line of the table; the other cells go on."""
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "BUILD", tmp_path / "build" / "matrix")
    python = "{}.{}".format(*sys.version_info)
    cell = matrix.Cell("2.11.0", python, ("bare",), title="broken", pins="there-are-no-such-pins")
    wheel = tmp_path / "airflow_provider_vidu-0-py3-none-any.whl"
    assert matrix.whole(cell, wheel) == f"FAILED to install, see build/matrix/broken-py{python}/install.log"
    assert "there-are-no-such-pins" in (matrix.BUILD / cell.name / "install.log").read_text("utf-8")
