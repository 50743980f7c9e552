"""Ids, prompts, destinations and connection fields as a fuzzer would choose them.

Each is refused before anything is sent or written, or arrives verbatim and does no harm.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor
from fault_table import REFUSED, SURVIVED
from tests.faults.hostile_texts import REFUSED_DESTINATIONS, REFUSED_IDS, TEMPLATE, VERBATIM_IDS, is_one_clean_line
from tests.integration.servers import Server, fixed

DONE = json.dumps({"id": "x", "status": "processing"}).encode()


def _each(cases: dict[str, Any]) -> Any:
    return pytest.mark.parametrize(("name", "value"), cases.items(), ids=list(cases))


def _download(destination: Any, **source: Any) -> ViduDownloadOperator:
    made = ViduDownloadOperator(task_id="t", destination="/later", video_url="{{ later }}", retries=0)
    made.destination, made.video_url, made.generation_id = destination, None, None  # as templates would render them
    for name, value in source.items():
        setattr(made, name, value)
    return made


@_each(REFUSED_IDS)
def test_ids_that_are_refused(vidu_connection, context, tmp_path, fault_row, name, value):
    """Hook, event loop, sensor and download refuse the id before a byte is sent."""
    hook = ViduHook()
    ways = [
        lambda: hook.get_generation(value),
        lambda: hook.cancel_generation(value),
        lambda: hook.wait(value, timeout=1),
        lambda: asyncio.run(hook.aget_generation(value)),
        lambda: asyncio.run(hook.acancel_generation(value)),
        lambda: ViduGenerationSensor(task_id="t", generation_id=value).execute(context),
        lambda: _download(f"{tmp_path}/", generation_id=value).execute(context),
    ]
    told = []
    for way in ways:
        with pytest.raises(ViduConfigError, match="generation_id") as caught:
            way()
        told.append(str(caught.value))
    assert all(is_one_clean_line(line) and len(line) < 300 for line in told)
    assert vidu_connection.requests() == []
    assert list(tmp_path.iterdir()) == []
    fault_row("hostile input", f"id: {name}", side="all", seen=told[0], requests=0, outcome=REFUSED)


@_each(VERBATIM_IDS)
def test_ids_that_arrive_verbatim(vidu_connection, context, tmp_path, fault_row, name, value):
    """The service gets exactly this id, and the file of it stays in its folder under a safe name."""
    vidu_connection.add_generation(value, states=[["completed", 0]])
    hook, folder = ViduHook(), tmp_path / "videos"
    assert hook.get_generation(value).id == value
    assert asyncio.run(hook.aget_generation(value)).id == value
    assert ViduGenerationSensor(task_id="t", generation_id=value).execute(context)["id"] == value
    record = _download(f"{folder}/", generation_id=value).execute(context)

    queries = vidu_connection.requests(kind="query")
    assert {query.id for query in queries} == {value}
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.parent == folder
    assert file.read_bytes() == vidu_connection.file_bytes(value)
    assert record["generation_id"] == value
    seen = f"the service got it verbatim; stored as {file.name[:60]}"
    fault_row("hostile input", f"id: {name}", side="all", seen=seen, requests=len(queries), outcome=SURVIVED)


def test_no_id_smuggles_a_header(monkeypatch, fault_row):
    """On the wire each request is one line and the same headers, whatever the id."""
    with Server(fixed(200, DONE, Content_Type="application/json")) as server:
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "k" * 20, "extra": {}}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        hook = ViduHook()
        for value in VERBATIM_IDS.values():
            hook.get_generation(value)
            asyncio.run(hook.aget_generation(value))
    heads = {tuple(sorted(request.headers)) for request in server.requests}
    assert len(server.requests) == 2 * len(VERBATIM_IDS)
    assert len(heads) <= 2, heads  # the two HTTP clients name them alike, in their own order
    for request in server.requests:
        assert "x-evil" not in request.headers
        assert request.target.startswith("/vidu-native/video/generations/")
        assert request.target.count("/") == 4
        assert request.line.count(" ") == 2
    seen = f"{len(server.requests)} requests with the same {len(min(heads))} headers"
    fault_row(
        "hostile input",
        "header injection by an id",
        side="wire",
        seen=seen,
        requests=len(server.requests),
        outcome=SURVIVED,
    )


PROMPTS = {
    "CRLF": "a\r\nX-Evil: 1\r\n\r\n{}",
    "NUL": "a\0b",
    "lone surrogate": "a\ud800b",
    "right-to-left override": "a\u202eb",
    "JSON": '"}, "model": "other", "x": {"',
    "template": TEMPLATE,
    "a million characters": "ä" * 1_000_000,
}


@pytest.mark.vidu_sandbox(gateway_prompt_limit=None)
@_each(PROMPTS)
def test_prompts_arrive_verbatim(vidu_connection, fault_row, name, value):
    """A prompt is data: the service gets it letter for letter, in one billed request."""
    ViduHook().create_generation(model="viduq2", prompt=value)
    (create,) = vidu_connection.creates
    assert create.body == {"model": "viduq2", "prompt": value}
    fault_row("hostile input", f"prompt: {name}", side="create", seen="arrived verbatim", requests=1, outcome=SURVIVED)


UNSENDABLE: dict[str, Any] = {
    "bytes": {"prompt": b"a cat"},
    "not a number": {"prompt": "a cat", "duration": float("nan")},
    "infinity": {"prompt": "a cat", "deep": [{"x": float("inf")}]},
    "object": {"prompt": object()},
    "set": {"images": {"a"}},
}


@_each(UNSENDABLE)
def test_a_body_that_is_no_json_is_not_sent(vidu_connection, fault_row, name, value):
    """What JSON cannot hold is an argument's error, not a create of unknown outcome."""
    with pytest.raises(ViduConfigError, match="JSON cannot represent") as caught:
        ViduHook().create_generation(body={"model": "viduq2", **value})
    assert vidu_connection.requests() == []
    fault_row("hostile input", f"body: {name}", side="create", seen=str(caught.value), requests=0, outcome=REFUSED)


