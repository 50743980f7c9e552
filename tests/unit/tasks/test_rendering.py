"""Text stays text whatever the DAG's way of rendering is."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.operators import ViduBatchOperator, ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor
from airflow_provider_vidu.stores.naming import file_name
from airflow_provider_vidu.stores.paths import checked_destination
from tests.rows import each_row


class Word(str, enum.Enum):  # noqa: UP042 - StrEnum is the harmless one
    """Texts of a DAG's author, as DAGs write them."""

    KITE = "a red {{ x }} kite"
    CONNECTION = "vidu_of_the_studio"
    COVER = "cover"


NATIVE_CHANGES = ["3.10", "007", "1_000", "0x10", "'in quotation marks'", '"so"', "True", "[1, 2]", "911", "1e5"]


def rendered(operator: Any, native: bool = True, **context: Any) -> Any:
    """Render an operator's arguments in a DAG."""
    with DAG("d", schedule=None, render_template_as_native_obj=native):
        task = operator()
    task.render_template_fields(context)
    return task


@pytest.mark.fault(
    "stores and files",
    "a file or folder named after another argument, as by `{{ task.generation_id }}`, that is a reference or template",
    outcome="survived",
    seen="the argument's value; the name of the reference was the name of the one file of all instances",
)
@each_row(
    ("operator", "arguments"),
    [
        (ViduDownloadOperator, {"generation_id": "{{ value }}", "destination": "/data/{{ task.generation_id }}.mp4"}),
        (ViduDownloadOperator, {"video_url": "x{{ value }}", "destination": "/data/{{ task.video_url[1:] }}.mp4"}),
        (ViduGenerateOperator, {"prompt": "{{ value }}", "destination": "/data/{{ task.prompt }}.mp4"}),
        (ViduBatchOperator, {"rows": ["x"], "batch": "{{ value }}", "destination": "/data/{{ task.batch }}.mp4"}),
    ],
)  # fmt: skip
def test_a_destination_is_rendered_after_what_it_names(operator, arguments):
    """Airflow renders the arguments in the order of ``template_fields``."""
    task = operator(task_id="t", **arguments)
    task.render_template_fields({"value": "947", "task": task})
    assert task.destination == "/data/947.mp4"


@pytest.mark.fault(
    "from Airflow", "the member of an enum of texts as prompt, model, connection or field", outcome="survived",
    seen="its text; Airflow's rendering makes its name of it, such as Word.KITE",
)  # fmt: skip
@pytest.mark.parametrize("native", [True, False])
def test_the_member_of_an_enum_is_its_text(native):
    """In every templated argument, at any depth, and as a template."""
    text, fields = "a red big kite", {"style": Word.KITE, "settings": {"tags": [Word.KITE, (Word.KITE,)]}}
    generate = rendered(
        lambda: ViduGenerateOperator(
            task_id="t", prompt=Word.KITE, images=[Word.KITE], parameters=fields, vidu_conn_id=Word.CONNECTION,
            destination=Word.KITE,
        ),
        native, x="big",
    )  # fmt: skip
    assert (generate.prompt, generate.images, generate.destination) == (text, [text], text)
    assert generate.parameters == {"style": text, "settings": {"tags": [text, (text,)]}}
    assert type(generate.vidu_conn_id) is str
    assert generate.vidu_conn_id == "vidu_of_the_studio"
    batch = rendered(
        lambda: ViduBatchOperator(task_id="t", rows=[Word.KITE, {"prompt": Word.KITE}], destination="/data/"),
        native, x="big",
    )  # fmt: skip
    assert batch.rows == [text, {"prompt": text}]
    assert file_name("g7", Word.COVER, "image/png") == "g7-cover.png"


@pytest.mark.fault(
    "from Airflow", "native rendering reads a text as a number or a list", outcome="survived", seen="the text"
)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("text", NATIVE_CHANGES)
def test_text_is_not_read_as_a_literal(text, native):
    """Arguments, fields of a request at any depth, and ids hold what the param held, letter for letter."""
    generate = rendered(
        lambda: ViduGenerateOperator(
            task_id="t", prompt="{{ x }}", model="{{ x }}",
            images=["{{ x }}"], endpoint="reference2video",
            parameters={
                "style": "{{ x }}", "subjects": [{"name": "{{ x }}", "voice_id": "{{ x }}"}],
                "only_the_gateway_knows": "{{ x }}", "settings": {"inner": "{{ x }}", "tags": ["{{ x }}", "a"]},
                "videos": ["{{ x }}"], "video_url": "{{ x }}",
            },
        ),
        native, x=text,
    )  # fmt: skip
    assert (generate.prompt, generate.model, generate.images) == (text, text, [text])
    assert generate.parameters == {
        "style": text, "subjects": [{"name": text, "voice_id": text}], "only_the_gateway_knows": text,
        "settings": {"inner": text, "tags": [text, "a"]}, "videos": [text], "video_url": text,
    }  # fmt: skip
    whole = rendered(lambda: ViduGenerateOperator(task_id="t", body={"a": {"b": "{{ x }}"}}), native, x=text)
    assert whole.body == {"a": {"b": text}}
    sensor = rendered(lambda: ViduGenerationSensor(task_id="t", generation_id="{{ x }}"), native, x=text)
    assert sensor.generation_id == text
    download = rendered(
        lambda: ViduDownloadOperator(task_id="t", destination="{{ x }}", generation_id="{{ x }}"), native, x=text
    )
    assert (download.generation_id, download.destination) == (text, text)
    batch = rendered(
        lambda: ViduBatchOperator(task_id="t", rows=[], destination="/x/", batch="{{ x }}"), native, x=text
    )
    assert batch.batch == text


