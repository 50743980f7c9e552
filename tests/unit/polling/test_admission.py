"""The queue for an account's slots: order, limits, probes, and a simulated account under load."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from airflow_provider_vidu.polling.admission import (
    ADMITTED_SECONDS,
    DOUBTED_SECONDS,
    LONGEST_HOLD_SECONDS,
    LONGEST_PROBE_SECONDS,
    PROBE_SECONDS,
    UNWATCHED_SECONDS,
    Gate,
)
from airflow_provider_vidu.polling.forecast import EARLY_PENALTY_SECONDS, USUAL_START_SECONDS
from airflow_provider_vidu.polling.turns import Waiter
from airflow_provider_vidu.tasks.slots.slot_wait import PREDECESSOR_SECONDS


def waiter(key: str, **changes: Any) -> Waiter:
    """Return a task that was refused at time 0 and may be woken at 10."""
    return replace(Waiter(key, priority=1, since=0.0, ready_at=10.0, refused_at=0.0), **changes)


def names(admitted: Sequence[Waiter]) -> list[str]:
    """Return the keys of the admitted tasks."""
    return [one.key for one in admitted]


def gate_with(*waiters: Waiter, report: tuple[int, int] | None = None, limit: int | None = None) -> Gate:
    """Return a gate that these tasks have joined at time 0."""
    gate = Gate()
    gate.limit = limit
    for one in waiters:
        gate.join(one, 0.0)
    if report:
        gate.reported(*report, asked_at=1.0)
    return gate


def test_order_is_age_with_a_head_start_for_priority():
    """Of tasks that came together the higher priority goes first, and of equals the one that has waited longest."""
    gate = gate_with(waiter("young", since=5.0), waiter("old"), waiter("urgent", since=9.0, priority=7), report=(5, 2))
    assert gate.places() == {"urgent": 1, "old": 2, "young": 3}
    assert names(gate.admit(20.0)) == ["urgent", "old", "young"]


def test_a_steady_stream_of_urgent_tasks_does_not_starve_the_others():
    """A slot a minute, and an urgent task a minute: the one with the least priority still gets its turn in an hour."""
    gate = gate_with(waiter("humble"))
    for minute in range(1, 120):
        now = 60.0 * minute
        gate.join(waiter(f"urgent {minute}", priority=1_000_000, since=now, ready_at=now, refused_at=None), now)
        gate.reported(1, 0, asked_at=now)
        [one] = gate.admit(now)
        if one.key == "humble":
            break
        gate.submitted(one.key, one.key, now)
    assert 50 < minute <= 61


def promising(*waiters: Waiter, report: tuple[int, int] | None = None, limit: int | None = None) -> Gate:
    """Return a gate at time 100: a generation that runs since 95, of a kind that takes 20 s; tasks start in 3 s."""
    gate = gate_with(*waiters, limit=limit)
    gate.submitted("old", None, 50.0, 50.0)
    gate.ended("old", 70.0, is_over=True, lasted=20.0)
    gate._ends.clear()
    gate.submitted("g", None, 95.0, 95.0)
    gate._probe_at = 1e9
    if report:
        gate.reported(*report, asked_at=100.0)
    return gate


@pytest.mark.parametrize(("report", "limit"), [(None, None), ((1, 1), None), (None, 1), ((5, 1), 1)])
def test_a_slot_is_promised_before_it_is_free(report, limit):
    """The next task starts while the generation still runs, once; its end then frees nothing a second time."""
    gate = promising(waiter("a"), waiter("b"), report=report, limit=limit)
    wake_at = 95 + 20 - USUAL_START_SECONDS
    assert gate.next_at(100.0) == wake_at
    assert gate.promise(wake_at - 0.1) == []
    [(one, after)] = gate.promise(wake_at)
    assert (one.key, after) == ("a", "g")
    assert gate.promise(wake_at) == []
    assert gate.admit(wake_at) == []
    gate.ended("g", 115.0, is_over=True, lasted=20.0)
    if report:
        gate.reported(report[0], 0, asked_at=115.5)
    assert [waiter.key for waiter in gate.admit(116.0)] == (["b"] if report == (5, 1) and limit is None else [])
    gate.submitted("ga", "a", 117.0, 116.0)
    assert gate.waiting == 1


@pytest.mark.parametrize("is_over", [True, False])
def test_a_task_that_started_too_early_goes_back(is_over):
    """Its generation is not promised again; when that ends, the slot is free, and later wake-ups come later."""
    gate = promising(waiter("a"))
    gate.promise(112.0)
    if is_over:  # between the task's last poll and its return
        gate.ended("g", 117.0, is_over=True, lasted=22.0)
    gate.join(waiter("a", refused_at=None, ready_at=128.0), 118.0)
    assert gate.promise(130.0) == []
    assert names(gate.admit(130.0)) == (["a"] if is_over else [])
    gate.ended("g", 131.0, is_over=True, lasted=22.0)
    if not is_over:
        assert names(gate.admit(131.0)) == ["a"]
    gate.join(waiter("c"), 131.0)
    gate.submitted("h", None, 140.0, 140.0)
    gate._forecast._durations.clear()
    gate._forecast.lasted(20.0)
    assert gate.expected_end("h") == 140 + 20 + EARLY_PENALTY_SECONDS


def test_generations_that_have_ended_are_not_promised():
    """The report shows no generation any more, although no poll has seen the end: its slot is given away once."""
    gate = promising(waiter("a"), waiter("b"), report=(1, 0))
    assert gate.promise(112.0) == []
    assert names(gate.admit(112.0)) == ["a"]


def test_a_promise_is_not_for_a_task_that_nobody_watches():
    """Its create would not be seen, so the slot would be given away again."""
    gate = promising(waiter("a", is_watched=False))
    assert gate.promise(112.0) == []


@pytest.mark.parametrize("report", [None, (1, 1)])
def test_an_admitted_task_that_has_ended_gives_its_slot_back(report):
    """It was killed before its create. The slot is the next one's as soon as that is known, not two minutes later."""
    gate = promising(waiter("a"), waiter("b"), report=report)
    gate.ended("g", 110.0, is_over=True)
    if report:
        gate.reported(1, 0, asked_at=110.0)
    assert names(gate.admit(110.0)) == ["a"]
    doubted_after = 3 + 2 * 3  # seconds: a start usually takes three
    assert gate.doubted(110.0 + doubted_after - 1) == []
    assert gate.doubted(110.0 + doubted_after) == ["a"]
    gate.released("a", 126.0)
    assert names(gate.admit(126.0)) == ["b"]


