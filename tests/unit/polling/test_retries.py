"""How often a request is repeated, and after what delay."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.exceptions import ViduError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.polling.retries import (
    RETRY_AFTER_CAP,
    Attempts,
    Backoff,
    may_repeat,
    outcome_is_unknown,
    retry_after,
)
from tests.properties import properties
from tests.rows import each_row

many = properties(150)
NOW = datetime(2026, 1, 20, 6, 52, 2, tzinfo=UTC)
E = exceptions


# -- Retry-After ----------------------------------------------------------------------------------


@each_row(
    ("headers", "expected"),
    [
        pytest.param({}, None, id="absent"),
        pytest.param({"retry-after": "7"}, 7, id="seconds"),
        pytest.param({"retry-after": " 7 "}, 7, id="blanks"),
        pytest.param({"retry-after": "0"}, 0, id="zero"),
        pytest.param({"retry-after": "1.5"}, 1.5, id="fraction"),
        pytest.param({"retry-after": "-3"}, None, id="negative"),
        pytest.param({"retry-after": "86400"}, 600, id="a day is capped"),
        pytest.param({"retry-after": "1e300"}, 600, id="absurd"),
        pytest.param({"retry-after": "9" * 400}, None, id="beyond a float"),
        pytest.param({"retry-after": "soon"}, None, id="word"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "nan"}, None, id="nan"),
        pytest.param({"retry-after": "inf"}, None, id="inf"),
        pytest.param({"retry-after": "Tue, 20 Jan 2026 06:52:32 GMT"}, 30, id="date"),
        pytest.param({"retry-after": "Tue, 20 Jan 2026 06:52:32 -0000"}, 30, id="date without a zone"),
        pytest.param({"retry-after": "Tue, 20 Jan 2026 08:52:32 +0200"}, 30, id="date in another zone"),
        pytest.param({"retry-after": "Tue, 20 Jan 2026 06:00:00 GMT"}, 0, id="past"),
        pytest.param({"retry-after": "Wed, 20 Jan 2027 06:00:00 GMT"}, 600, id="next year is capped"),
        pytest.param({"retry-after": "Tue, 99 Jan 2026 06:52:32 GMT"}, None, id="no such day"),
        pytest.param({"retry-after": "Tue, 20 Jan 99999999999 06:52:32 GMT"}, None, id="no such year"),
        pytest.param({"retry-after-ms": "1500"}, 1.5, id="milliseconds"),
        pytest.param({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, id="milliseconds are finer"),
        pytest.param({"retry-after-ms": "x", "retry-after": "9"}, 9, id="milliseconds are nonsense"),
        pytest.param({"retry-after-ms": "-1", "retry-after": "9"}, 9, id="milliseconds are negative"),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    """What a server asks for, where it can be understood."""
    assert retry_after(headers, NOW) == expected


@pytest.mark.parametrize("value", ["9" * 5000, "-" + "9" * 5000, "9" * 5000 + " GMT", "Tue, 20 Jan " + "9" * 5000])
def test_a_number_of_thousands_of_digits_is_no_time(value: str) -> None:
    """Python refuses to convert it; the header says nothing then, and raises nothing."""
    for name in ("retry-after", "retry-after-ms"):
        assert retry_after({name: value}, NOW) is None


def test_retry_after_measures_against_the_clock() -> None:
    """Without a given time a date is measured against now."""
    assert retry_after({"retry-after": "Tue, 20 Jan 2015 06:00:00 GMT"}) == 0


@many
@given(st.text(max_size=40), st.text(max_size=10))
def test_no_header_makes_retry_after_raise(value: str, milliseconds: str) -> None:
    """Whatever the header holds, the result is a sane wait or None."""
    found = retry_after({"retry-after": value, "retry-after-ms": milliseconds}, NOW)
    assert found is None or 0 <= found <= RETRY_AFTER_CAP


@many
@given(st.from_regex(r"\w{3}, \d{1,3} (Jan|Feb|Xyz) \d{1,6} \d\d:\d\d:\d\d [+-]\d{1,9}", fullmatch=True))
def test_no_date_makes_retry_after_raise(value: str) -> None:
    """Texts that are nearly dates raise nothing either."""
    found = retry_after({"retry-after": value}, NOW)
    assert found is None or 0 <= found <= RETRY_AFTER_CAP


# -- backoff --------------------------------------------------------------------------------------


@each_row(
    ("base", "cap", "failures", "expected"),
    [
        (1, 300, 1, 1), (1, 300, 2, 2), (1, 300, 3, 4), (1, 300, 9, 256), (1, 300, 10, 300), (1, 300, 10_000, 300),
        (15, 300, 1, 15), (15, 300, 5, 240), (15, 300, 6, 300), (1, 60, 7, 60),
    ],
)  # fmt: skip
def test_backoff_doubles_up_to_its_cap(base: float, cap: float, failures: int, expected: float) -> None:
    """Each failure doubles the wait; the jitter adds up to a quarter."""
    backoff = Backoff(base, cap)
    assert backoff.delay(failures, rng=lambda: 0.0) == expected
    assert backoff.delay(failures, rng=lambda: 1.0) == expected * 1.25
    assert expected <= backoff.delay(failures) <= expected * 1.25


def test_retry_after_is_a_lower_bound() -> None:
    """The server's wait is never undercut; a shorter one changes nothing."""
    error = E.ViduRateLimitError("x", retry_after=40.0)
    assert Backoff().delay(1, error, lambda: 0.0) == 40
    assert Backoff().delay(1, error, lambda: 0.999) < 50
    assert Backoff(base=100).delay(1, error, lambda: 0.0) == 100
    assert Backoff().delay(1, E.ViduRateLimitError("x"), lambda: 0.0) == 1


