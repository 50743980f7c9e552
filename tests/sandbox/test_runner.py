"""The Sandbox object, its books, the control API and the pytest plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests

from airflow_provider_vidu.sandbox import Core, Sandbox
from airflow_provider_vidu.sandbox.core import Call, Settings
from airflow_provider_vidu.sandbox.server.app import _is_loopback


def control(sandbox: Sandbox, method: str, name: str, body=None) -> requests.Response:
    """Return the answer of the control API."""
    return requests.request(method, f"{sandbox.url}/_sandbox/{name}", json=body, timeout=5)


class TestBooks:
    def test_a_create_is_entered_with_everything(self, client, sandbox) -> None:
        """Id, dialect, body, price and state."""
        created = client.create("a cat", own=1)
        (entry,) = sandbox.ledger["creates"]
        assert entry["id"] == created
        assert entry["body"] == {"prompt": "a cat", "model": "viduq2", "own": 1}
        assert (entry["dialect"], entry["charge"], entry["state"]) == ("vidu-native", "charged", "pending")

    def test_requests_are_counted_by_kind_and_id(self, client, sandbox) -> None:
        """The counts tell how often each generation was polled."""
        first, second = client.create(), client.create()
        for name in (first, second, second):
            client.query(name)
        assert sandbox.ledger["requests"] == {"create": 2, "query": 3}
        assert sandbox.ledger["requests_by_id"][second] == {"query": 2}
        assert len(sandbox.requests("query", second)) == 2

    def test_requests_keep_their_headers_and_times(self, client, sandbox) -> None:
        """The record shows what was sent, raw path included."""
        client.call("GET", "/p/vidu-native/video/generations/a%3Ab?x=1")
        (record,) = sandbox.requests()
        assert (record.path, record.query, record.id) == ("/p/vidu-native/video/generations/a%3Ab", "x=1", "a:b")
        assert record.header("AUTHORIZATION") == f"Bearer {sandbox.key}"
        assert (record.status, record.fault, record.key_sent) == (400, False, True)
        assert abs(record.wall_time - time.time()) < 60

    def test_presets_cost_nothing(self, client, sandbox) -> None:
        """A preset generation does not count as a create."""
        client.video()
        assert (sandbox.creates, sandbox.ledger["balance"]) == ([], 100_000)

    def test_entries_reach_the_sink(self) -> None:
        """Creates, refunds and downloads are passed on as they happen."""
        entries: list[dict] = []
        core = Core(Settings(seed=1, speed=0), sink=entries.append)
        headers = {"authorization": "Bearer sandbox-key"}
        core.handle(Call("POST", "/vidu-native/video/generations", headers, b'{"prompt": "[fail]"}'))
        core.clock.advance(100)
        core.handle(Call("GET", f"/files/{'0' * 32}.mp4", {}))
        assert [entry["event"] for entry in entries] == ["create", "refunded", "file"]


class TestControl:
    def test_a_generation_can_be_preset(self, client, sandbox) -> None:
        """Its states follow the script."""
        body = {"id": "x", "states": [["pending", 0], ["running", 2], ["completed", 5]]}
        assert control(sandbox, "POST", "generations", body).json() == {"id": "x", "dialect": "vidu-native"}
        seen = []
        for _ in range(3):
            seen.append(client.query("x")["status"])
            control(sandbox, "POST", "clock", {"advance": 2.5})
        assert seen == ["pending", "running", "completed"]

    def test_an_error_makes_a_preset_fail(self, client, sandbox) -> None:
        """Without states of its own the script ends in failure with that code."""
        sandbox.add_generation(id="x", error={"code": "Oops", "message": "no"}, age=1000)
        assert client.query("x")["error"] == {"code": "Oops", "message": "no"}

    def test_faults_come_and_go(self, client, sandbox) -> None:
        """POST adds, DELETE clears, nonsense is a 400 with a message."""
        rule = {"match": {"kind": "query"}, "times": None, "action": {"status": 500}}
        assert control(sandbox, "POST", "faults", rule).json() == {"rules": 1}
        assert client.call("GET", "/vidu-native/video/generations/x").status_code == 500
        assert control(sandbox, "DELETE", "faults").json() == {"rules": 0}
        assert client.call("GET", "/vidu-native/video/generations/x").status_code == 400
        refused = control(sandbox, "POST", "faults", {"action": {"x": 1}})
        assert (refused.status_code, "'x'" in refused.json()["message"]) == (400, True)

    def test_keys_rotate(self, client, sandbox) -> None:
        """The old key is refused, and still recognised when it leaks."""
        old = sandbox.key
        control(sandbox, "POST", "keys", {"keys": ["new"]})
        assert client.call("GET", "/ent/v2/credits", "Token", old).status_code == 401
        assert client.call("GET", "/ent/v2/credits", "Token", "new").status_code == 200
        assert all(record.key_sent for record in sandbox.requests())

    def test_the_books_can_be_read_and_reset(self, client, sandbox) -> None:
        """GET ledger and requests, POST reset."""
        client.create()
        assert control(sandbox, "GET", "ledger").json() == json.loads(json.dumps(sandbox.ledger))
        assert len(control(sandbox, "GET", "requests?kind=create").json()["requests"]) == 1
        control(sandbox, "POST", "reset")
        assert (sandbox.creates, sandbox.requests()) == ([], [])

    @pytest.mark.parametrize(
        ("method", "name", "body", "status"),
        [
            ("GET", "nonsense", None, 404),
            ("GET", "faults", None, 405),
            ("POST", "clock", {"speed": -1}, 400),
            ("POST", "clock", {"speed": "fast"}, 400),
            ("POST", "clock", {"sped": 1}, 400),
            ("POST", "keys", {"keys": "k"}, 400),
            ("POST", "generations", {"id": ""}, 400),
            ("POST", "generations", {"id": "x", "size": 10}, 400),
            ("POST", "generations", [], 400),
        ],
    )
    def test_nonsense_is_refused(self, sandbox, method, name, body, status) -> None:
        """The status and a message say what is wrong."""
        answer = control(sandbox, method, name, body)
        assert answer.status_code == status
        assert answer.json()["message"]

    def test_only_loopback_may_control(self) -> None:
        """Other peers are refused, should the sandbox be bound to the world."""
        assert all(map(_is_loopback, ("127.0.0.1", "::1", "::ffff:127.0.0.1")))
        assert not any(map(_is_loopback, ("10.0.0.1", "::ffff:10.0.0.1", "", None, "x")))


class TestLife:
    def test_it_starts_and_stops_at_once(self) -> None:
        """Even connections that are stalled or idle do not hold up the end."""
        start = time.monotonic()
        with Sandbox() as sandbox:
            started = time.monotonic() - start
            sandbox.add_fault({"action": {"delay": 60}})
            port = urlsplit(sandbox.url).port
            with (
                socket.create_connection(("127.0.0.1", port)) as idle,
                socket.create_connection(("127.0.0.1", port)) as hanging,
            ):
                idle.sendall(b"GET /hal")
                hanging.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while not sandbox.requests():
                    time.sleep(0.01)
                start = time.monotonic()
                sandbox.stop()
                stopped = time.monotonic() - start
        assert started < 1
        assert stopped < 1

    def test_it_can_be_restarted(self) -> None:
        """After a stop it listens where it did before, with the same generations and books."""
        with Sandbox() as sandbox:
            url = sandbox.url
            sandbox.add_generation("x", states=[["processing", 0]])
            sandbox.stop()
            with pytest.raises(requests.ConnectionError):
                requests.get(url, timeout=5)
            sandbox.start()
            assert sandbox.url == url
            headers = {"Authorization": f"Bearer {sandbox.key}"}
            answer = requests.get(f"{url}/vidu-native/video/generations/x", headers=headers, timeout=5)
            assert answer.json()["status"] == "processing"
            assert len(sandbox.requests("query")) == 1

    @pytest.mark.parametrize("port", [-1, 70_000])
    def test_a_port_that_is_none_raises(self, port) -> None:
        """Whatever keeps the server from starting reaches the caller, who would wait for ever otherwise."""
        with pytest.raises((OSError, OverflowError)):
            Sandbox(port=port).start()

    def test_a_taken_port_is_an_os_error(self, sandbox) -> None:
        """start() raises and leaves no thread behind."""
        with pytest.raises(OSError, match="address"):
            Sandbox(port=urlsplit(sandbox.url).port).start()

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
    def test_it_speaks_tls(self, tmp_path) -> None:
        """With a certificate the URLs are https, and connections can be cut there too."""
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subprocess.run(
            [*command, *subject, "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
            timeout=60,
        )
        with Sandbox(tls=(certificate, key)) as sandbox:
            sandbox.add_generation(id="x", states=[["completed", 0]])
            sandbox.add_fault({"match": {"kind": "query"}, "action": {"reset": "body"}})
            url = sandbox.url + "/vidu-native/video/generations/x"
            headers = {"Authorization": f"Bearer {sandbox.key}"}
            with pytest.raises(requests.RequestException):
                requests.get(url, headers=headers, timeout=5, verify=str(certificate))
            body = requests.get(url, headers=headers, timeout=5, verify=str(certificate)).json()
            assert body["video_url"].startswith("https://127.0.0.1:")

    def test_the_url_needs_a_start(self) -> None:
        """The error says what to do."""
        with pytest.raises(RuntimeError, match="start"):
            _ = Sandbox().url

    def test_speed_makes_it_quick(self) -> None:
        """At a thousandfold speed a generation is done in an instant."""
        with Sandbox(speed=1000) as sandbox:
            sandbox.add_generation(id="x")
            headers = {"Authorization": f"Bearer {sandbox.key}"}
            end = time.monotonic() + 5
            status = ""
            while status != "completed" and time.monotonic() < end:
                path = "/vidu-native/video/generations/x"
                status = requests.get(sandbox.url + path, headers=headers, timeout=5).json()["status"]
            assert status == "completed"

    def test_a_connection_for_airflow(self, sandbox) -> None:
        """URI and JSON hold host, key and dialect."""
        body = json.loads(sandbox.connection_json("ent-v2", timeout=5))
        assert body["extra"] == {"dialect": "ent-v2", "timeout": 5}
        assert (body["host"], body["password"], body["conn_type"]) == (sandbox.url, sandbox.key, "vidu")
        parts = urlsplit(sandbox.connection_uri("ent-v2", verify=False))
        assert (parts.scheme, parts.password) == ("vidu", sandbox.key)
        assert unquote(parts.netloc.rpartition("@")[2]) == sandbox.url
        assert parse_qs(parts.query) == {"dialect": ["ent-v2"], "verify": ["false"]}

    def test_many_clients_at_once(self, client, sandbox) -> None:
        """Answers stay right when several threads ask and change things."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(client.create, ["x"] * 20))
            assert [body["id"] for body in pool.map(client.query, ids)] == ids
        assert len({record.id for record in sandbox.creates}) == 20


