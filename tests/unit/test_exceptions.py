"""The tree of errors is the one that the module draws, and every error tells its circumstances."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import traceback
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
)

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.exceptions import (
    ViduError,
    ViduTimeoutError,
    ViduTransportError,
    forgetting_variables,
    from_details,
)
from tests.rows import each_row

CLASSES = {
    name: kind
    for name, kind in vars(exceptions).items()
    if inspect.isclass(kind) and issubclass(kind, ViduError) and not name.startswith("_")
}
EACH = each_row("kind", CLASSES.values(), ids=CLASSES.keys())
KNOWN: dict[str, Any] = {
    "generation_id": "grok:1", "conn_id": "vidu_default", "status_code": 418, "code": "Teapot", "trace_id": "04e5",
    "retry_after": 12.5,
}  # fmt: skip


def drawn() -> dict[str, tuple[str | None, str]]:
    """Return the drawing in the module's docstring: class -> (parent, mark)."""
    found: dict[str, tuple[str | None, str]] = {}
    path: list[tuple[int, str]] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)(Vidu\w+)(?:\s+([↻×–]) \S.*)?$", line)
        if not match:
            continue
        depth, name, mark = len(match[1]), match[2], match[3] or ""
        path = [(other, parent) for other, parent in path if other < depth]
        found[name] = (path[-1][1] if path else None, mark)
        path.append((depth, name))
    return found


def test_the_drawing_names_every_class() -> None:
    """No class is missing in the drawing, and none is only drawn."""
    assert set(drawn()) == set(CLASSES)
    assert len(CLASSES) > 20


@EACH
def test_the_drawing_shows_the_parent(kind: type[ViduError]) -> None:
    """The parent in the drawing is the parent in the code."""
    parents = [base.__name__ for base in kind.__bases__ if issubclass(base, ViduError)]
    assert parents == [parent for parent in [drawn()[kind.__name__][0]] if parent]


@EACH
def test_the_drawing_marks_what_a_retry_may_mend(kind: type[ViduError]) -> None:
    """The marks mean what the legend says: retryable, or AirflowFailException, or the time-out."""
    mark = "↻" if kind.retryable else "–" if kind is ViduTimeoutError else "×"
    assert drawn()[kind.__name__][1] == ("" if kind is ViduError else mark)


@EACH
def test_airflow_fails_at_once_what_a_retry_cannot_mend(kind: type[ViduError]) -> None:
    """Not retryable is the same as AirflowFailException; a time-out is a sensor's time-out."""
    if kind is ViduTimeoutError:
        assert issubclass(kind, AirflowSensorTimeout)
        assert not kind.retryable
    else:
        assert issubclass(kind, AirflowFailException) is not kind.retryable
    assert issubclass(kind, AirflowException)


@EACH
def test_every_class_is_explained(kind: type[ViduError]) -> None:
    """Each class has a sentence of its own."""
    assert kind.__doc__
    assert kind.__doc__ != (kind.__base__.__doc__ if kind.__base__ else None)


def test_a_missing_connection_is_also_airflows_own_error() -> None:
    """Who catches Airflow's class for a missing connection catches ours."""
    assert issubclass(exceptions.ViduConnectionNotFoundError, AirflowNotFoundException)


@EACH
def test_str_tells_the_circumstances(kind: type[ViduError]) -> None:
    """Id, connection, status, code, trace id and wait stand behind the message."""
    assert str(kind("It broke.", **KNOWN)) == (
        "It broke. (generation grok:1, connection vidu_default, HTTP status 418, code Teapot, trace id 04e5, "
        "retry after 12.5 s)"
    )
    assert str(kind("It broke.")) == "It broke."
    assert str(kind("It broke.", retry_after=0.0)) == "It broke. (retry after 0 s)"


@EACH
def test_attributes_of_a_bare_error_are_none(kind: type[ViduError]) -> None:
    """What is not known is None, also where Airflow's base class has a value of its own."""
    error = kind("x")
    assert {name: getattr(error, name) for name in KNOWN} == dict.fromkeys(KNOWN)


@EACH
def test_foreign_text_is_cleaned(kind: type[ViduError]) -> None:
    """URLs lose their queries, control characters go, and the length is bounded."""
    url = "https://user:GEHEIM@h/v?Signature=GEHEIM"
    error = kind(
        f"a\r\n\x1b{url}\x00 b" + "x" * 9999, code=f"c\n{url}", trace_id=f"t\x00{url}", generation_id=f"g\n{url}"
    )
    told = str(error)
    assert "GEHEIM" not in told + error.reason + str(error.code) + str(error.trace_id) + str(error.args)
    assert not re.search(r"[\x00-\x1f]", told)
    assert len(told) < 2000
    assert told.startswith("a https://h/v b")


