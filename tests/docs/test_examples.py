"""Every code block of the README and the manual runs, or is checked against what it names."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import parameters
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.sandbox import Sandbox
from tests.rows import each_row
from tests.unit.test_public_api import PUBLIC

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```([a-z-]+|\{[a-z-]+\}[^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# The names that every page may use, as in the section "Names" of the quick start.
PRELUDE = """
from airflow.providers.common.compat.sdk import Asset, AssetAlias, DAG
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor
"""


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def having(language: str) -> list[Path]:
    """Return the pages with code in a language."""
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Run the sandbox behind the connection that the pages use."""
    with Sandbox(queue=0.2, duration=0.4) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", sandbox.connection_json())
        yield sandbox


@pytest.mark.parametrize("page", having("python"), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, service):
    """The blocks of a page run one after the other, as a reader would type them, and against the sandbox."""
    names: dict[str, Any] = {}
    exec(PRELUDE, names)  # noqa: S102 - the repository's own pages
    with names["DAG"]("docs"):
        for code in blocks(page, "python"):
            exec(compile(code, page.name, "exec"), names)  # noqa: S102


@each_row("page", having("sh"), ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page):
    """Each command of a page names a target, an extra, an option or a setting that there is."""
    for code in blocks(page, "sh"):
        for words in commands(code):
            check(words)


def commands(code: str) -> Iterator[list[str]]:
    """Split a block into commands: comments go, lines that go on are joined, quotes may span lines."""
    text = code.replace("\\\n", " ").replace("$VIDU_API_KEY", "key")
    pending = ""
    for line in text.splitlines():
        pending += line + "\n"
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # an open quote
            continue
        pending = ""
        if words:
            yield words
    assert not pending.strip(), pending


def check(words: list[str]) -> None:
    """Assert that a command is one that exists."""
    first, *rest = words
    if first == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert rest[0] in targets
    elif first == "pip":
        for name in rest[1:]:
            found = re.fullmatch(r"airflow-provider-vidu(?:\[([a-z0-9,]+)\])?", name)
            assert found, name
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
            assert not found[1] or set(found[1].split(",")) <= extras.keys()
    elif first == "airflow":
        from airflow.cli import cli_parser

        cli_parser.get_parser().parse_args(rest)
    elif first == "export":
        name, _, value = rest[0].partition("=")
        assert re.fullmatch(r"AIRFLOW_(CONN_[A-Z_]+|_[A-Z]+__[A-Z_]+)", name), name
        assert value
        if name.startswith("AIRFLOW_CONN_"):
            check_connection(name, value)
        setting = re.fullmatch(r"AIRFLOW__VIDU__(\w+)", name)
        if setting:
            from airflow_provider_vidu.get_provider_info import get_provider_info

            assert setting[1].lower() in get_provider_info()["config"]["vidu"]["options"]
    elif words[:2] == ["python", "-m"]:
        options = [word for word in rest[2:] if word.startswith("--")]
        assert all(option in help_of(rest[1]) for option in options)
    else:
        raise AssertionError(f"an unknown command: {shlex.join(words)}")


