"""Tasks in real processes: killed at half, two on one destination, on a full disk, where they may not write."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
import time
from pathlib import Path

import pytest

from fault_table import CLEAR_ERROR, LIMIT, SURVIVED
from tests.faults.transfer_children import NOBODY, Nursery
from tests.faults.transfer_s3 import Bucket, Door, s3_bucket, s3_client, s3_endpoint, settings  # noqa: F401 - fixtures
from tests.faults.transfer_world import OLD, Folder, connection, scene
from tests.integration.servers import ranged


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    """Start tasks in processes of their own."""
    found = Nursery(tmp_path_factory.mktemp("nursery"))
    yield found
    found.close()


@pytest.fixture(params=["local", "s3"])
def home(request, tmp_path):
    """Return each place in turn."""
    if request.param == "local":
        return Folder(tmp_path)
    return Bucket(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))


@pytest.fixture
def environment(request, home):
    """Return what a task's process must find in its environment to reach the place."""
    if isinstance(home, Folder):
        yield {}
        return
    with Door(request.getfixturevalue("endpoint"), lambda _request: None) as door:
        yield settings(door.url(""))


def held(body, at, arrived, go):
    """Return an answer that sends ``body`` up to ``at``, says so, and continues when the test allows it."""

    def answer(request, wire):
        wire.head(200, Content_Type="video/mp4", Content_Length=len(body), ETag='"v1"')
        wire.send(body[:at])
        arrived.release()
        if go.wait(30):
            wire.send(body[at:])

    return answer


def start(nursery, s, environment, overwrite="replace", **confined):
    """Start a task of the scene."""
    env = {"AIRFLOW_CONN_VIDU_DEFAULT": connection(s.gateway, timeout=30), **environment}
    what = {"video_url": s.gateway.url("/v/video.mp4")} if s.by_url else {"generation_id": "t"}
    arguments = {**what, "destination": s.home.destination, "overwrite": overwrite}
    return nursery.start(arguments, env, **confined)


def has_begun(home):
    """Whether a hidden part of the file is at the destination."""
    if isinstance(home, Folder):
        return any(path.stat().st_size for path in home.path.glob(".t.mp4.*.part"))
    return home.left_over() == ["an unfinished upload"]


def test_kill_9_in_the_middle(nursery, home, environment, capsys, monkeypatch, fault_row):
    """The old file stays; beside it is the part that docs/download.md names, and a rerun brings the whole file."""
    home.put(OLD)
    arrived, go = threading.Semaphore(0), threading.Event()
    with scene(home, capsys, monkeypatch) as s:
        # Into S3: behind the first part of the upload, so that there is something to leave behind.
        at = s.half if home.name == "local" else s.home.size - 500_000
        s.gateway.files = [held(s.body, at, arrived, go)]
        task = start(nursery, s, environment)
        assert arrived.acquire(timeout=60)
        until = time.monotonic() + 30
        while not has_begun(home) and time.monotonic() < until:
            time.sleep(0.01)
        task.kill()
        assert task.wait() == {}
        go.set()
        requests = s.requests()
        assert home.content() == OLD
        left = home.left_over()
        assert len(left) == 1
        assert re.fullmatch(r"\.t\.mp4\.[0-9a-f]{16}\.part|an unfinished upload", left[0])
        s.check_rerun(left)
    seen = f"the old file; beside it {re.sub('[0-9a-f]{16}', '…', left[0])}"
    fault_row("transfer", "kill -9 in the middle", side=home.name, seen=seen, requests=requests, outcome=LIMIT)