@pytest.mark.parametrize("native", [True, False])
def test_json_is_read_as_json(native):
    """Native rendering reads the two escapes of an emoji as two characters, which Airflow cannot store."""
    rows = [{"prompt": "a cat \U0001f408", "tags": ["\U0001f408"], "half": "\ud83d"}]
    batch = rendered(lambda: ViduBatchOperator(task_id="t", rows="{{ x | tojson }}", destination="/x/"), native, x=rows)
    assert (batch.rows if native else json.loads(batch.rows)) == rows
    handed = {"id": "7", "status": "succeeded", "prompt": "a cat \U0001f408"}
    sensor = rendered(lambda: ViduGenerationSensor(task_id="t", generation="{{ x | tojson }}"), native, x=handed)
    assert (sensor.generation if native else json.loads(sensor.generation)) == handed


def test_what_native_rendering_is_for_still_works():
    """Objects are handed through, numbers and flags that are not text become what they are, lists are built."""
    task = rendered(
        lambda: ViduGenerateOperator(
            task_id="t", prompt="{{ a }} and {{ n }}", images="{{ pictures }}",
            parameters={
                "duration": "{{ text }}", "bgm": "{{ n > 1 }}", "scale": "{{ text | float }}", "more": "[{{ n }}]",
                "settings": "{'a': {{ n }}}", "videos": "{{ listed }}", "handed": "{{ pictures }}",
                "timing_prompts": [{"from": "{{ zero }}"}],
            },
        ),
        a="a", n=4, text="0.5", zero="0", listed="['u']", pictures=["https://e/a.png"],
    )  # fmt: skip
    assert (task.prompt, task.images) == ("a and 4", ["https://e/a.png"])
    assert task.parameters == {
        "duration": 0.5, "bgm": True, "scale": 0.5, "more": [4], "settings": {"a": 4}, "videos": ["u"],
        "handed": ["https://e/a.png"], "timing_prompts": [{"from": 0}],
    }  # fmt: skip
    assert rendered(lambda: ViduGenerateOperator(task_id="t", prompt="[1, {{ n }}]"), n=2).prompt == "[1, 2]"
    assert rendered(lambda: ViduGenerateOperator(task_id="t", prompt="{{ n }}"), n=[1]).prompt == [1]


def test_a_mapped_task_is_rendered_alike():
    """The operator of one instance keeps its text, too."""
    with DAG("d", schedule=None, render_template_as_native_obj=True):
        mapped = ViduGenerateOperator.partial(task_id="t", model="{{ x }}").expand(prompt=["{{ x }}"])
    task = mapped.unmap({"prompt": "{{ x }}"})
    task._do_render_template_fields(task, task.template_fields, {"x": "3.10"}, task.get_template_env(), set())
    assert (task.prompt, task.model) == ("3.10", "3.10")


SECRET_TEMPLATE = "{{ conn.vidu_default.password }}"


@pytest.mark.fault(
    "attacks", "a mapped task's XCom holds a template", outcome="survived", seen="its text, sent as it is"
)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    "mapped",
    [
        {"prompt": SECRET_TEMPLATE},
        {"images": [SECRET_TEMPLATE]},
        {"parameters": {"style": SECRET_TEMPLATE, "inner": {"deep": [SECRET_TEMPLATE]}}},
        {"body": {"prompt": SECRET_TEMPLATE, "model": "m"}},
    ],
    ids=lambda mapped: next(iter(mapped)),
)
def test_what_a_mapped_task_is_given_is_no_template(mapped, native):
    """A user who triggers a DAG may fill an XCom: as a template it would read every connection.

    Airflow names such values by their identity (``seen_oids``), and renders what the author has written beside them.
    """
    with DAG("d", schedule=None, render_template_as_native_obj=native) as dag:
        beside = {"endpoint": "{{ x }}"} | ({} if "body" in mapped else {"model": "{{ x }}"})
        task = ViduGenerateOperator(task_id="t", **mapped, **beside)
    context = {"x": "text2video", "conn": {"vidu_default": {"password": "unrendered"}}}
    seen = {id(value) for value in mapped.values()}
    task._do_render_template_fields(task, task.template_fields, context, task.get_template_env(dag), seen)
    for name, value in mapped.items():
        assert getattr(task, name) == value
    assert "unrendered" not in str(vars(task))
    assert task.endpoint == "text2video"


def of_instance(dag: DAG, **more: Any) -> dict[str, Any]:
    """Return the context of the first instance of a mapped task."""
    return {
        "x": "film", "dag": dag, "ti": SimpleNamespace(map_index=0), "dag_run": SimpleNamespace(conf={}), **more
    }  # fmt: skip


