"""Faults that users and attackers have reported, and that no other suite plays through: odd answers above all.

A test that is marked as open shows a fault of the product. Its mark is strict: with the fix it fails until the mark is
removed, and then its row joins the table.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduResponseError
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduGenerateOperator
from fault_table import CLEAR_ERROR, LIMIT, REFUSED, SURVIVED
from tests.faults.hostile_texts import FORGED, is_one_clean_line
from tests.integration.servers import Request, Server, Wire, fixed
from tests.versions import redact, reset_secrets_masker, secrets_masker

JSON = "application/json"
RUNNING = json.dumps({"id": "g7", "state": "processing"}).encode()
CREATED = {"task_id": "g7", "state": "created"}
PICTURE = "data:image/png;base64," + "iVBORw0KGgo" * 100


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Return a function that serves an answer, and points the default connection at it."""
    running: list[Server] = []

    def serve(body: bytes, **headers: str) -> Server:
        def answer(request: Request, wire: Wire) -> None:
            # What is left unread would reset the connection and take the answer with it.
            missing = int(request.headers.get("content-length", 0)) - len(request.body)
            while missing > 0:
                missing -= len(wire.sock.recv(65536)) or missing
            fixed(200, body, Content_Type=JSON, **headers)(request, wire)

        server = Server(answer)
        running.append(server.__enter__())
        extra = {"dialect": "ent-v2", "max_retries": 0, "timeout": 10}
        fields = {"conn_type": "vidu", "host": server.url(""), "password": "key-of-reported-faults", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VIDU_DEFAULT", json.dumps(fields))
        return server

    yield serve
    for server in running:
        server.__exit__()


POLLS: dict[str, Callable[[], Any]] = {
    "sync": lambda: ViduHook().get_generation("g7", retries=0),
    "async": lambda: asyncio.run(ViduHook().aget_generation("g7", retries=0)),
}
ASKS = {**POLLS, "create": lambda: ViduHook().create_generation(model="viduq2", prompt="p")}


@pytest.mark.parametrize("coding", ["utf-8", "aws-chunked", "binary", "none"])
@pytest.mark.parametrize("ask", ASKS)
def test_a_coding_that_means_nothing(serve, fault_row, ask, coding):
    """Stores and gateways send such headers: the answer is read as it is, and a create keeps its id."""
    server = serve(json.dumps(CREATED).encode() if ask == "create" else RUNNING, Content_Encoding=coding)
    assert ASKS[ask]().id == "g7"
    fault_row("orders" if ask == "create" else "polling", f"Content-Encoding: {coding}, which means nothing", side=ask,
              seen="the generation", requests=len(server.requests), outcome=SURVIVED)  # fmt: skip


@pytest.mark.parametrize("is_first", [True, False], ids=["id first", "id last"])
@pytest.mark.parametrize("megabytes", [1, 6])
def test_a_create_that_repeats_inline_pictures(serve, fault_row, is_first, megabytes):
    """The id is read before anything may refuse the answer, and no picture gets into XCom or log."""
    pictures = {"images": [PICTURE + "A" * megabytes * 1_000_000]}
    server = serve(json.dumps({**CREATED, **pictures} if is_first else {**pictures, **CREATED}).encode())
    generation = ViduHook().create_generation(model="viduq2", prompt="p")
    assert generation.id == "g7"
    kept = json.dumps(generation.as_xcom()) + repr(generation)
    assert "iVBORw0KGgo" * 9 not in kept
    assert len(kept) < 10_000
    fault_row("orders", f"the answer to a create repeats {megabytes} MB of inline pictures",
              side="id first" if is_first else "id last", seen="the generation, without the pictures",
              requests=len(server.requests), outcome=SURVIVED)  # fmt: skip


VALUES = {
    "objects": (b'{"id":"g7","state":"processing","creations":[', b"{}"),
    "numbers": (b'{"id":"g7","state":"processing","x":[', b"0"),
}
MOST_KEPT = 64 * 1024
"""Bytes of JSON: what an honest answer has, with a wide margin."""


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("side", POLLS)
def test_many_values_in_few_bytes(serve, fault_row, side, kind):
    """A kilobyte of gzip that holds 100,000 values or more is refused, or little of it is kept."""
    start, value = VALUES[kind]
    packed = gzip.compress(start + b",".join([value] * 130_000) + b"]}")
    assert len(packed) < 1000
    server = serve(packed, Content_Encoding="gzip")
    began = time.thread_time()
    try:
        generation = POLLS[side]()
    except ViduResponseError as error:
        seen, outcome = str(error), CLEAR_ERROR
    else:
        seen, outcome = "the state; what is kept is bounded", SURVIVED
        assert len(json.dumps(generation.as_xcom())) < MOST_KEPT
    assert time.thread_time() - began < 2
    fault_row("attacks", f"a gateway sends 130,000 {kind} in {len(packed)} bytes of gzip", side=side, seen=seen,
              requests=len(server.requests), outcome=outcome)  # fmt: skip


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "hands over"])
def test_an_id_that_forges_a_log_line(serve, variables, capsys, fault_row, waits):
    """What a create calls an id may end no line, speak to no terminal, and stand so in no XCom."""
    server = serve(json.dumps({**CREATED, "task_id": f"g7{FORGED}"}).encode())
    published: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=0,
                         xcom_push=lambda key, value: published.update({key: value}))  # fmt: skip
    operator = ViduGenerateOperator(task_id="t", prompt="p", deferrable=True, wait_for_completion=waits)
    outcome = SURVIVED
    try:
        told = [str(operator.execute({"ti": ti})["id"])]
    except ViduError as error:
        told, outcome = [str(error)], CLEAR_ERROR
    except TaskDeferred as deferred:
        told = [str(value) for value in deferred.trigger.serialize()[1].values()]
    lines = capsys.readouterr().out.splitlines()
    ids = [value for value in published.values() if isinstance(value, str)]
    assert [text for text in [*told, *lines, *ids] if not is_one_clean_line(text)] == []
    assert [line for line in lines if "forged" in line and not line.startswith("20")] == []
    fault_row("attacks", "a gateway puts line breaks and terminal codes into the id of a create",
              side="waits" if waits else "hands over", seen=told[0], requests=len(server.requests),
              outcome=outcome)  # fmt: skip


