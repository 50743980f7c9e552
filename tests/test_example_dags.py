"""The examples as files: they import, say what they do, and work on every Airflow that is supported.

How they run is tested on a real Airflow, in ``tests/e2e/test_examples.py``.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import ParamValidationError
from airflow.providers.common.compat.sdk import DAG, XComArg

from tests.versions import AIRFLOW

EXAMPLES = sorted((Path(__file__).parent.parent / "example_dags").glob("*.py"))
# What needs more than the oldest Airflow: the module that it imports besides.
NEEDS_AIRFLOW_3 = {"vidu_on_finished": "airflow.sdk"}
OUTSIDE = ("../dags", "/etc", "a/b", "..", ".", "s3://x", "{{ x }}", "a\\b", "%2e%2e")

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def _dags(path: Path) -> list[DAG]:
    if path.stem in NEEDS_AIRFLOW_3:
        pytest.importorskip(NEEDS_AIRFLOW_3[path.stem], reason="it needs Airflow 3")
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    collected: list[DAG] = []
    original = DAG.__exit__

    def collecting(self: DAG, *details: Any) -> Any:
        collected.append(self)
        return original(self, *details)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DAG, "__exit__", collecting)
        spec.loader.exec_module(module)
    return collected


def test_there_are_examples():
    """The folder holds at least the three ways of use that the manual describes."""
    assert len(EXAMPLES) >= 3


@each_example
def test_an_example_holds_one_dag_of_its_own_name(path):
    """A reader who sees a DAG in the UI finds its file by its name."""
    (dag,) = _dags(path)
    assert dag.dag_id == path.stem
    assert "example" in dag.tags
    assert dag.doc_md


@each_example
def test_an_example_never_starts_by_itself(path):
    """Generations are billed, so an example that submits has no schedule; one that has a schedule starts paused."""
    (dag,) = _dags(path)
    submits = any(t.task_type == "ViduGenerateOperator" or "submit" in t.task_id for t in dag.tasks)
    schedule = dag.schedule if AIRFLOW >= (3, 0) else dag.schedule_interval
    assert schedule is None or (dag.is_paused_upon_creation and not submits)


@each_example
def test_what_is_billed_is_not_repeated_by_airflow(path):
    """A task that submits through the hook has no retries; a retry could pay twice."""
    (dag,) = _dags(path)
    for task in dag.tasks:
        if task.task_id.split(".")[-1] == "submit":
            assert task.retries == 0


@each_example
def test_waits_are_deferred(path):
    """Every wait of an example leaves its worker."""
    (dag,) = _dags(path)
    waits = [task for task in dag.tasks if task.task_type == "ViduGenerationSensor"]
    assert all(task.deferrable for task in waits)


@each_example
def test_an_example_imports_only_what_every_airflow_has(path):
    """Airflow is imported through common-compat alone: airflow.sdk is not there before 3.0."""
    imported = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    from_airflow = [name for name in imported if name and name.split(".")[0] == "airflow"]
    more = [NEEDS_AIRFLOW_3[path.stem]] if path.stem in NEEDS_AIRFLOW_3 else []
    assert from_airflow == ["airflow.providers.common.compat.sdk", *more]
    assert not more or "Needs Airflow 3" in ast.get_docstring(ast.parse(path.read_text()))


@each_example
def test_what_an_example_takes_from_a_task_is_handed_over(path):
    """``task.output["name"]`` is an XCom of that name, not a field of what the task returns: there are two of ours."""
    (dag,) = _dags(path)
    for task in dag.tasks:
        given = [getattr(task, name, None) for name in task.template_fields]
        if getattr(task, "is_mapped", False):  # not on every task of Airflow 2
            given += [task.partial_kwargs, getattr(task, "expand_input", None) and task.expand_input.value]
        taken = [found for value in given for found in XComArg.iter_xcom_references(value)]
        wrong = [key for operator, key in taken if key not in ("return_value", "generation_id")]
        assert wrong == []


@pytest.mark.fault(
    "attacks",
    "a user who triggers an example names a location",
    outcome="refused",
    seen="ParamValidationError before the run exists",
    requests=0,
)
@each_example
def test_a_run_names_no_location(path):
    """A user who may trigger a DAG does not choose where a worker writes: a run gives names, and these are checked."""
    (dag,) = _dags(path)
    folders = [name for name in dag.params if name in ("folder", "name")]
    assert "destination" not in dag.params
    for name in folders:
        for outside in (*OUTSIDE, "", " ", "films\n", "\uff11\uff12"):
            with pytest.raises(ParamValidationError):
                dag.params.get_param(name).resolve(outside)
    for task in dag.tasks:
        if task.task_type == "ViduDownloadOperator":
            fixed = getattr(task, "destination", None) or task.partial_kwargs["destination"]
            assert fixed.startswith("file:///tmp/vidu/")
            used = set(re.findall(r"{{ params\.(\w+) }}", fixed))
            assert used <= set(folders)
            assert fixed.count("{{") == len(used)


def test_the_deployment_says_where(monkeypatch):
    """The folder comes from the environment of the DAG processor and the workers."""
    monkeypatch.setenv("VIDU_EXAMPLES_DESTINATION", "s3://studio/films/")
    (dag,) = _dags(next(path for path in EXAMPLES if path.stem == "vidu_generate_and_download"))
    assert dag.get_task("download").destination == "s3://studio/films/{{ params.folder }}/"
