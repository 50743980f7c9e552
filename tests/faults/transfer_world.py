"""Where downloads suffer: a gateway whose files misbehave, a foreign server, and the places that files go to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import trustme

from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from tests.integration.servers import Answer, Server, fixed, ranged, video

KEY = "sk-faults-77e1"
SIGNATURE = "hush"
OLD = b"the old file"
SMALL = 100_000
TELLING = ("nothing proves", "last answer was lost", "Retrying in", "has expired", "exists already", "Fetched")
LARGE = 9_500_000  # two parts of an upload to S3


def connection(server: Server | None = None, **extra: Any) -> str:
    """Return a connection to ``server``, as Airflow reads it from the environment."""
    host = server.url("") if server else "https://vidu.example.com"
    extra = {"max_retries": 1, "timeout": 2, **extra}
    return json.dumps({"conn_type": "vidu", "host": host, "password": KEY, "extra": extra})


class Gateway(Server):
    """A vidu-native gateway with one generation; its files lie on the same server."""

    def __init__(self, *files: Answer, state: str = "completed", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._answer, tls=tls)
        self.files = list(files)
        self.polls = 0
        self._state = state
        self.urls: dict[str, str] = {}

    def _answer(self, request, wire) -> None:
        if "/vidu-native/" not in request.target:
            file = self.files.pop(0) if len(self.files) > 1 else self.files[0]
            file(request, wire)
            return
        self.polls += 1
        generation_id = request.target.rpartition("/")[2]
        answer = {"id": generation_id, "status": self._state}
        if self._state == "completed":
            answer |= {"video_url": self.url(f"/f/video.mp4?sig={SIGNATURE}{self.polls}"), **self.urls}
        fixed(200, json.dumps(answer).encode(), Content_Type="application/json")(request, wire)

    @property
    def fetched(self) -> list[str]:
        """The targets of all requests for files."""
        return [request.target for request in self.requests if "/vidu-native/" not in request.target]


class Home(Protocol):
    """A place that a file goes to, and all that can be seen there."""

    name: str
    size: int
    destination: str

    def put(self, data: bytes | None) -> None:
        """Let the destination hold ``data``, and the place nothing else."""

    def content(self) -> bytes | None:
        """Return what stands under the final name."""

    def left_over(self) -> list[str]:
        """Return everything else that lies there."""


class Folder:
    """A local folder."""

    name = "local"
    size = SMALL

    def __init__(self, path: Path) -> None:
        self.path = path / "clips"
        self.file = self.path / "t.mp4"
        self.destination = str(self.file)

    def put(self, data: bytes | None) -> None:
        """Write the old file."""
        self.path.mkdir(exist_ok=True)
        self.file.unlink(missing_ok=True)
        if data is not None:
            self.file.write_bytes(data)

    def content(self) -> bytes | None:
        """Read it."""
        return self.file.read_bytes() if self.file.exists() else None

    def left_over(self) -> list[str]:
        """List the folder, hidden files too."""
        return sorted(path.name for path in self.path.iterdir() if path != self.file)


@dataclass
class Scene:
    """One download and who takes part in it."""

    home: Home
    gateway: Gateway
    foreign: Server
    capsys: Any
    overwrite: str = "replace"
    by_url: bool = False
    log: str = field(default="", init=False)

    @property
    def body(self) -> bytes:
        """The file at the gateway."""
        return a_video(self.home.size, 1)

    @property
    def other(self) -> bytes:
        """Another file of the very same size."""
        return a_video(self.home.size, 2)

    @property
    def half(self) -> int:
        """The middle of the file."""
        return self.home.size // 2

    def download(self) -> dict[str, Any] | ViduError:
        """Run an operator as a task would; return its record or its error, and keep what it logged."""
        what = (
            {"video_url": self.gateway.url(f"/v/video.mp4?sig={SIGNATURE}")} if self.by_url else {"generation_id": "t"}
        )
        operator = ViduDownloadOperator(
            task_id="download", destination=self.home.destination, overwrite=self.overwrite, **what
        )
        self.capsys.readouterr()
        try:
            return operator.execute({})
        except ViduError as error:
            return error
        finally:
            self.log = self.capsys.readouterr().out

    def seen(self, result: dict[str, Any] | ViduError) -> str:
        """Return what the user reads of it: the error, else the most telling line of the log."""
        if isinstance(result, ViduError):
            return str(result)
        for sign in TELLING:
            if found := re.search(rf"(?:\] |^)([^\]\n]*{sign}.*?)(?: \[airflow\.|$)", self.log, re.MULTILINE):
                return found[1]
        raise AssertionError(f"nothing was told:\n{self.log}")

    def requests(self) -> int:
        """Return how many requests were counted, by whomever."""
        return len(self.gateway.requests) + len(self.foreign.requests)

    def check_secrets(self, result: dict[str, Any] | ViduError) -> None:
        """Check that neither the key nor a signature was shown, and that the key stayed at home."""
        told = f"{self.log}{result}{result!r}"
        assert KEY not in told
        assert SIGNATURE not in told
        assert not [request.line for request in self.foreign.requests if KEY.encode() in request.raw]

    def check_rerun(self, left: list[str] | None = None) -> None:
        """Check that, with the fault gone, the same task ends with the whole file, and nothing but ``left`` else."""
        self.gateway.files = [ranged(self.body)]
        record = self.download()
        assert isinstance(record, dict), record
        self.check_whole(record, self.body, left)

    def check_whole(self, record: dict[str, Any], body: bytes, left: list[str] | None = None) -> None:
        """Check that the destination holds ``body``, the record says so, and nothing but ``left`` is there else."""
        found = self.home.content()
        assert found is not None
        assert hashlib.sha256(found).hexdigest() == hashlib.sha256(body).hexdigest() == record["sha256"]
        assert record["size"] == len(body)
        assert self.home.left_over() == (left or [])


@contextlib.contextmanager
def scene(home: Home, capsys: Any, monkeypatch: Any, *, tls: TLS | None = None, **extra: Any) -> Iterator[Scene]:
    """Open a gateway, a foreign server and the connection ``vidu_default``; look for leaks at the end."""
    settings = {key: extra.pop(key) for key in ("overwrite", "by_url") if key in extra}
    before = open_files()
    with Gateway(tls=tls.context if tls else None) as gateway, Server() as foreign:
        found = Scene(home, gateway, foreign, capsys, **settings)
        foreign.answers = [ranged(found.body)]
        if tls:
            extra["verify"] = tls.bundle
        monkeypatch.setenv(
            "AIRFLOW_CONN_VIDU_DEFAULT", connection(gateway, **{"max_retries": 2, "timeout": 5, **extra})
        )
        yield found
    if isinstance(home, Folder):  # stores keep their connections for later
        assert open_files() <= before


def open_files() -> int:
    """Return how many file descriptors are open in this process."""
    return len(list(Path("/dev/fd").iterdir()))


@lru_cache(maxsize=4)
def a_video(size: int, seed: int) -> bytes:
    """Return a file of the size; another seed gives other content."""
    return video(size, seed=seed)


class TLS:
    """A certificate for 127.0.0.1 from an authority that only ``bundle`` names."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.bundle = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(self.bundle)
