"""What the hook returns in one ``@task`` is read in the next one, whatever that process has imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.models import (
    Artifact,
    Cancellation,
    Credits,
    Generation,
    GenerationStatus,
    SearchResult,
)
from airflow_provider_vidu.tasks.deserializing import allow_models
from tests.rows import each_row
from tests.versions import AIRFLOW

pytestmark = pytest.mark.skipif(
    AIRFLOW < (3, 0), reason="Airflow 2 also refuses the tuples that pydantic's models hold"
)
ROOT = Path(__file__).parents[3]
IN_A_TASK = """
import airflow.sdk.execution_time.task_runner
from airflow import plugins_manager
import airflow_provider_vidu.ui.plugin
import json, sys
names = ("airflow.sdk.serde", "airflow.serialization.serde")
serde = next(sys.modules[name] for name in names if hasattr(sys.modules.get(name), "_extra_allowed"))
unread = "airflow_provider_vidu.models" not in sys.modules
print(json.dumps([unread, serde.deserialize(json.loads(sys.argv[1])).id]))
"""


def serde() -> Any:
    """Return Airflow's module that reads XComs."""
    names = ("airflow.sdk.serde", "airflow.serialization.serde")
    return next(sys.modules[name] for name in names if hasattr(sys.modules.get(name), "_extra_allowed"))


@each_row(
    "returned",
    [
        Generation(id="g1", status=GenerationStatus.SUCCEEDED, video_url="https://h/v.mp4", credits=4),
        Artifact(url="https://h/v.mp4"),
        Credits(remaining=4),
        Cancellation(accepted=True, reason="x"),
        SearchResult(generation_id="g1", candidates=("g1", "g2")),
    ],
)
@pytest.mark.parametrize("allow", [allow_models, ViduHook])
def test_what_the_hook_returns_can_be_read(returned: Any, allow: Callable[[], Any], monkeypatch: Any) -> None:
    """Airflow stores these models, and reads none that is not allowed."""
    monkeypatch.setattr(serde(), "_extra_allowed", set())
    stored = json.loads(json.dumps(serde().serialize(returned)))
    with pytest.raises(ImportError):
        serde().deserialize(stored)
    allow()
    assert serde().deserialize(stored) == returned


@pytest.mark.processes
def test_a_task_that_imports_nothing_of_ours(tmp_path: Path) -> None:
    """Its process has loaded Airflow's plugins alone when it reads the XCom of the task that has paid."""
    stored = serde().serialize(Generation(id="g1", status=GenerationStatus.SUCCEEDED))
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_TASK, json.dumps(stored)],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [True, "g1"]
