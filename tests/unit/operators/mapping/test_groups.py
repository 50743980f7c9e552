"""Whether the instances of a task in a mapped group write one file, with the groups of the installed Airflow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task, task_group

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.operators import ViduBatchOperator, ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.operators.mapping.instances import check_mapped, destinations_of
from airflow_provider_vidu.operators.mapping.shared_names import batch_name, check_own_file, is_shared_in
from airflow_provider_vidu.sensors import ViduGenerationSensor
from tests.rows import each_row

ID = "/{{ task.generation_id }}.mp4"
IDS = "/{{ task.generation.id }}.mp4"
PROMPT = "/{{ task.prompt }}.mp4"


def generate(**kwargs: Any) -> ViduGenerateOperator:
    """Return the task that orders in a group."""
    return ViduGenerateOperator(task_id="generate", model="viduq2", **{"prompt": "kite", **kwargs})


def download(**kwargs: Any) -> ViduDownloadOperator:
    """Return the task that stores a file in a group."""
    return ViduDownloadOperator(task_id="download", **kwargs)


def film(body: Callable[..., Any], expand: Any, values: Any = None) -> DAG:
    """Return a DAG with a mapped group.

    :param body: makes the group's tasks of what the group is mapped over; ``outside`` is an earlier task's generation.
    :param expand: what the group is mapped over: values by name, or rows; the name alone for an upstream task's list.
    :param values: that list.
    """
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        earlier = ViduGenerateOperator(task_id="outside", prompt="kite", model="viduq2").output
        if isinstance(expand, str):
            expand = {expand: task(task_id="listed")(lambda: values)()}
        group: Any = task_group(group_id="film")(body)
        if "outside" in signature(body).parameters:
            group = group.partial(outside=earlier)
        group.expand(**expand) if isinstance(expand, dict) else group.expand_kwargs(expand)
    return dag


def running(dag: DAG, name: str, index: int = 0) -> Any:
    """Return the context of an instance of a group's task, whose upstream task has returned its list."""
    listed = dag.task_dict.get("listed")
    returned = None if listed is None else listed.python_callable()  # type: ignore[attr-defined]
    ti = SimpleNamespace(
        dag_id="d",
        run_id="r",
        task_id=f"film.{name}",
        map_index=index,
        xcom_pull=lambda **_: returned,
        get_relevant_upstream_map_indexes=lambda *_, **__: None,  # Airflow 2 asks for it, and for a count
    )
    return {"ti": ti, "dag": dag, "expanded_ti_count": None}


def by_prompt(prompt: Any) -> None:
    """Order a prompt."""
    generate(prompt=prompt)


def by_prompt_and_seed(prompt: Any, seed: Any) -> None:
    """Order a prompt with each seed."""
    generate(prompt=prompt, parameters={"seed": seed})


def prompt_twice(prompt: Any) -> None:
    """Use a value of the group in two arguments."""
    generate(prompt=prompt, parameters={"style": prompt})


def order_and_store(prompt: Any) -> None:
    """Order a generation and store its file."""
    download(generation_id=generate(prompt=prompt).output, destination=ID)


def order_wait_and_store(prompt: Any) -> None:
    """Do the same with a sensor between the two."""
    wait = ViduGenerationSensor(task_id="wait", generation_id=generate(prompt=prompt, wait_for_completion=False).output)
    download(generation=wait.output, destination=IDS)


def pull_and_store(prompt: Any) -> None:
    """Do the same with a template in place of a reference."""
    generate(prompt=prompt)
    download(generation_id="{{ ti.xcom_pull('film.generate', map_indexes=ti.map_index) }}", destination=ID)


def pull_by_macro(prompt: Any) -> None:
    """Do the same with a user's macro that returns the id."""
    generate(prompt=prompt)
    download(generation_id="{{ id_of(task) }}", destination=ID)


def earlier_one(outside: Any, endpoint: Any) -> None:
    """Store one generation in each instance."""
    download(generation=outside, endpoint=endpoint, destination=IDS)


def wait_for_earlier_one(outside: Any, endpoint: Any) -> None:
    """Store it behind a sensor in the group."""
    wait = ViduGenerationSensor(task_id="wait", generation_id=outside["generation_id"])
    download(generation=wait.output, endpoint=endpoint, destination=IDS)


