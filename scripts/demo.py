"""``make demo``: from a prompt to an MP4 on a private Airflow. ``make ui``: the same Airflow, kept open.

``make demo ARGS=--batch`` runs the twenty prompts of ``example_dags/data/vidu_batch.csv`` in one task instead.

The service is the sandbox, which costs nothing, unless VIDU_HOST and VIDU_API_KEY name a real one (optional:
VIDU_DIALECT, VIDU_MODEL, VIDU_PROMPT). AIRFLOW_PORT sets Airflow's port.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import unquote, urlsplit

from airflow_api import USER, PrivateAirflowError, Run, TaskState
from private_airflow import PrivateAirflow, errors_in
from processes import Guard

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLES: Final = ROOT / "example_dags"
VIDEOS: Final = ROOT / "build" / "videos"
DAG_ID: Final = "vidu_generate_and_download"
BATCH_DAG_ID: Final = "vidu_batch"
PROMPT: Final = "A red kite above a calm sea at dawn"
# The sandbox's generations take 24 s of its time; at double speed there is still a wait to watch.
SPEED: Final = 2
SANDBOX_TIMEOUT: Final = 30
_READY: Final = re.compile(r"ready at (http://\S+)")


@dataclass(frozen=True)
class Service:
    """The Vidu service of the demo."""

    host: str
    key: str = field(repr=False)
    dialect: str = "vidu-native"
    model: str = "vidu2.0"
    is_sandbox: bool = False

    def connection(self) -> dict[str, Any]:
        """Return its Airflow connection."""
        return {
            "conn_type": "vidu",
            "host": self.host,
            "password": self.key,
            "extra": {"dialect": self.dialect},
            "description": "The sandbox" if self.is_sandbox else "From VIDU_HOST and VIDU_API_KEY",
        }


class Reporter:
    """Prints one line per event, after the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print one event."""
        print(f"{time.monotonic() - self._start:6.1f} s  {text}", flush=True)


class DemoError(RuntimeError):
    """The demo failed; the message says why and what to do."""


def main() -> int:
    """Run the demo or the UI and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ui", action="store_true", help="keep Airflow open until Ctrl-C instead of running a DAG")
    parser.add_argument("--batch", action="store_true", help="run twenty prompts of a CSV file in one task")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _ui() if args.ui else _batch() if args.batch else _demo()
    except KeyboardInterrupt:
        print("\nInterrupted; all processes have been stopped.", file=sys.stderr)
        return 130
    except (DemoError, PrivateAirflowError) as error:
        print(f"\nFailed: {error}", file=sys.stderr)
        return 1


def _demo() -> int:
    say = Reporter()
    with _only_one("demo") as home, _service(say) as service, _airflow(home, service, say) as airflow:
        say(f"Airflow is ready at {airflow.url}")
        airflow.wait_for_dags([DAG_ID])
        prompt = os.environ.get("VIDU_PROMPT") or PROMPT
        run = airflow.trigger(DAG_ID, {"prompt": prompt, "model": service.model, "folder": "demo"})
        say(f"DAG {DAG_ID} triggered: {prompt!r}")
        for change in airflow.watch(run, timeout=180 if service.is_sandbox else 4000):
            if change.state != "none":
                say(_event(airflow, run, change))
        if airflow.run_state(run) != "success":
            raise DemoError(_why_failed(airflow, run))
        record = airflow.xcom(run, "download")
    say("Stopped Airflow" + (" and the sandbox" if service.is_sandbox else ""))
    _show_file(record)
    return 0


def _batch() -> int:
    say = Reporter()
    with _only_one("demo") as home, _service(say) as service, _airflow(home, service, say) as airflow:
        say(f"Airflow is ready at {airflow.url}")
        airflow.wait_for_dags([BATCH_DAG_ID])
        run = airflow.trigger(BATCH_DAG_ID, {"model": service.model, "folder": "batch"})
        say(f"DAG {BATCH_DAG_ID} triggered: 20 rows, 5 in flight")
        for change in airflow.watch(run, timeout=600 if service.is_sandbox else 7200):
            if change.state != "none":
                say(_event(airflow, run, change))
        if airflow.run_state(run) != "success":
            raise DemoError(_why_failed(airflow, run))
        summary = airflow.xcom(run, "films")
    say("Stopped Airflow" + (" and the sandbox" if service.is_sandbox else ""))
    _show_batch(summary)
    return 0


def _ui() -> int:
    say = Reporter()
    with _only_one("ui") as home, _service(say) as service, _airflow(home, service, say) as airflow:
        airflow.wait_for_dags([DAG_ID])
        say("Airflow is ready. Press Ctrl-C to stop it.")
        print(f"\n    {airflow.url}\n    user {USER}, password {airflow.password}\n", flush=True)
        print(f"    DAGs come from {EXAMPLES}, videos go to {VIDEOS}.\n", flush=True)
        try:
            while True:
                signal.pause()
        except KeyboardInterrupt:
            print(flush=True)
            say("Stopping")
    say("Stopped everything")
    return 0


@contextmanager
def _only_one(name: str) -> Iterator[Path]:
    """Yield Airflow's home, locked: two Airflows in one folder would corrupt their database."""
    base = ROOT / ".airflow"
    base.mkdir(exist_ok=True)
    with (base / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"Another `make {name}` is running in this folder. Stop it first.") from None
        yield base / name


