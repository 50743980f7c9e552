"""Whether the instances of a mapped download write one file."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.operators import ViduBatchOperator, ViduGenerateOperator
from airflow_provider_vidu.operators.mapping import templates
from airflow_provider_vidu.operators.mapping.instances import destinations_of, mapped_to_nothing
from airflow_provider_vidu.operators.mapping.shared_names import (
    batch_name,
    check_own_file,
    is_shared,
    is_shared_in,
    may_share_files,
    one_file_for_all,
    warn_of_shared_files,
)
from tests.rows import each_row


@each_row(
    ("destination", "shared"),
    [
        ("/data/clip.mp4", True),
        (ObjectStoragePath("s3://bucket/clip.mp4"), True),
        ("/data/clips/", False),
        (ObjectStoragePath("s3://bucket/clips/"), False),
        (object(), False),
        ("/data/{{ ds }}/", False),
        ("/data/{{ ti.map_index }}.mp4", False),
        ("/data/{{ loop.index }}.mp4", True),
        ("/data/{{ loop.index }}-{{ ti.map_index }}.mp4", False),
        ("/data/{{ task_instance['map_index'] }}.mp4", False),
        ("/data/{{ dag_run.conf['names'][ti.map_index] }}.mp4", False),
        ("/data/{{ ti.map_index // 2 }}.mp4", None),
        ("/data/{{ (ds ~ ti.map_index)[:9] }}.mp4", None),
        ("/data/{{ 'a' if ti.map_index == 0 else 'b' }}.mp4", None),
        ("{% set half = ti.map_index // 2 %}/data/{{ half }}.mp4", None),
        ("/data/{{ '%03d' % ti.map_index }}.mp4", False),
        ("/data/{{ '{:03d}'.format(ti.map_index + 1) }}.mp4", False),
        ("/data/{{ ds }}-{{ ti.map_index | string }}-{{ ti.map_index // 2 }}.mp4", False),
        ("/data/{{ task.generation_id[:8] }}.mp4", None),
        ("/data/{{ task.generation_id.split('-')[0] | upper }}.mp4", False),
        ("/data/{{ ti.key.map_index }}.mp4", False),
        ("/data/{{ ti.key.task_id }}.mp4", True),
        ("/data/{{ ti.xcom_pull('ids', map_indexes=ti.map_index) }}.mp4", False),
        ("/data/{{ ti.xcom_pull('name') }}.mp4", None),
        ("/data/{{ ti.id }}.mp4", False),
        ("/data/{{ task.generation_id }}.mp4", False),
        ("/data/{{ task.generation['model'] }}.mp4", None),
        ("/data/{{ ti.task.video_url | hash }}.mp4", False),
        ("/data/{{ macros.uuid.uuid4() }}.mp4", False),
        ("/data/{{ macros.random() }}.mp4", False),
        ("/data/{{ macros.datetime.now().isoformat() }}.mp4", False),
        ("{% set index = ti.map_index %}/data/{{ index }}.mp4", False),
        ("/data/{{ ds }}.mp4", True),
        ("/data/{{ ti.run_id }}.mp4", True),
        ("/data/{{ ti.dag_id }}/{{ task.task_id }}/{{ ts_nodash }}.mp4", True),
        ("/now/map_index/random/{{ params.random }}.mp4", True),
        ("/data/{{ 'map_index' }}.mp4", True),
        ("{% if params.x %}/a.mp4{% else %}/b.mp4{% endif %}", True),
        ("{# ti.map_index #}/data/{{ logical_date.strftime('%Y') }}.mp4", True),
        ("/data/{{ ti.try_number }}.mp4", None),
        ("/data/{{ ti.start_date }}.mp4", None),
        ("/data/{{ ti }}.mp4", None),
        ("/data/{{ name_of_mine() }}.mp4", None),
        ("/data/{{ ['a', 'b'] | random }}.mp4", None),
        ("/data/{{ ti. }}.mp4", None),
    ],
)
def test_only_what_is_of_one_instance_makes_a_name_of_its_own(destination, shared):
    """What belongs to the run or the task is the same for all of its instances, also where it is asked of ``ti``."""
    assert is_shared(destination) is shared


def test_what_is_not_mapped_over_is_the_same_for_all():
    """Of two covers and videos of one generation, each has its artifact alone."""
    assert is_shared("/data/{{ task.generation_id }}.mp4", {"artifact"}) is True
    written = "/data/{{ task.artifact }}.bin"
    assert is_shared(written, {"artifact"}) is None
    assert is_shared_in(mapped({"artifact": ["cover", "video"]}, destination=written), written) is False
    assert is_shared_in(mapped({"artifact": ["cover", "cover"]}, destination=written), written) is True


XCOM = object()


def mapped(value, **partial):
    """Return what a mapped operator shows."""
    return SimpleNamespace(expand_input=SimpleNamespace(value=value), partial_kwargs=partial)


@pytest.mark.fault(
    "stores and files",
    "a mapped download whose mapped destinations are one file",
    outcome="refused",
    seen="an error before anything is fetched, and before the generation is paid",
)
@each_row(
    ("value", "written", "shared"),
    [
        ({"destination": ["/a.mp4", "/b.mp4"]}, "/a.mp4", False),
        ({"destination": ["/a.mp4", "/a.mp4 "]}, "/a.mp4", True),
        ({"destination": ["/x//a.mp4", "/x/a.mp4"]}, "/x/a.mp4", True),
        ({"destination": ["file:///x/a.mp4", "/x/./a.mp4"]}, "/x/./a.mp4", True),
        ({"destination": ["s3a://bucket/a.mp4", "s3://bucket/a.mp4"]}, "s3://bucket/a.mp4", True),
        ({"destination": ["s3://bucket//a.mp4", "s3://bucket/a.mp4"]}, "s3://bucket/a.mp4", False),
        ([{"destination": "file:///{{ ds }}.mp4"}, {"destination": "/{{ ds }}.mp4"}], "/{{ ds }}.mp4", True),
        ([{"destination": "/{{ 7 // 2 }}.mp4"}, {"destination": "/{{ 7 / 2 }}.mp4"}], "/{{ 7 / 2 }}.mp4", False),
        ({"destination": ["/a/", "/a/"]}, "/a/", False),
        ({"destination": ["/{{ ds }}.mp4", "/{{ ds }}.mp4"]}, "/{{ ds }}.mp4", True),
        ({"destination": ["/{{ ti.map_index }}.mp4"] * 2}, "/{{ ti.map_index }}.mp4", False),
        ({"destination": ["/a.mp4"], "generation_id": ["x", "y"]}, "/a.mp4", True),
        ({"destination": ["/a.mp4", "/b.mp4"], "generation_id": ["x", "y"]}, "/b.mp4", True),
        ({"destination": ["/a.mp4", "/b.mp4"], "generation_id": ["x"]}, "/b.mp4", False),
        ({"destination": ["/a.mp4", "/b.mp4"], "generation_id": XCOM}, "/b.mp4", None),
        ({"destination": ["/{{ task.generation_id }}.mp4"], "generation_id": ["x", "y"]},
         "/{{ task.generation_id }}.mp4", False),
        ({"destination": XCOM}, "/a.mp4", None),
        ({"destination": XCOM}, "/a/", False),
        ({"destination": XCOM, "generation_id": ["x", "y"]}, "/a.mp4", True),
        ([{"destination": "/a.mp4"}, {"destination": "/a.mp4"}], "/a.mp4", True),
        ([{"destination": "/a.mp4"}, {"destination": "/b.mp4"}], "/a.mp4", False),
        ([{"destination": "/a.mp4"}, XCOM], "/a.mp4", None),
        (XCOM, "/a.mp4", None),
        ({"destination": ["/a.mp4"], "generation_id": ["x"]}, "/a.mp4", False),
        ([{"destination": "/a.mp4"}], "/a.mp4", False),
    ],
)  # fmt: skip
def test_a_destination_that_is_mapped_over(value, written, shared):
    """One file for several instances is noticed in what the DAG shows: equal values, and each value for each id."""
    assert is_shared_in(mapped(value), written) is shared


@pytest.mark.fault(
    "stores and files",
    "mapped files that are named after an equal value",
    outcome="refused",
    seen="an error before anything is paid",
)
@each_row(
    ("value", "written", "shared"),
    [
        ([{"prompt": "kite", "parameters": {"seed": 1}}, {"prompt": "kite", "parameters": {"seed": 2}}],
         "/{{ task.prompt }}.mp4", True),
        ([{"prompt": "kite", "parameters": {"seed": 1}}, {"prompt": "kite", "parameters": {"seed": 2}}],
         "/{{ ti.task.prompt | upper }}-{{ task.parameters.seed }}.mp4", False),
        ([{"prompt": "kite", "parameters": {"seed": 1}}, {"prompt": "pond", "parameters": {"seed": 1}}],
         "/{{ task.parameters['seed'] }}.mp4", True),
        ([{"prompt": "kite"}, {"prompt": "kite"}], "/{{ task.prompt }}-{{ ti.map_index }}.mp4", False),
        ([{"prompt": "{{ ti.map_index }}"}, {"prompt": "{{ ti.map_index }}"}], "/{{ task.prompt }}.mp4", None),
        ([{"prompt": XCOM}, {"prompt": XCOM}], "/{{ task.prompt }}.mp4", None),
        ([{"prompt": "kite"}, {"prompt": "kite", "destination": "/b/{{ task.prompt }}.mp4"}],
         "/{{ task.prompt }}.mp4", False),
        ({"prompt": ["kite", "pond", "kite"]}, "/{{ ds }}/{{ task.prompt }}.mp4", True),
        ({"prompt": ["kite", "pond"]}, "/{{ task.prompt }}.mp4", False),
        ({"prompt": ["kite", "pond"], "parameters": [{"seed": 1}, {"seed": 2}]}, "/{{ task.prompt }}.mp4", True),
        ({"prompt": ["kite", "pond"], "parameters": XCOM}, "/{{ task.prompt }}.mp4", None),
        ({"prompt": XCOM, "parameters": [{"seed": 1}, {"seed": 1}]}, "/{{ task.prompt }}.mp4", None),
        ({"prompt": ["kite"] * 2}, "/{{ task.prompt }}/", False),
        ({"prompt": ["kite red", "kite blue"]}, "/{{ ds }}-{{ task.prompt[:4] }}.mp4", True),
        ({"prompt": ["kite red", "kite blue"]}, "/{{ task.prompt[:6] }}.mp4", False),
        ({"prompt": ["kite red", "kite blue"]}, "/{{ ti.task.prompt.split()[0] }}.mp4", True),
        ([{"prompt": "Kite"}, {"prompt": "kite "}], "/{{ task.prompt | lower | trim }}.mp4", True),
        ([{"prompt": "Kite"}, {"prompt": "kite"}], "/{{ task.prompt | a_filter_of_mine }}.mp4", False),
        ([{"prompt": "Kite"}, {"prompt": "kite"}], "/{{ task.prompt.no_method() }}.mp4", None),
        ([{"prompt": "kite"}, {"prompt": "kate"}], "/{{ task.prompt if params.x else 'k' }}.mp4", None),
        ([{"prompt": "kite"}, {"prompt": "kate"}], "/{% if ds %}{{ task.prompt }}{% endif %}.mp4", None),
        ([{"prompt": "kite"}, {"prompt": "kate"}], "/{{ (ds ~ task.prompt)[:4] }}.mp4", None),
        ([{"prompt": "kite"}, {"prompt": "kate"}], "/{{ ds ~ '-' ~ task.prompt }}.mp4", False),
        ([{"prompt": "kite"}, {"prompt": "kate"}], "{% set p = task.prompt[:1] %}/{{ p }}.mp4", None),
    ],
)  # fmt: skip
def test_a_name_from_a_mapped_value_that_two_instances_share(value, written, shared):
    """A prompt with several seeds is paid for each of them, so its files need more than the prompt as their name."""
    assert is_shared_in(mapped(value, destination=written), written) is shared


class Returned:
    """The XCom of an upstream task, as Airflow refers to it in the DAG and resolves it in a running instance."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def resolve(self, context: Any) -> Any:
        if isinstance(self._values, Exception):
            raise self._values
        return self._values