def test_a_start_that_takes_long_is_not_doubted_sooner():
    """Where Airflow starts tasks slowly, an admitted task has a quarter of a minute before anybody asks for it."""
    gate = promising(waiter("a"), waiter("b"))
    for _ in range(9):
        gate._forecast.started(20.0)
    gate.ended("g", 110.0, is_over=True)
    gate.admit(110.0)
    assert gate.doubted(110.0 + DOUBTED_SECONDS - 1) == []
    assert gate.doubted(110.0 + DOUBTED_SECONDS) == ["a"]


def test_an_admitted_task_that_waits_for_a_slot_elsewhere_holds_nothing():
    """Another triggerer has it in its queue; nothing was submitted, so no slot has become free here."""
    gate = promising(waiter("a"), waiter("b"))
    gate.ended("g", 110.0, is_over=True)
    gate.admit(110.0)
    gate.moved("a", None, 120.0)
    assert gate.admit(140.0) == []
    assert gate.doubted(140.0) == []


def test_a_generation_that_is_watched_elsewhere_frees_its_slot_at_its_probable_end():
    """Another triggerer sees its end. Here the slot is in use until the usual duration has passed, then the next's."""
    gate = promising(waiter("a"), waiter("b"))
    gate.ended("g", 110.0, is_over=True, lasted=20.0)
    gate.admit(110.0)
    gate.moved("a", "h", 120.0)
    assert gate.doubted(140.0) == []
    end = 120.0 + gate._forecast.duration
    assert gate.next_at(130.0) <= end
    assert gate.admit(end - 0.5) == []
    assert names(gate.admit(end)) == ["b"]


def test_the_reports_count_what_is_watched_elsewhere():
    """A report that was sent after the submit contains the generation; the end of it is not counted twice."""
    gate = promising(waiter("a"), waiter("b"), waiter("c"), report=(2, 1))
    assert names(gate.admit(110.0)) == ["a"]
    gate.moved("a", "h", 115.0)
    assert gate.admit(116.0) == []  # the report is older than its create
    gate.reported(2, 1, asked_at=117.0)  # "g" has ended
    assert names(gate.admit(118.0)) == ["b"]
    assert gate.admit(200.0) == []


