"""Triggerers that have no room, die, freeze and come back, under two hundred waits and twenty orders."""

from __future__ import annotations

import signal
import time

from airflow_cluster import TRIGGERERS
from fault_table import CLEAR_ERROR, SURVIVED
from private_airflow import errors_in
from processes import wait_for
from tests.cluster.cluster_state import FOREVER, LARGE, PATIENCE, SMALL, Waits


def test_waits_beyond_the_capacity_queue_up(cluster, sandbox, waits, fault_row):
    """Surplus waits lie in the database; a deadline that passes there counts, and the rest move up in time."""
    cluster.resize(SMALL, signal.SIGTERM)
    full = dict.fromkeys(cluster.triggerers(), SMALL)
    assert wait_for(lambda: {job: len(waits.taken_by(job)) for job in full} == full, PATIENCE, every=1), waits.told()
    queued = waits.taken_by(None)
    assert len(queued) == len(waits.open) - 2 * SMALL

    ids = [sandbox.add_generation(f"late-{number}", states=FOREVER) for number in range(4)]
    late = Waits(cluster)
    late.follow(cluster.airflow.trigger("cluster_late", {"ids": ids}), "wait", ids)
    late.all_deferred()
    last = max(float(arguments["deadline"]) for arguments in late.arguments.values())
    time.sleep(max(last - time.time(), 0) + 1)
    assert late.taken_by(None) == ids
    late.undisturbed()

    taken = [name for name in waits.open if name not in queued][: 2 * len(ids)]
    waits.finish(taken)
    waits.noticed(taken)
    assert wait_for(lambda: {wait.state for wait in late.now().values()} == {"failed"}, PATIENCE, every=1), late.told()
    assert {wait.try_number for wait in late.now().values()} == {1}
    # One look in the worker, one last look of the trigger once it had been picked up: no second wait began there.
    assert {len(sandbox.requests("query", name)) for name in ids} == {2}
    log = cluster.airflow.task_log(late.groups[0].run, "wait", map_index=0)
    assert "ViduTimeoutError" in log
    waits.undisturbed()
    fault_row(
        "airflow", "more waits than the triggerers take", side="triggerers",
        seen=f"{len(queued)} queued, then taken up", requests=len(sandbox.requests("query")), outcome=SURVIVED,
    )  # fmt: skip
    fault_row(
        "airflow", "deadline passes while a wait is queued", side="triggerers", seen=errors_in(log)[-1], requests=2,
        outcome=CLEAR_ERROR,
    )  # fmt: skip


def test_a_killed_triggerer_is_replaced(cluster, sandbox, waits, roomy, fault_row):
    """After kill -9 the other triggerer has every wait, none is disturbed, and what ends is noticed once."""
    killed, other = sorted(TRIGGERERS, key=lambda name: -len(waits.taken_by(cluster.jobs[name])))
    lost = waits.taken_by(cluster.jobs[killed])
    assert lost
    cluster.airflow.kill_component(killed)
    done = waits.some(2)
    waits.finish(done)
    waits.all_taken_up({cluster.jobs[other]})
    waits.all_asked_for(time.time())
    waits.undisturbed()
    waits.noticed(done)
    cluster.start_triggerer(killed, LARGE)
    fault_row(
        "airflow", f"kill -9 of a triggerer under {len(waits.open) + len(done)} waits", side="triggerers",
        seen=f"{len(lost)} waits taken over", requests=len(sandbox.requests("query")), outcome=SURVIVED,
    )  # fmt: skip


def test_a_frozen_triggerer_does_nothing_twice(cluster, sandbox, waits, roomy, fault_row):
    """Frozen past the threshold its waits move on; thawed, it drops what is no longer its own and cancels nothing."""
    frozen, other = sorted(TRIGGERERS, key=lambda name: -len(waits.taken_by(cluster.jobs[name])))
    stale = waits.taken_by(cluster.jobs[frozen])
    assert stale
    cluster.airflow.freeze_component(frozen)
    waits.all_taken_up({cluster.jobs[other]})
    # Some end while it is frozen, some just as it wakes up with an old memory of them.
    early = waits.some(2)
    waits.finish(early)
    waits.noticed(early)
    late = waits.some(2)
    waits.finish(late)
    thawed = time.time()
    cluster.airflow.thaw_component(frozen)
    waits.noticed(late)
    assert wait_for(lambda: cluster.beats(cluster.jobs[frozen]) > thawed, PATIENCE)
    waits.all_asked_for(time.time())
    # Longer than the guard thinks about a stale wait whose task is at work.
    polls = waits.polls(30)
    assert set(polls) <= set(waits.open)
    assert max(polls.values()) <= 4, polls.most_common(5)
    waits.undisturbed()
    fault_row(
        "airflow", "triggerer frozen past the health threshold, then thawed", side="triggerers",
        seen=f"{len(stale)} waits taken over, none polled twice", requests=len(sandbox.requests("query")),
        outcome=SURVIVED,
    )  # fmt: skip