@_each(REFUSED_DESTINATIONS)
def test_destinations_that_are_refused(vidu_connection, context, fault_row, name, value):
    """A way out of the folder, or a name no store can hold, is refused before anything is fetched."""
    vidu_connection.add_generation("g", states=[["completed", 0]])
    with pytest.raises(ViduConfigError, match="destination") as caught:
        _download(value, generation_id="g").execute(context)
    assert is_one_clean_line(str(caught.value))
    assert vidu_connection.requests() == []
    seen = str(caught.value)
    fault_row("hostile input", f"destination: {name}", side="download", seen=seen, requests=0, outcome=REFUSED)


URLS = {
    "file": "file:///etc/passwd",
    "no scheme": "//127.0.0.1/v.mp4",
    "CRLF": "http://127.0.0.1/v.mp4\r\nX-Evil: 1",
    "NUL": "http://127.0.0.1/v\0.mp4",
    "backslash": "http://evil.example\\@127.0.0.1/v.mp4",
    "blank": "http://127.0.0.1/ v.mp4",
    "lone surrogate": "http://127.0.0.1/\ud800",
    "too long": "http://127.0.0.1/" + "x" * 20_000,
    "bytes": b"http://127.0.0.1/v.mp4",
    "no host": "http:///v.mp4",
}


@_each(URLS)
def test_urls_that_are_refused(vidu_connection, context, tmp_path, fault_row, name, value):
    """A text that one parser does not read as an http(s) URL is never fetched."""
    with pytest.raises(ViduError, match=r"http\(s\) URL") as caught:
        _download(f"{tmp_path}/", video_url=value).execute(context)
    assert is_one_clean_line(str(caught.value))
    assert not caught.value.retryable
    assert vidu_connection.requests() == []
    assert list(tmp_path.iterdir()) == []
    seen = str(caught.value)
    fault_row("hostile input", f"URL: {name}", side="download", seen=seen, requests=0, outcome=REFUSED)


