"""The page on the architecture, against the code that it describes."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from tests.rows import each_row

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "airflow_provider_vidu"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PLACES = re.findall(r"`([\w.]+)`\s+in\s+`([\w/.]+)`", PAGE)


def layers_of(container: str) -> list[list[str]]:
    """Return the layers that import-linter keeps within a package, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (contract,) = [
        one
        for one in settings["tool"]["importlinter"]["contracts"]
        if one["type"] == "layers" and one["containers"] == [container]
    ]
    return [layer.split(" | ") for layer in contract["layers"]]


def test_the_figure_shows_the_contract() -> None:
    """The rows of the figure are the layers that import-linter keeps, in their order."""
    rows = [row.partition("│")[0] for row in PAGE.splitlines() if "│" in row]
    assert [re.split(r",\s*", row.strip()) for row in rows] == layers_of("airflow_provider_vidu")


@each_row("package", ["sandbox", "ui"])
def test_a_docstring_lists_the_floors_of_its_package(package: str) -> None:
    """The docstrings to which the page refers name every floor, in the order of the contract."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text("utf-8"))) or ""
    layers = layers_of(f"airflow_provider_vidu.{package}")
    floors = {name: number for number, layer in enumerate(layers) for name in layer}
    named = [name for name in dict.fromkeys(re.findall(r"``(\w+)``", docstring)) if name in floors]
    assert set(named) == set(floors)
    assert named == sorted(named, key=floors.__getitem__)


@each_row(("name", "place"), sorted(set(PLACES)))
def test_what_the_page_names_is_there(name: str, place: str) -> None:
    """A file, class, function or table that the page names is where the page says."""
    path = PACKAGE / place
    if name.endswith(".py"):
        assert (path / name).is_file()
        return
    sources = [path] if path.is_file() else sorted(path.glob("*.py"))
    texts = [source.read_text("utf-8") for source in sources]
    first, _, method = name.partition(".")
    assert any(re.search(rf"^(class|def) {first}\b|^{first}(:.*)? = ", text, re.MULTILINE) for text in texts)
    assert not method or any(f"    def {method}(" in text for text in texts if f"class {first}" in text)


def test_the_page_answers_what_a_first_reader_asks() -> None:
    """The page says where the decisions are that readers look for first."""
    named = {name for name, _ in PLACES}
    money = {"Spending.checked_left", "Spending.exceeds", "check_balance", "check_credits", "Submission.check_price"}
    assert money | {"find_lost", "outcome_is_unknown", "Submitter.search", "OrderRecord.was_cleared"} <= named
    assert {"error_class", "may_repeat", "Submission", "AtomicWriter.publish", "Dialect", "schemes.py"} <= named
