"""When waits are looked up together, and when a service's list is not to be trusted."""

from __future__ import annotations

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.models import GenerationStatus, Snapshot
from airflow_provider_vidu.polling import state_lists
from airflow_provider_vidu.polling.state_lists import Form, Gathering, ListTrust, StateList, may_be_listed, window
from tests.rows import each_row

RUNNING = Snapshot(GenerationStatus.RUNNING, "processing")


def shown(count: int, **facts: bool) -> StateList:
    """Return an answer with some states."""
    return StateList({str(number): RUNNING for number in range(count)}, **facts)


@pytest.fixture
def proven() -> ListTrust:
    """Return the trust in a list that has answered for all of ten ids at the time 0."""
    trust = ListTrust()
    assert trust.took(10, shown(10), 0.0) is not None
    return trust


@pytest.mark.parametrize(("interval", "seconds"), [(10, 1.0), (3, 0.3), (300, 1.0), (0, 0.0), (-5, 0.0)])
def test_a_poll_waits_a_tenth_of_its_interval_for_others(interval, seconds):
    """And a second at most."""
    assert window(interval) == pytest.approx(seconds)


@each_row(
    ("generation_id", "fits"),
    [("9470000000000000001", True), ("task_a-1.b~", True), ("", False), ("a,b", False), ('a"', False), ("a b", False),
     ("é", False), ("1" * 64, True), ("1" * 65, False), ("a\n", False)],
)  # fmt: skip
def test_only_plain_ids_are_named_in_a_list(generation_id, fits):
    """Each form of an array can hold them, and a hundred fit into a URL."""
    assert may_be_listed(generation_id) is fits


def test_the_first_form_that_shows_all_is_used():
    """No other is tried."""
    trust = ListTrust()
    assert not trust.is_certain
    assert trust.form is Form.REPEATED
    assert trust.took(3, shown(3), 0.0) == shown(3)
    assert (trust.is_proven, trust.is_certain, trust.form) == (True, True, Form.REPEATED)


@pytest.mark.parametrize(
    ("answers", "best"),
    [
        ([shown(1), shown(5)], Form.COMMA), ([shown(0), shown(1), shown(5)], Form.JSON),
        ([shown(3), shown(1), shown(0)], Form.REPEATED), ([shown(0), shown(2), shown(1)], Form.COMMA),
        ([shown(3, is_foreign=True), shown(2), shown(0)], Form.COMMA),
    ],
    ids=range(5),
)  # fmt: skip
def test_the_form_that_shows_most_is_used(answers, best):
    """A partial answer counts when no other form shows more; one with foreign entries does not."""
    trust = ListTrust()
    for answer in answers[:-1]:
        assert trust.took(5, answer, 0.0) is None
    assert trust.took(5, answers[-1], 0.0) is not None
    assert (trust.form, trust.is_proven) == (best, True)


def test_a_list_that_ignores_each_form_is_never_used_again():
    """One line is logged."""
    trust = ListTrust()
    assert [trust.took(5, shown(2, is_foreign=True), 0.0) for _ in Form] == [None] * 3
    assert not trust.is_in_use(1e9)
    assert "ignores the filter" in (trust.take_note() or "")
    assert trust.take_note() is None


def test_foreign_entries_end_the_use_of_a_proven_list(proven):
    """A deployment may change what the filter does."""
    assert proven.took(5, shown(5, is_foreign=True), 1.0) is None
    assert not proven.is_in_use(1e9)
    assert "not requested" in (proven.take_note() or "")


def test_a_list_that_shows_nothing_rests_longer_each_time():
    """Its ids may be too new, or of another account: that proves nothing about the filter."""
    trust, now, rests = ListTrust(), 0.0, []
    for _ in range(8):
        assert [trust.took(2, shown(1), now) for _ in Form] == [None] * 3
        assert not trust.is_in_use(now)
        rests.append(next(pause for pause in range(1, 10_000) if trust.is_in_use(now + pause)))
        now += rests[-1]
    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert trust.take_note()
    assert [trust.took(2, shown(0), now) for _ in Form] == [None] * 3
    assert trust.take_note() is None  # the same trouble is not news
    trust.took(2, shown(2), now + 4000)
    assert trust.is_in_use(now + 4000)


def test_short_pages_are_learned(proven):
    """What a page leaves out is on the next; a missing entry on the last page is not."""
    assert proven.took(100, shown(20, has_more=True), 1.0) is not None
    assert proven.size == 20
    proven.took(20, shown(19), 1.0)
    proven.took(20, shown(1, has_more=True), 1.0)
    assert proven.size == 20


