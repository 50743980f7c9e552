"""Whatever has happened to the waits before, they all end: noticed once, paid once, cancelled never."""

from __future__ import annotations

from fault_table import SURVIVED
from tests.cluster.cluster_state import PATIENCE


def test_everything_is_noticed_once(cluster, sandbox, waits, roomy, fault_row):
    """Two hundred waits and twenty orders end: each by its own task, in its first try, with its own result."""
    waits.undisturbed()
    rest = waits.open
    waits.finish(rest)
    waits.noticed(rest)
    waits.undisturbed()
    assert {cluster.airflow.wait(group.run, timeout=PATIENCE) for group in waits.groups} == {"success"}
    everything = sum(len(group.ids) for group in waits.groups)
    fault_row(
        "airflow", f"all of it in a row, on {everything} waits", side="cluster",
        seen=f"{everything} noticed once, none cancelled or submitted again", requests=len(sandbox.requests("query")),
        outcome=SURVIVED,
    )  # fmt: skip