@pytest.mark.parametrize("overwrite", ["replace", "skip", "error"])
def test_two_tasks_write_one_destination(nursery, home, environment, capsys, monkeypatch, fault_row, overwrite):
    """Both are at half at the same time: one whole file stands there, and each task tells the truth of it."""
    home.put(None)
    arrived, go = threading.Semaphore(0), threading.Event()
    with scene(home, capsys, monkeypatch, overwrite="replace") as s:
        bodies = [s.body, s.other]
        s.gateway.files = [held(body, s.half, arrived, go) for body in bodies]
        tasks = [start(nursery, s, environment, overwrite) for _ in bodies]
        assert all(arrived.acquire(timeout=60) for _ in tasks)
        go.set()
        ends = [task.wait() for task in tasks]
        requests = s.requests()
        content = home.content()
        assert content in bodies
        digests = [end["sha256"] for end in ends if "sha256" in end]
        stands = hashlib.sha256(content).hexdigest()
        if overwrite == "replace":
            assert sorted(digests) == sorted(hashlib.sha256(body).hexdigest() for body in bodies)
        else:
            assert digests == [stands] * (2 if overwrite == "skip" else 1), ends
        errors = [end["error"] for end in ends if "error" in end]
        assert len(errors) == (overwrite == "error")
        assert home.left_over() == []
        s.check_rerun()
    fault_row(
        "transfer", f"two tasks write one destination (overwrite={overwrite!r})", side=home.name,
        seen=errors[0] if errors else f"one whole file, SHA-256 {stands}", requests=requests,
        outcome=CLEAR_ERROR if errors else SURVIVED,
    )  # fmt: skip


def test_a_full_disk(nursery, tmp_path, capsys, monkeypatch, fault_row):
    """A disk of 64 KiB is really full at half: nothing stays, and with room again the same task succeeds."""
    home = Folder(tmp_path)
    home.put(None)
    with scene(home, capsys, monkeypatch) as s:
        s.gateway.files = [ranged(s.body)]
        end = start(nursery, s, {}, disk=str(home.path)).wait()
        if "no_disk" in end:
            pytest.skip(f"no small disk here ({end['no_disk']}); the next test fills one by its limit")
        assert end["type"] == "ViduStorageError"
        assert "No space left on device" in end["error"]
        assert end["left"] == []
        assert end["rerun"]["sha256"] == hashlib.sha256(s.body).hexdigest()
        requests = s.requests() // 2  # of the first run; the second asked as often
        assert requests == 2
    fault_row("transfer", "disk full", side="local", seen=end["error"], requests=requests, outcome=CLEAR_ERROR)


def test_a_limit_on_files(nursery, tmp_path, capsys, monkeypatch, fault_row):
    """The kernel takes no more bytes than the user's limit: nothing new stays, and without the limit it succeeds."""
    home = Folder(tmp_path)
    home.put(OLD)
    with scene(home, capsys, monkeypatch) as s:
        s.gateway.files = [ranged(s.body)]
        end = start(nursery, s, {}, file_bytes=s.half).wait()
        assert end["type"] == "ViduStorageError"
        assert "File too large" in end["error"]
        assert home.content() == OLD
        assert home.left_over() == []
        requests = s.requests()
        s.check_rerun()
    fault_row("transfer", "file larger than the user's limit", side="local", seen=end["error"], requests=requests,
              outcome=CLEAR_ERROR)  # fmt: skip


def test_no_permission(nursery, capsys, monkeypatch, fault_row):
    """A folder that the task's user may not write to: the error says so, and once it may, the task succeeds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = Folder(folder)
        home.put(OLD)
        home.path.chmod(0o555)
        user = {"user": NOBODY} if os.geteuid() == 0 else {}
        with scene(home, capsys, monkeypatch, by_url=True) as s:
            s.gateway.files = [ranged(s.body)]
            end = start(nursery, s, {}, **user).wait()
            assert end["type"] == "ViduStorageError"
            assert "Permission denied" in end["error"]
            assert home.content() == OLD
            assert home.left_over() == []
            requests = s.requests()
            home.path.chmod(0o755)
            s.check_rerun()
    fault_row("transfer", "no permission", side="local", seen=end["error"], requests=requests, outcome=CLEAR_ERROR)


def test_a_file_where_a_folder_should_be(tmp_path, capsys, monkeypatch, fault_row):
    """The error names the destination, the file stays, and once it is gone the task succeeds."""
    home = Folder(tmp_path)
    home.path.write_bytes(OLD)
    with scene(home, capsys, monkeypatch) as s:
        s.gateway.files = [ranged(s.body)]
        error = s.download()
        assert "a part of the path is a file" in str(error)
        assert home.path.read_bytes() == OLD
        requests = s.requests()
        home.path.unlink()
        s.check_rerun()
    fault_row("transfer", "a file where a folder should be", side="local", seen=str(error), requests=requests,
              outcome=CLEAR_ERROR)  # fmt: skip