def test_the_limit_counts_what_is_watched_elsewhere():
    """The user's own limit holds for generations of another triggerer too, as far as they are known here."""
    gate = promising(waiter("a"), waiter("b"))
    gate.limit = 1
    gate.ended("g", 110.0, is_over=True, lasted=20.0)
    assert names(gate.admit(110.0)) == ["a"]
    gate.moved("a", "h", 112.0)
    assert gate.admit(113.0) == []
    gate.submitted("h", None, 114.0, 112.0)  # it has come back here
    assert gate.admit(150.0) == []
    gate.ended("h", 151.0, is_over=True)
    assert names(gate.admit(151.0)) == ["b"]


def test_a_refused_task_keeps_its_age():
    """A task that is refused again goes before those that came later."""
    gate = gate_with(waiter("a", since=1.0), waiter("b", since=2.0), report=(1, 0))
    assert names(gate.admit(20.0)) == ["a"]
    gate.join(waiter("a", since=1.0, refused_at=22.0, ready_at=33.0), 23.0)
    assert gate.places() == {"a": 1, "b": 2}


def test_no_event_before_airflow_can_take_it():
    """A task is not woken before its deferral is old enough, although a slot is free."""
    gate = gate_with(waiter("a"), report=(5, 0))
    assert gate.admit(9.9) == []
    assert gate.next_at(9.9) == 10.0
    assert not gate.is_ready(9.9)
    assert names(gate.admit(10.0)) == ["a"]


def test_admitted_tasks_hold_their_slots():
    """Two free slots wake two tasks; until both have submitted and a later report says so, no third is woken."""
    gate = gate_with(*(waiter(key) for key in "abcd"), report=(5, 3))
    assert names(gate.admit(20.0)) == ["a", "b"]
    gate.submitted("g1", "a", 21.0)
    gate.submitted("g2", "b", 22.0)
    gate.reported(5, 4, asked_at=21.5)  # knows of the first alone
    assert gate.admit(23.0) == []
    gate.reported(5, 4, asked_at=24.0)  # both are in it, and another one has ended
    assert names(gate.admit(24.0)) == ["c"]


def test_the_end_of_a_generation_frees_its_slot_at_once():
    """Without waiting for a report, and once, however many watched it."""
    gate = gate_with(waiter("a"), waiter("b"))
    gate.submitted("g", "other", 1.0)
    gate.submitted("g", "sensor", 1.0)
    gate.ended("g", 11.0, is_over=True)
    gate.ended("g", 11.0, is_over=True)
    assert names(gate.admit(11.0)) == ["a"]


def test_a_triggerer_that_stops_frees_nothing():
    """A watch that ends without the generation's end does not wake anybody."""
    gate = gate_with(waiter("a"))
    gate.submitted("g", None, 1.0)
    gate.ended("g", 11.0, is_over=False)
    assert gate.admit(11.0) == []


def test_ends_before_the_refusal_prove_nothing():
    """What had ended when the account refused was taken by others."""
    gate = gate_with(waiter("a"))
    gate.submitted("g", None, 1.0)
    gate.ended("g", 11.0, is_over=True)
    gate.join(waiter("b", refused_at=12.0, ready_at=12.0), 12.0)
    assert gate.admit(12.0) == []


def test_probes_grow_with_success_and_halve_with_refusals():
    """Where the service reports nothing: one, two, four; then half as many, after a pause that doubles."""
    gate = gate_with(*(waiter(f"{n:02}") for n in range(40)))
    now = PROBE_SECONDS
    for size in (1, 2, 4):
        probe = gate.admit(now)
        assert len(probe) == size
        assert gate.admit(now + 1) == []  # until it is known what became of them
        for one in probe:
            now += 1
            gate.submitted(f"g{one.key}", one.key, now)
    probe = gate.admit(now)
    assert len(probe) == 8
    for one in probe:
        gate.join(replace(one, refused_at=now, ready_at=now), now)
    pauses = []
    for size in (1, 1, 1, 1):  # eight refusals have halved it to the least
        due = gate.next_at(now)
        pauses.append(due - now)
        now = due
        probe = gate.admit(now)
        assert len(probe) == size
        gate.join(replace(probe[0], refused_at=now, ready_at=now), now)
    assert max(pauses) <= LONGEST_PROBE_SECONDS
    assert pauses == sorted(pauses)


