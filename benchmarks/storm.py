"""A storm of errors: how many requests a waiting trigger sends at a service that is in trouble."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.polling.watch import PollPolicy, Wait, Watch
from airflow_provider_vidu.sandbox import Sandbox
from benchmarks import harness
from benchmarks.harness import Bar, table

TITLE: Final = "A storm of errors"
SECONDS: Final = 60.0
PEER_SECONDS: Final = 10.0
INTERVAL: Final = 5.0
TIMEOUT: Final = 2.0
KEY: Final = "bench-storm-0123456789"

STORMS: Final[dict[str, dict[str, Any]]] = {
    "401": {"status": 401, "body": {"error": {"message": "bad key", "code": "invalid_key"}}},
    "403": {"status": 403, "body": {"error": {"message": "no permission", "code": "forbidden"}}},
    "429": {"status": 429, "body": ""},
    "500": {"status": 500, "body": {"error": {"message": "oops", "code": "internal"}}},
    "garbage": {"garbage": "html"},
    "hangs": {"delay": 600},
}
ERRORS: Final[dict[str, type[ViduError]]] = {
    "401": exceptions.ViduAuthError,
    "403": exceptions.ViduAuthError,
    "429": exceptions.ViduRateLimitError,
    "500": exceptions.ViduServerError,
    "garbage": exceptions.ViduResponseError,
    "hangs": exceptions.ViduTransportError,
}


def documented(storm: str, jitter: float, seconds: float = SECONDS) -> int:
    """Return the requests that the schedule allows in a storm, with every random number at ``jitter``."""
    policy = PollPolicy.for_trigger(INTERVAL)
    watch = Watch(policy, generation_id="1", since=0.0, rng=lambda: jitter)
    now, count = policy.first_delay(None, lambda: jitter), 0
    while now < seconds:
        count += 1
        now += TIMEOUT if storm == "hangs" else 0.0
        step = watch.missed(ERRORS[storm]("storm"), now)
        if not isinstance(step, Wait):
            break
        now += step.delay
    return count


def measure(quick: bool) -> dict[str, Any]:
    """Count the requests of our trigger for a minute of each storm, and of a peer's for ten seconds of each."""
    rows = asyncio.run(_measure())
    return {
        "seconds": SECONDS,
        "peer_seconds": PEER_SECONDS,
        "rows": rows,
        "versions": harness.versions("airflow-provider-vidu", "apache-airflow-providers-http", "aiohttp"),
    }


async def _measure() -> list[dict[str, Any]]:
    # All of ours at once: they do next to nothing. The peer's one after the other: it takes the whole core.
    ours = await asyncio.gather(*(_ours(storm) for storm in STORMS))
    rows = []
    for storm, seen in zip(STORMS, ours, strict=True):
        allowed = sorted(documented(storm, jitter) for jitter in (0.0, 0.999))
        rows.append({"storm": storm, "ours": seen, "least": allowed[0], "most": allowed[1], "peer": await _peer(storm)})
        print("  ", rows[-1], flush=True)
    return rows


async def _ours(storm: str) -> int:
    from airflow_provider_vidu.triggers import ViduGenerationTrigger

    with _stormy(storm) as sandbox:
        name = f"storm_{storm}"
        os.environ[f"AIRFLOW_CONN_{name.upper()}"] = sandbox.connection_json("vidu-native", timeout=TIMEOUT)
        await _run(ViduGenerationTrigger(generation_id="1", vidu_conn_id=name, poll_interval=INTERVAL), SECONDS)
        return len(sandbox.requests("query"))


async def _peer(storm: str) -> int:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    with _stormy(storm) as sandbox:
        os.environ["AIRFLOW_CONN_STORM_PEER"] = json.dumps(
            {"conn_type": "http", "host": sandbox.url, "extra": json.dumps({"Authorization": f"Bearer {KEY}"})}
        )
        endpoint = "vidu-native/video/generations/1"
        trigger = HttpSensorTrigger(http_conn_id="storm_peer", endpoint=endpoint, poke_interval=INTERVAL)
        with _quiet():
            await _run(trigger, PEER_SECONDS)
        return len(sandbox.requests("query"))


@contextmanager
def _stormy(storm: str) -> Iterator[Sandbox]:
    """Run a sandbox in which a generation is processing, and every question about it meets the storm."""
    with Sandbox(keys=[KEY]) as sandbox:
        sandbox.add_generation("1", states=[["processing", 0]])
        sandbox.add_fault({"match": {"kind": "query"}, "times": None, "action": STORMS[storm]})
        yield sandbox


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what is printed: the peer logs each of its requests."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


async def _run(trigger: Any, seconds: float) -> None:
    """Run a trigger until it fires or the time is over."""

    async def first() -> None:
        async for _ in trigger.run():
            return

    with suppress(TimeoutError):
        await asyncio.wait_for(first(), seconds)


def bars(result: dict[str, Any]) -> list[Bar]:
    """Return what issue 5 asks: the documented schedule's requests, and not one more."""
    return [
        Bar(
            f"{row['storm']}: requests in 60 s as documented",
            f"{row['ours']} ({row['least']} to {row['most']} allowed)",
            row["least"] <= row["ours"] <= row["most"],
        )
        for row in result["rows"]
    ]


def section(result: dict[str, Any]) -> str:
    """Return the table and the method."""
    rows = [
        (
            row["storm"],
            row["ours"],
            str(row["least"]) if row["least"] == row["most"] else f"{row['least']} to {row['most']}",
            f"{row['peer']:,}",
        )
        for row in result["rows"]
    ]
    return f"{_METHOD}\n\n{table(_HEAD, rows)}"


_HEAD: Final = ("Storm", "ViduGenerationTrigger, requests in 60 s", "documented", "HttpSensorTrigger, requests in 10 s")
_METHOD: Final = """\
**Method.** The sandbox answers every query with the error, over a real socket, and counts. One trigger with
`poll_interval=5` (and `timeout` 2 s for the hangs) waits for a minute. *Documented* is what `polling/` says: the first
poll after 10 s, then 5, 10, 20, … seconds after each failure, with up to a quarter more, worked out with the smallest
and the largest jitter; a refused key ends the wait at once. Beside it `HttpSensorTrigger` with `poke_interval=5` at
the same service for ten seconds only: it pauses only after a 404, and accepts a page of garbage as the answer."""