def by_id(gid: Any) -> None:
    """Store generations by their id."""
    download(generation_id=gid, destination=ID)


def to_path(path: Any) -> None:
    """Store at the paths that the group is mapped over."""
    download(generation_id=generate().output, destination=path)


@pytest.mark.fault(
    "stores and files",
    "files of a mapped task group that are named after equal values, or after the id of one generation",
    outcome="refused",
    seen="an error before anything is paid; a warning where the values cannot be compared",
)
@each_row(
    ("body", "expand", "name", "written", "before", "then"),
    [
        # body, what the group is mapped over, task, name of its file; shared as the DAG shows it, and in an instance
        (by_prompt, {"prompt": ["kite", "kite"]}, "generate", PROMPT, True, True),
        (by_prompt, {"prompt": ["kite", "pond"]}, "generate", PROMPT, False, False),
        (by_prompt, {"prompt": ["kite"]}, "generate", "/a.mp4", False, False),
        (by_prompt, {"prompt": ["kite", "pond"]}, "generate", "/a.mp4", True, True),
        (by_prompt, {"prompt": ["kite", "kite"]}, "generate", "/{{ ti.map_index }}.mp4", False, False),
        (by_prompt, {"prompt": ["kite", "kite"]}, "generate", "/clips/", False, False),
        (by_prompt, {"prompt": ["{{ ds }}", "{{ ts }}"]}, "generate", PROMPT, None, None),
        (by_prompt, {"prompt": [str(number) for number in range(6_000)]}, "generate", PROMPT, None, None),
        (by_prompt, [{"prompt": "kite"}, {"prompt": "kite"}], "generate", PROMPT, True, True),
        (by_prompt, [{"prompt": "kite"}, {"prompt": "pond"}], "generate", PROMPT, False, False),
        (by_prompt, ("prompt", ["kite", "kite"]), "generate", PROMPT, None, True),
        (by_prompt, ("prompt", ["kite", "pond"]), "generate", PROMPT, None, False),
        (by_prompt, ("prompt", iter(())), "generate", PROMPT, None, None),
        (by_prompt_and_seed, {"prompt": ["kite", "pond"], "seed": [1, 2]}, "generate", PROMPT, True, True),
        (by_prompt_and_seed, {"prompt": ["kite", "pond"], "seed": [1, 2]}, "generate",
         "/{{ task.prompt }}-{{ task.parameters.seed }}.mp4", False, False),
        (prompt_twice, ("prompt", ["kite", "pond"]), "generate", PROMPT, None, False),
        (order_and_store, {"prompt": ["kite", "kite"]}, "download", ID, False, False),
        (order_and_store, ("prompt", ["kite", "kite"]), "download", ID, False, False),
        (order_and_store, ("prompt", iter(())), "download", ID, False, False),
        (order_wait_and_store, {"prompt": ["kite", "kite"]}, "download", IDS, False, False),
        (order_wait_and_store, {"prompt": ["kite", "kite"]}, "download", "/{{ task.generation.prompt }}.mp4",
         None, None),
        (pull_and_store, {"prompt": ["kite", "kite"]}, "download", ID, False, False),
        (pull_by_macro, {"prompt": ["kite", "kite"]}, "download", ID, None, None),
        (earlier_one, {"endpoint": ["/x", "/y"]}, "download", IDS, True, True),
        (earlier_one, {"endpoint": ["/x"]}, "download", IDS, False, False),
        (earlier_one, {"endpoint": ["/x", "/y"]}, "download", "/{{ task.generation.id }}-{{ task.endpoint }}.mp4",
         False, False),
        (wait_for_earlier_one, {"endpoint": ["/x", "/y"]}, "download", IDS, True, True),
        (by_id, {"gid": ["x", "y"]}, "download", ID, False, False),
        (by_id, {"gid": ["x", "x"]}, "download", ID, True, True),
        (by_id, ("gid", ["x", "y"]), "download", ID, False, False),
    ],
)  # fmt: skip
def test_a_name_in_a_mapped_group(body, expand, name, written, before, then):
    """What the group hands in is compared as if the task were mapped over it; one generation's id names one file."""
    dag = film(body, *(expand if isinstance(expand, tuple) else (expand,)))
    member = dag.get_task(f"film.{name}")
    member._BaseOperator__init_kwargs["destination"] = written  # type: ignore[attr-defined]
    member.destination = written
    assert is_shared_in(member, written) is before
    assert is_shared_in(member, written, running(dag, name)) is then


