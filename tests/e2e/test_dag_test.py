"""``dag.test()`` on an Airflow of its own: what a new user tries first, with everything that tasks hand over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "own_process"
COMMANDS = """
import json, sys
from airflow.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *words]
    main()
"""
"""Several commands in one process: each in its own would import Airflow, which takes seconds of a core."""


@pytest.fixture(scope="module")
def told(tmp_path_factory, sandbox, keys):
    """Run the DAG in a process of its own; return what it prints."""
    home = tmp_path_factory.mktemp("dag-test")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(FOLDER),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    environment.pop("AIRFLOW__CORE__UNIT_TEST_MODE", None)
    conn = {
        "conn_type": "vidu", "host": sandbox.url, "password": keys.good, "extra": {"dialect": "ent-v2"},
    }  # fmt: skip

    def run(*command: str) -> str:
        told = {"capture_output": True, "text": True, "timeout": 240}
        done = subprocess.run([sys.executable, *command], env=environment, cwd=home, check=False, **told)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    add = ("connections", "add", "in_the_database", "--conn-json", json.dumps(conn))
    run("-c", COMMANDS, json.dumps([("db", "migrate"), add]))
    output = run(str(FOLDER / "handed_over.py"))
    return json.loads(next(line for line in reversed(output.splitlines()) if line.startswith('{"states"')))


def test_lazy_sequences_and_native_text_arrive_as_they_are(sandbox, told):
    """Paths of mapped tasks become pictures, numbers numbers, and text stays text, in the request and the result."""
    ours = [create.body for create in sandbox.creates if create.body.get("meta_data") == "007"]
    assert sorted(body["prompt"] for body in ours) == ["'in quotation marks'", "3.10"]
    for body in ours:
        assert body["duration"] == 4
        assert [picture[:22] for picture in body["images"]] == ["data:image/png;base64,"] * 2
    generations = told["results"]["generations"]
    assert sorted(generation["prompt"] for generation in generations) == ["'in quotation marks'", "3.10"]
    for generation in generations:
        assert (generation["model"], generation["parameters"]["meta_data"]) == ("viduq2", "007")
        assert generation["created_at"]


def test_each_clip_is_a_file_of_its_own(told):
    """The folder of a path object has lost its slash, and stays a folder for all instances."""
    clips = told["results"]["clips"]
    assert len({clip["uri"] for clip in clips}) == 2
    assert {clip["generation_id"] for clip in clips} == {one["id"] for one in told["results"]["generations"]}
    assert told["states"] | {"keep[0]": "success", "keep[1]": "success", "wait[0]": "success"} == told["states"]


def test_nothing_is_ordered_for_a_destination_that_cannot_be(sandbox, told):
    """In a running task, too, the DAG shows the download behind it."""
    assert told["states"]["refused[-1]"] == "failed"
    assert told["states"]["nowhere[-1]"] == "upstream_failed"
    assert [create for create in sandbox.creates if create.body.get("prompt") == "refused"] == []


def test_one_name_for_two_instances_is_refused_before_the_order(sandbox, told):
    """A running instance compares the list of the upstream task that it is mapped over."""
    assert (told["states"]["twice[0]"], told["states"]["twice[1]"]) == ("failed", "failed")
    assert [create for create in sandbox.creates if create.body.get("prompt") == "one name for two"] == []


def test_a_task_publishes_what_it_submits_with_the_hook(sandbox, told):
    """Each generation has an id and a note of its own; what the create's answer alone says outlives a second call."""
    pages = told["published"]
    assert told["states"]["published[-1]"] == "success"
    ours = [create.body["prompt"] for create in sandbox.creates if "with wings" in str(create.body.get("prompt"))]
    assert ours == ["a cat with wings", "a dog with wings"]
    first, second = pages["vidu_watch"], pages["vidu_watch.02"]
    assert str(pages["generation_id.02"]) == str(pages["return_value"]) != str(pages["generation_id"])
    assert pages["generation_id.03"] is None
    assert (first["role"], second["role"]) == ("submit", "generate")
    for note in (first, second):
        assert note["conn_id"] == "in_the_database"
        assert note["credits"] > 0
        assert note["created_at"]
