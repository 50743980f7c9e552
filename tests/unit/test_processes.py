"""What the demo and the tests start ends with them, however they end; and what cannot be started says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import services
from processes import Component, session_members, wait_for

SCRIPTS = Path(services.__file__).parent


def test_a_killed_process_takes_everything_with_it(tmp_path):
    """After SIGKILL of the process that started them, watched sessions and borrowed folders are gone."""
    folder = tmp_path / "borrowed"
    folder.mkdir()
    program = f"""
        import subprocess, sys
        sys.path.insert(0, {str(SCRIPTS)!r})
        from pathlib import Path
        from processes import Guard
        guard = Guard()
        guard.keep_tidy(Path({str(folder)!r}))
        child = subprocess.Popen(["/bin/sh", "-c", "sleep 600 & sleep 600"], start_new_session=True)
        guard.watch(child)
        print(child.pid, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    leader = int(starter.stdout.readline())
    assert wait_for(lambda: len(session_members(leader)) == 3, 30)
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    assert wait_for(lambda: not session_members(leader) and not folder.exists(), 30)


def test_a_frozen_component_can_be_killed(tmp_path):
    """kill() ends every process of a session, also those that have put themselves into another group."""
    code = "import os, subprocess, time; subprocess.Popen(['sleep', '600'], process_group=0); time.sleep(600)"
    component = Component("x", subprocess.Popen([sys.executable, "-c", code], start_new_session=True), tmp_path / "log")
    assert wait_for(lambda: len(component.members()) == 2, 30)
    component.signal(signal.SIGSTOP)
    component.kill()
    assert component.members() == []


def test_a_service_that_nobody_has(tmp_path, monkeypatch):
    """Without the programs and without a package manager the message says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "UNPACKED", tmp_path / "nothing")
    monkeypatch.setattr(services, "POSTGRES_FOLDERS", ())
    monkeypatch.setattr(services, "REDIS_FOLDERS", ())
    with pytest.raises(services.ServiceError, match=r"postgresql redis-server.*macOS: postgresql, redis"):
        services.provide()


def test_a_package_list_that_is_empty(tmp_path, monkeypatch):
    """What the package manager complains about is passed on, with what to do about it."""
    tool = tmp_path / "apt-get"
    tool.write_text("#!/bin/sh\necho 'E: Unable to locate package postgresql' >&2\nexit 100\n")
    tool.chmod(0o755)
    (tmp_path / "dpkg").symlink_to(tool)
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path), "/bin")))
    monkeypatch.setattr(services, "UNPACKED", tmp_path / "nothing")
    monkeypatch.setattr(services, "POSTGRES_FOLDERS", ())
    monkeypatch.setattr(services, "REDIS_FOLDERS", ())
    with pytest.raises(services.ServiceError, match=r"Unable to locate package[^\n]*\nUpdate the package lists"):
        services.provide()