@contextmanager
def _airflow(home: Path, service: Service, say: Reporter) -> Iterator[PrivateAirflow]:
    VIDEOS.mkdir(parents=True, exist_ok=True)
    is_ui = home.name == "ui"
    airflow = PrivateAirflow(
        home,
        [EXAMPLES],
        port=_wanted_port(),
        # The clip pages play downloaded files.
        settings={"VIDU__PREVIEW_ROOTS": str(VIDEOS)},
        environment={"VIDU_EXAMPLES_DESTINATION": VIDEOS.as_uri() + "/"},
        # The UI keeps earlier runs; the demo starts empty.
        fresh=not is_ui,
        serve_logs=is_ui,
    )
    say(f"Starting a private Airflow in {home.relative_to(ROOT)} (half a minute)")
    with airflow:
        airflow.add_connection("vidu_default", service.connection())
        yield airflow


def _wanted_port() -> int | None:
    wanted = os.environ.get("AIRFLOW_PORT")
    if wanted is not None and not (wanted.isdecimal() and 0 < int(wanted) < 65536):
        raise DemoError(f"AIRFLOW_PORT must be a port number, not {wanted!r}.")
    return int(wanted) if wanted else None


@contextmanager
def _service(say: Reporter) -> Iterator[Service]:
    """Yield the real service if the environment names one, else a temporary sandbox."""
    host, key = os.environ.get("VIDU_HOST"), os.environ.get("VIDU_API_KEY")
    if bool(host) != bool(key):
        missing = "VIDU_API_KEY" if host else "VIDU_HOST"
        raise DemoError(f"{missing} is missing. Set both VIDU_HOST and VIDU_API_KEY, or neither to use the sandbox.")
    dialect = os.environ.get("VIDU_DIALECT") or "vidu-native"
    model = os.environ.get("VIDU_MODEL") or ("viduq2" if dialect == "ent-v2" else "vidu2.0")
    if host and key:
        say(f"Using the service at {urlsplit(host).netloc or host} ({dialect}, model {model}); this is billed")
        yield Service(host, key, dialect, model)
        return
    with _sandbox() as (url, key):
        say(f"Sandbox ready at {url} (a local Vidu, nothing is billed)")
        yield Service(url, key, dialect, model, is_sandbox=True)


@contextmanager
def _sandbox() -> Iterator[tuple[str, str]]:
    key = f"sandbox-{secrets.token_hex(8)}"
    command = ["-m", "airflow_provider_vidu.sandbox", "--port", "0", "--key", key, "--speed", str(SPEED), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that Ctrl-C reaches only this script, which stops Airflow first
    )
    guard = Guard()
    guard.watch(process)
    try:
        yield _url_of(process), key
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        guard.dismiss()


def _url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    readable, _, _ = select.select([process.stdout], [], [], SANDBOX_TIMEOUT)
    ready = _READY.search(process.stdout.readline()) if readable else None
    if ready is None:
        process.kill()
        raise DemoError(f"The sandbox did not start within {SANDBOX_TIMEOUT} s.\n{process.stderr.read()[-2000:]}")
    return ready[1]


_MEANING: Final = {
    "deferred": "deferred (waiting in the triggerer, no worker is held)",
    "up_for_retry": "failed, will be retried",
}


def _event(airflow: PrivateAirflow, run: Run, change: TaskState) -> str:
    text = f"{change.name:<10} {_MEANING.get(change.state, change.state)}"
    if change.state == "deferred" and change.name == "generate":
        text += f": generation {airflow.xcom(run, 'generate', key='generation_id')}"
    return text


def _why_failed(airflow: PrivateAirflow, run: Run) -> str:
    failed = [task for task in airflow.tasks(run) if task.state == "failed"]
    logs = airflow.home / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}"
    lines = [f"the DAG run failed in: {', '.join(task.name for task in failed) or 'no task'}. Logs: {logs}"]
    for task in failed:
        lines += [f"{task.name}: {error}" for error in errors_in(airflow.task_log(run, task.name))[-3:]]
    return "\n".join(lines)


def _show_file(record: dict[str, Any]) -> None:
    """Compare the download's record with the file, then print the file's path, size and digest."""
    path = Path(unquote(urlsplit(record["uri"]).path))
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != record["sha256"] or len(content) != record["size"]:
        raise DemoError(f"{path} holds {len(content)} bytes, SHA-256 {digest}; the download reported {record}.")
    print(f"\n    {path}\n    {len(content):,} bytes, SHA-256 {digest} (verified on disk)\n", flush=True)


def _show_batch(summary: dict[str, Any]) -> None:
    """Compare each file with its line of the manifest, then print the manifest's path and the counts."""
    path = Path(unquote(urlsplit(summary["manifest"]).path))
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    stored = [line for line in lines if line["status"] == "stored"]
    for line in stored:
        if hashlib.sha256(Path(unquote(urlsplit(line["uri"]).path)).read_bytes()).hexdigest() != line["sha256"]:
            raise DemoError(f"{line['uri']} differs from its line in {path}.")
    counts = f"{len(stored)} files ({summary['bytes']:,} bytes), {summary['failed']} failed rows"
    print(f"\n    {path}\n    {counts}; each file verified on disk\n", flush=True)


def _terminated(number: int, frame: object) -> NoReturn:
    """Handle SIGTERM like Ctrl-C, so that every clean-up runs."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
