"""The soak runs as programs of its own, so that what is measured is theirs alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
LIMIT_SECONDS = 480.0


@pytest.fixture
def run(tmp_path) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a program of this folder and returns its report and its log."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        report, log = tmp_path / "report.json", tmp_path / "log"
        command = [sys.executable, "-m", f"tests.soak.{name}", "--report", str(report), *arguments]
        root = HERE.parents[1]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (root, root / "scripts")))}
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=root, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = process.wait(LIMIT_SECONDS)
            finally:
                # Its own session: also the forked runner of a soak that did not end by itself.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = log.read_text(errors="replace")
        assert code == 0, text[-3000:]
        return {**json.loads(report.read_text()), "log": text}

    return run
