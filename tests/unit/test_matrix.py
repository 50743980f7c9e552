"""The matrix agrees with what the package says of itself."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tempfile
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
    assert oldest.python == matrix.MATRIX[oldest.airflow][0]


@each_row("present", [{"3.11"}, {"3.11", "3.12"}, {"3.11", "3.13"}, set()])
def test_the_newest_end_is_on_the_newest_python_that_runs_here(monkeypatch, present) -> None:
    """What only Python 3.12 and later do was met by the whole matrix alone: each deferred wait ended with an error."""
    monkeypatch.setattr(matrix, "find_python", lambda version: version if version in present else None)
    _, newest = matrix.ends(matrix.cells())
    assert newest.python == max(present, default="3.11")


TESTS = matrix.ROOT / "tests"
PACKAGE = "airflow_provider_vidu"


@functools.cache
def module_file(module: str) -> Path | None:
    """Return the file of a module of the package or of the tests, or None for any other."""
    path = matrix.ROOT.joinpath(*module.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in found if file.exists()), None) if module.startswith((PACKAGE, "tests.")) else None


@functools.cache
def imports(file: Path) -> frozenset[str]:
    """Return what a module imports when it runs, also within its functions."""
    tree = ast.parse(file.read_text("utf-8"))
    # A package with names of its own for others' imports these at their first use.
    is_lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    for node in ast.walk(tree):
        if not is_lazy and isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    nodes = list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@functools.cache
def reached(test: str) -> frozenset[Path]:
    """Return the files that a test imports, and what those import."""
    # The API server of these tests loads the plugin by its entry point.
    more = [f"{PACKAGE}.ui.plugin"] if test.startswith("integration/ui/") else []
    left, seen = [TESTS / test, *filter(None, map(module_file, more))], set[Path]()
    while left:
        file = left.pop()
        if file not in seen:
            seen.add(file)
            left.extend(filter(None, map(module_file, imports(file))))
    return frozenset(seen)


def test_every_module_that_imports_airflow_is_tested_at_the_ends() -> None:
    """A new one needs a test there; the sandbox runs without Airflow."""
    folder = matrix.ROOT / PACKAGE
    meets = {
        file.relative_to(folder).with_suffix("").as_posix()
        for file in folder.rglob("*.py")
        if "sandbox" not in file.parts and any(name.startswith("airflow.") for name in imports(file))
    }
    assert meets == set(matrix.MEETS_AIRFLOW)


@each_row(("module", "tests"), matrix.MEETS_AIRFLOW.items())
def test_the_ends_run_tests_of_what_meets_airflow(module, tests) -> None:
    """Each test imports the module, or what imports it, and each end of the matrix runs it."""
    for test in tests:
        assert matrix.ROOT / PACKAGE / f"{module}.py" in reached(test), test
        assert all(f"tests/{test}" in cell.arguments["tests"] for cell in matrix.ends(matrix.cells()))


def test_every_test_that_asks_which_airflow_runs_at_the_ends() -> None:
    """What a test expects of one Airflow and not of another is seen on both ends."""
    asked = {"tests.versions", "airflow.providers.common.compat.version_compat", f"{PACKAGE}.links.has_pages"}
    files = [file for part in ("unit", "integration") for file in (TESTS / part).rglob("test_*.py")]
    asking = {f"tests/{file.relative_to(TESTS).as_posix()}" for file in files if asked & imports(file)}
    assert asking <= set(matrix.AT_THE_ENDS)
    assert {f"tests/{name}" for name in matrix.ASKS_WHICH_AIRFLOW} <= asking


def test_the_whole_matrix_runs_what_the_ends_leave_out() -> None:
    """By day or at night, every test of the package meets every Airflow, but for those of decisions."""
    every = {cell.airflow for cell in matrix.cells() if set(matrix.TESTED) <= set(cell.arguments.get("tests", ()))}
    assert every >= set(matrix.MATRIX)


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


_WAITS_FOR_THE_OTHER = """#!/bin/sh
case "$*" in *tests/matrix*) own=run ;; *) own=tests ;; esac
touch "began-$own"
for _ in $(seq 600); do [ -e began-run ] && [ -e began-tests ] && break; sleep 0.1; done
[ $own = run ] && [ -e began-tests ]
"""


def test_a_whole_airflow_runs_beside_the_other_tests(tmp_path, monkeypatch, capsys) -> None:
    """Each begins before the other has ended, and what fails is named."""
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "BUILD", tmp_path / "build" / "matrix")
    monkeypatch.setattr(matrix, "COPIED", ())
    python = tmp_path / "python"
    python.write_text(_WAITS_FOR_THE_OTHER)
    python.chmod(0o700)
    cell = matrix.Cell("2.11.0", "3.11", ("tests", "run"), title="beside")
    assert matrix.test(cell, python) == ["tests"]
    assert sorted(line.split(":")[0] for line in capsys.readouterr().out.splitlines()) == [
        "  beside-py3.11 run",
        "  beside-py3.11 tests",
    ]


@each_row("closing", ["1 failed, 17 passed in 225.12s (0:03:45)", "=== 5 passed in 3.10s ===", "no tests ran in 0.01s"])
def test_the_table_shows_pytests_closing_line(closing) -> None:
    """Also if Airflow prints a warning behind it; without one, the last line there is."""
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        log.write(f"ERROR: nothing\n{closing}\n\nbase.py:27 RemovedInAirflow3Warning: 3 metrics in 1.0s\n")
        log.flush()
        assert matrix._last_line(Path(log.name)) == closing
