"""Paid once, never left running: workers are killed at every moment, users kill and clear; the ledger counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run, wait_for

DIALECTS = {"native": "vidu-native", "ent": "ent-v2"}
MOMENTS = {
    "start": "deferred",
    "before_post": "deferred",
    "during_answer": "deferred",
    "after_answer": "deferred",
    "waiting": "worker",
    "resumed": "deferred",
}
# Where vidu-native, which can neither be searched nor marked, must end in an error instead of a second charge.
UNKNOWN_IN_NATIVE = {"before_post", "during_answer", "after_answer"}
# Each moment once, and each way in which it can end; `make faults` kills at every moment in both dialects.
ALWAYS = {
    ("native", "before_post"), ("native", "after_answer"), ("native", "waiting"),
    ("ent", "start"), ("ent", "during_answer"), ("ent", "resumed"),
}  # fmt: skip
DEATHS = [
    pytest.param(dialect, moment, marks=[] if (dialect, moment) in ALWAYS else [pytest.mark.nightly])
    for dialect in DIALECTS
    for moment in MOMENTS
]


@dataclass(frozen=True)
class Orders:
    """Airflow with its connections to a sandbox of these tests' own."""

    airflow: PrivateAirflow
    sandbox: Sandbox
    deaths: str
    runs: dict[tuple[str, str], Run]

    def order(self, dialect: str, way: str, prompt: str, **conf: str) -> Run:
        """Start an order; its prompt finds it in the ledger."""
        return self.airflow.trigger(f"e2e_order_{dialect}_{way}", {"prompt": prompt, "deaths": self.deaths, **conf})

    def creates(self, prompt: str) -> list[Any]:
        """Return what was billed for ``prompt``."""
        return [create for create in self.sandbox.creates if create.body.get("prompt") == prompt]


def _asked_for(request: pytest.FixtureRequest, test: str) -> list[dict[str, str]]:
    """Return with which parameters this session runs a test: nothing is started that no test looks at."""
    return [item.callspec.params for item in request.session.items if getattr(item, "originalname", "") == test]


@pytest.fixture(scope="module")
def orders(airflow, keys, request, tmp_path_factory) -> Iterator[Orders]:
    """Start every order whose worker will die; they run beside each other."""
    asked = _asked_for(request, "test_a_dead_worker_never_pays_twice")
    deaths = [(one["dialect"], one["moment"]) for one in asked]
    with Sandbox(keys=[keys.good], queue=1, duration=4, models="any", list_payload=True, concurrency=None) as sandbox:
        for dialect, name in DIALECTS.items():
            fields = {"conn_type": "vidu", "host": sandbox.url, "password": keys.good, "extra": {"dialect": name}}
            airflow.add_connection(f"vidu_orders_{dialect}", fields)
        airflow.wait_for_dags([f"e2e_order_{d}_{w}" for d in DIALECTS for w in ("deferred", "worker")])
        made = Orders(airflow, sandbox, str(tmp_path_factory.mktemp("deaths")), {})
        for dialect, name in DIALECTS.items():
            if (dialect, "during_answer") not in deaths:
                continue
            # The answer comes later than the worker's death: carried out and billed, but never learnt of.
            rule = {"kind": "create", "dialect": name}
            sandbox.add_fault({"match": rule, "times": 1, "action": {"delay": 10}})
            made.runs[dialect, "during_answer"] = made.order(
                dialect, "deferred", "during_answer", die_at="during_answer"
            )
            assert wait_for(lambda d=name: any(c.dialect == d for c in sandbox.creates), 60)
        for dialect, moment in deaths:
            if moment != "during_answer":
                made.runs[dialect, moment] = made.order(dialect, MOMENTS[moment], moment, die_at=moment)
        yield made


@pytest.fixture(scope="module")
def patient(airflow, keys) -> Iterator[Sandbox]:
    """Run a sandbox in which everything stays queued, where it can be cancelled."""
    with Sandbox(keys=[keys.good], queue=3600, models="any", list_payload=True) as sandbox:
        for dialect, name in DIALECTS.items():
            fields = {"conn_type": "vidu", "host": sandbox.url, "password": keys.good, "extra": {"dialect": name}}
            airflow.add_connection(f"vidu_patient_{dialect}", fields)
        yield sandbox


@pytest.fixture(scope="module")
def waiting(orders, patient, request) -> dict[str, Run]:
    """Start every order that users and triggerers meddle with, by its prompt; they wait beside each other."""
    asked = {item.originalname for item in request.session.items if isinstance(item, pytest.Function)}
    started = {}
    if "test_a_triggerers_death_cancels_nothing" in asked:
        started |= {f"restart {dialect}": (dialect, "deferred") for dialect in DIALECTS}
    for one in _asked_for(request, "test_a_clear_is_a_new_order_and_ends_the_old_one"):
        started[f"{one['way']} clear"] = ("ent", one["way"])
    for one in _asked_for(request, "test_a_users_kill_cancels"):
        started[f"{one['way']} {one['state']}"] = ("ent", one["way"])
    return {
        prompt: orders.order(dialect, way, prompt, conn_id=f"vidu_patient_{dialect}")
        for prompt, (dialect, way) in started.items()
    }