@each_row(
    ("expand", "outcome"),
    [
        ({"path": ["/a.mp4", "/a.mp4"]}, "refused"),
        ({"path": ["/a.mp4", "/b.mp4"]}, "quiet"),
        ({"path": ["/a.mp4", "/a.mp4"][:1]}, "quiet"),
        (("path", ["/a.mp4", "/a.mp4"]), "refused"),
        (("path", ["/a.mp4", "/b.mp4"]), "quiet"),
        (("path", iter(())), "warned"),
        ([{"path": "/a.mp4"}, {"path": "/a.mp4"}], "refused"),
        ([{"path": "/a.mp4"}, {"path": "/b.mp4"}], "quiet"),
    ],
)
def test_a_destination_that_a_group_hands_in(expand, outcome, caplog, capsys):
    """The task has a placeholder for it, until Airflow renders it."""
    dag = film(to_path, *(expand if isinstance(expand, tuple) else (expand,)))
    member = dag.get_task("film.download")
    assert set(destinations_of(member)) <= {"/a.mp4", "/b.mp4"}
    if outcome == "refused":
        with pytest.raises(ViduConfigError, match="would write the same file"):
            check_own_file(member, running(dag, "download"), "/a.mp4", member.destination)
        return
    check_own_file(member, running(dag, "download"), "/a.mp4", member.destination)
    assert ("may have the same destination" in caplog.text + capsys.readouterr().out) is (outcome == "warned")
    caplog.clear()


def batch_in(batch: Any) -> None:
    """Run a batch with the name that the group hands in."""
    ViduBatchOperator(task_id="b", rows=[{"prompt": "kite"}], model="viduq2", destination="/clips/", batch=batch)


@each_row(("batches", "is_refused"), [(["spring", "summer"], False), (["spring", "spring"], True)])
def test_a_batch_that_a_group_names(batches, is_refused):
    """Two instances with one batch would replace each other's rows."""
    dag = film(batch_in, {"batch": batches})
    member = dag.get_task("film.b")
    context = running(dag, "b")
    rendered = member.prepare_for_execution()
    rendered.batch = batches[0]
    if is_refused:
        with pytest.raises(ViduConfigError, match="would be the one batch"):
            batch_name(rendered, context)
    else:
        assert batch_name(rendered, context) == "spring"


def with_limit(limit: Any) -> None:
    """Order with the limit that the group hands in."""
    generate(max_credits=limit)


@pytest.mark.fault(
    "from Airflow",
    "a mapped task group whose upstream task gives None for `max_credits`",
    outcome="refused",
    seen="an error that names the argument; nothing is submitted",
)
@each_row(("expand", "is_refused"), [(("limit", [None, 4]), True), ({"limit": [None, 4]}, False)])
def test_a_limit_that_a_group_hands_in_as_none(expand, is_refused):
    """A None in the DAG's own list is meant; one of an upstream task would remove the limit."""
    dag = film(with_limit, *(expand if isinstance(expand, tuple) else (expand,)))
    operator = dag.get_task("film.generate").prepare_for_execution()
    operator.max_credits = None
    if is_refused:
        with pytest.raises(ViduConfigError, match="max_credits is None"):
            check_mapped(operator, running(dag, "generate"), ("max_credits",))
    else:
        check_mapped(operator, running(dag, "generate"), ("max_credits",))


def test_a_reference_as_destination_is_one_file_for_all():
    """All instances of a mapped task get the one value that an upstream task has returned."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        path = task(task_id="path")(lambda: "/a.mp4")()
        ViduDownloadOperator.partial(task_id="download", destination=path).expand(generation_id=["x", "y"])
    with pytest.raises(ViduConfigError, match="would write the same file"):
        check_own_file(download(generation_id="x", destination="/a.mp4"), running(dag, "download"), "/a.mp4", path)
