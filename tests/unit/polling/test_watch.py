"""What the polls of a wait lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.exceptions import ViduError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.models import Generation, GenerationStatus, Snapshot
from airflow_provider_vidu.polling.failures import failure
from airflow_provider_vidu.polling.retries import Backoff
from airflow_provider_vidu.polling.watch import FIRST_POLL_FLOOR, Done, Failed, PollPolicy, PollResult, Wait, Watch
from tests.properties import properties
from tests.rows import each_row

many = properties(150)
E = exceptions


# -- poll policy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("roll", "expected"), [(0.0, 95), (0.5, 100), (1.0, 105)])
def test_delays_are_spread(roll: float, expected: float) -> None:
    """Many waits on one connection do not poll in one wave."""
    assert PollPolicy(interval=100).delay(1, lambda: roll) == pytest.approx(expected)
    assert PollPolicy(interval=100).delay(50, lambda: roll) == pytest.approx(expected)


def middle() -> float:
    """Return the number in the middle: no jitter."""
    return 0.5


@each_row(
    ("interval", "longest", "polls", "expected"),
    [
        (10, None, 1, 10), (10, None, 2, 20), (10, None, 5, 160), (10, None, 20, 3600), (10, None, 10_000, 3600),
        (10, 60, 3, 40), (10, 60, 4, 60), (10, 60, 400, 60),
    ],
)  # fmt: skip
def test_exponential_delays(interval: float, longest: float | None, polls: int, expected: float) -> None:
    """The interval doubles up to the longest wait."""
    policy = PollPolicy(interval=interval, exponential=True, max_wait=longest)
    assert policy.delay(polls, middle) == pytest.approx(expected)


def test_the_longest_wait_is_never_exceeded() -> None:
    """max_wait is a promise, jitter or not."""
    assert PollPolicy(interval=10, exponential=True, max_wait=60).delay(9, lambda: 0.999) <= 60


def test_a_long_interval_does_not_shrink() -> None:
    """Growing never makes an interval shorter than the one that was asked for."""
    assert PollPolicy(interval=7200, exponential=True).delay(1, middle) >= 7200


@pytest.mark.parametrize(
    ("interval", "roll", "expected"),
    [(30, 0.0, 15), (15, 1.0, 25), (10, 0.5, 15), (1, 0.0, FIRST_POLL_FLOOR), (60, 0.5, 60)],
)
def test_the_first_delay_has_a_floor(interval: float, roll: float, expected: float) -> None:
    """A trigger never fires within the first seconds of its deferral; the floor leaves the spread whole."""
    assert PollPolicy(interval=interval).first_delay(rng=lambda: roll) == expected


@pytest.mark.parametrize(
    ("left", "expected"), [(None, 900), (1000, 900), (60, 60), (3, FIRST_POLL_FLOOR), (-9, FIRST_POLL_FLOOR)]
)
def test_the_first_delay_does_not_oversleep_the_deadline(left: float | None, expected: float) -> None:
    """Before the deadline, but never below the floor."""
    assert PollPolicy(interval=900).first_delay(left, middle) == expected


@each_row("interval", [0.5, 1.0, 15.0, 300.0, 900.0, 3600.0])
def test_failures_of_a_trigger_never_shorten_the_interval(interval: float) -> None:
    """A service in trouble is not asked more often than a healthy one."""
    policy = PollPolicy.for_trigger(interval)
    for failures in range(1, 12):
        assert policy.backoff.delay(failures, rng=lambda: 0.0) >= interval


def test_policies_for_their_places() -> None:
    """A trigger backs off from its interval, a worker from a second."""
    assert PollPolicy.for_trigger(20, 3, grace=5.0).backoff.base == 20
    assert PollPolicy.for_trigger(20, 3, grace=5.0).grace == 5
    assert PollPolicy.for_trigger(0.1).backoff.base == 1
    assert PollPolicy.for_worker(20, 3).backoff == Backoff(base=1.0, cap=60.0)
    assert PollPolicy.for_worker(20, 3).max_failures == 3


# -- watching -------------------------------------------------------------------------------------

URL = "https://h/v.mp4?Signature=GEHEIM"


def seen(word: str, status: str, url: str | None = None, progress: int | None = None, **more: Any) -> Generation:
    """Return a generation as a poll brings it."""
    return Generation(
        id="g1", status=GenerationStatus(status), provider_status=word, video_url=url, progress=progress, **more
    )


WAITING, RUNNING = seen("pending", "waiting"), seen("processing", "running")
ODD, DONE = seen("warming", "unknown"), seen("completed", "succeeded", URL)
BARE = seen("completed", "succeeded")
FAILED = seen("failed", "failed", error_message="no luck", error_code="E1")


UNNAMED = seen("error", "failed", error_message="slow down", raw={"status": "error", "message": "slow down"})


def broken() -> ViduError:
    """Return a failed poll that may pass."""
    return E.ViduServerError("in trouble")


def gone() -> ViduError:
    """Return the answer "no such generation"."""
    return E.ViduNotFoundError("no such generation")


def refused() -> ViduError:
    """Return the refusal of a key."""
    return E.ViduAuthError("x")


def asked() -> ViduError:
    """Return a refusal that names a wait."""
    return E.ViduRateLimitError("too many", retry_after=99.0)


USUAL = PollPolicy(interval=10, max_failures=2, grace=60, missing_url_polls=2, backoff=Backoff(10, 300))


@dataclass
class Script:
    """Polls one after another with what each must lead to: a delay, "done", or a class of error."""

    polls: Sequence[Any]
    expected: Sequence[Any]
    deadline: float | None = None
    policy: PollPolicy = USUAL


def put(watch: Watch, poll: Any, now: float) -> PollResult:
    """Put one poll into the watch."""
    return watch.saw(poll, now) if isinstance(poll, Generation) else watch.missed(poll(), now)


def error_of(result: PollResult) -> ViduError | None:
    """Return the error that ended the wait, if one did."""
    return result.error if isinstance(result, Failed) else None


def delay_of(result: PollResult) -> float:
    """Return the delay of a wait that goes on."""
    assert isinstance(result, Wait)
    return result.delay


SCRIPTS = {
    "success at once": Script([DONE], ["done"]),
    "the usual way": Script([WAITING, RUNNING, RUNNING, DONE], [10, 10, 10, "done"]),
    "failed at once": Script([FAILED], [E.ViduGenerationFailedError]),
    "failed later": Script([RUNNING, FAILED], [10, E.ViduGenerationFailedError]),
    "a failure of nobody": Script([UNNAMED, RUNNING, UNNAMED, UNNAMED, DONE], [10, 10, 10, 10, "done"]),
    "a failure of nobody, for good": Script([RUNNING, *[UNNAMED] * 3], [10, 10, 10, E.ViduGenerationFailedError]),
    "a failure of nobody at the deadline": Script([UNNAMED], [E.ViduGenerationFailedError], deadline=1000),
    "going backwards": Script([RUNNING, WAITING, RUNNING, DONE], [10, 10, 10, "done"]),
    "an unknown word": Script([ODD, ODD, DONE], [10, 10, "done"]),
    "a URL that comes later": Script([BARE, BARE, DONE], [10, 10, "done"]),
    "a URL that never comes": Script([BARE, BARE, BARE], [10, 10, E.ViduMissingVideoError]),
    "URL-less, then running again": Script([BARE, BARE, RUNNING, BARE, BARE, DONE], [10, 10, 10, 10, 10, "done"]),
    "URL-less, then failed": Script([BARE, FAILED], [10, E.ViduGenerationFailedError]),
    "URL-less with errors between": Script(
        [BARE, broken, BARE, broken, BARE], [10, 10, 10, 10, E.ViduMissingVideoError]
    ),
    "errors within the budget": Script([broken, broken, DONE], [10, 20, "done"]),
    "errors beyond the budget": Script([broken, broken, broken], [10, 20, E.ViduServerError]),
    "a good poll resets the budget": Script(
        [broken, broken, RUNNING, broken, broken, broken], [10, 20, 10, 10, 20, E.ViduServerError]
    ),
    "a URL-less poll resets it too": Script([broken, broken, BARE, broken, broken, DONE], [10, 20, 10, 10, 20, "done"]),
    "Retry-After is followed": Script([asked, DONE], [99, "done"]),
    "unknown within the grace": Script([gone, gone, DONE], [10, 20, "done"]),
    "unknown once it was seen": Script([RUNNING, gone, gone, DONE], [10, 10, 20, "done"]),
    "unknown for good": Script([RUNNING, gone, gone, gone], [10, 10, 20, ViduError]),
    "key refused once it was seen": Script([RUNNING, refused, DONE], [10, 10, "done"]),
    "key refused until the deadline": Script([RUNNING, refused, refused], [10, 10, E.ViduTimeoutError], deadline=1020),
    "a refused key uses up no budget": Script(
        [RUNNING, *[refused] * 5, broken, broken, DONE], [10, 10, 20, 40, 80, 160, 10, 20, "done"]
    ),
    "a request refused once it was seen": Script([RUNNING, lambda: E.ViduRequestError("x"), DONE], [10, 10, "done"]),
    "the connection made wrong and right again": Script(
        [RUNNING, lambda: E.ViduConfigError("x"), DONE], [10, 10, "done"]
    ),
    "key refused": Script([lambda: E.ViduAuthError("x")], [E.ViduAuthError]),
    "no quota": Script([RUNNING, *[lambda: E.ViduCreditError("x")] * 3], [10, 10, 20, ViduError]),
    "no quota at once": Script([lambda: E.ViduCreditError("x")], [E.ViduCreditError]),
    "wrong request": Script([lambda: E.ViduRequestError("x")], [E.ViduRequestError]),
    "wrong configuration": Script([lambda: E.ViduConfigError("x")], [E.ViduConfigError]),
    "HTML now and then": Script([lambda: ViduResponseError("x"), RUNNING, DONE], [10, 10, "done"]),
    "the network is down": Script([lambda: ViduTransportError("x")] * 3, [10, 20, ViduTransportError]),
    "a last poll at the deadline": Script([RUNNING, RUNNING, RUNNING], [10, 5, E.ViduTimeoutError], deadline=1015),
    "success at the deadline": Script([RUNNING, RUNNING, DONE], [10, 5, "done"], deadline=1015),
    "failure at the deadline": Script([RUNNING, FAILED], [10, E.ViduGenerationFailedError], deadline=1010),
    "the deadline exactly": Script([RUNNING, RUNNING], [10, E.ViduTimeoutError], deadline=1010),
    "a deadline long past": Script([RUNNING], [E.ViduTimeoutError], deadline=10),
    "success after the deadline": Script([DONE], ["done"], deadline=10),
    "an error at the deadline": Script([RUNNING, broken], [10, E.ViduTimeoutError], deadline=1010),
    "an error shortly before it": Script([broken, DONE], [4, "done"], deadline=1004),
    "Retry-After beyond the deadline": Script([asked, DONE], [50, "done"], deadline=1050),
    "URL-less at the deadline": Script([BARE], [E.ViduTimeoutError], deadline=1000),
    "a final error beats the deadline": Script([lambda: E.ViduAuthError("x")], [E.ViduAuthError], deadline=10),
    "exponential": Script(
        [RUNNING] * 5 + [DONE], [10, 20, 40, 60, 60, "done"],
        policy=PollPolicy(interval=10, exponential=True, max_wait=60),
    ),
    "no budget at all": Script([broken], [E.ViduServerError], policy=PollPolicy(max_failures=0)),
    "no patience for a URL": Script([BARE], [E.ViduMissingVideoError], policy=PollPolicy(missing_url_polls=0)),
}  # fmt: skip


@each_row("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_scripts(script: Script) -> None:
    """Whole waits, poll by poll."""
    now = 1000.0
    watch = Watch(script.policy, generation_id="g1", since=now, deadline=script.deadline, rng=middle)
    for number, (poll, expected) in enumerate(zip(script.polls, script.expected, strict=True)):
        step = put(watch, poll, now)
        if isinstance(expected, int):
            assert isinstance(step, Wait), number
            jitter = 1.125 if callable(poll) and expected != (script.deadline or 0) - now else 1
            assert step.delay == pytest.approx(expected * jitter), number
            assert step.trouble is (callable(poll) or poll in (BARE, UNNAMED))
            now += expected
        elif expected == "done":
            assert isinstance(step, Done), number
            assert step.generation is poll
        else:
            assert isinstance(step, Failed), number
            assert type(step.error) is expected
            assert step.error.generation_id == "g1"


@pytest.mark.parametrize(("age", "final"), [(0, False), (59.9, False), (60, True), (3600, True)])
def test_the_grace_of_a_new_generation(age: float, final: bool) -> None:
    """Shortly after the start "no such generation" is not believed; afterwards it is final."""
    watch = Watch(PollPolicy(grace=60), generation_id="g1", since=1000, rng=middle)
    step = watch.missed(gone(), 1000 + age)
    assert isinstance(step, Failed) is final
    assert isinstance(error_of(step), E.ViduNotFoundError) is final


REFUSALS = [E.ViduAuthError, E.ViduCreditError, E.ViduNotFoundError, E.ViduRequestError, E.ViduConflictError]


@each_row("kind", REFUSALS)
@each_row("how", ["known", "reported", "seen"])
def test_no_refusal_of_a_paid_generation_is_final(kind: type[ViduError], how: str) -> None:
    """Whatever says that it exists: a refusal is sat out, and the error that ends it at last may be retried."""
    watch = Watch(
        PollPolicy(max_failures=2), generation_id="g1", since=0, deadline=9000 if how == "reported" else None,
        known=how == "known", end_reported=how == "reported", conn_id="c1",
    )  # fmt: skip
    if how == "seen":
        watch.saw(RUNNING, 100)
    errors = [error_of(watch.missed(kind("no", status_code=4, code="N", trace_id="t"), now)) for now in (200, 300)]
    assert errors == [None, None]
    last = error_of(watch.missed(kind("no", status_code=4, code="N", trace_id="t"), 10_000))
    assert type(last) is ViduError
    assert not isinstance(last, AirflowFailException)
    assert (last.generation_id, last.conn_id, last.status_code, last.code, last.trace_id) == ("g1", "c1", 4, "N", "t")
    assert "wait for it again by its id, or let a retry resume the wait" in str(last)
    assert isinstance(last.__cause__, kind)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_of_what_was_never_seen_is_final(kind: type[ViduError]) -> None:
    """A wrong key or a wrong id is a mistake that waiting does not fix."""
    assert type(error_of(Watch(PollPolicy(), generation_id="g1", since=0).missed(kind("no"), 100))) is kind


def test_a_pause_is_logged_once() -> None:
    """One line when it begins and one when it is over, with the state."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0, rng=middle)
    watch.saw(RUNNING, 0)
    steps = [watch.missed(refused(), now) for now in (1, 2)]
    assert [step.note for step in steps] == ["paused until the key is accepted: x (generation g1)", None]
    assert all(isinstance(step, Wait) and step.paused and step.trouble for step in steps)
    assert watch.saw(RUNNING, 3).note == "the key is accepted again. running (processing)"
    assert watch.saw(RUNNING, 4).note is None
    watch.missed(E.ViduConnectionNotFoundError("none"), 5)
    assert watch.saw(DONE, 6).note == "the connection is back. succeeded (completed)"


