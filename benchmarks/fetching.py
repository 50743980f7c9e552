"""One download by one contestant, in a process of its own: ``python -m benchmarks.fetching SPEC``.

``SPEC`` is a JSON file: ``contestant``, ``url``, ``destination``, ``warm_url`` and ``warm_destination``. The warm-up, a
small file by the same way, loads every library; then the clock starts. Prints seconds, CPU seconds, and resident
memory before and at its highest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

OURS: Final = "ViduDownloadOperator"
CURL: Final = "curl"
REQUESTS: Final = "requests with SHA-256"
CURL_FSYNC: Final = "curl, then fsync"
REQUESTS_FSYNC: Final = "requests with SHA-256, then fsync"
HTTP_TO_S3: Final = "HttpToS3Operator"
CHUNK: Final = 128 * 1024


def ours(url: str, destination: str) -> str | None:
    """Download as a task does; return the digest."""
    from airflow_provider_vidu.operators import ViduDownloadOperator

    operator = ViduDownloadOperator(task_id="download", video_url=url, destination=destination)
    done: dict[str, Any] = operator.execute({})
    return str(done["sha256"])


def curl(url: str, destination: str) -> None:
    """Download with the program; its few milliseconds of start count."""
    subprocess.run(["curl", "--silent", "--show-error", "--fail", "--output", destination, url], check=True)


def curl_fsync(url: str, destination: str) -> None:
    """Download with the program, with the bytes on the disk at the end."""
    curl(url, destination)
    _bring_to_disk(destination)


def requests_sha256(url: str, destination: str) -> str:
    """Download as tutorials show it, hashing on the way."""
    import requests

    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=30) as answer, Path(destination).open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def requests_sha256_fsync(url: str, destination: str) -> str:
    """Download with requests, with the bytes on the disk at the end."""
    found = requests_sha256(url, destination)
    _bring_to_disk(destination)
    return found


def http_to_s3(url: str, destination: str) -> None:
    """Transfer with Airflow's own operator (no digest)."""
    from airflow.providers.amazon.aws.transfers.http_to_s3 import HttpToS3Operator

    bucket, _, key = destination.removeprefix("s3://").partition("/")
    HttpToS3Operator(
        task_id="transfer", endpoint=urlsplit(url).path, s3_bucket=bucket, s3_key=key, replace=True
    ).execute({})


CONTESTANTS: Final[dict[str, Callable[[str, str], str | None]]] = {
    OURS: ours,
    CURL: curl,
    CURL_FSYNC: curl_fsync,
    REQUESTS: requests_sha256,
    REQUESTS_FSYNC: requests_sha256_fsync,
    HTTP_TO_S3: http_to_s3,
}


def _bring_to_disk(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _resident(field: str) -> int:
    """Return ``VmRSS`` (now) or ``VmHWM`` (the most since the last reset) in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def main(path: Path) -> None:
    """Run once and print what it took."""
    spec = json.loads(path.read_text("utf-8"))
    logging.disable(logging.INFO)
    run = CONTESTANTS[spec["contestant"]]
    with contextlib.redirect_stdout(sys.stderr):
        bare = _resident("VmRSS")
        run(spec["warm_url"], spec["warm_destination"])
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
        before, cpu, began = _resident("VmRSS"), _cpu(), time.perf_counter()
        digest = run(spec["url"], spec["destination"])
        seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": _cpu() - cpu,
                "rss_bare": bare,
                "rss_before": before,
                "rss_most": _resident("VmHWM"),
                "sha256": digest,
            }
        )
    )


def _cpu() -> float:
    """Return the CPU seconds of this process, its threads and its ended children."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