@pytest.mark.usefixtures("waiting")  # which begin meanwhile
@pytest.mark.parametrize(("dialect", "moment"), DEATHS)
def test_a_dead_worker_never_pays_twice(orders, dialect, moment):
    """After SIGKILL at this moment the order is paid at most once; if the outcome cannot be determined, it says so."""
    run = orders.runs[dialect, moment]
    state = orders.airflow.wait(run, timeout=300)
    paid = [create for create in orders.creates(moment) if create.dialect == DIALECTS[dialect]]
    tries = orders.airflow.tasks(run)[0].try_number
    assert tries == 2
    if dialect == "native" and moment in UNKNOWN_IN_NATIVE:
        assert state == "failed"
        assert "clear this task to submit a new one" in orders.airflow.task_log(run, "film")
        assert len(paid) == (0 if moment == "before_post" else 1)
    else:
        assert state == "success", orders.airflow.task_log(run, "film")
        assert [create.charge for create in paid] == ["charged"]
        assert orders.airflow.xcom(run, "film")["id"] == paid[0].id


@pytest.mark.parametrize("way", ["deferred", pytest.param("worker", marks=pytest.mark.nightly)])
def test_a_clear_is_a_new_order_and_ends_the_old_one(orders, patient, waiting, way):
    """Cleared while it waits: the old job is cancelled, the new one submitted, and no third."""
    prompt = f"{way} clear"
    run = waiting[prompt]
    _submitted(orders, run, patient, way, prompt)
    orders.airflow.api(
        "POST",
        f"/dags/{run.dag_id}/clearTaskInstances",
        {"dry_run": False, "dag_run_id": run.run_id, "task_ids": ["film"], "only_failed": False},
    )
    assert wait_for(lambda: len(_billed(patient, prompt)) == 2, 120), orders.airflow.states(run)
    assert wait_for(lambda: _charges(patient, prompt) == ["cancelled", "charged"], 60)
    _watched(orders, run, patient, way, _billed(patient, prompt)[1].id)
    _mark(orders, run, "failed")
    ended = wait_for(lambda: _charges(patient, prompt) == ["cancelled", "cancelled"], 90)
    told = orders.airflow.task_log(run, "film")
    assert ended, f"{orders.airflow.states(run)}\n{told}\n{orders.airflow.component_log('triggerer')}"


@pytest.mark.parametrize(
    ("way", "state"),
    [
        ("deferred", "failed"),
        ("worker", "success"),
        pytest.param("deferred", "success", marks=pytest.mark.nightly),
        pytest.param("worker", "failed", marks=pytest.mark.nightly),
    ],
)
def test_a_users_kill_cancels(orders, patient, waiting, way, state):
    """Marked failed or succeeded while it waits, deferred or in a worker: the job is cancelled."""
    prompt = f"{way} {state}"
    run = waiting[prompt]
    _submitted(orders, run, patient, way, prompt)
    _mark(orders, run, state)
    assert wait_for(lambda: _charges(patient, prompt) == ["cancelled"], 90), orders.airflow.task_log(run, "film")


def test_a_triggerers_death_cancels_nothing(orders, patient, waiting):
    """A triggerer that is killed hands its waits over, in either dialect; nothing is cancelled or submitted again."""
    ids = {}
    for dialect in DIALECTS:
        prompt = f"restart {dialect}"
        _submitted(orders, waiting[prompt], patient, "deferred", prompt)
        ids[dialect] = _billed(patient, prompt)[0].id
    orders.airflow.kill_component("triggerer")
    before = {dialect: len(patient.requests("query", found)) for dialect, found in ids.items()}
    orders.airflow.start_component("triggerer")
    for dialect, found in ids.items():
        taken_up = wait_for(lambda d=dialect, i=found: len(patient.requests("query", i)) > before[d], 90)
        assert taken_up, dialect
        assert patient.requests("cancel", found) == [], dialect
        assert _charges(patient, f"restart {dialect}") == ["charged"], dialect
        done = "success" if dialect == "ent" else "completed"
        patient.add_generation(found, dialect=DIALECTS[dialect], states=[[done, 0]])
    assert {orders.airflow.wait(waiting[f"restart {dialect}"]) for dialect in DIALECTS} == {"success"}
    assert len(patient.requests("create")) == len(patient.creates)


def _billed(sandbox: Sandbox, prompt: str) -> list[Any]:
    return [create for create in sandbox.creates if create.body.get("prompt") == prompt]


def _charges(sandbox: Sandbox, prompt: str) -> list[str]:
    return [create.charge for create in _billed(sandbox, prompt)]


def _mark(orders: Orders, run: Run, state: str) -> None:
    orders.airflow.api("PATCH", f"{run.path}/taskInstances/film", {"new_state": state})


def _submitted(orders: Orders, run: Run, sandbox: Sandbox, way: str, prompt: str) -> None:
    """Wait until the job was submitted and the task waits for it."""
    orders.airflow.wait_for_task(run, "film", "deferred" if way == "deferred" else "running")
    assert wait_for(lambda: _billed(sandbox, prompt) != [], 60)
    _watched(orders, run, sandbox, way, _billed(sandbox, prompt)[0].id)


def _watched(orders: Orders, run: Run, sandbox: Sandbox, way: str, generation_id: str) -> None:
    """Wait until a triggerer watches it: before that, a kill reaches no trigger.

    A request alone proves no triggerer: a task that was woken by another generation's event asks as well.
    """
    if way == "deferred":
        line = f"Generation {generation_id}: waiting"
        assert wait_for(lambda: line in orders.airflow.task_log(run, "film"), 60), orders.airflow.task_log(run, "film")
    else:
        assert wait_for(lambda: sandbox.requests("query", generation_id) != [], 60)