def test_a_pause_without_a_deadline_lasts_an_hour() -> None:
    """It is counted from its beginning, and other trouble in between makes it no longer."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0, known=True, rng=middle)
    assert delay_of(watch.missed(refused(), 1000))
    assert delay_of(watch.missed(broken(), 3000))
    assert delay_of(watch.missed(refused(), 4599)) == 1  # one last poll at the end
    error = error_of(watch.missed(refused(), 4600))
    assert type(error) is ViduError
    assert "paused for 1 h 0 min, but the connection is still unusable: x." in str(error)


def test_no_deadline_waits_for_ever() -> None:
    """Without a deadline nothing but the service ends the wait."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0)
    assert all(isinstance(watch.saw(RUNNING, now), Wait) for now in range(0, 10**6, 1000))


def test_notes_only_on_change() -> None:
    """Thousands of equal polls make one log line."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0, rng=middle)
    polls = [
        (WAITING, "waiting (pending)"), (WAITING, None), (RUNNING, "running (processing)"), (RUNNING, None),
        (seen("processing", "running", progress=40), "running (processing), 40 %"),
        (seen("processing", "running", progress=40), None),
        (ODD, "unknown (warming)"), (ODD, None), (RUNNING, "running (processing)"),
        (DONE, "succeeded (completed)"),
    ]  # fmt: skip
    assert [watch.saw(poll, 0).note for poll, _ in polls] == [note for _, note in polls]


def test_progress_is_noted_by_quarters() -> None:
    """One line for each quarter, also where a poll skips some or the progress jumps back; a new state begins again."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0, rng=middle)

    def noted(*percents: int, word: str = "processing") -> list[int]:
        return [n for n in percents if watch.saw(seen(word, "running", progress=n), 0).note]

    assert noted(0, 3, 24, 26, 30, 24, 26, 80, 99) == [0, 26, 80]
    assert noted(10, 26, word="video_upsampling") == [10, 26]


