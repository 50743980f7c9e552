"""What a generation is, and that it is plain JSON as an XCom."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest

from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from tests.rows import each_row

FULL = Generation(
    id="grok:1",
    status=GenerationStatus.SUCCEEDED,
    provider_status="completed",
    video_url="https://h/v.mp4?Signature=GEHEIM",
    cover_url="https://h/c.jpg?Signature=GEHEIM",
    enhanced_prompt="a cat GEHEIM",
    progress=100,
    model="m",
    credits=4,
    created_at=datetime(2026, 1, 20, 6, 52, 2, 323137, tzinfo=UTC),
    updated_at=datetime(2026, 1, 20, 6, 53, tzinfo=UTC),
    completed_at=datetime(2026, 1, 20, 6, 54, tzinfo=UTC),
    artifacts=(Artifact(id="9", url="https://h/v.mp4?Signature=GEHEIM", duration=3.85, width=688),),
    raw={"id": "other", "anything": [1, {"x": None}]},
)


@pytest.mark.parametrize(
    ("status", "terminal", "succeeded", "failed"),
    [
        ("waiting", False, False, False),
        ("running", False, False, False),
        ("unknown", False, False, False),
        ("succeeded", True, True, False),
        ("failed", True, False, True),
    ],
)
def test_states(status: str, terminal: bool, succeeded: bool, failed: bool) -> None:
    """Two states are terminal; an unknown word is still running."""
    generation = Generation(id="a", status=GenerationStatus(status))
    assert generation.status.is_terminal is generation.is_done is terminal
    assert generation.succeeded is succeeded
    assert generation.failed is failed


def test_the_contract_names_these_states() -> None:
    """No state comes or goes unnoticed."""
    assert [str(status) for status in GenerationStatus] == ["waiting", "running", "succeeded", "failed", "unknown"]


def test_the_contract_names_these_fields() -> None:
    """The fields are what users type."""
    assert set(Generation.model_fields) == {
        "id", "status", "provider_status", "video_url", "cover_url", "prompt", "enhanced_prompt", "progress", "model",
        "credits", "error_code", "error_message", "is_transient", "created_at", "updated_at", "completed_at",
        "artifacts", "raw",
    }  # fmt: skip


def test_xcom_is_plain_json_and_comes_back() -> None:
    """An XCom survives JSON and becomes the same generation again."""
    sent = json.loads(json.dumps(FULL.as_xcom(), allow_nan=False))
    assert sent == FULL.as_xcom()
    assert Generation.model_validate(sent) == FULL
    assert sent["status"] == "succeeded"
    assert sent["created_at"].startswith("2026-01-20T06:52:02.323137")
    assert sent["artifacts"][0]["width"] == 688


def test_xcom_of_the_least_generation() -> None:
    """Id and status suffice."""
    sent = Generation(id="a", status=GenerationStatus.UNKNOWN).as_xcom()
    assert sent["id"] == "a"
    assert sent["raw"] == {}
    assert sent["artifacts"] == []


SIGNATURE = "v1~Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5"
SIGNED = f"https://h/v.mp4?Expires=1&Signature={SIGNATURE}"


def test_xcom_without_signatures() -> None:
    """With signed_urls=False every URL has lost its query, at any depth and inside texts; the rest stays."""
    full = Generation(
        id="grok:1",
        status=GenerationStatus.FAILED,
        video_url=SIGNED,
        error_message=f"cannot read {SIGNED}, sorry",
        artifacts=(Artifact(url=SIGNED, cover_url=SIGNED, watermarked_url=SIGNED),),
        raw={"urls": [{"deep": SIGNED.replace("&", "\\u0026")}], SIGNED: 1, "sig": SIGNATURE, "n": 7, "no": None},
    )
    bare = full.as_xcom(signed_urls=False)
    assert SIGNATURE not in json.dumps(bare)
    assert bare["video_url"] == bare["artifacts"][0]["watermarked_url"] == "https://h/v.mp4"
    assert bare["error_message"] == "cannot read https://h/v.mp4 sorry"
    assert bare["raw"] == {
        "urls": [{"deep": "https://h/v.mp4"}], "https://h/v.mp4": 1, "sig": "***", "n": 7, "no": None,
    }  # fmt: skip
    assert Generation.model_validate(bare).id == "grok:1"
    assert SIGNATURE in json.dumps(full.as_xcom())


def test_the_id_is_never_touched() -> None:
    """An id that looks like a signed URL is still the id that was asked for."""
    assert Generation(id=SIGNED, status=GenerationStatus.RUNNING).as_xcom(signed_urls=False)["id"] == SIGNED


def test_repr_shows_no_url_and_no_prompt() -> None:
    """A generation in a log line shows nothing that is signed or private."""
    assert "GEHEIM" not in repr(FULL)
    assert "GEHEIM" not in str(FULL)
    assert "GEHEIM" not in repr(FULL.artifacts)
    assert "grok:1" in repr(FULL)


def test_frozen() -> None:
    """A generation is what it was when the service was asked."""
    with pytest.raises(pydantic.ValidationError):
        FULL.status = GenerationStatus.FAILED


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "running", "provider_status": "processing"}, "running (processing)"),
        ({"status": "running", "provider_status": "processing", "progress": 40}, "running (processing), 40 %"),
        ({"status": "waiting", "progress": 0}, "waiting, 0 %"),
        ({"status": "running", "provider_status": "RUNNING"}, "running"),
        ({"status": "unknown", "provider_status": "warming"}, "unknown (warming)"),
    ],
)
def test_describe(fields: dict[str, Any], expected: str) -> None:
    """The state in a few words."""
    assert Generation(id="a", **fields).describe() == expected


def test_describe_cannot_forge_a_log_line() -> None:
    """A foreign status word is shown as one short line."""
    told = Generation(
        id="a", status=GenerationStatus.UNKNOWN, provider_status="x\nERROR forged" + "y" * 9999
    ).describe()
    assert "\n" not in told
    assert len(told) < 300


@each_row(
    ("artifact", "creation", "expected"),
    [
        (None, 0, "https://a/2.mp4"),
        ("video", 1, "https://a/3.mp4"),
        ("watermarked", 0, "https://a/2-w.mp4"),
        ("cover", 1, "https://a/3.jpg"),
        ("cover", 0, None),
        ("video", 2, None),
        ("sound", 0, "https://a/2.mp3"),
    ],
)
def test_url_of_an_artifact_belongs_to_one_creation(artifact, creation, expected):
    """A watermarked clip never comes from another creation than the clip itself."""
    generation = Generation(
        id="1",
        status="succeeded",
        artifacts=(
            Artifact(watermarked_url="https://a/1-w.mp4"),
            Artifact(url="https://a/2.mp4", watermarked_url="https://a/2-w.mp4", sound_url="https://a/2.mp3"),
            Artifact(url="https://a/3.mp4", cover_url="https://a/3.jpg"),
        ),
    )
    assert generation.url_of(artifact, creation) == expected