@pytest.mark.processes
def test_the_plugin_gives_a_fresh_sandbox_to_each_test(tmp_path) -> None:
    """The fixture and its marker work in a user's test suite."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
            import pytest

            @pytest.mark.vidu_sandbox(keys=["k"], speed=0)
            def test_marked(vidu_sandbox):
                assert vidu_sandbox.key == "k"
                assert vidu_sandbox.connection_uri().startswith("vidu://:k@")

            def test_fresh(vidu_sandbox):
                assert vidu_sandbox.creates == []
        """)
    )
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    plugin = "airflow_provider_vidu.sandbox.pytest_plugin"
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", plugin, "-p", "no:cacheprovider"]
    # Wherever the temporary folder lies, the settings of a project around it are not meant.
    command += ["-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60, env=env)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.processes
def test_the_documented_setup_of_pytest(tmp_path) -> None:
    """The files that docs/sandbox.md shows pass in a fresh folder, and warn of nothing."""
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text("utf-8")
    files = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["conftest.py", "tests/test_films.py"]
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name, code in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    env = {**ours, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "AIRFLOW_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_sandbox_needs_no_airflow() -> None:
    """Importing everything but the pytest plugin loads neither airflow nor pytest."""
    code = (
        "import sys, airflow_provider_vidu.sandbox.__main__\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('airflow', 'pytest', 'requests', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "wrong", [{"when_full": "explode"}, {"concurrency": 0}, {"concurrency": True}, {"models": "some"}, {"times": None}]
)
def test_a_setting_that_makes_no_sense_is_refused(wrong) -> None:
    """The message names the setting and what it may be."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sandbox(**wrong)


@pytest.mark.parametrize("name", ["keys", "allowed_hosts"])
def test_one_text_is_not_a_list(name):
    """A text where a list belongs is refused: its letters would be taken for keys or hosts."""
    with pytest.raises(ValueError, match=f"{name} must be a list of strings"):
        Sandbox(**{name: "sk-one"})
    assert getattr(Sandbox(**{name: iter(["sk-one"])}).core.settings, name) == ("sk-one",)