def test_an_adaptive_wait_says_when_it_looks_next() -> None:
    """With the first state and each further one; a fixed interval is the user's own and needs no words."""
    watch = Watch(PollPolicy.for_trigger(None), generation_id="g1", since=0, rng=middle)
    assert str(watch.saw(RUNNING, 10).note).endswith("; next poll in 25 s")
    assert watch.saw(RUNNING, 35).note is None
    assert "next poll" in str(watch.missed(broken(), 36).note)
    fixed = Watch(PollPolicy.for_trigger(15), generation_id="g1", since=0, rng=middle)
    assert "next poll" not in str(fixed.saw(RUNNING, 10).note)


def test_an_error_that_repeats_is_noted_once() -> None:
    """And another one, and the last that is tolerated."""
    watch = Watch(PollPolicy(max_failures=4), generation_id="g1", since=0, rng=middle)
    other = E.ViduServerError("other")
    notes = [watch.missed(error, 1).note for error in (broken(), broken(), other, broken())]
    assert [bool(note) for note in notes] == [True, False, True, True]
    watch = Watch(PollPolicy(max_failures=3), generation_id="g1", since=0, rng=middle)
    assert [bool(watch.missed(broken(), 1).note) for _ in range(3)] == [True, False, True]


def test_the_time_in_a_queue() -> None:
    """Half way between the last poll that saw it wait and the first that saw it run; unknown without both."""
    watch = Watch(PollPolicy(), generation_id="g1", since=100, rng=middle)
    assert watch.queued is None
    watch.saw(seen("queueing", "waiting"), 110)
    assert watch.queued is None
    watch.saw(RUNNING, 120)
    assert watch.queued == 15
    at_once = Watch(PollPolicy(), generation_id="g1", since=100, rng=middle)
    at_once.saw(RUNNING, 120)
    assert at_once.queued is None


