"""Downloads beside curl, requests and Airflow's own operator: throughput, and memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks import harness
from benchmarks.fetching import CURL, CURL_FSYNC, HTTP_TO_S3, OURS, REQUESTS, REQUESTS_FSYNC
from benchmarks.harness import MIB, Bar, at_least, at_most, median, table

TITLE: Final = "Downloads"
SIZE: Final = 512 * MIB
S3_SIZE: Final = 256 * MIB
MEMORY_SIZES: Final = (10 * MIB, 512 * MIB, 5 * 1024 * MIB)
ROUNDS: Final = 5
MEMORY_ONLY: Final = "memory"
DISK: Final = "disk"
BUCKET: Final = "bench"
MEMORY_BAR_MIB: Final = 32.0
#: What moto holds of an object of one byte while it puts its parts together, with some room for the rest.
MOTO_SHARE: Final = 5.5


def measure(quick: bool) -> dict[str, Any]:
    """Fetch by turns, each time in a fresh process; then look at the memory of ours for small and large files."""
    rounds, size, s3_size = (2, 64 * MIB, 32 * MIB) if quick else (ROUNDS, SIZE, S3_SIZE)
    sizes = MEMORY_SIZES[:2] if quick else MEMORY_SIZES
    local = (OURS, CURL, CURL_FSYNC, REQUESTS, REQUESTS_FSYNC)
    with _bench() as bench:
        speed = {
            MEMORY_ONLY: bench.rounds((OURS, CURL, REQUESTS), size, rounds, bench.memory_folder),
            DISK: bench.rounds(local, size, max(2, rounds - 2), bench.disk_folder),
            "s3": bench.rounds((OURS, HTTP_TO_S3), s3_size, max(2, rounds - 2), None),
        }
        memory = {"local": {}, "s3": {}}
        for wanted in sizes:
            memory["local"][wanted] = bench.fetch(OURS, wanted, bench.disk_folder)
            fits = bench.fits_moto(wanted)
            memory["s3"][fits] = bench.fetch(OURS, fits, None)
        peers = {
            REQUESTS: bench.fetch(REQUESTS, size, bench.disk_folder),
            HTTP_TO_S3: bench.fetch(HTTP_TO_S3, size, None),
        }
    return {
        "size": size,
        "s3_size": s3_size,
        "speed": speed,
        "memory": memory,
        "peers_memory": peers,
        "file_systems": bench.file_systems,
        "curl": bench.curl,
        "versions": harness.versions(
            "apache-airflow", "airflow-provider-vidu", "requests", "apache-airflow-providers-amazon", "s3fs", "moto"
        ),
    }


class _Bench:
    """The servers, the folders, and a run of one contestant."""

    def __init__(self, work: Path, memory_folder: Path, server: Any, moto: Any) -> None:
        self.disk_folder = work
        self.memory_folder = memory_folder
        self.file_systems = {MEMORY_ONLY: _file_system(memory_folder), DISK: _file_system(work)}
        self.curl = _curl_version()
        self._url = f"http://{harness.LOCALHOST}:{server['port']}"
        self._log = harness.RESULTS / "downloads" / "fetching.log"
        endpoint = f"http://{harness.LOCALHOST}:{moto['port']}"
        aws = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        self._environment = {
            "AIRFLOW_HOME": str(harness.RESULTS / "downloads" / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_VIDU_DEFAULT": json.dumps(
                {"conn_type": "vidu", "host": self._url, "password": "bench-key"}  # its own host may be private
            ),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps({"conn_type": "http", "host": self._url}),
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
                {"conn_type": "aws", "login": "testing", "password": "testing", "extra": aws}
            ),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def rounds(self, names: tuple[str, ...], size: int, rounds: int, folder: Path | None) -> dict[str, Any]:
        """Let the contestants fetch by turns; return the medians of each."""
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(rounds):
            # Who follows whom changes, so that nobody always meets the same left-overs.
            for name in (*names[number % len(names) :], *names[: number % len(names)]):
                runs[name].append(self.fetch(name, size, folder))
        return {
            name: {
                "mib_per_second": size / MIB / median(run["seconds"] for run in found),
                "fastest": size / MIB / min(run["seconds"] for run in found),
                "cpu_per_gib": 1024 * MIB / size * median(run["cpu"] for run in found),
                "rounds": len(found),
            }
            for name, found in runs.items()
        }

    def fetch(self, name: str, size: int, folder: Path | None) -> dict[str, Any]:
        """Let one contestant fetch one file; into the bucket where ``folder`` is None."""
        place = f"s3://{BUCKET}" if folder is None else str(folder)
        spec = {
            "contestant": name,
            "url": f"{self._url}/{size}/clip.mp4",
            "destination": f"{place}/clip.mp4",
            "warm_url": f"{self._url}/{MIB}/warm.mp4",
            "warm_destination": f"{place}/warm.mp4",
        }
        path = self.disk_folder / "spec.json"
        path.write_text(json.dumps(spec), "utf-8")
        try:
            found: dict[str, Any] = harness.run_child(
                ["benchmarks.fetching", str(path)], environment=self._environment, log=self._log
            )
        finally:
            if folder is not None:
                (folder / "clip.mp4").unlink(missing_ok=True)
        print(f"  {name}, {size // MIB} MiB to {place}: {found['seconds']:.2f} s", flush=True)
        return found

    def fits_moto(self, size: int) -> int:
        """Return ``size``, or where this machine cannot hold it in moto's server, the power of two that it can."""
        room = psutil.virtual_memory().available
        while size * MOTO_SHARE > room:
            size = 1 << ((size - 1).bit_length() - 1)
        return size


