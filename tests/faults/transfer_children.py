"""Tasks in processes of their own, that can be killed, confined and let loose on one destination at once.

Run as a script it is the nursery: it loads the operator once and forks a child for each line on its input.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOBODY = 65534


class Nursery:
    """Starts tasks quickly, each in a process of its own.

    :param folder: where the tasks leave their results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._count = 0

    def start(self, arguments: dict[str, Any], env: dict[str, str], **confined: Any) -> Task:
        """Start a task.

        :param arguments: of the operator.
        :param env: what is added to the environment.
        :param confined: ``file_bytes``, the largest file; ``user``, a number; or ``disk``, a folder that becomes
            a disk of 64 KiB, which only the task sees: it lists what is ``left`` there, makes the disk larger and
            runs once more.
        """
        self._count += 1
        result = self._folder / str(self._count)
        order = {"arguments": arguments, "env": env, "confined": confined, "result": str(result)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Task(int(self._process.stdout.readline()), result)

    def close(self) -> None:
        """End the nursery and whatever still runs in it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class Task:
    """A task that runs."""

    def __init__(self, pid: int, result: Path) -> None:
        self.pid = pid
        self._result = result

    def kill(self) -> None:
        """Kill it, as the kernel does when memory is short."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> dict[str, Any]:
        """Wait for its end; return its record, or ``error`` and ``type``, or nothing when it was killed."""
        until = time.monotonic() + 60
        while _lives(self.pid):
            assert time.monotonic() < until, "the task does not end"
            time.sleep(0.01)
        found = self._result.read_text()
        return json.loads(found) if found else {}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Serve as the nursery."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs there

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _be_a_task(json.loads(line))
            os._exit(0)
        told.write(f"{pid}\n")
        told.flush()


def _be_a_task(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(order["env"])
    confined = order["confined"]
    with Path(order["result"]).open("w") as result:
        try:
            if "disk" in confined:
                _mount(confined["disk"], "64k")
        except OSError as error:
            json.dump({"no_disk": str(error)}, result)
            return
        if "file_bytes" in confined:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (confined["file_bytes"], resource.RLIM_INFINITY))
        if "user" in confined:
            _load_the_rest()
            os.setgroups([])
            os.setgid(confined["user"])
            os.setuid(confined["user"])
        found = _download(order["arguments"])
        if "disk" in confined:
            found["left"] = sorted(path.name for path in Path(confined["disk"]).iterdir())
            _mount(confined["disk"], "10m", again=True)
            found["rerun"] = _download(order["arguments"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        json.dump(found, result)


def _load_the_rest() -> None:
    """Load what a download loads while it runs: the other user may not be able to read this environment."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.network.addresses import system_resolver
    from airflow_provider_vidu.operators import ViduDownloadOperator

    assert ViduDownloadOperator
    assert ViduHook("vidu_default").config
    assert ObjectStoragePath("/tmp/x").path
    assert system_resolver("localhost", 80)


def _download(arguments: dict[str, Any]) -> dict[str, Any]:
    from airflow_provider_vidu.operators import ViduDownloadOperator

    try:
        found: dict[str, Any] = ViduDownloadOperator(task_id="download", **arguments).execute({})
    except Exception as error:  # noqa: BLE001 - told to the test, which judges it
        return {"error": str(error), "type": type(error).__name__}
    return found


def _mount(folder: str, size: str, *, again: bool = False) -> None:
    """Let ``folder`` be a small disk, for this process alone.

    :raises OSError: where a process may not do that.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_user, remount, private = 0x20000, 0x10000000, 0x20, 0x44000
    done = True
    if not again:
        done = libc.unshare(new_mounts | (0 if os.geteuid() == 0 else new_user)) == 0
        done = done and libc.mount(b"none", b"/", None, private, None) == 0
    if not done or libc.mount(b"tmpfs", folder.encode(), b"tmpfs", remount if again else 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