def test_recovery_is_noted() -> None:
    """After failed polls one line says that all is well again."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0, rng=middle)
    watch.saw(RUNNING, 0)
    first = watch.missed(broken(), 1)
    second = watch.missed(broken(), 2)
    assert first.note == "poll failed (1 of 10 tolerated): in trouble (generation g1)"
    assert second.note is None
    assert watch.saw(RUNNING, 3).note == "reachable again after 2 failed polls: running (processing)"
    assert watch.saw(RUNNING, 4).note is None


@each_row(
    "raw",
    [{}, {"id": "g1"}, {"task_id": 7}, {"data": {"id": "g1"}}, {"data": [{"task_id": "g1"}]},
     {"data": {"data": {"id": "g1"}}}],
)  # fmt: skip
def test_a_failure_with_an_id_is_believed_at_once(raw: dict[str, Any]) -> None:
    """Wherever the id is, and also where the answer was not kept."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0)
    assert type(error_of(watch.saw(seen("failed", "failed", raw=raw), 0))) is E.ViduGenerationFailedError


def test_a_missing_url_is_noted() -> None:
    """The log says why a success is not the end yet."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0, rng=middle)
    notes = [watch.saw(BARE, now).note for now in range(2)]
    assert any("without a URL" in (note or "") for note in notes)


def test_notes_are_one_line() -> None:
    """A status word cannot forge log lines."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0)
    assert "\n" not in str(watch.saw(seen("x\nERROR forged", "unknown"), 0).note)
    assert "\n" not in str(watch.missed(E.ViduServerError("x\nERROR forged"), 0).note)