def test_retry_after_holds_everything():
    """Until the time that the service asked for, nothing is tried, not even for a slot that has become free."""
    gate = gate_with(waiter("a", retry_after=100.0))
    gate.submitted("g", None, 1.0)
    gate.ended("g", 11.0, is_over=True)
    assert gate.admit(99.0) == []
    assert gate.next_at(99.0) == 100.0
    assert names(gate.admit(100.0)) == ["a"]


def test_a_report_that_refusals_contradict_is_not_trusted_for_a_while():
    """The service reports free slots and refuses all the same: the next try comes later, not at once."""
    gate = gate_with(waiter("a"), report=(5, 0))
    gate.admit(20.0)
    gate.join(waiter("a", refused_at=21.0, ready_at=31.0), 21.0)
    gate.reported(5, 0, asked_at=31.0)
    assert gate.admit(31.0) == []
    assert names(gate.admit(21.0 + PROBE_SECONDS)) == ["a"]


@pytest.mark.parametrize("report", [None, (9, 1)])
def test_the_users_limit_holds(report):
    """``max_in_flight`` counts what runs and what is about to be submitted, whatever the service reports."""
    gate = gate_with(*(waiter(key, refused_at=None) for key in "abcd"), report=report, limit=3)
    gate.submitted("g", None, 1.0)
    assert names(gate.admit(20.0)) == ["a", "b"]
    gate.submitted("ga", "a", 21.0)
    assert gate.admit(21.0) == []
    gate.ended("g", 22.0, is_over=True)
    assert names(gate.admit(22.0)) == ["c"]


def test_a_task_that_never_submits_gives_its_slot_back():
    """It was killed, or failed before its create: after a while the slot is the next one's."""
    gate = gate_with(waiter("a"), waiter("b"), report=(1, 0))
    gate.admit(10.0)
    assert gate.admit(10.0 + ADMITTED_SECONDS - 1) == []
    assert gate.next_at(26.0) == 10.0 + ADMITTED_SECONDS
    assert names(gate.admit(10.0 + ADMITTED_SECONDS)) == ["b"]


def test_a_task_that_does_not_wait_counts_as_submitted_soon():
    """With ``wait_for_completion=False`` no watch shows the generation: the silence after the wake-up does."""
    gate = gate_with(*(waiter(key, is_watched=False) for key in "abc"))
    assert names(gate.admit(PROBE_SECONDS)) == ["a"]
    assert gate.admit(PROBE_SECONDS + UNWATCHED_SECONDS - 1) == []
    assert names(gate.admit(PROBE_SECONDS + UNWATCHED_SECONDS)) == ["b", "c"]


def test_a_task_that_leaves_holds_nothing():
    """A kill takes a task out of the queue; an empty queue needs no clock."""
    gate = gate_with(waiter("a"), report=(1, 0))
    gate.leave("a")
    assert (gate.waiting, gate.admit(20.0), gate.next_at(20.0)) == (0, [], math.inf)