TWICE = [{"prompt": "kite", "destination": "/k.mp4"}, {"prompt": "kite", "destination": "/k.mp4"}]


@pytest.mark.fault(
    "stores and files",
    "mapped files whose names are equal values of an upstream task",
    outcome="refused",
    seen="an error before anything is paid; a warning where the values cannot be compared",
)
@each_row(
    ("value", "written", "shared"),
    [
        (Returned(TWICE), "/k.mp4", True),
        ({"prompt": Returned(["kite red", "kite blue"])}, "/{{ task.prompt | first }}.mp4", True),
        ({"prompt": Returned(["kite red", "kite blue"])}, "/{{ task.prompt | last }}.mp4", False),
        (Returned([TWICE[0], {**TWICE[1], "destination": "/l.mp4"}]), "/k.mp4", False),
        (Returned([{"prompt": "kite"}, {"prompt": "pond"}]), "/{{ task.prompt }}.mp4", False),
        (Returned([{"prompt": "kite"}, {"prompt": "kite"}]), "/{{ task.prompt }}.mp4", True),
        ({"destination": Returned(["/k.mp4", "/k.mp4"])}, "/k.mp4", True),
        ({"destination": Returned(["/k.mp4", "/l.mp4"])}, "/k.mp4", False),
        ({"prompt": Returned(["kite", "pond", "kite"])}, "/{{ task.prompt }}.mp4", True),
        ({"prompt": Returned(["kite"])}, "/kite.mp4", False),
        ({"generation": Returned([{"id": "1", "prompt": "kite"}, {"id": "2", "prompt": "kite"}])},
         "/{{ task.generation.prompt }}.mp4", True),
        ({"generation": Returned([{"id": "1", "prompt": "kite"}, {"id": "2", "prompt": "pond"}])},
         "/{{ task.generation.prompt }}.mp4", False),
        ({"generation": Returned(iter([]))}, "/{{ task.generation.prompt }}.mp4", None),
        ({"generation": Returned(OSError("the API server is away"))}, "/{{ task.generation.prompt }}.mp4", None),
        (Returned([{"prompt": "kite"}, None]), "/{{ task.prompt }}.mp4", None),
        (Returned([{"prompt": str(number)} for number in range(6_000)]), "/{{ task.prompt }}.mp4", None),
    ],
)  # fmt: skip
def test_a_name_from_an_upstream_task_is_compared_in_a_running_instance(value, written, shared):
    """A list is compared as if it stood in the DAG; what has one value per instance would be read once for each."""
    assert is_shared_in(mapped(value, destination=written), written, context={}) is shared


