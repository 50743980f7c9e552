"""What follows when a call fails: the renewed connection once per attempt, a wait, or the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.api.calls import Call
from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.api.messages import TOO_LARGE, ApiRequest
from airflow_provider_vidu.api.session import Session
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.exceptions import ViduError
from tests.rows import each_row

OLD = ViduConfig("c", "https://h.example", EntV2(), "Token", Secret("old-key"), max_retries=2)
NEW = replace(OLD, api_key=Secret("new-key"))
REFUSED = exceptions.ViduAuthError("The key was refused.")


def session(*, bills: bool = False, lists: bool = False, retries: int | None = None) -> Session[Any]:
    """Return the session of a call to a path that names the dialect."""
    return Session(
        lambda dialect: Call(
            ApiRequest("GET", f"/{dialect.name}", bills=bills, lists=lists), lambda answer: answer.status
        ),
        retries=retries,
        generation_id="g",
        conn_id="c",
    )


def test_a_rotated_key_is_used_at_once_and_once_per_attempt() -> None:
    """A refusal renews the connection without a wait; a second one ends the call, and a wait allows another."""
    call = session()
    call.call(OLD)
    assert (call.after(REFUSED), call.refused) == (0.0, OLD)
    call.call(NEW)
    assert call.refused is None
    assert call.after(exceptions.ViduServerError("500")) >= 1.0
    call.call(NEW)
    assert (call.after(REFUSED), call.refused) == (0.0, NEW)
    call.call(OLD)
    with pytest.raises(exceptions.ViduAuthError):
        call.after(REFUSED)


def test_a_connection_that_has_not_changed_is_not_used_again() -> None:
    """The refusal of the key is then the end, with generation and connection."""
    call = session()
    call.call(OLD)
    call.after(REFUSED)
    with pytest.raises(exceptions.ViduAuthError) as caught:
        call.call(replace(OLD))
    with pytest.raises(exceptions.ViduAuthError) as final:
        call.after(caught.value)
    assert (final.value.generation_id, final.value.conn_id) == ("g", "c")


@pytest.mark.parametrize(
    "renewed",
    [replace(OLD, dialect=EntV2("/v2/{id}")), replace(OLD, dialect=ViduNative()), replace(OLD, base_url="https://i.x")],
    ids=["another path", "another dialect", "another host"],
)
def test_what_else_may_change_with_the_connection(renewed: ViduConfig) -> None:
    """Not the key alone: the call is made again for the dialect of the renewed connection."""
    call = session()
    call.call(OLD)
    call.after(REFUSED)
    assert call.call(renewed).request.path == f"/{renewed.dialect.name}"


@pytest.mark.parametrize(("retries", "waits"), [(None, 2), (0, 0), (3, 3)])
def test_how_often_a_call_is_repeated(retries: int | None, waits: int) -> None:
    """As often as asked for; if nothing is said, as the connection says. A renewed key counts for nothing."""
    call = session(retries=retries)
    error = exceptions.ViduServerError("500")
    for _ in range(waits):
        call.call(OLD)
        assert call.after(error) > 0
    call.call(OLD)
    with pytest.raises(exceptions.ViduServerError):
        call.after(error)


@each_row(
    ("error", "bills", "repeats"),
    [
        (exceptions.ViduTransportError("broke", sent=True), False, True),
        (exceptions.ViduTransportError("broke", sent=True), True, False),
        (exceptions.ViduTransportError("not made", sent=False), True, True),
        (exceptions.ViduServerError("500"), True, False),
        (exceptions.ViduResponseError("too large", code=TOO_LARGE), False, True),
        (exceptions.ViduRequestError("400"), False, False),
    ],
)
def test_what_is_repeated(error: ViduError, bills: bool, repeats: bool) -> None:
    """What bills is repeated only when it was not sent; what would end in the same way is never repeated."""
    call = session(bills=bills)
    call.call(OLD)
    if repeats:
        assert call.after(error) > 0
    else:
        with pytest.raises(type(error)):
            call.after(error)


def test_a_page_that_is_too_large() -> None:
    """It would be so again: the walk over the list asks for a smaller one."""
    call = session(lists=True)
    call.call(OLD)
    with pytest.raises(exceptions.ViduResponseError):
        call.after(exceptions.ViduResponseError("too large", code=TOO_LARGE))


def test_a_connection_that_cannot_be_looked_up_is_no_reason_to_repeat() -> None:
    """How often the call may be repeated stands in that connection."""
    with pytest.raises(exceptions.ViduTransportError):
        session().after(exceptions.ViduTransportError("no secrets backend", sent=False))


@pytest.mark.fault(
    "attacks", "a service asks the cancel of a task that is over to come again in a day", outcome="clear error",
    seen="the refusal, at once",
)  # fmt: skip
def test_waits_end_when_the_patience_does() -> None:
    """Retries count as well; what the service asks for is not waited for beyond the patience."""
    call = replace(session(retries=5), patience=60.0)
    call.call(OLD)
    waited = call.after(exceptions.ViduRateLimitError("Too many requests.", retry_after=20))
    assert 20 <= waited < 60
    refusal = exceptions.ViduRateLimitError("Too many requests.", retry_after=86_400)
    with pytest.raises(exceptions.ViduRateLimitError) as caught:
        call.after(refusal)
    assert caught.value is refusal
    # Without a limit it is waited for.
    patient = session(retries=5)
    patient.call(OLD)
    assert patient.after(refusal) > 60