@dataclass
class Account:
    """A simulated account with tasks that submit, wait, and are woken some seconds later by Airflow."""

    slots: int
    clip: float
    tasks: int
    reports: bool
    poll: float = 3.0
    spread: float = 0.0
    foreign: Callable[[float], int] = lambda now: 0
    gate: Gate = field(default_factory=Gate)
    refusals: dict[int, int] = field(default_factory=dict)
    done: dict[int, float] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    now: float = 0.0
    used: float = 0.0
    early: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(7)
        self.count = itertools.count()
        self.queue: list[Any] = []
        for task in range(self.tasks):
            self.later(task * 0.1, self.create, task, task * 0.1)
        self.later(1.0, self.serve)

    def later(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.queue, (self.now + seconds, next(self.count), act, arguments))

    def start(self) -> float:
        """Return how long Airflow takes to start a woken task."""
        return 3 + 3 * self.random.random()

    def run(self) -> Account:
        while self.queue and len(self.done) < self.tasks:
            at, _, act, arguments = heapq.heappop(self.queue)
            assert at < 100_000, "the queue never empties"
            self.used += len(self.running) * (at - self.now)
            self.now = at
            act(*arguments)
        return self

    def create(self, task: int, since: float) -> None:
        if len(self.running) + self.foreign(self.now) < self.slots:
            self.running.add(task)
            self.order.append(task)
            since, clip = self.now + 0.5, self.clip * (1 + self.spread * self.random.random())
            self.later(3.0, lambda: self.gate.submitted(str(task), str(task), self.now, since))
            self.later(clip, self.finish, task, clip)
        else:
            self.refusals[task] = self.refusals.get(task, 0) + 1
            refused = Waiter(str(task), 1, since, self.now + 10.5, refused_at=self.now)
            self.later(0.5, lambda: self.gate.join(refused, self.now))

    def finish(self, task: int, clip: float) -> None:
        self.running.remove(task)
        self.done[task] = self.now
        lasted = clip + self.poll * (self.random.random() - 0.5)
        self.later(self.random.random() * self.poll, self.see_end, task, lasted)

    def see_end(self, task: int, lasted: float) -> None:
        self.gate.ended(str(task), self.now, is_over=True, lasted=lasted)
        self.report()

    def report(self) -> None:
        if self.reports:
            self.gate.reported(self.slots, len(self.running) + self.foreign(self.now), self.now)

    def start_after(self, task: int, since: float, other: int, until: float) -> None:
        """Run a worker that was woken for the slot of a running generation."""
        if other in self.done:
            self.create(task, since)
        elif self.now < until:
            self.later(0.4, self.start_after, task, since, other, until)
        else:
            self.early += 1
            back = Waiter(str(task), 1, since, self.now + 10.5)
            self.later(0.5, lambda: self.gate.join(back, self.now))

    def serve(self) -> None:
        if round(self.now) % 3 == 0:
            self.report()
        for one, other in self.gate.promise(self.now):
            start = self.start()
            until = self.now + start + PREDECESSOR_SECONDS
            self.later(start, self.start_after, int(one.key), one.since, int(other), until)
        for one in self.gate.admit(self.now):
            self.later(self.start(), self.create, int(one.key), one.since)
        self.later(1.0, self.serve)


@pytest.mark.parametrize("reports", [True, False])
def test_a_full_account_is_kept_busy_with_few_refusals(reports):
    """4 slots, 24 clips, tasks that take 3 to 6 s to start: few are refused more than once, and the account is busy."""
    account = Account(slots=4, clip=20.0, tasks=24, reports=reports).run()
    assert max(account.refusals.values()) <= 3
    assert account.early <= 3
    assert account.used / (account.now * account.slots) > 0.84


@pytest.mark.parametrize("reports", [True, False])
def test_clips_of_every_length_cost_few_task_starts(reports):
    """Clips take 20 to 60 s: a forecast is often wrong, and then few tasks are woken for nothing."""
    account = Account(slots=4, clip=20.0, tasks=100, reports=reports, spread=2.0).run()
    assert sum(account.refusals.values()) <= 1.6 * account.tasks
    assert account.early <= 0.35 * account.tasks
    assert account.used / (account.now * account.slots) > 0.8


@pytest.mark.parametrize("reports", [True, False])
def test_three_hundred_tasks_beside_foreign_jobs(reports):
    """Limit 5, up to three slots of which others take and give back: few refusals, and no task starves."""
    account = Account(slots=5, clip=60.0, tasks=300, reports=reports, foreign=lambda now: int(now // 300) % 4).run()
    assert max(account.refusals.values()) <= 6
    assert sum(account.refusals.values()) <= 1.6 * account.tasks
    waited = [task - place for place, task in enumerate(account.order)]
    assert max(waited) < 60  # nobody overtakes more than a few


def test_a_retry_after_of_a_day_does_not_stop_the_connection():
    """It may be about one model, or one key's quota; the gate tries again now and then."""
    gate = gate_with(waiter("a", retry_after=86_400.0))
    assert gate.next_at(20.0) == LONGEST_HOLD_SECONDS
    assert names(gate.admit(LONGEST_HOLD_SECONDS)) == ["a"]


def test_a_worker_whose_clock_is_ahead_does_not_delay_the_queue():
    """Its refusal was at the latest when the task joined."""
    gate = gate_with(waiter("a", refused_at=3600.0, retry_after=1.0))
    assert names(gate.admit(PROBE_SECONDS)) == ["a"]


def test_after_a_restart_the_limit_waits_until_the_running_generations_are_counted():
    """Waiting tasks and watches start together: a gate that has seen no watch yet must not admit beyond the limit."""
    gate = Gate(settled_at=12.0)
    gate.limit = 1
    gate.join(waiter("a", refused_at=None), 5.0)
    assert gate.admit(11.0) == []
    assert gate.next_at(11.0) == 12.0
    gate.submitted("g", None, 11.5)
    assert gate.admit(12.0) == []
