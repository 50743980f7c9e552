"""Each example DAG, run as a user would run it."""

from __future__ import annotations

import hashlib
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
    destination = f"{videos.as_uri()}/known/film.mp4"
    again = airflow.trigger("vidu_wait_and_download", {"generation_id": "e2e-known", "destination": destination})

    assert airflow.wait(again) == "success"
    record = airflow.xcom(again, "download")
    assert len(sandbox.requests(kind="file", id="e2e-known")) == before
    assert record["size"] == len(sandbox.file_bytes("e2e-known"))