@cache
def help_of(module: str) -> str:
    """Return what a command says of itself."""
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def check_connection(name: str, value: str) -> None:
    """Assert that a connection in the environment is one that the hook accepts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        config = ViduHook(name.removeprefix("AIRFLOW_CONN_").lower()).config
    assert config.base_url.startswith(("https://", "http://127.0.0.1:"))  # the latter is the sandbox


@each_row("page", PAGES, ids=lambda page: page.name)
def test_no_block_escapes(page):
    """Code is marked as Python or shell, and so it is tested; a block without a language is a drawing."""
    text = page.read_text("utf-8")
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    opening = fences[::2]
    assert len(fences) % 2 == 0
    # The connections of that page are run by tests/integration/api/test_routes.py.
    tested = {"python", "sh", ""} | ({"json"} if page.name == "routes.md" else set())
    assert {kind for kind in opening if not kind.startswith("{")} <= tested
    inside = re.split(r"^```.*$", text, flags=re.MULTILINE)[1::2]
    assert all("─" in content for kind, content in zip(opening, inside, strict=True) if not kind)


def test_every_setting_is_documented():
    """The manual's table of settings is that of the provider's metadata."""
    from airflow_provider_vidu.get_provider_info import get_provider_info

    told = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for option in get_provider_info()["config"]["vidu"]["options"]:
        assert f"`[vidu] {option}`" in told


def test_the_test_of_the_readme_passes(service, monkeypatch):
    """The README's test of a DAG's task passes with the fixture that it takes."""
    (code,) = [code for code in blocks(ROOT / "README.md", "python") if "vidu_sandbox" in code]
    names: dict[str, Any] = {}
    exec(PRELUDE + code, names)  # noqa: S102 - the repository's own pages
    assert names["pytest_plugins"] == ["airflow_provider_vidu.sandbox.pytest_plugin"]
    names["test_a_film"](service, monkeypatch)
    assert service.creates[0].body["prompt"] == "a red kite"


def test_the_readme_fits_on_one_page():
    """The README has at most 130 lines, says its status before the first command, and has one picture."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130
    assert "**Status: beta.**" in text.partition("```")[0]
    assert text.count("![") == 1


@each_row("page", PAGES, ids=lambda page: page.name)
def test_no_page_includes_another(page):
    """The README and the manual own their content: neither includes text from the other."""
    assert not re.search(r"\{include\}|literalinclude", page.read_text("utf-8"))


@each_row("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    """A link to a file of the repository names one, and its anchor is a heading of that file."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_manual():
    """The table of contents lists every page, and each page once."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    trees = [content for kind, content in BLOCK.findall(index) if kind == "{toctree}"]
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert sorted(listed) == sorted(page.stem for page in (ROOT / "docs").glob("*.md") if page.stem != "index")


def test_every_field_of_the_connection_is_documented():
    """The table of fields is that of the connection form, with the host and the key."""
    from airflow_provider_vidu.api.settings.form import CONN_FIELDS

    assert first_cells("connection.md", "## Fields") == {"host", "password", *CONN_FIELDS}


def first_cells(page: str, heading: str) -> set[str]:
    """Return the names in the first column of the table below a heading."""
    section = (ROOT / "docs" / page).read_text("utf-8").partition(f"{heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_error_is_documented():
    """The manual's table of errors names every class that users can meet."""
    from airflow_provider_vidu import exceptions

    told = (ROOT / "docs" / "errors.md").read_text("utf-8")
    kinds = [
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and kind.__module__ == exceptions.__name__
    ]
    missing = [
        name for name in kinds if not name.startswith("_") and f"`{name}`" not in told and name != "ViduAPIError"
    ]
    assert missing == [] or missing == ["ViduError"]


def test_the_table_of_errors_says_what_airflow_retries():
    """An error is marked × exactly if Airflow does not retry it."""
    from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

    from airflow_provider_vidu import exceptions

    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| (`Vidu[^|]+) \| (×|retried) \|", page, re.MULTILINE)
    marks = {name: mark for names, mark in rows for name in re.findall(r"`(\w+)`", names)}
    assert marks
    for name, mark in marks.items():
        final = issubclass(getattr(exceptions, name), (AirflowFailException, AirflowSensorTimeout))
        assert final == (mark == "×"), name


@pytest.mark.parametrize("name", parameters.PAGES)
def test_the_tables_of_parameters_follow_the_docstrings(name):
    """The page of a class lists every parameter with its default and meaning, and whether it is templated."""
    page = ROOT / "docs" / name
    assert page.read_text("utf-8") == parameters.rendered(page), "run `make tables`"


def test_the_reference_prints_what_is_public():
    """Every public name, and every module of public names, is in a directive of the reference."""
    printed = "\n".join(blocks(ROOT / "docs" / "reference.md", "{eval-rst}"))
    for module, names in PUBLIC.items():
        members = re.search(rf"automodule:: {module}\n   :members: (.*)", printed)
        listed = set(members[1].split(", ")) if members else set()
        assert [name for name in names if name not in listed and f":: {module}.{name}\n" not in printed] == []
