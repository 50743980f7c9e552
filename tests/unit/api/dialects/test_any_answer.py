"""Any answer at all, in both dialects: it becomes a generation that can be stored, or an error of the tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.api.dialects.base import Dialect
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import ViduAPIError, ViduError, ViduResponseError
from airflow_provider_vidu.models import Generation
from tests.properties import properties
from tests.rows import each_row

many = properties(150)
BOTH = pytest.mark.parametrize("dialect", [ViduNative(), EntV2()], ids=["vidu-native", "ent-v2"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
    | st.sampled_from(["success", "completed", "failed", "https://h/v.mp4", "\ud800", "a\x00b"])
    | st.just("2026-01-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = [
    "id", "task_id", "status", "state", "err_code", "err_msg", "error_code", "message", "detail", "credits", "payload",
    "bgm", "off_peak", "progress", "creations", "created_at", "updated_at", "completed_at", "status_update_time",
    "model", "code", "reason", "metadata", "properties", "error", "trace_id", "data", "result", "output", "signed_url",
    "job_records", "data_records", "fail_reason", "video_url", "result_url", "thumbnail_url", "enhanced_prompt", "urls",
    "sub_task_id", "file_url",
]  # fmt: skip
CREATIONS = st.lists(
    st.dictionaries(st.sampled_from(["id", "url", "cover_url", "watermarked_url", "video"]), JSON, max_size=5) | JSON,
    max_size=3,
)
LIKELY = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=10)
WRAPPED = LIKELY.map(lambda data: {"code": "success", "data": data})


def check(generation: Generation, asked: str) -> None:
    """Assert that a generation is storable everywhere."""
    stored = json.dumps(generation.as_xcom(), allow_nan=False, ensure_ascii=False)
    stored.encode()
    assert "\\u0000" not in stored
    assert generation.id == asked
    repr(generation)
    generation.describe()
    Generation.model_validate(json.loads(stored))


@BOTH
@many
@given(st.one_of(JSON, LIKELY, WRAPPED), st.integers(100, 599))
def test_any_json_at_any_status(dialect: Dialect, body: Any, status: int) -> None:
    """No answer raises anything but the tree's errors."""
    answer = ApiAnswer(status, {"content-type": "application/json"}, json.dumps(body).encode())
    reads = (
        lambda: check(dialect.read_generation("asked:1", answer), "asked:1"),
        lambda: dialect.read_created(answer),
    )
    for read_it in reads:
        try:
            read_it()
        except (ViduResponseError, ViduAPIError) as found:
            json.dumps(found.details(), allow_nan=False).encode()
            str(found).encode()
    verdict = dialect.probe_verdict(answer)
    assert verdict is None or isinstance(verdict, ViduError)


@BOTH
@many
@given(LIKELY, CREATIONS)
def test_any_likely_object_with_a_word(dialect: Dialect, fields: dict[str, Any], creations: list[Any]) -> None:
    """With a state an answer is always readable, whatever else it holds."""
    name, done = ("state", "success") if dialect.name == EntV2.name else ("status", "completed")
    for word in (done, "failed", "processing"):
        body = {**fields, name: word}
        if dialect.name == EntV2.name:
            body["creations"] = creations
        check(dialect.read_generation("asked:1", ApiAnswer(200, {}, json.dumps(body).encode())), "asked:1")


@BOTH
@many
@given(st.binary(max_size=200), st.integers(100, 599))
def test_any_bytes_at_any_status(dialect: Dialect, body: bytes, status: int) -> None:
    """Bytes do not cause another exception either."""
    answer = ApiAnswer(status, {}, body)
    try:
        check(dialect.read_generation("asked:1", answer), "asked:1")
    except (ViduResponseError, ViduAPIError) as found:
        assert isinstance(found, ViduResponseError) or not answer.ok  # noqa: PT017


@BOTH
@pytest.mark.parametrize("body", [b"", b"<html>Moved</html>", b"{}"])
def test_a_probe_that_is_redirected(dialect: Dialect, body: bytes) -> None:
    """The error of a redirect names its target, whatever its body."""
    found = dialect.probe_verdict(ApiAnswer(302, {"location": "https://www.example.com/"}, body))
    assert type(found) is ViduResponseError
    assert "redirects to https://www.example.com/" in str(found)


@each_row(
    "body",
    [
        pytest.param({"id": "a", "status": "completed", "credits": 10**300, "progress": 10**300}, id="huge ints"),
        pytest.param({"id": "a", "status": "completed", "credits": 10**301}, id="absurd int"),
        pytest.param({"id": "a", "status": "completed", "credits": 1.7e308}, id="huge float"),
        pytest.param({"id": "a", "status": "completed", "created_at": "0001-01-01T00:00:00Z"}, id="year 1"),
        pytest.param({"id": "a", "status": "completed", "created_at": "9999-12-31T23:59:59.999Z"}, id="year 9999"),
        pytest.param({"id": "a", "status": "completed" * 100_000}, id="long word"),
    ],
)
def test_extremes(body: Any) -> None:
    """Extreme values are read and stored like others."""
    check(ViduNative().read_generation("asked:1", ApiAnswer(200, {}, json.dumps(body).encode())), "asked:1")