def test_the_budget_is_named() -> None:
    """The last error says how many polls failed, keeps its class and circumstances, and stays short."""
    watch = Watch(PollPolicy(max_failures=1), generation_id="g1", since=0)
    watch.missed(broken(), 0)
    step = watch.missed(E.ViduServerError("in trouble", status_code=502, trace_id="04e5"), 1)
    assert str(error_of(step)) == (
        "2 polls in a row failed; the last one: in trouble. The generation itself may be fine: wait for it again "
        "by its id. (generation g1, HTTP status 502, trace id 04e5)"
    )


@each_row(
    ("elapsed", "told"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"), (200_000, "55 h 33 min"), (-5, "0 s")],
)
def test_a_time_out_tells_how_long(elapsed: float, told: str) -> None:
    """How long, which state and which id."""
    watch = Watch(PollPolicy(), generation_id="g1", since=1000, deadline=1001, rng=middle)
    watch.saw(RUNNING, 1000)
    error = watch.timeout_error(1000 + elapsed)
    assert f"Gave up waiting after {told}; the last known state is running (processing)" in str(error)
    assert "generation g1" in str(error)


def test_a_time_out_tells_the_last_trouble() -> None:
    """The error of the timeout alone says that the service was out of reach, and names connection and id."""
    watch = Watch(PollPolicy(), generation_id="g1", conn_id="c1", since=1000, deadline=1001, rng=middle)
    watch.missed(broken(), 1000)
    told = str(error_of(watch.missed(broken(), 1001)))
    assert "The last poll failed: in trouble. The generation may still finish" in told
    assert "(generation g1, connection c1)" in told
    watch.saw(RUNNING, 1001)
    assert "failed" not in str(watch.timeout_error(1001))


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_of_nothing_is_refused(interval: float) -> None:
    """Polling without a pause would be an attack on the service."""
    with pytest.raises(E.ViduConfigError, match="more than 0 seconds"):
        PollPolicy.for_trigger(interval)


def test_a_time_out_before_any_answer() -> None:
    """A generation that was never seen is not given a state."""
    watch = Watch(PollPolicy(), generation_id="g1", since=1000, deadline=1000)
    error = error_of(watch.missed(broken(), 1000))
    assert isinstance(error, E.ViduTimeoutError)
    assert "never seen" in str(error)


def test_an_error_keeps_the_id_it_knows() -> None:
    """The id of another spelling that an error carries already is not overwritten."""
    watch = Watch(PollPolicy(), generation_id="g1", since=0)
    assert error_of(watch.missed(E.ViduAuthError("x", generation_id="other"), 0)).generation_id == "other"  # type: ignore[union-attr]


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"error_message": "no luck", "error_code": "E1"}, ["no luck", "E1", "g1", "'failed'"]),
        ({"error_code": "CreationPolicyViolation"}, ["CreationPolicyViolation", "g1"]),
        ({"raw": {"id": "x", "hint": "look here"}}, ["no reason was given", "look here"]),
        ({"error_message": "m", "raw": {"trace_id": "04e5"}}, ["04e5"]),
        ({"raw": {"trace_id": {"odd": 1}}}, ["odd"]),
    ],
)
def test_failure(fields: dict[str, Any], parts: list[str]) -> None:
    """A failed generation tells its reason, or its whole answer."""
    error = failure(seen("failed", "failed", **fields))
    assert type(error) is E.ViduGenerationFailedError
    assert not [part for part in parts if part not in str(error)]


