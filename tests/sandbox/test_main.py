"""The command line: the ready line, the end, and what is said when it cannot start."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import pytest
import requests

from airflow_provider_vidu.sandbox.__main__ import _settings, parser
from airflow_provider_vidu.sandbox.settings import Settings

COMMAND = [sys.executable, "-m", "airflow_provider_vidu.sandbox"]


@pytest.fixture
def launch() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Return a function that starts the command and returns the process and its URL."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found, line
        return process, found[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_ends_it(launch, number) -> None:
    """Ready line, answers, and a clean and quick exit with status 0."""
    process, url = launch("--key", "a", "--key", "b", "--quiet")
    for key in ("a", "b"):
        headers = {"Authorization": f"Token {key}"}
        assert requests.get(url + "/ent/v2/credits", headers=headers, timeout=5).status_code == 200
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)  # aiohttp's own shutdown waits a minute for an open connection
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_taken_port_is_one_sentence_and_status_2(launch) -> None:
    """No traceback, but what to do."""
    _, url = launch()
    port = url.rpartition(":")[2]
    done = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr


def test_the_choices_are_options(launch) -> None:
    """What the vendor's pages leave open can be chosen, and reaches the answers."""
    _, url = launch(
        *["--concurrency", "3", "--balance-field", "remaining_credits", "--list-payload", "--models", "m,n"]
    )
    headers = {"Authorization": "Token sandbox-key"}
    body = requests.get(f"{url}/ent/v2/credits", headers=headers, timeout=5).json()
    assert body["remaining_credits"][0]["concurrency_limit"] == 3
    order = {"model": "n", "prompt": "x"}
    assert requests.post(f"{url}/ent/v2/text2video", json=order, headers=headers, timeout=5).status_code == 200
    (task,) = requests.get(f"{url}/ent/v2/tasks", headers=headers, timeout=5).json()["tasks"]
    assert task["payload"] == ""


def test_every_setting_is_an_option() -> None:
    """The command line reaches each of them, and None where that is a choice."""
    for field in fields(Settings):
        spelling = {"keys": "key", "allowed_hosts": "allow-host"}.get(field.name, field.name.replace("_", "-"))
        assert f"--{spelling}" in parser().format_help()
    without = _settings(parser().parse_args(["--no-concurrency-limit", "--no-gateway-prompt-limit"]))
    assert without == replace(Settings(), concurrency=None, gateway_prompt_limit=None)
    assert _settings(parser().parse_args([])) == Settings()
    assert _settings(parser().parse_args(["--models", "a, b"])).models == ("a", "b")
    chosen = ["--balance", "7", "--price", "3", "--seed", "5", "--url-lifetime", "60", "--gateway-prompt-limit", "9"]
    assert _settings(parser().parse_args(chosen)) == replace(
        Settings(), balance=7, price=3, seed=5, url_lifetime=60.0, gateway_prompt_limit=9
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    "args",
    [
        ["--speed", "-1"],
        ["--concurrency", "0"],
        ["--port", "70000"],
        ["--gateway-refusal", "x"],
        ["--tls-cert", "x"],
        ["--tls-cert", "x", "--tls-key", "y"],
    ],
)
def test_wrong_arguments_are_one_sentence_and_status_2(args) -> None:
    """Whatever is wrong is said without a traceback."""
    done = subprocess.run([*COMMAND, "--port", "0", *args], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("The sandbox cannot start: ")
    assert done.stderr.count("\n") == 1


def test_the_ledger_file_gets_a_line_per_entry(launch, tmp_path) -> None:
    """Creates are appended as JSON lines, without the key."""
    path = tmp_path / "ledger.jsonl"
    path.write_text("{}\n")
    process, url = launch("--ledger", str(path))
    headers = {"Authorization": "Bearer sandbox-key"}
    requests.post(url + "/vidu-native/video/generations", json={"prompt": "x"}, headers=headers, timeout=5)
    process.terminate()
    output, _ = process.communicate(timeout=5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("event") for line in lines] == [None, "create"]
    assert "sandbox-key" not in path.read_text()
    assert "POST /vidu-native/video/generations 200" in output