EVIL = "x\r\nX-Evil: 1"
FIELDS: dict[str, dict[str, Any]] = {
    "password": {"password": f"k{EVIL}"},
    "host": {"host": "http://127.0.0.1:1/p\r\nX-Evil: 1"},
    "auth_scheme": {"extra": {"auth_scheme": EVIL}},
    "headers": {"extra": {"headers": {"X-Team": EVIL}}},
    "headers ": {"extra": {"headers": {"X-Evil: 1\r\nX": "v"}}},
    "headers  ": {"extra": {"headers": {"Authorization": "Bearer other"}}},
    "headers   ": {"extra": {"headers": {"X-Team": "a\ud800"}}},
    "query_path": {"extra": {"query_path": "/x/{id}\r\nX-Evil: 1"}},
    "query_path ": {"extra": {"query_path": "/x/{id.__class__.__init__}"}},
    "create_path": {"extra": {"create_path": "/x\0"}},
    "proxy": {"extra": {"proxy": "http://127.0.0.1:1\r\nX-Evil: 1"}},
    "allowed_hosts": {"extra": {"allowed_hosts": "a/../b"}},
    "dialect": {"extra": {"dialect": "__class__"}},
    "timeout": {"extra": {"timeout": "1e999"}},
    "max_retries": {"extra": {"max_retries": {"a": 1}}},
    "verify": {"extra": {"verify": ["x"]}},
}


@_each(FIELDS)
def test_connection_fields_that_are_refused(vidu_connection, monkeypatch, fault_row, name, value):
    """Line breaks, look-ups and absurd values in a connection are refused by name, without the key."""
    fields = json.loads(vidu_connection.connection_json())
    fields = {**fields, **value, "extra": {**fields["extra"], **value.get("extra", {})}}
    monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
    hook = ViduHook()
    for way in (lambda: hook.get_generation("g"), lambda: asyncio.run(hook.aget_generation("g"))):
        with pytest.raises(ViduConfigError, match=rf"'vidu_default', field '{name.strip()}'") as caught:
            way()
        assert is_one_clean_line(str(caught.value))
        assert fields["password"] not in str(caught.value)
    assert vidu_connection.requests() == []
    fault_row(
        "hostile input",
        f"connection field: {name.strip()}",
        side="both",
        seen=str(caught.value),
        requests=0,
        outcome=REFUSED,
    )


class Vault:
    """Stands for ``conn`` in templates, and remembers whether it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.asked.append(name)
        return self


@pytest.mark.usefixtures("quick_backoff")
@pytest.mark.parametrize("text", [TEMPLATE, "{% set x = conn.vidu_default %}{{ x.password }}", "{{ 7*7 }}"])
def test_no_answer_is_rendered_a_second_time(vidu_connection, context, tmp_path, fault_row, text):
    """A template in an id, a prompt or a URL of the service's making stays text through the whole pipeline."""
    vidu_connection.add_generation(text, states=[["completed", 0]], answer={
        "id": text, "status": "completed", "enhanced_prompt": text,
        "video_url": f"{vidu_connection.url}/{text}".replace(" ", "+"),
    })  # fmt: skip
    with DAG("d", schedule=None, template_undefined=jinja2.StrictUndefined):
        wait = ViduGenerationSensor(task_id="w", generation_id="{{ told }}")
        order = ViduGenerateOperator(
            task_id="g",
            prompt="{{ generation.enhanced_prompt }}",
            model="viduq2",
            wait_for_completion=False,
            durable=False,
        )
        fetch = ViduDownloadOperator(
            task_id="f", destination=f"{tmp_path}/{{{{ told }}}}/", generation_id="{{ generation.raw.id }}"
        )
    vault = Vault()
    wait.render_template_fields({"told": text, "conn": vault})
    generation = wait.execute(context)
    assert generation["id"] == wait.generation_id == text
    for task in (order, fetch):
        task.render_template_fields({"told": text, "generation": generation, "conn": vault})
    vars(context["ti"]).update(dag_id="d", run_id="r", task_id="g", map_index=-1, max_tries=0)
    order.execute(context)
    with pytest.raises(ViduError):
        fetch.execute(context)  # the service's URL leads to nothing

    assert vault.asked == []
    assert vidu_connection.creates[-1].body["prompt"] == text
    assert {query.id for query in vidu_connection.requests(kind="query")} == {text}
    assert fetch.destination == f"{tmp_path}/{text}/"
    assert not [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    count = len(vidu_connection.requests())
    fault_row(
        "hostile input",
        f"template in an answer: {text}",
        side="pipeline",
        seen="stays text",
        requests=count,
        outcome=SURVIVED,
    )
