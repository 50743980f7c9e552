"""What ends a wait, and what does not: the compatibility page's row on how the trigger learns of a kill."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from airflow_provider_vidu.sandbox import Sandbox
from private_airflow import PrivateAirflow, Run, wait_for

FIRST_POLL = 90


@dataclass(frozen=True)
class Order:
    """An order that a triggerer watches, and its job at the service."""

    run: Run
    generation_id: str
    airflow: PrivateAirflow
    sandbox: Sandbox

    @property
    def charge(self) -> str:
        """What the service's ledger says of it."""
        return next(create.charge for create in self.sandbox.creates if create.id == self.generation_id)

    @property
    def polls(self) -> int:
        """How often it was asked for."""
        return len(self.sandbox.requests("query", self.generation_id))

    def log(self) -> str:
        """Return what its task and the triggerer say."""
        return f"{self.airflow.task_log(self.run, 'film')}\n{self.airflow.output.joinpath('triggerer.log').read_text()}"


@pytest.fixture(scope="module")
def orders(airflow, begun, patient) -> dict[str, Order]:
    """Submit one order for each test; they wait beside each other."""
    names = ("killed", "handed over")
    runs = {name: airflow.trigger("matrix_order", {"prompt": name}) for name in names}
    made = {}
    for name, run in runs.items():
        airflow.wait_for_task(run, "film", "deferred")
        (create,) = [create for create in patient.creates if create.body["prompt"] == name]
        made[name] = Order(run, create.id, airflow, patient)
    for order in made.values():
        # The triggerer's own word: a kill before it has taken the wait up tells nobody.
        line = f"Generation {order.generation_id}: waiting"
        assert wait_for(lambda order=order, line=line: line in order.log(), FIRST_POLL), order.log()
    return made


def test_a_user_who_marks_a_wait_as_failed_cancels_its_job(airflow, orders):
    """The job is cancelled and its credits come back; the one beside it goes on."""
    airflow.fail_task(orders["killed"].run, "film")
    assert wait_for(lambda: orders["killed"].charge == "cancelled", 90), orders["killed"].log()
    assert orders["handed over"].charge == "charged"


def test_a_triggerer_that_is_shut_down_cancels_nothing(airflow, orders):
    """Its coroutines are cancelled as a kill cancels them, and yet it leaves its waits to the next triggerer."""
    order = orders["handed over"]
    airflow.shut_down("triggerer")
    before = order.polls
    airflow.start_component("triggerer")
    assert wait_for(lambda: order.polls > before, FIRST_POLL), order.log()
    assert order.charge == "charged", order.log()
    assert order.sandbox.requests("cancel", order.generation_id) == []
    assert airflow.states(order.run) == {"film": "deferred"}
    assert len([create for create in order.sandbox.creates if create.body["prompt"] == "handed over"]) == 1