ENDLESS = "/{{ task.prompt ~ 9 ** (9 ** 9) }}.mp4"
DEEP = "/{{" + "(" * 5000
LONG = "/{{ ti.map_index + " + "1" * 5000 + " }}"


@pytest.mark.fault(
    "attacks",
    "an upstream task's destination that looks like a template without end",
    outcome="survived",
    seen="nothing; it is data, and never rendered or parsed",
)
@each_row(
    ("value", "written", "shared"),
    [
        (Returned([{"prompt": "a", "destination": ENDLESS}, {"prompt": "b", "destination": "/b.mp4"}]), ENDLESS, False),
        (Returned([{"prompt": "a", "destination": ENDLESS}, {"prompt": "b", "destination": ENDLESS}]), ENDLESS, True),
        ({"destination": Returned([ENDLESS, "/b.mp4"]), "prompt": ["a"]}, ENDLESS, False),
        ({"destination": Returned([DEEP, "/b.mp4"])}, DEEP, False),
        ([{"prompt": "a", "destination": Mock(spec=["resolve"])}, {"prompt": "b", "destination": "/b"}], ENDLESS, None),
        (XCOM, ENDLESS, None),
    ],
)
def test_a_value_of_an_upstream_task_is_no_template(value, written, shared):
    """Who fills the XCom would choose what the worker computes: an expression without end held it for ever."""
    assert is_shared_in(mapped(value), written, context={}) is shared


