"""Starts processes in their own sessions and ends these completely, so that demo and tests leave nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import psutil

LOCALHOST: Final = "127.0.0.1"
PORTS: Final = range(20_000, 32_768)
"""Below the ports for outgoing connections, which may be taken at any time."""


@dataclass
class Component:
    """A running part of Airflow, or a service that it needs: the leader of its own session."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def started(cls, name: str, command: Sequence[str], log: Path, **options: Any) -> Self:
        """Start a process in a new session, with its output appended to ``log``.

        :param options: further arguments for :class:`subprocess.Popen`.
        """
        with log.open("ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options)
        return cls(name, process, log)

    def members(self) -> list[psutil.Process]:
        """Return the living processes of the session; Airflow puts each task into its own process group."""
        return session_members(self.process.pid)

    def signal(self, number: int) -> None:
        """Send a signal to every process of the session."""
        for member in self.members():
            with suppress(psutil.Error):
                member.send_signal(number)

    def kill(self) -> None:
        """Kill all its processes, frozen or not, and wait until they are gone."""

        def is_gone() -> bool:
            self.signal(signal.SIGKILL)  # repeated, because it may just have started another process
            self.process.poll()
            return not self.members()

        wait_for(is_gone, 10, every=0.05)


class Guard:
    """A process that ends watched sessions if this process dies without cleaning up (SIGKILL, a CI's time limit).

    It notices the death by the end of a pipe.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--guard"], stdin=subprocess.PIPE, start_new_session=True
        )

    def watch(self, process: subprocess.Popen[Any], number: int = signal.SIGKILL) -> None:
        """Send signal ``number`` to the session that ``process`` leads if this process dies."""
        self._send(f"{process.pid} {int(number)}\n")

    def keep_tidy(self, folder: Path) -> None:
        """Remove ``folder`` if this process dies."""
        self._send(f"{folder}\n")

    def dismiss(self) -> None:
        """End the guard without killing anything."""
        self._send("dismissed\n")
        with suppress(BrokenPipeError):
            self._pipe.close()
        self._process.wait()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _send(self, line: str) -> None:
        with suppress(BrokenPipeError):
            self._pipe.write(line.encode())
            self._pipe.flush()


class Startable:
    """A context manager that calls ``start()`` and ``stop()``, the latter also after a failed start."""

    def start(self) -> None:
        """Start it and wait until it is ready."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """Return a free port of the loopback interface that no outgoing connection will take.

    :raises OSError: if a hundred tries found none.
    """
    # Not Python's own generator: a test's seed would give the same ports to all test processes.
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOCALHOST, port))
            return port
    raise OSError(f"no free port on {LOCALHOST} from {PORTS.start} to {PORTS.stop - 1}")


def _session_of(process: psutil.Process) -> int | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return os.getsid(process.pid)
    except (psutil.Error, OSError):
        return None


def session_members(leader: int) -> list[psutil.Process]:
    """Return the living processes of the session that process ``leader`` leads or led."""
    return [process for process in psutil.process_iter() if _session_of(process) == leader]


def members_of(components: Iterable[Component]) -> list[psutil.Process]:
    """Return the living processes of several components."""
    for component in components:
        component.process.poll()  # reap an ended leader
    return [process for component in components for process in component.members()]


def wait_for(condition: Callable[[], bool], timeout: float, every: float = 0.2) -> bool:
    """Poll until ``condition`` holds; return whether it did within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


class signals_held:  # noqa: N801  (used like contextlib's lower-case managers)
    """Ignores INT and TERM in the main thread while a clean-up runs."""

    def __enter__(self) -> None:
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # not in the main thread
                self._before[number] = signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log, preceded by its path."""
    try:
        # The access log shows only our own requests.
        text = [line for line in log.read_text("utf-8", "replace").splitlines() if "[http.access]" not in line][-lines:]
    except OSError:
        text = ["(no log was written)"]
    return "\n".join((f"--- last lines of {log}", *text))


def _stand_guard() -> None:
    """Wait for the end of standard input, then end the sessions and folders it named unless dismissed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = [line.strip() for line in sys.stdin]
    if lines and lines[-1] == "dismissed":
        return
    watched = [line.split() for line in lines if not line.startswith("/")]
    for leader, wanted in watched:
        for member in session_members(int(leader)):
            with suppress(psutil.Error):
                member.send_signal(int(wanted))
    wait_for(lambda: not any(session_members(int(leader)) for leader, _ in watched), 10)
    for folder in (line for line in lines if line.startswith("/")):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__" and sys.argv[1:] == ["--guard"]:
    _stand_guard()
