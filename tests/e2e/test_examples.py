"""Each example DAG, run as a user would run it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit


def _file(record) -> Path:
    return Path(unquote(urlsplit(record["uri"]).path))


def test_prompt_to_file(airflow, sandbox, runs, videos):
    """A prompt becomes a file in the folder that was named, byte for byte what the service holds."""
    run = runs["example"]
    assert airflow.wait(run) == "success", airflow.states(run)
    generation_id = airflow.xcom(run, "submit")
    record = airflow.xcom(run, "download")
    content = _file(record).read_bytes()

    assert content == sandbox.file_bytes(generation_id)
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert (record["size"], record["generation_id"]) == (len(content), generation_id)
    assert _file(record).parent == videos / "example"
    assert "?" not in record["source"]


def test_two_operators(airflow, sandbox, runs, videos):
    """The generate operator's id leads the download to the same generation; it was billed once."""
    run = runs["example_two_operators"]
    assert airflow.wait(run) == "success", airflow.states(run)
    generation = airflow.xcom(run, "generate")
    record = airflow.xcom(run, "download")
    assert airflow.xcom(run, "generate", key="generation_id") == generation["id"] == record["generation_id"]
    assert _file(record).read_bytes() == sandbox.file_bytes(generation["id"])
    assert len([create for create in sandbox.creates if create.body.get("prompt") == "a mill"]) == 1


def test_storyboard(airflow, sandbox, runs, videos):
    """Each scene ends in a video and a cover whose names belong together."""
    run = runs["example_storyboard"]
    assert airflow.wait(run) == "success", airflow.states(run)
    for index in range(2):
        generation_id = airflow.xcom(run, "scene.generate", map_index=index)["id"]
        video, cover = (_file(airflow.xcom(run, f"scene.{name}", map_index=index)) for name in ("video", "cover"))
        assert video.read_bytes() == sandbox.file_bytes(generation_id)
        assert cover.read_bytes() == sandbox.file_bytes(generation_id, "cover")
        assert cover.name.startswith(video.stem)


def test_batch(airflow, sandbox, runs, videos):
    """Twenty rows of a file become twenty files and a manifest, in one task."""
    run = runs["example_batch"]
    assert airflow.wait(run, timeout=300) == "success", airflow.task_log(run, "films")[-3000:]
    found = airflow.xcom(run, "films")
    assert (found["rows"], found["stored"]) == (20, 20)
    lines = [json.loads(line) for line in _file({"uri": found["manifest"]}).read_text("utf-8").splitlines()]
    assert len({line["generation_id"] for line in lines}) == 20
    for line in lines:
        assert _file(line).read_bytes() == sandbox.file_bytes(line["generation_id"])


def test_one_refused_prompt_does_not_hold_up_the_others(airflow, sandbox, runs, videos):
    """In the mapped example the good prompt ends in a file, the refused one in a failed wait."""
    run = runs["example_mapped"]
    assert airflow.wait(run) == "failed"
    states = airflow.states(run)
    assert states["film.wait[0]"] == states["film.download[0]"] == "success"
    assert (states["film.wait[1]"], states["film.download[1]"]) == ("failed", "upstream_failed")

    (file,) = (videos / "mapped").iterdir()
    assert file.read_bytes() == sandbox.file_bytes(airflow.xcom(run, "film.submit", map_index=0))


def test_wait_and_download_a_known_generation(airflow, sandbox, runs, videos):
    """A known id ends in a file of exactly the name that was asked for, with nothing beside it."""
    assert airflow.wait(runs["example_known"]) == "success"
    assert (videos / "known" / "film.mp4").read_bytes() == sandbox.file_bytes("e2e-known")
    assert [path.name for path in (videos / "known").iterdir()] == ["film.mp4"]


def test_a_second_run_fetches_nothing(airflow, sandbox, runs, videos):
    """With overwrite=skip the file of the first run stays, and no byte of it is asked for again."""
    assert airflow.wait(runs["example_known"]) == "success"
    before = len(sandbox.requests(kind="file", id="e2e-known"))
    params = {"generation_id": "e2e-known", "folder": "known", "name": "film"}
    again = airflow.trigger("vidu_wait_and_download", params)

    assert airflow.wait(again) == "success"
    record = airflow.xcom(again, "download")
    assert len(sandbox.requests(kind="file", id="e2e-known")) == before
    assert record["size"] == len(sandbox.file_bytes("e2e-known"))
