"""What a create may send, and the error of one whose outcome is unknown."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vidu.api.calls import checked_body, unknown_outcome
from airflow_provider_vidu.exceptions import ViduConfigError, ViduServerError


@pytest.mark.parametrize(
    ("body", "wrong"),
    [(["prompt"], "must be a JSON object, not list"), ({}, "nothing to submit"), ({"images": b"x"}, "images")],
)
def test_what_is_no_body(body: Any, wrong: str) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(ViduConfigError, match=wrong):
        checked_body(body)


def test_a_null_of_the_user_stays() -> None:
    """A whole body is sent as it is."""
    assert checked_body({"prompt": "p", "seed": None}) == {"prompt": "p", "seed": None}


def test_an_unknown_outcome_says_what_to_do() -> None:
    """It keeps what the last answer said, and is never retried."""
    cause = ViduServerError("It broke.", status_code=502, code="x", trace_id="t", generation_id="g")
    error = unknown_outcome(cause, "c", "POST /ent/v2/subjects")
    assert str(error).startswith("The POST /ent/v2/subjects was sent, but its outcome is unknown")
    assert "It broke." in error.reason
    known = (error.generation_id, error.conn_id, error.status_code, error.code, error.trace_id)
    assert known == ("g", "c", 502, "x", "t")
    assert not error.retryable