@contextmanager
def _bench() -> Iterator[_Bench]:
    """Start the servers; leave nothing behind."""
    logs = harness.RESULTS / "downloads"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=logs)))
        shared = Path("/dev/shm")
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else logs)))
        moto_temporary = {"TMPDIR": str(work)}
        server = stack.enter_context(harness.serving(["benchmarks.file_server", str(work)], log=logs / "server.log"))
        moto = stack.enter_context(
            harness.serving(["benchmarks.s3_server", BUCKET], environment=moto_temporary, log=logs / "moto.log")
        )
        yield _Bench(work, memory, server[1], moto[1])


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on."""
    found = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(found, key=lambda part: len(part.mountpoint)).fstype if found else "unknown"


def _curl_version() -> str:
    if shutil.which("curl") is None:
        raise RuntimeError("The comparison needs the program curl.")
    return " ".join(
        subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[:2]
    )


# -- reading ----------------------------------------------------------------------------------------


def _times(speed: dict[str, Any], peer: str) -> float | None:
    ours, theirs = speed.get(OURS), speed.get(peer)
    return ours["mib_per_second"] / theirs["mib_per_second"] if ours and theirs else None


def _growth(run: dict[str, Any]) -> float:
    return max(run["rss_most"] - run["rss_before"], 0) / MIB


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 5 asks of downloads."""
    memory, disk, s3 = (result["speed"][name] for name in (MEMORY_ONLY, DISK, "s3"))
    grown = {kind: {int(size): _growth(run) for size, run in runs.items()} for kind, runs in result["memory"].items()}
    found = [
        at_least("at least 0.8 × curl (no disk involved)", _times(memory, CURL), 0.8, "{:.2f} ×"),
        at_least("at least 0.8 × curl (to disk, both with fsync)", _times(disk, CURL_FSYNC), 0.8, "{:.2f} ×"),
        at_least("at least 1.0 × requests with SHA-256 (no disk involved)", _times(memory, REQUESTS), 1.0, "{:.2f} ×"),
        at_least("at least 1.0 × requests with SHA-256 (to disk, both with fsync)", _times(disk, REQUESTS_FSYNC), 1.0,
                 "{:.2f} ×"),
        Bar("to S3, beside HttpToS3Operator (no bar)", f"{_times(s3, HTTP_TO_S3) or 0:.2f} ×", None),
    ]  # fmt: skip
    for kind, runs in grown.items():
        most = max(runs)
        text = f"memory at most {MEMORY_BAR_MIB:.0f} MiB above the start up to {_size(most)} ({kind})"
        found.append(at_most(text, max(runs.values()), MEMORY_BAR_MIB, "{:.1f} MiB"))
    return found