class Studio(ViduGenerateOperator):
    """An author's operator, with a template of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(destination="/films/{{ x }}/", **kwargs)


@pytest.mark.fault(
    "attacks", "a row of a file that load_prompts reads holds a template", outcome="survived", seen="its text",
)  # fmt: skip
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("place", ["list", "row", "unreadable"])
def test_a_row_of_expand_kwargs_from_an_upstream_task_is_no_template(monkeypatch, caplog, capsys, native, place):
    """Airflow renders it: its author read every connection, as a prompt. What the DAG's author has written is one."""
    row = {
        "prompt": f"a {SECRET_TEMPLATE}", "images": [SECRET_TEMPLATE], "max_credits": "{{ 9 ** (9 ** 9) }}",
        "parameters": {"style": SECRET_TEMPLATE, "inner": {"deep": [SECRET_TEMPLATE]}},
    }  # fmt: skip
    answers: list[Any] = [row if place == "row" else [row]] * 2
    with DAG("d", schedule=None, render_template_as_native_obj=native) as dag:
        upstream = ViduGenerateOperator(task_id="upstream", prompt="x", model="m").output
        mapped = [upstream] if place == "row" else upstream
        Studio.partial(task_id="t", model="{{ x }}").expand_kwargs(mapped)
    if place == "unreadable":
        answers[1] = OSError("the back end is away")
    monkeypatch.setattr(type(upstream), "resolve", Mock(side_effect=answers))
    context = of_instance(dag, conn={"vidu_default": {"password": "unrendered"}})
    dag.task_dict["t"].render_template_fields(context)
    task = context["task"]
    assert {name: getattr(task, name) for name in row} == row
    assert task.model == "film"
    assert task.destination == ("/films/{{ x }}/" if place == "unreadable" else "/films/film/")
    assert "what looks like a template there is not rendered" in caplog.text + capsys.readouterr().out


def test_a_row_of_expand_kwargs_in_the_dag_is_rendered(monkeypatch):
    """The author has written it; one without a template is read once."""
    with DAG("d", schedule=None) as dag:
        upstream = ViduGenerateOperator(task_id="upstream", prompt="x", model="m").output
        ViduGenerateOperator.partial(task_id="a", model="m").expand_kwargs([{"prompt": "a {{ x }}"}])
        ViduGenerateOperator.partial(task_id="b", model="{{ x }}").expand_kwargs(upstream)
    resolve = Mock(return_value=[{"prompt": "plain"}])
    monkeypatch.setattr(type(upstream), "resolve", resolve)
    for task_id, words in (("a", ("a film", "m")), ("b", ("plain", "film"))):
        context = of_instance(dag)
        dag.task_dict[task_id].render_template_fields(context)
        assert (context["task"].prompt, context["task"].model) == words
    assert resolve.call_count == 1


@pytest.mark.parametrize("native", [True, False])
def test_templates_in_a_path_are_rendered(native):
    """As in a path of Airflow's: all days would write one file, whose folder has the template's name."""
    download = rendered(
        lambda: ViduDownloadOperator(task_id="t", destination=Path("/data/{{ ds }}/a.mp4"), generation_id="1"),
        native, ds="2026-01-01",
    )  # fmt: skip
    assert download.destination == Path("/data/2026-01-01/a.mp4")
    generate = rendered(
        lambda: ViduGenerateOperator(
            task_id="t", endpoint="x", prompt="p", images=[Path("/in/{{ ds }}.png")],
            parameters={"subjects": [{"images": [Path("/in/{{ ds }}.png")]}]},
        ),
        native, ds="1_000",
    )  # fmt: skip
    assert generate.images == generate.parameters["subjects"][0]["images"] == [Path("/in/1_000.png")]
    batch = rendered(
        lambda: ViduBatchOperator(task_id="t", rows=Path("/in/{{ ds }}.csv"), destination=Path("/data/{{ ds }}")),
        native, ds="2026-01-01",
    )  # fmt: skip
    assert (batch.rows, batch.destination) == (Path("/in/2026-01-01.csv"), Path("/data/2026-01-01"))


@pytest.mark.parametrize("value", ["", None])
def test_a_path_that_renders_to_nothing_is_refused_as_text_is(value):
    """No folder of that name, and not the worker's current one."""
    download = rendered(
        lambda: ViduDownloadOperator(task_id="t", destination=Path("{{ x }}"), generation_id="1"), x=value
    )
    with pytest.raises(ViduConfigError, match="destination is empty"):
        checked_destination(download.destination)


def test_a_path_from_an_xcom_is_data():
    """Rendered, who filled the XCom could read every connection."""
    with DAG("d", schedule=None):
        mapped = ViduDownloadOperator.partial(task_id="t", generation_id="1").expand(destination=[Path("/{{ x }}")])
    task = mapped.unmap({"destination": Path("/{{ x }}")})
    task._do_render_template_fields(
        task, ["destination"], {"x": "secret"}, task.get_template_env(), {id(task.destination)}
    )
    assert task.destination == Path("/{{ x }}")
