"""What a contributor meets first is true: the workflow, the templates, the hooks and CONTRIBUTING."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_vidu"
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*_*.yml"))
MADE = {"build/uv.log", ".venv"}
"""Named in CONTRIBUTING and made by `make setup`, so not in a fresh clone."""


def named(text: str) -> set[str]:
    """Return the files and folders that a page names, in links and in code spans, without those of a command."""
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    spans = {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.split(r"[\s=]", span)}
    return links | {word for word in spans if re.fullmatch(r"[\w./-]*(/[\w./-]*|\.(md|py|toml|sh|ya?ml))", word)}


def test_contributing_names_files_that_exist() -> None:
    """Every path is relative to the repository or to the package, and nothing has moved since."""
    paths = named(PAGE)
    assert {"SECURITY.md", "CHANGELOG.md", ".ci/run", "tests/unit/test_public_api.py", "tests/stores/"} <= paths
    assert [path for path in sorted(paths - MADE) if not ((ROOT / path).exists() or (PACKAGE / path).exists())] == []


def test_contributing_names_commands_that_exist() -> None:
    """Every `make` target in prose, tables and blocks is one of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = set(re.findall(r"(?:`|^)make ([a-z-]+)", PAGE, re.MULTILINE))
    assert {"setup", "check", "test-fast"} <= asked <= targets


def test_the_first_patch_comes_first() -> None:
    """A stranger reads how to make a change before anything else."""
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE)[0] == "Your first patch"


def test_the_workflow_runs_the_script() -> None:
    """CI on a forge checks what `.ci/run` checks, no more and no less, on pushes and pull requests."""
    (job,) = WORKFLOW["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert set(WORKFLOW[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as True
    assert "continue-on-error" not in str(job)


def test_the_workflow_can_do_no_harm() -> None:
    """It may read the repository, ends in time, replaces its own stale runs, and pins each action."""
    (job,) = WORKFLOW["jobs"].values()
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    assert job["timeout-minutes"] <= 90
    assert WORKFLOW["concurrency"]["group"]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert "secrets." not in str(WORKFLOW)


def test_the_workflow_installs_the_pythons_of_the_matrix() -> None:
    """`.ci/run` uses the oldest and the newest Python that the package supports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    supported = {found for name in project["classifiers"] if (found := name.rpartition(" ")[2]).startswith("3.")}
    (job,) = WORKFLOW["jobs"].values()
    (installed,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert set(installed.split()) == supported


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_can_be_filled(path) -> None:
    """Every question has its own id and a label, and at least one must be answered."""
    form = yaml.safe_load(path.read_text("utf-8"))
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    ids = [part["id"] for part in questions]
    assert form["name"]
    assert form["description"]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in questions)
    assert any(part.get("validations", {}).get("required") for part in questions)


def test_hooks_use_the_tools_of_set_up() -> None:
    """pre-commit downloads nothing: each hook is local and runs a tool that `make check` runs from .venv."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (repository,) = config["repos"]
    check = (ROOT / "Makefile").read_text("utf-8").partition("\ncheck:")[2].partition("\n\n")[0].replace('"', "")
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        tool = shlex.split(hook["entry"].removeprefix(".venv/bin/"))
        assert hook["entry"].startswith(".venv/bin/")
        assert hook["language"] == "system"
        assert f"$(BIN)/{' '.join(tool[:1] if tool[0] != 'python' else tool[:3])}" in check


# A Python that installs nothing: it records its arguments, and fails if they contain one of the words in $FAILING.
RECORDER = """#!{python}
import os, sys
line = " ".join([os.environ.get("UV_SYSTEM_CERTS", "-"), *sys.argv[1:]])
if "--version" not in line:
    with open({record!r}, "a") as record:
        record.write(line + "\\n")
sys.exit(any(word in line for word in os.environ["FAILING"].split(",")))
"""
UV = "-m uv --quiet pip install --compile-bytecode --python PYTHON six"
PIP = "-m pip install -qq six"


@pytest.mark.parametrize(
    ("failing", "given", "expected"),
    [
        ("nothing", {}, [f"true {UV}"]),
        ("true -m uv --quiet", {}, [f"true {UV}", f"false {UV}"]),
        ("uv --quiet", {}, [f"true {UV}", f"false {UV}", f"- {PIP}"]),
        ("uv --version", {}, [f"- {PIP}"]),
        ("uv --quiet", {"UV_SYSTEM_CERTS": "false"}, [f"false {UV}", f"false {PIP}"]),
        ("uv --quiet,pip install -qq", {}, [f"true {UV}", f"false {UV}", f"- {PIP}"]),
    ],
    ids=["uv", "no-system-certificates", "pip", "no-uv", "certificates-chosen", "nothing-can"],
)
def test_set_up_falls_back(failing, given, expected, tmp_path) -> None:
    """Set-up tries uv with the system's certificates, then with uv's own, then pip; if all fail, so does make."""
    record, python = tmp_path / "record", tmp_path / "python"
    python.write_text(RECORDER.format(python=sys.executable, record=str(record)))
    python.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name != "UV_SYSTEM_CERTS"}
    command = ["sh", str(ROOT / "scripts/install.sh"), str(python), "six"]
    done = subprocess.run(command, cwd=tmp_path, env=inherited | given | {"FAILING": failing}, check=False)
    assert (done.returncode == 0) == ("pip install -qq" not in failing)
    assert record.read_text("utf-8").replace(str(python), "PYTHON").splitlines() == expected