def test_a_map_index_without_a_dag_says_nothing():
    """As in a user's unit test: there is no other instance, and nothing to compare."""
    context = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="b", map_index=0)}
    operator = ViduGenerateOperator(task_id="g", prompt="kite", model="viduq2", destination="/kite.mp4")
    check_own_file(operator, context, "/kite.mp4", "/kite.mp4")
    batch = ViduBatchOperator(task_id="b", rows=[], destination="/clips/", batch="spring")
    assert batch_name(batch, context) == "spring"
    assert not may_share_files(batch, context)


@pytest.mark.parametrize(
    ("more", "is_told"),
    [
        ({}, True),
        ({"batch": "b"}, False),
        ({"batch": "b-{{ ds }}"}, False),
        ({"batch": "b-{{ loop.index }}"}, True),
        ({"batch": Mock(spec=["resolve"])}, True),
        ({"naming": "{generation_id}"}, False),
    ],
)
def test_the_files_of_a_batch_that_each_iteration_of_a_loop_replaces(more, is_told, caplog, capsys):
    """Each iteration is a batch of its own unless they share a name; rows with keys of their own replace nothing."""
    operator = ViduBatchOperator(task_id="b", rows=[], destination="/clips/", **more)
    warn_of_shared_files(operator, {"loop": SimpleNamespace(index=1)})
    log = caplog.text + capsys.readouterr().out
    assert ("Each iteration of this loop" in log) is is_told
    assert ("a row replaces the file of a row with the same key" in log) is is_told


