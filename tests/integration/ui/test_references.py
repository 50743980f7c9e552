"""Airflow's object storage XCom back end: what it keeps elsewhere is read from there, or shown as unknown."""

from __future__ import annotations

import gzip
import json
import os
import uuid

import pytest

from airflow_provider_vidu.links import has_pages

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages"),
]
MADE = {"conn_id": "vidu_default", "role": "generate"}
KEPT = {"conn_id": "vidu_default", "role": "download", "artifact": "video"}


@pytest.fixture
def keep(pages):
    """Return a function that keeps a value as the back end does, and returns what stands in the database then."""

    def keep(value, *, dag="film", run=None, suffix=".json"):
        folder = pages.home / "xcom" / dag / (run or pages.run) / "task"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4()}{suffix}"
        data = json.dumps(value).encode()
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        return f"file://{path}"

    return keep


@pytest.mark.fault(
    "from Airflow", "an object storage XCom back end", outcome="survived", side="pages", seen="one finished clip"
)
def test_one_clip_and_not_three(pages, keep, generation):
    """Ids, notes and results that the back end keeps make one finished clip of three tasks, on page and sheet."""
    generation_id, made = generation()
    (pages.root / "elsewhere.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 80)
    record = {"uri": f"file://{pages.root}/elsewhere.mp4", "size": 92, "generation_id": generation_id}
    for task, note, result in (("one", MADE, made), ("two", {**MADE, "role": "wait"}, made), ("three", KEPT, record)):
        suffix = ".json.gz" if task == "two" else ".json"
        values = [keep(value, dag="backend", suffix=suffix) for value in (generation_id, note, result)]
        pages.add(task, values[0], dag="backend", watch=values[1], result=values[2])
    path = pages.at("one", dag="backend")
    shown = pages.get(f"{path}/clip.json", user="admin").json()
    assert (shown["generation_id"], shown["state"], len(shown["tasks"])) == (generation_id, "stored", 3)
    assert pages.get(f"{path}/file", user="admin").headers["Content-Type"] == "video/mp4"
    sheet = pages.get(path.partition("/tasks")[0] + "/clips.json", user="admin").json()
    assert sheet["counts"] == {"working": 0, "submitted": 0, "ready": 0, "stored": 1, "failed": 0}
    assert [clip["generation_id"] for clip in sheet["clips"]] == [generation_id]


@pytest.mark.fault(
    "from Airflow",
    "a reference of an XCom back end that cannot be read",
    outcome="refused",
    side="pages",
    seen="unknown; the service is not asked",
    requests=0,
)
def test_what_cannot_be_read_is_unknown(pages, keep, tmp_path):
    """A reference into another DAG, another run or another folder, or to nothing, is not followed and never sent."""
    outside = tmp_path / "film" / pages.run / "id.json"
    outside.parent.mkdir(parents=True)
    outside.write_text(json.dumps("stolen-outside"))
    own = pages.home / "xcom" / "film" / pages.run
    own.mkdir(parents=True, exist_ok=True)
    (own / "link.json").symlink_to(outside)
    (own / "other-run.json").symlink_to(keep("stolen-link", dag="secret").removeprefix("file://"))
    (own / "huge.json").write_text(json.dumps("x" * 500_000))
    os.mkfifo(own / "pipe.json")
    references = [
        keep("stolen-dag", dag="secret"),
        keep("stolen-run", run="another"),
        f"file://{outside}",
        f"file://{own}/../../secret/id.json",
        f"file://{own}/link.json",
        f"file://{own}/other-run.json",
        f"file://{own}/huge.json",
        f"file://{own}/pipe.json",
        f"file://{own}/nothing.json",
        f"file://{own}",
        "s3://bucket/film/id.json",
        "/etc/hostname",
    ]
    before = len(pages.sandbox.requests())
    for number, reference in enumerate(references):
        task = f"reference-{number}"
        pages.add(task, reference, state="deferred", watch=MADE)
        shown = pages.clip(task)
        assert (shown["generation_id"], shown["state"]) == (None, "unknown"), reference
        assert "back end" in shown["notice"]["message"]
        assert pages.get(pages.at(task, then="/file")).status_code == 410
    assert len(pages.sandbox.requests()) == before


def test_a_batch_whose_place_cannot_be_read(pages, keep):
    """Its page said that the task had begun no batch, or that its XComs were removed."""
    place = pages.at("kept-batch", then="/batch/clips.json")
    pages.add("kept-batch", None, state="failed", batch=keep({}).replace(".json", "-gone.json"))
    answer = pages.get(place)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("The place of this batch is kept by this deployment's XCom back end and")