def test_failure_shows_no_signature() -> None:
    """The whole answer is shown without the queries of its URLs, and bounded."""
    error = failure(seen("failed", "failed", raw={"url": URL, "more": ["x'" + URL] * 500}))
    assert "GEHEIM" not in str(error)
    assert len(str(error)) < 1200


# -- anything -------------------------------------------------------------------------------------

POLLS = st.sampled_from([WAITING, RUNNING, ODD, BARE, broken, asked, gone, lambda: ViduTransportError("x")])


@many
@given(
    polls=st.lists(POLLS, min_size=1, max_size=8),
    interval=st.floats(1, 100),
    length=st.floats(0, 3000),
    rolls=st.lists(st.floats(0, 0.999), min_size=1, max_size=5),
    exponential=st.booleans(),
    patience=st.integers(0, 10**6),
)
def test_a_watch_with_a_deadline_always_ends(
    polls: list[Any], interval: float, length: float, rolls: list[float], exponential: bool, patience: int
) -> None:
    """Whatever the polls bring, over and over: no negative delay, none past the deadline, and an end."""
    policy = PollPolicy.for_trigger(
        interval, patience, missing_url_polls=patience, exponential=exponential, grace=float(patience)
    )
    turn = cycle(rolls)
    start = now = 1_700_000_000.0
    watch = Watch(policy, generation_id="g1", since=start, deadline=start + length, rng=lambda: next(turn))
    bound = int(length / (interval * 0.95)) + 3
    for number in range(bound + 1):
        step = put(watch, polls[number % len(polls)], now)
        if isinstance(step, Failed):
            return
        assert isinstance(step, Wait)
        assert step.delay >= 0
        assert now + step.delay <= start + length
        now += step.delay
    pytest.fail(f"no end within {bound} polls")