@pytest.mark.parametrize(
    ("error", "tried", "known"),
    [
        (exceptions.ViduConfigError("x"), False, False), (exceptions.ViduNotFoundError("x"), False, False),
        (exceptions.ViduRequestError("x"), False, False), (exceptions.ViduAuthError("x"), False, True),
        (exceptions.ViduRateLimitError("x"), True, True), (exceptions.ViduServerError("x"), True, True),
        (exceptions.ViduTransportError("x"), True, True), (exceptions.ViduResponseError("x"), True, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
def test_whose_failure_an_error_is(error, tried, known, proven):
    """A list that is refused says nothing about queries; an outage, and the key of a list that worked, do."""
    assert ListTrust().failed(error, 0.0) is tried
    assert proven.failed(error, 0.0) is known


def test_a_failure_pauses_all_and_several_let_the_list_rest(proven):
    """The pause honours Retry-After; a good answer in between starts the count again."""
    error = exceptions.ViduRateLimitError("slowly", retry_after=30.0)
    assert proven.failed(error, 0.0)
    assert 30.0 <= proven.paused_until <= 37.5
    assert (proven.is_certain, proven.is_in_use(1.0)) == (False, True)
    proven.took(5, shown(5), 40.0)
    assert (proven.is_certain, proven.paused_until) == (True, 0.0)
    for number in range(state_lists.PROVEN_FAILURES):
        assert proven.is_in_use(50.0)
        proven.failed(exceptions.ViduServerError(f"broken {number}"), 50.0)
        if proven.is_suspect:
            proven.audited(is_done=False)
    assert not proven.is_in_use(50.0)
    assert "broken 2" in (proven.take_note() or "")
    assert proven.is_in_use(50.0 + state_lists.SHORTEST_REST)


def test_an_outage_lets_the_list_pause_but_not_rest(proven):
    """If a query fails as well, nothing speaks against the list; thousands of queries would not help."""
    suspected = []
    for number in range(20):
        proven.failed(exceptions.ViduServerError("down"), number * 100.0)
        suspected.append(proven.is_suspect)
        assert proven.is_in_use(number * 100.0)
    assert suspected == [False] + [True] * 19
    assert 1960 <= proven.paused_until <= 1975
    proven.took(5, shown(5), 2000.0)
    assert not proven.is_suspect


def test_requests_that_fail_together_are_one_failure(proven):
    """Those under way when one fails tell nothing new."""
    for _ in range(5):
        proven.failed(exceptions.ViduServerError("down"), 10.0, sent_at=9.0)
    assert not proven.is_suspect
    proven.failed(exceptions.ViduServerError("down"), 12.0, sent_at=11.5)
    assert proven.is_suspect


def test_a_list_that_never_worked_rests_earlier():
    """Waits with a small budget must not lose it to a list."""
    trust = ListTrust()
    trust.took(5, shown(0), 0.0)
    for _ in range(state_lists.TRIED_FAILURES):
        assert trust.is_in_use(0.0)
        trust.failed(exceptions.ViduServerError("broken"), 0.0)
        trust.audited(is_done=True)
    assert not trust.is_in_use(0.0)
    assert trust.form is Form.REPEATED  # the next try begins again


def test_too_large_answers_are_made_smaller(proven):
    """Then the list rests; one that is too large at first does so at once."""
    sizes = []
    while proven.is_in_use(0.0):
        proven.was_too_large(0.0)
        sizes.append(proven.size)
    assert sizes == [25, 6, 2, 2]
    trust = ListTrust()
    trust.was_too_large(0.0)
    assert not trust.is_in_use(0.0)


def test_audits_find_a_list_that_lags_behind(proven):
    """One a minute; three in a row that find a finished generation are not chance."""
    assert [proven.audits(at) for at in (0.0, 59.0, 60.0, 61.0, 120.0)] == [False, False, True, False, True]
    for is_done in (True, True, False, True, True):
        proven.audited(is_done=is_done)
    assert proven.is_in_use(0.0)
    proven.audited(is_done=True)
    assert not proven.is_in_use(1e9)
    assert "unfinished" in (proven.take_note() or "")


def test_what_is_due_at_about_the_same_time_goes_together():
    """The first to be due decides how long it waits for the others."""
    gathering: Gathering[str] = Gathering()
    for name, due, slack in (("late", 10.9, 1.0), ("first", 10.0, 1.0), ("other", 20.0, 1.0), ("soon", 10.5, 0.2)):
        gathering.add(name, due, slack)
    assert gathering.next_at(0.0) == 10.0
    gathering.advance(10.0)
    assert gathering.portion(100, 10.0) == []
    assert gathering.next_at(10.0) == 10.5
    gathering.advance(10.6)
    assert gathering.next_at(10.6) == pytest.approx(10.7)  # the patience of "soon" ends first
    gathering.advance(10.7)
    assert gathering.portion(100, 10.7) == ["first", "soon"]
    gathering.advance(12.0)
    assert gathering.portion(100, 12.0) == ["late"]
    assert gathering.portion(100, 12.0) == []
    assert gathering.next_at(12.0) == 20.0


def test_a_full_portion_does_not_wait():
    """Nor does it take more than its size."""
    gathering: Gathering[int] = Gathering()
    for number in range(250):
        gathering.add(number, 1.0, 1.0)
    gathering.advance(1.0)
    assert [len(gathering.portion(100, 1.0)) for _ in range(3)] == [100, 100, 0]
    assert gathering.drop(lambda number: number % 2 == 0) == list(range(200, 250, 2))
    assert gathering.portion(100, 2.0) == list(range(201, 250, 2))
    gathering.add(1, 5.0, 0.0)
    gathering.advance(5.0)
    gathering.add(2, 6.0, 0.0)
    assert gathering.take_due() == [1]
    gathering.clear()
    assert gathering.next_at(0.0) is None
