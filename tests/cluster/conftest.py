"""One scaled-out Airflow and one sandbox for all tests of a session; two hundred waits that most of them share."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_cluster import TRIGGERERS, AirflowCluster
from airflow_provider_vidu.sandbox import Sandbox
from processes import wait_for
from tests.cluster.cluster_state import FOREVER, LARGE, ORDERS, PATIENCE, SMALL, WAITS, Cluster, Gate, Waits

HERE = Path(__file__).parent
DIALECTS = {"native": "vidu-native", "ent": "ent-v2"}
KEY = f"vda-cluster-{secrets.token_hex(16)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put last what ends all waits. It passes anywhere, but whatever comes after it needs new ones: minutes."""
    items.sort(key=lambda item: item.path == HERE / "test_noticed.py")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run the service. What is ordered there stays queued, where it can be cancelled, until a test finishes it."""
    with Sandbox(keys=[KEY], queue=7200, models="any", list_payload=True) as service:
        yield service


@pytest.fixture(scope="session")
def gate(sandbox) -> Iterator[Gate]:
    """Run a gateway in front of the sandbox that can be shut."""
    with Gate(sandbox.url) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, sandbox, gate) -> Iterator[Cluster]:
    """Run Airflow with connections to the sandbox, for either dialect, with and without the gate."""
    home = tmp_path_factory.mktemp("cluster") / "airflow"
    with AirflowCluster(home, [HERE / "dags"], settings={"TRIGGERER__CAPACITY": str(SMALL)}) as airflow:
        for short, dialect in DIALECTS.items():
            for name, url in ((f"vidu_{short}", sandbox.url), (f"vidu_gate_{short}", gate.url)):
                # Patient: what ends a submit here is its worker's death and nothing else.
                extra = {"dialect": dialect, "timeout": 240}
                fields = {"conn_type": "vidu", "host": url, "password": KEY, "extra": extra}
                airflow.add_connection(name, fields)
        fields = {"conn_type": "vidu", "host": sandbox.url, "password": KEY, "extra": {}}
        airflow.add_connection("vidu_default", fields)
        airflow.wait_for_dags([f"cluster_{name}" for name in ("waits", "late", "orders", "downloads")])
        running = Cluster(airflow, sandbox, dict.fromkeys(TRIGGERERS, SMALL))
        running.know_triggerers()
        yield running


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """Return the folder that downloads go to."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def _started(cluster) -> list[Waits]:
    return []


@pytest.fixture
def waits(cluster, _started) -> Waits:
    """Return two hundred deferred waits and twenty deferred orders; new ones where a test has ended them."""
    if not _started or not _started[0].open:
        _started[:] = [_start_waits(cluster)]
    return _started[0]


def _start_waits(cluster: Cluster) -> Waits:
    mark = secrets.token_hex(2)
    ids = [cluster.sandbox.add_generation(f"w{mark}-{n:03}", states=FOREVER) for n in range(WAITS)]
    waits = Waits(cluster)
    waits.follow(cluster.airflow.trigger("cluster_waits", {"ids": ids}), "wait", ids)
    orders = {}
    for short in DIALECTS:
        prompts = [f"order {mark} {short} {n}" for n in range(ORDERS)]
        conf = {"prompts": prompts, "conn_id": f"vidu_{short}"}
        orders[short] = cluster.airflow.trigger("cluster_orders", conf), prompts
    for short, (run, prompts) in orders.items():
        assert wait_for(lambda p=prompts: len(cluster.billed(p)) == ORDERS, PATIENCE), "the orders were not submitted"
        by_prompt = {create.body["prompt"]: create.id for create in cluster.billed(prompts)}
        waits.follow(run, "film", [by_prompt[prompt] for prompt in prompts], DIALECTS[short])
    waits.all_deferred()
    return waits


@pytest.fixture
def roomy(cluster, waits) -> Callable[[], None]:
    """Give both triggerers room for everything, by a restart as on a deployment, and let them take all waits up."""
    cluster.resize(LARGE, signal.SIGTERM)
    waits.all_taken_up(cluster.triggerers())
    return lambda: waits.all_taken_up(cluster.triggerers())