# -- an end that an event has reported -------------------------------------------------------------------


def test_a_reported_end_is_no_timeout():
    """A service that fails until the end of the margin leaves its own error, which may be retried."""
    watch = Watch(
        PollPolicy(max_failures=100), generation_id="g", since=0, deadline=300, conn_id="c", end_reported=True
    )
    assert error_of(watch.missed(ViduTransportError("no route"), 10)) is None
    error = error_of(watch.missed(ViduTransportError("no route"), 301))
    assert type(error) is ViduTransportError
    assert error.retryable
    assert "2 polls in a row failed; the last one: no route." in str(error)


def test_an_end_that_is_not_shown_may_be_asked_for_again():
    """A service that takes its word back is called busy, with the state that it tells."""
    watch = Watch(PollPolicy(), generation_id="g", since=0, deadline=300, conn_id="c", end_reported=True)
    error = error_of(watch.saw(seen("processing", "running"), 301))
    assert type(error) is E.ViduBusyError
    assert error.retryable
    assert "5 min 1 s later its state is still running" in str(error)


def test_a_state_that_was_logged_before_is_no_news() -> None:
    """The first poll of a trigger repeats nothing that the worker has logged; another state is news."""
    for logged, note in (("processing", None), ("queueing", "running (processing), 40 %")):
        watch = Watch(PollPolicy(interval=10), generation_id="g", since=0.0, logged=logged)
        generation = Generation(id="g", status="running", provider_status="processing", progress=40)
        result = watch.saw(generation, 1.0)
        assert isinstance(result, Wait)
        assert result.note == note


# -- states from a list -----------------------------------------------------------------------------


def test_a_state_in_a_list_is_a_good_poll():
    """It resets the failures, is news when it changes, and follows the same schedule."""
    watch = Watch(PollPolicy(interval=10), generation_id="g1", since=0, rng=middle)
    running = Snapshot(GenerationStatus.RUNNING, "processing")
    watch.missed(ViduTransportError("gone", sent=True), 10)
    back = watch.listed(Snapshot(GenerationStatus.WAITING, "queueing"), 20)
    assert isinstance(back, Wait)
    assert (back.delay, back.note) == (pytest.approx(10), "waiting (queueing)")
    assert watch.listed(running, 30).note == "running (processing)"
    assert watch.listed(running, 40).note is None
    assert watch.is_known
    assert watch.queued == pytest.approx(25)
    answer = watch.saw(seen("processing", "running"), 50)
    assert isinstance(answer, Wait)
    assert answer.note is None  # the same state, from whichever answer


def test_the_deadline_holds_for_states_in_a_list():
    """The delay ends at the deadline; after it, the wait has timed out."""
    watch = Watch(PollPolicy(interval=10), generation_id="g1", since=0, deadline=35, rng=middle)
    running = Snapshot(GenerationStatus.RUNNING, "processing")
    result = watch.listed(running, 30)
    assert isinstance(result, Wait)
    assert result.delay == 5
    assert (watch.must_be_queried(34.9), watch.must_be_queried(35)) == (False, True)
    assert isinstance(watch.listed(running, 36), Failed)


@pytest.mark.parametrize(("budget", "failures", "expected"), [(0, 0, True), (2, 1, False), (2, 2, True)])
def test_the_last_tolerated_failure_is_left_to_a_query(budget, failures, expected):
    """A request for many never ends a wait by itself."""
    watch = Watch(PollPolicy(max_failures=budget), generation_id="g1", since=0, known=True, rng=middle)
    for number in range(failures):
        watch.missed(ViduTransportError("gone", sent=True), number)
    assert watch.must_be_queried(100) is expected
