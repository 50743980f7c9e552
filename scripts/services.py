"""PostgreSQL and Redis for tests: private, on loopback, without durability or traces after their end.

Installed programs are used. If there are none, ``python scripts/services.py`` downloads them on Debian and Ubuntu with
``apt-get download`` and unpacks them below ``build/services``, without installing them and without root. ::

    with Postgres(folder) as database, Redis(folder) as broker:
        print(database.url, broker.url)
"""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from processes import LOCALHOST, Component, Guard, Startable, free_port, tail, wait_for

ROOT: Final = Path(__file__).resolve().parent.parent
UNPACKED: Final = ROOT / "build" / "services" / "root"
#: Folders of server programs, which may not be on the PATH.
POSTGRES_FOLDERS: Final = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin")
REDIS_FOLDERS: Final = ("usr/bin", "usr/sbin", "usr/local/bin", "opt/homebrew/bin")
PACKAGES: Final = {"postgres": "postgresql", "redis-server": "redis-server"}
START_SECONDS: Final = 60


class ServiceError(RuntimeError):
    """A service is missing or does not start; the message says what to do."""


@dataclass(frozen=True)
class Program:
    """A server program and its additional environment."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def beside(self, name: str) -> str:
        """Return the path of another program of the same package."""
        return str(self.path.parent / name)

    def runs(self, account: Mapping[str, Any] | None = None) -> bool:
        """Whether it can be started (by the user of ``account``)."""
        with suppress(OSError):
            command = [str(self.path), "--version"]
            env = {**os.environ, **self.environment}
            done = subprocess.run(command, env=env, capture_output=True, check=False, cwd="/", **(account or {}))
            return done.returncode == 0
        return False


def find(name: str, account: Mapping[str, Any] | None = None) -> Program | None:
    """Return the program ``postgres`` or ``redis-server`` that runs here, or None.

    :param account: the user who must be able to start it, as arguments for :mod:`subprocess`.
    """
    return next((program for program in _candidates(name) if program.runs(account)), None)


def _candidates(name: str) -> Iterable[Program]:
    if on_path := shutil.which(name):
        yield Program(Path(on_path).resolve() if name == "postgres" else Path(on_path))
    folders = POSTGRES_FOLDERS if name == "postgres" else REDIS_FOLDERS
    libraries = [str(path) for pattern in ("usr/lib/*-linux-*", "lib/*-linux-*") for path in UNPACKED.glob(pattern)]
    for top, environment in ((Path("/"), {}), (UNPACKED, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})):
        for pattern in folders:
            for folder in sorted(top.glob(pattern), reverse=True):
                if (folder / name).exists():
                    yield Program(folder / name, environment)


# -- getting them ---------------------------------------------------------------------------------


def provide() -> list[str]:
    """Download missing programs; return a line about each program.

    :raises ServiceError: if that fails.
    """
    missing = [name for name in PACKAGES if find(name) is None]
    if missing:
        _fetch([PACKAGES[name] for name in missing])
    lines = []
    for name, package in PACKAGES.items():
        program = find(name)
        if program is None:
            raise ServiceError(_unavailable(name, package, "the downloaded program does not run here"))
        lines.append(f"{name}: {program.path}")
    return lines


def _fetch(packages: Sequence[str]) -> None:
    tools = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if tools:
        raise ServiceError(_unavailable("/".join(packages), " ".join(packages), f"there is no {tools[0]}"))
    # A simulated installation lists all packages, including libraries, without root.
    plan = _run("apt-get", "--simulate", "--no-install-recommends", "install", *packages)
    wanted = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    archives = UNPACKED.parent / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    _run("apt-get", "download", "-qq", *wanted, cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        _run("dpkg", "--extract", str(archive), str(UNPACKED))
    shutil.rmtree(archives)


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["(no message)"]
        raise ServiceError(
            f"{' '.join(command[:2])} failed: {lines[-1]}\nUpdate the package lists (apt-get update), or install "
            "PostgreSQL and Redis so that `postgres` and `redis-server` are found, then repeat."
        ) from None
    return done.stdout


def _unavailable(name: str, package: str, reason: str) -> str:
    return (
        f"{name} was not found on this system and could not be downloaded: {reason}. Install it with the package "
        f"manager (Debian, Ubuntu: {package}; Fedora: postgresql-server, redis; macOS: postgresql, redis), then repeat."
    )


# -- running them ---------------------------------------------------------------------------------


class Service(Startable):
    """A server in its own folder; a context manager.

    :param folder: for its log, and for its data if the server's user has access.
    """

    name: ClassVar[str]
    #: Ends it immediately and cleanly.
    stop_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.port = 0
        self.password = secrets.token_urlsafe(18)
        self._component: Component | None = None
        self._guard: Guard | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._guard = Guard()
        self.port = free_port()
        self._launch()
        if not wait_for(lambda: self._ended() or self._answers(), START_SECONDS) or self._ended():
            raise ServiceError(f"{self.name} did not start.\n{tail(self._log)}")

    def stop(self) -> None:
        """Stop the server and remove its data outside the folder."""
        if self._component is not None:
            with suppress(ProcessLookupError):
                self._component.process.send_signal(self.stop_signal)
            wait_for(self._ended, 10)
            self._component.kill()
            self._component = None
        self._tidy()
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def _launch(self) -> None:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _tidy(self) -> None:
        """Remove data outside the folder."""

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def _ended(self) -> bool:
        return self._component is None or self._component.process.poll() is not None

    def _spawn(
        self, command: Sequence[str], environment: Mapping[str, str], *, cwd: Path, stdin: str = "", **account: Any
    ) -> None:
        env = {**os.environ, **environment}
        self._component = Component.started(
            self.name, command, self._log, env=env, cwd=cwd, stdin=subprocess.PIPE, **account
        )
        process = self._component.process
        assert self._guard is not None
        self._guard.watch(process, self.stop_signal)
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(stdin.encode())


class Postgres(Service):
    """A PostgreSQL with all data in its folder.

    It cannot run as root: then it runs as ``postgres`` or ``nobody``, in a temporary folder if that user has no access
    to the given one.
    """

    name = "postgres"
    stop_signal = signal.SIGQUIT  # immediate shutdown, which releases shared memory
    user: ClassVar[str] = "airflow"
    settings: ClassVar[Mapping[str, str]] = {
        "listen_addresses": LOCALHOST,
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "jit": "off",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._account = _unprivileged()
        self._temporary: Path | None = None

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy."""
        return f"postgresql+psycopg2://{self.user}:{self.password}@{LOCALHOST}:{self.port}/postgres"

    @property
    def dsn(self) -> str:
        """The connection string for psycopg2."""
        return f"host={LOCALHOST} port={self.port} user={self.user} password={self.password} dbname=postgres"

    def _launch(self) -> None:
        program = find(self.name, self._account)
        if program is None:
            raise ServiceError(
                _unavailable(self.name, PACKAGES[self.name], f"`make setup-faults` does it{_as(self._account)}")
            )
        home = self._home()
        self._initialise(program, home)
        options = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(program.path), "-D", str(home / "data"), "-p", str(self.port), *options]
        self._spawn(command, program.environment, cwd=home, **self._account)

    def _initialise(self, program: Program, home: Path) -> None:
        secret = home / "password"
        secret.write_text(self.password)
        if self._account:
            shutil.chown(secret, self._account["user"], self._account["group"])
        secret.chmod(0o600)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(
            [program.beside("initdb"), "-D", str(home / "data"), "-U", self.user, f"--pwfile={secret}", *options],
            env={**os.environ, **program.environment},
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            **self._account,
        )
        secret.unlink()
        if done.returncode:
            raise ServiceError(f"initdb failed: {(done.stderr or done.stdout).strip()}")

    def _home(self) -> Path:
        """Return a folder that the server's user has access to."""
        home = self.folder / self.name
        home.mkdir()
        if self._account:
            shutil.chown(home, self._account["user"], self._account["group"])
            access = subprocess.run(
                ["/bin/sh", "-c", 'cd "$0"', str(home)],
                check=False,
                stderr=subprocess.DEVNULL,
                cwd="/",
                **self._account,
            )
            if access.returncode:
                # Not TMPDIR, which make sets to a folder of the repository.
                home = self._temporary = Path(tempfile.mkdtemp(prefix="vidu-postgres-", dir="/tmp"))
                assert self._guard is not None
                self._guard.keep_tidy(home)
                shutil.chown(home, self._account["user"], self._account["group"])
        return home

    def _answers(self) -> bool:
        program = find(self.name, self._account)
        assert program is not None
        command = [program.beside("pg_isready"), "-h", LOCALHOST, "-p", str(self.port), "-q"]
        return subprocess.run(command, env={**os.environ, **program.environment}, check=False).returncode == 0

    def _tidy(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


class Redis(Service):
    """A Redis without persistence."""

    name = "redis-server"

    @property
    def url(self) -> str:
        """The URL for Celery."""
        return f"redis://:{self.password}@{LOCALHOST}:{self.port}/0"

    def _launch(self) -> None:
        program = find(self.name)
        if program is None:
            raise ServiceError(_unavailable(self.name, PACKAGES[self.name], "`make setup-faults` does it"))
        lines = [f"bind {LOCALHOST}", f"port {self.port}", f"requirepass {self.password}", 'save ""', "appendonly no"]
        # Settings on standard input keep the password off the command line.
        self._spawn([str(program.path), "-"], program.environment, cwd=self.folder, stdin="\n".join(lines) + "\n")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((LOCALHOST, self.port), timeout=2) as connection:
            connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            answer = b""
            while received := connection.recv(1000):
                answer += received
                if b"+PONG" in answer:
                    return True
        return False


def _unprivileged() -> dict[str, Any]:
    """Return the server's user if this process is root, as arguments for :mod:`subprocess`."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise ServiceError("PostgreSQL cannot run as root, and neither the user postgres nor nobody exists.")


def _as(account: Mapping[str, Any]) -> str:
    return f", but not for user {pwd.getpwuid(account['user']).pw_name}" if account else f" for {getpass.getuser()}"


def main() -> int:
    """Download missing programs and print the path of each."""
    try:
        print("\n".join(provide()))
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
