"""An environment with nothing but Airflow and the wheel; these tests look at it from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.versions import LISTED, ask_airflow, run_python

HERE = Path(__file__).parent
PYTHON = os.environ.get("BARE_PYTHON", "")


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the environment's interpreter."""
    if not PYTHON:
        pytest.fail("BARE_PYTHON names no interpreter: run `make matrix ARGS='--only bare'`.")
    return Path(PYTHON)


@pytest.fixture
def run_json(python, tmp_path) -> Callable[[str], Any]:
    """Return a function that runs a piece of Python and decodes the JSON of its last line."""
    return lambda code: json.loads(run_python(python, tmp_path, "-c", code).strip().splitlines()[-1])


@pytest.fixture(scope="session")
def airflow_says(python, tmp_path_factory) -> dict[str, Any]:
    """Return what ``airflow providers`` lists, by its further word."""
    return ask_airflow(python, tmp_path_factory.mktemp("asked"), *{command for command, _, _ in LISTED})