@many
@given(st.floats(0.1, 1000), st.floats(1, 1000), st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 600))
def test_backoff_bounds(base: float, cap: float, failures: int, roll: float, asked: float) -> None:
    """No delay is below what was asked for or above a quarter more than the cap."""
    found = Backoff(base, cap).delay(failures, ViduError("x", retry_after=asked), lambda: roll)
    assert asked <= found <= max(cap, asked) * 1.2500001


# -- repeating ------------------------------------------------------------------------------------

CLASSES = sorted(
    (kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, ViduError)),
    key=lambda kind: kind.__name__,
)
EACH = each_row("kind", CLASSES, ids=[kind.__name__ for kind in CLASSES])


@EACH
def test_what_may_be_repeated(kind: type[ViduError]) -> None:
    """A query is repeated where it may help; a create only after "too many" or where nothing was sent."""
    assert may_repeat(kind("x"), bills=False) is kind.retryable
    assert may_repeat(kind("x"), bills=True) is (kind in (E.ViduRateLimitError, E.ViduUnavailableError))


@EACH
def test_whose_outcome_is_unknown(kind: type[ViduError]) -> None:
    """After a lost or unreadable answer and a failure of the service, the outcome is unknown."""
    expected = kind in (ViduTransportError, ViduResponseError, E.ViduServerError)
    assert outcome_is_unknown(kind("x")) is expected


@EACH
def test_an_unknown_outcome_is_never_repeated(kind: type[ViduError]) -> None:
    """The two answers never contradict each other."""
    assert not (outcome_is_unknown(kind("x")) and may_repeat(kind("x"), bills=True))


@pytest.mark.parametrize(("sent", "repeat"), [(True, False), (False, True)])
def test_a_create_that_was_never_sent(sent: bool, repeat: bool) -> None:
    """A connection that was never made cannot have created anything."""
    error = ViduTransportError("x", sent=sent)
    assert may_repeat(error, bills=True) is repeat
    assert outcome_is_unknown(error) is sent
    assert may_repeat(error, bills=False) is True


@each_row(
    ("status", "unknown"),
    [
        (None, True), (200, True), (201, True), (301, False), (303, True), (307, False), (403, False), (499, False),
        (502, True),
    ],
)  # fmt: skip
def test_unreadable_answers_to_a_create(status: int | None, unknown: bool) -> None:
    """A redirect or a refusal stopped the request; an unreadable 200 did not."""
    error = ViduResponseError("x", status_code=status)
    assert outcome_is_unknown(error) is unknown
    assert may_repeat(error, bills=True) is False


@pytest.mark.parametrize("kind", [E.ViduRateLimitError, E.ViduUnavailableError, E.ViduBusyError, E.ViduConflictError])
def test_a_refusal_that_names_a_generation_is_not_repeated(kind: type[ViduError]) -> None:
    """It may be about the very generation that was created and billed."""
    error = kind("x", generation_id="947")
    assert not may_repeat(error, bills=True)
    assert outcome_is_unknown(error)
    assert not outcome_is_unknown(E.ViduRequestError("x", generation_id="947"))


# -- attempts -------------------------------------------------------------------------------------


def test_attempts_end() -> None:
    """After the last repetition the error itself comes back."""
    attempts = Attempts(2, bills=False)
    assert 1 <= attempts.after(E.ViduServerError("1")) <= 1.25
    assert 2 <= attempts.after(ViduTransportError("2")) <= 2.5
    last = E.ViduServerError("3")
    with pytest.raises(E.ViduServerError) as caught:
        attempts.after(last)
    assert caught.value is last


@each_row(
    ("retries", "bills", "error"),
    [
        (0, False, E.ViduServerError("x")),
        (5, False, E.ViduAuthError("x")),
        (5, True, E.ViduServerError("x")),
        (5, True, ViduTransportError("x", sent=True)),
        (5, True, ViduResponseError("x", status_code=200)),
        (0, True, E.ViduRateLimitError("x")),
    ],
)
def test_attempts_refuse_at_once(retries: int, bills: bool, error: ViduError) -> None:
    """What must not be repeated is not repeated even once."""
    with pytest.raises(type(error)):
        Attempts(retries, bills=bills).after(error)


def test_attempts_follow_retry_after() -> None:
    """A create that was refused for its rate comes back when the server says."""
    assert 30 <= Attempts(1, bills=True).after(E.ViduRateLimitError("x", retry_after=30)) <= 37.5