def test_lone_surrogates_can_be_logged() -> None:
    """A message can always be encoded."""
    str(ViduError("a\ud800", generation_id="b\udfff")).encode()


@EACH
@each_row("way", ["pickle", "copy", "deepcopy"])
def test_round_trips(kind: type[ViduError], way: str) -> None:
    """An error that crosses a process keeps class, text and attributes."""
    error = kind("It broke.", **KNOWN)
    if isinstance(error, ViduTransportError):
        error.sent = False
    ways = {"pickle": lambda: pickle.loads(pickle.dumps(error)), "copy": lambda: copy.copy(error)}  # noqa: S301
    twin = ways.get(way, lambda: copy.deepcopy(error))()
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


@EACH
def test_details_round_trip(kind: type[ViduError]) -> None:
    """An error that crosses an event keeps class, text and attributes."""
    error = kind("It broke.", **KNOWN)
    details = json.loads(json.dumps(error.details(), allow_nan=False))
    assert details == {"type": kind.__name__, "message": "It broke.", **KNOWN} | (
        {"sent": True} if "sent" in details else {}
    )
    twin = from_details(details)
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert {name: getattr(twin, name) for name in KNOWN} == KNOWN


@pytest.mark.parametrize("sent", [True, False])
def test_details_keep_whether_a_request_was_sent(sent: bool) -> None:
    """Whether a create may have been carried out is not lost in an event."""
    twin = from_details(ViduTransportError("x", sent=sent).details())
    assert isinstance(twin, ViduTransportError)
    assert twin.sent is sent


@each_row(
    "details",
    [
        pytest.param({}, id="empty"),
        pytest.param({"type": "NoSuchError", "message": "m"}, id="unknown type"),
        pytest.param({"type": "_Final", "message": "m"}, id="private type"),
        pytest.param({"type": "AirflowFailException", "message": "m"}, id="somebody else's type"),
        pytest.param({"type": "shown", "message": "m"}, id="a function"),
        pytest.param({"type": ["x"], "message": {"a": 1}}, id="wrong types"),
        pytest.param({"type": "ViduError", "message": "m", "code": 5, "trace_id": []}, id="wrong circumstances"),
        pytest.param({"type": "ViduError", "message": "m", "retry_after": "12"}, id="wait as text"),
        pytest.param(
            {"type": "ViduError", "message": "m", "generation_id": 5, "conn_id": {}}, id="ids of a wrong type"
        ),
        pytest.param({"type": "ViduError", "message": "m", "new": 1}, id="a field of a later version"),
    ],
)
def test_details_of_another_version(details: dict[str, Any]) -> None:
    """Whatever an event holds becomes an error that can be shown."""
    error = from_details(details)
    assert type(error) is ViduError
    assert str(error)


def test_details_without_a_message() -> None:
    """An event without a reason says so."""
    assert "not recorded" in str(from_details({"type": "ViduServerError"}))


def test_located_fills_gaps_only() -> None:
    """What is known already is not overwritten."""
    error = ViduError("x", generation_id="first")
    assert error.with_context(generation_id="second", conn_id="c") is error
    assert (error.generation_id, error.conn_id) == ("first", "c")


def test_transport_errors_are_taken_as_sent() -> None:
    """By default, the request may have arrived."""
    assert ViduTransportError("x").sent is True
    assert ViduTransportError("x", sent=False).sent is False


@EACH
def test_every_error_has_advice(kind: type[ViduError]) -> None:
    """What to do is a matter of the class: of its own, but where it would say whether a connection exists."""
    assert kind.advice.endswith(".")
    assert ("advice" in vars(kind)) is (kind not in (exceptions.ViduAPIError, exceptions.ViduConnectionNotFoundError))


def _keys(error: BaseException | None) -> list[str]:
    """Return what the frames of an error hold as ``key``."""
    assert error is not None
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return [frame.f_locals["key"] for frame in frames if "key" in frame.f_locals]


def _raised(error: type[Exception], key: str) -> None:
    raise error


def test_the_variables_behind_an_error_are_forgotten() -> None:
    """Also those of the error behind it, and not those of one that is being handled outside."""

    def _fails() -> None:
        try:
            _raised(ValueError, "of the caller")
        except ValueError:
            with forgetting_variables():
                try:
                    _raised(TypeError, "sk-1")
                except TypeError:
                    _raised(KeyError, "sk-1")

    with pytest.raises(KeyError) as caught:
        _fails()
    error = caught.value
    assert isinstance(error.__context__, TypeError)
    assert [_keys(each) for each in (error, error.__context__, error.__context__.__context__)] == [
        [], [], ["of the caller"],
    ]  # fmt: skip