def test_many_signed_urls_in_a_rendered_field(fault_row):
    """Airflow's masker takes the square of what it is given: more than any request needs is refused at once."""
    images = [f"https://h/{number}.png?sig={number:03d}Zm9vYmFyYmF6cXV4MTIzNDU2" for number in range(1500)]
    operator = ViduGenerateOperator(task_id="t", prompt="p", images="{{ images | tojson }}")
    reset_secrets_masker()
    try:
        began = time.thread_time()
        with pytest.raises(ViduConfigError, match="3000 signatures of signed URLs") as caught:
            operator.render_template_fields({"images": images})
        assert time.thread_time() - began < 1
    finally:
        reset_secrets_masker()
    fault_row("attacks", "dag_run.conf holds 1,500 signed URLs", seen=str(caught.value), requests=0,
              outcome=REFUSED)  # fmt: skip


def test_the_headers_of_a_connection_in_airflows_api(monkeypatch, fault_row):
    """Airflow masks extras by their names, so harmless names show their values; the documented setting hides them."""
    extra = {"dialect": "ent-v2", "headers": {"X-Gateway": "GEHEIM", "Authorization": "GEHEIM"}, "proxy": "GEHEIM"}
    assert redact(extra) == {**extra, "headers": {"X-Gateway": "GEHEIM", "Authorization": "***"}, "proxy": "***"}
    # What Airflow makes of [core] sensitive_var_conn_names = headers when it starts.
    names = secrets_masker().sensitive_variables_fields
    monkeypatch.setattr(secrets_masker(), "sensitive_variables_fields", [*names, "headers"])
    assert "GEHEIM" not in str(redact(extra))
    seen = "values of harmless names, unless [core] sensitive_var_conn_names lists headers"
    fault_row("secrets", "a connection's headers in Airflow's API", seen=seen, requests=0, outcome=LIMIT)
