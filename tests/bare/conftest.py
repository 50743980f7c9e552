"""An environment with nothing but Airflow and the wheel; these tests look at it from outside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.versions import printed_json

HERE = Path(__file__).parent
PYTHON = os.environ.get("BARE_PYTHON", "")


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests: they belong to `make matrix`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.matrix)


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the environment's interpreter."""
    if not PYTHON:
        pytest.fail("BARE_PYTHON names no interpreter: run `make matrix ARGS='--only bare'`.")
    return Path(PYTHON)


@pytest.fixture
def run(python, tmp_path) -> Callable[..., str]:
    """Return a function that runs the interpreter in an Airflow home of its own, and gives what it prints."""

    def ran(*arguments: str) -> str:
        env = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        done = subprocess.run(
            [str(python), *arguments], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return ran


@pytest.fixture
def run_json(run) -> Callable[[str], Any]:
    """Return a function that runs a piece of Python and decodes the JSON of its last line."""
    return lambda code: json.loads(run("-c", code).strip().splitlines()[-1])


@pytest.fixture
def airflow_says(run) -> Callable[..., Any]:
    """Return a function that asks an ``airflow`` command for JSON."""
    return lambda *arguments: printed_json(run("-m", "airflow", *arguments, "--output", "json"))