@each_row(
    ("written", "index", "is_told"),
    [
        ("/kite.mp4", 1, True),
        ("/kite.mp4", 0, False),
        ("/kite.mp4", None, False),
        ("/{{ ds }}-{{ ti.map_index }}.mp4", 2, True),
        ("/{{ loop.index }}.mp4", 1, False),
        ("/{{ task.prompt }}.mp4", 1, False),
        ("/{{ macros.uuid.uuid4() }}.mp4", 1, False),
        ("/clips/", 1, False),
    ],
)
def test_a_file_that_each_iteration_of_a_loop_replaces(written, index, is_told, caplog, capsys):
    """The takes before the last one are paid for, too; a folder keeps them all."""
    operator = ViduGenerateOperator(task_id="g", prompt="kite", model="viduq2", destination=written)
    rendered = written.replace("{{", "").replace("}}", "")
    check_own_file(operator, {"loop": SimpleNamespace(index=index)}, rendered, written)
    assert ("Each iteration of this loop" in caplog.text + capsys.readouterr().out) is is_told
    caplog.clear()


@pytest.mark.parametrize("given", [ENDLESS, DEEP, LONG], ids=["endless", "deep", "long"])
def test_a_batchs_name_from_an_upstream_task_is_no_template(given):
    """It is refused without being rendered: an order under it would be that of all days."""
    given = given.replace("task.prompt", "ti.map_index")
    rows = Returned([{"rows": ["x"], "batch": given}] * 2)
    operator, context = in_instance(rows, {"destination": "/clips/"}, batch=given)
    with pytest.raises(ViduConfigError, match="Nothing was ordered"):
        batch_name(operator, context)


def test_a_template_of_the_operators_class_is_one():
    """A subclass sets its destination; the DAG has none then, and no upstream task either."""
    for value in ({"prompt": ["a", "a"]}, [{"prompt": "a"}, {"prompt": "b"}]):
        assert is_shared_in(mapped(value), "/{{ ds }}.mp4") is True


@each_row(
    ("value", "is_warned"),
    [(XCOM, True), ({"prompt": XCOM}, True), (Returned([{"prompt": "kite"}, {"prompt": "pond"}]), False)],
)
def test_what_cannot_be_compared_is_in_the_log_of_the_task(value, is_warned, caplog, capsys):
    """The author knows whether the prompts differ."""
    written = "/{{ task.prompt }}.mp4"
    operator = ViduGenerateOperator(task_id="g", prompt="kite", model="viduq2", destination=written)
    ti, dag = SimpleNamespace(map_index=1), SimpleNamespace(task_dict={"g": mapped(value, destination=written)})
    check_own_file(operator, {"ti": ti, "dag": dag}, "/kite.mp4", written)
    assert ("may have the same destination" in caplog.text + capsys.readouterr().out) is is_warned
    caplog.clear()


IDS = "/{{ task.generation.id }}.mp4"
A, B = Returned(iter([])), Returned(iter([]))