def _size(size: int) -> str:
    return f"{size / 1024 / MIB:g} GiB" if size >= 1024 * MIB else f"{size / MIB:g} MiB"


_METHOD: Final = """\
**Method.** A server in a process of its own (`benchmarks/file_server.py`) sends bytes from the page cache with
`sendfile`, over plain HTTP on loopback: the hardest case for a client, because nothing else takes time. Each fetch runs
in a fresh process that has fetched 1 MiB before, so that libraries are loaded; contestants take turns, and throughput
is size over the median time. `ViduDownloadOperator` is its `execute()`: SHA-256, content check, `fsync` of file and
folder, rename. `{curl}` is the program as `curl -o` starts it, without a digest; `requests` reads `iter_content` of
128 KiB into a file and into SHA-256. Neither flushes its bytes to the disk. So on a disk there are two figures for
each: as users run it, and with an `fsync` afterwards, which is the same work as ours. *Without a disk* is a `{memory}`
file system, where `fsync` costs nothing; the disk is `{disk}`. S3 is moto's server in a process of its own, on the
same cores, and both contestants spend most of their time waiting for it; `HttpToS3Operator` computes no digest.

Memory is the highest resident size of the worker process during the fetch (the kernel's `VmHWM`, reset before) less
its resident size before it, with all libraries loaded."""


def section(result: dict[str, Any]) -> str:
    """Return the tables and the method."""
    systems = result["file_systems"]
    parts = [_METHOD.format(curl=result["curl"], memory=systems[MEMORY_ONLY], disk=systems[DISK])]
    titles = {
        MEMORY_ONLY: f"{_size(result['size'])}, without a disk ({systems[MEMORY_ONLY]})",
        DISK: f"{_size(result['size'])}, to a disk ({systems[DISK]})",
        "s3": f"{_size(result['s3_size'])}, to S3 (moto)",
    }
    head = ("Contestant", "MiB/s, median", "ours / theirs", "fastest", "CPU-s per GiB", "rounds")
    for kind, title in titles.items():
        speed = result["speed"][kind]
        rows = [
            (
                name,
                f"{run['mib_per_second']:.0f}",
                harness.ratio(speed[OURS]["mib_per_second"], run["mib_per_second"]),
                f"{run['fastest']:.0f}",
                f"{run['cpu_per_gib']:.2f}",
                run["rounds"],
            )
            for name, run in speed.items()
        ]
        parts += [f"### {title}", table(head, rows)]
    rows = [
        (f"{OURS}, {kind}", _size(int(size)), f"{run['rss_before'] / MIB:.0f}", f"{_growth(run):.1f}")
        for kind, runs in result["memory"].items()
        for size, run in runs.items()
    ]
    rows += [
        (name, _size(result["size"]), f"{run['rss_before'] / MIB:.0f}", f"{_growth(run):.1f}")
        for name, run in result["peers_memory"].items()
    ]
    parts += ["### Memory", table(("Contestant", "file", "MiB before", "MiB above that, at most"), rows)]
    if short := _too_small(result):
        parts.append(short)
    return "\n\n".join(parts)


def _too_small(result: dict[str, Any]) -> str:
    most = max(map(int, result["memory"]["s3"]))
    if most >= max(map(int, result["memory"]["local"])):
        return ""
    return (
        f"To S3 the largest file was {_size(most)}: moto's server assembles an object in memory, about "
        f"{MOTO_SHARE} bytes for each of its bytes, and this machine had no more memory."
    )