@pytest.mark.fault(
    "stores and files",
    "several files of one generation that are named after its id",
    outcome="refused",
    seen="an error before anything is fetched; a warning where the values cannot be compared",
)
@each_row(
    ("value", "written", "shared"),
    [
        ({"generation": XCOM}, IDS, False),
        ({"generation": XCOM, "creation": [0]}, IDS, False),
        ({"generation": XCOM, "creation": [0, 1]}, IDS, None),
        ({"generation": XCOM, "creation": [0, 1]}, "/{{ task.creation }}-{{ ti.task.generation.id }}.mp4", False),
        ({"generation": XCOM, "creation": [0, 0]}, "/{{ task.creation }}-{{ task.generation.id }}.mp4", None),
        ({"generation_id": ["x", "y"], "artifact": ["video", "cover"]}, "/{{ task.generation_id }}.bin", True),
        ([{"generation_id": "x", "creation": 0}, {"generation_id": "x", "creation": 1}],
         "/{{ task.generation_id }}.mp4", True),
        ([{"generation_id": "x"}, {"generation_id": "y"}], "/{{ task.generation_id }}.mp4", False),
        ([{"generation": A}, {"generation": B}], IDS, False),
        ([{"generation": A, "creation": 0}, {"generation": A, "creation": 1}], IDS, True),
        ([{"prompt": A}, {"prompt": B}], "/{{ task.prompt }}.mp4", None),
        (XCOM, IDS, None),
        ({"destination": [IDS, f"/b{IDS}"], "generation": XCOM}, IDS, False),
        ({"destination": [IDS, f"/b{IDS}"], "generation": XCOM, "creation": [0, 1]}, IDS, None),
    ],
)  # fmt: skip
def test_an_id_names_one_file_of_a_generation(value, written, shared):
    """Its creations and artifacts need more than the id, unless the destination is a folder."""
    assert is_shared_in(mapped(value, destination=written), written) is shared


def test_a_destination_beside_what_is_mapped_over():
    """However the instances are made, one constant is one file."""
    for value in ({"generation_id": ["a", "b"]}, [{"generation_id": "a"}, {"generation_id": "b"}], XCOM):
        task = mapped(value, destination="/a.mp4")
        assert is_shared_in(task, "/a.mp4") is True
        assert destinations_of(task) == ["/a.mp4"]
    assert is_shared_in(SimpleNamespace(), "/a.mp4") is True


def test_every_destination_that_the_dag_shows_is_found():
    """So that one is checked before its generation is paid."""
    assert destinations_of(mapped({"destination": ["/a", "/b"]})) == ["/a", "/b"]
    assert destinations_of(mapped([{"destination": "/a"}, XCOM])) == ["/a"]
    assert destinations_of(mapped(XCOM)) == destinations_of(mapped({"destination": XCOM})) == []


def test_the_message_says_what_to_do():
    """Each of the ways that give every instance a file."""
    told = one_file_for_all("/a.mp4")
    assert all(words in told for words in ("/a.mp4", "slash", "expand_kwargs", "{{ ti.map_index }}"))


XCOM = object()


def in_instance(mapped: Any, partial: dict[str, Any] | None = None, **arguments: Any) -> tuple[ViduBatchOperator, Any]:
    """Return an instance of a mapped batch, and its context.

    :param mapped: what the task is mapped over.
    :param partial: its other arguments.
    """
    operator = ViduBatchOperator(**{"task_id": "b", "rows": [], "destination": "/clips/", **arguments})
    operator.batch = operator.batch and operator.batch.replace("{{ ti.map_index }}", "1")  # as rendered
    task = SimpleNamespace(
        expand_input=SimpleNamespace(value=mapped), partial_kwargs=partial or {"destination": "/clips/", **arguments}
    )
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="b", map_index=1)
    return operator, {"ti": ti, "dag": SimpleNamespace(task_dict={"b": task})}


TWO = {"rows": [["x"], ["y"]]}


@each_row(
    ("mapped", "arguments", "is_refused"),
    [
        (TWO, {"batch": "spring"}, True),
        (TWO, {"batch": "{{ ds }}"}, True),
        (TWO, {"batch": "spring", "destination": "/clips/{{ ti.map_index }}/"}, False),
        (TWO, {"batch": "spring-{{ ti.map_index }}"}, False),
        (TWO, {}, False),
        ({**TWO, "destination": ["/a/", "/b/"]}, {"batch": "a", "destination": "/a/"}, True),
        ([{"rows": ["x"], "destination": "/a/"}, {"rows": ["y"], "destination": "file:///a/"}],
         {"batch": "a", "destination": "/a/"}, True),
        ({"rows": [["x"]], "destination": ["/a/", "/b/"]}, {"batch": "a", "destination": "/a/"}, False),
        ([{"rows": ["x"], "batch": "a"}, {"rows": ["y"], "batch": "b"}], {"batch": "a"}, False),
        ([{"rows": ["x"]}, {"rows": ["y"]}], {"batch": "a"}, True),
        ({"rows": [["x"]]}, {"batch": "a"}, False),
        (XCOM, {"batch": "a", "destination": "/clips/"}, True),
        ({"rows": [["x"], ["y"]], "batch": ["a", "b"]}, {"batch": "a"}, True),
        ({"rows": [["x"]], "batch": ["a", "b"]}, {"batch": "a"}, False),
        ({"rows": [["x"], ["y"]], "batch": ["a", "b"]}, {"batch": "a", "destination": "/{{ ti.map_index }}/"}, False),
        ({"rows": Returned([["x"], ["y"]]), "batch": ["a", "b"]}, {"batch": "a"}, True),
        ([{"rows": ["x"], "batch": "a"}, {"rows": ["y"], "batch": "a"}], {"batch": "a"}, True),
    ],
)  # fmt: skip
def test_instances_with_one_name_are_refused(mapped, arguments, is_refused):
    """Each would take the batch over from the others, with other rows, before anything is ordered."""
    operator, context = in_instance(mapped, **arguments)
    if is_refused:
        with pytest.raises(ViduConfigError, match="Several instances of this mapped task"):
            batch_name(operator, context)
    else:
        assert batch_name(operator, context)


def test_a_name_from_an_xcom_may_differ():
    """The DAG does not show it; a list of rows does when the task runs."""
    partial = {"destination": "/clips/"}
    for mapped in (XCOM, Returned([{"rows": ["x"], "batch": "a"}, {"rows": ["y"], "batch": "b"}])):
        operator, context = in_instance(mapped, partial, batch="a")
        assert batch_name(operator, context) == "a"
    twice = Returned([{"rows": ["x"], "batch": "a"}, {"rows": ["y"], "batch": "a"}])
    with pytest.raises(ViduConfigError, match="Several instances"):
        batch_name(*in_instance(twice, partial, batch="a"))


def test_a_name_with_a_template_that_nothing_rendered():
    """A mapped group hands it in as it is: the runs of all days would be one batch, and the second order nothing."""
    with pytest.raises(ViduConfigError, match=r"batch '\{\{ ds \}\}' holds a template that was not rendered"):
        batch_name(*in_instance({"rows": [["x"]]}, {"destination": "/clips/"}, batch="{{ ds }}"))


@each_row(
    ("arguments", "may_share"),
    [({}, True), ({"naming": "{generation_id}"}, False), ({"destination": "/clips/{{ ti.map_index }}/"}, False)],
)
def test_instances_with_one_destination_are_told(arguments, may_share):
    """Rows with equal keys replace each other's files."""
    assert may_share_files(*in_instance(TWO, **arguments)) is may_share
    operator, context = in_instance(TWO, **arguments)
    context["ti"].map_index = -1
    assert not may_share_files(operator, context)


@each_row(
    ("mapped", "written", "may_share"),
    [
        ({"destination": ["/clips/", "/clips/"]}, "/clips/", True),
        ([{"rows": ["x"], "destination": "/clips/"}, {"rows": ["y"], "destination": "/clips/"}], "/clips/", True),
        ([{"rows": ["x"], "destination": "/clips/"}, {"rows": ["y"], "destination": "/more/"}], "/clips/", False),
        ([{"destination": "/{{ ti.map_index }}/"}, {"destination": "/{{ ti.map_index }}/"}], "/{{ ti.map_index }}/",
         False),
    ],
)  # fmt: skip
def test_equal_destinations_that_are_mapped_over_are_told(mapped, written, may_share):
    """Two instances with one folder, however the DAG writes it."""
    assert may_share_files(*in_instance(mapped, {"task_id": "b"}, destination=written)) is may_share


def test_the_mock_of_a_dag_shows_nothing():
    """As in a user's unit test; a Mock holds neither items nor a length."""
    operator, _ = in_instance(TWO)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="b", map_index=1)
    assert mapped_to_nothing(operator, {"ti": ti, "dag": Mock()}) == set()


def test_a_name_of_many_parts_takes_time_in_proportion():
    """A text from an upstream list took eight seconds with 200,000 parts: each one moved all that were read."""
    node = templates._plain().parse("{{ task" + ".a" * 200_000 + " }}").body[0].nodes[0]
    began = time.thread_time()
    assert [len(path) for path in templates._names(node)] == [200_001]
    assert time.thread_time() - began < 2
