"""The limit: the same polls by plain aiohttp, one session and one loop, without Airflow.

``python -m benchmarks.bare SPEC.json``: each job is a task that sleeps, gets and parses.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import harness


async def job(session: aiohttp.ClientSession, url: str, interval: float, headers: dict[str, str]) -> None:
    """Poll for ever."""
    await asyncio.sleep(random.random() * interval)
    while True:
        async with session.get(url, headers=headers) as response:
            response.raise_for_status()
            await response.json()
        await asyncio.sleep(interval)


async def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Run ``spec["jobs"]`` jobs; return the same figures as the trigger runner's."""
    lag_file = Path(spec["lag_file"])
    stats = harness.Stats(spec["server"])
    meter = asyncio.create_task(harness.LagMeter(lag_file).run())
    empty = harness.usage(os.getpid())
    started = time.monotonic()
    async with aiohttp.ClientSession() as session:
        await asyncio.to_thread(stats.take, reset=True)
        jobs = [
            asyncio.create_task(
                job(session, f"{spec['server']}/vidu-native/video/generations/{n}", spec["interval"], spec["headers"])
            )
            for n in range(spec["jobs"])
        ]
        await asyncio.sleep(spec["ramp"])
        ramp_stats = await asyncio.to_thread(stats.take, reset=True)
        before, steady = harness.usage(os.getpid()), time.monotonic()
        await asyncio.sleep(spec["window"])
        after, seen = harness.usage(os.getpid()), await asyncio.to_thread(stats.take)
        end = time.monotonic()
        for task in [meter, *jobs]:
            task.cancel()
        ended = await asyncio.gather(*jobs, return_exceptions=True)
    return {
        "jobs": spec["jobs"],
        "empty": asdict(empty),
        "window": after.since(before),
        "memory": {"rss": after.rss, "uss": after.uss},
        "memory_per_job": {
            "rss": (after.rss - empty.rss) / spec["jobs"],
            "uss": (after.uss - empty.uss) / spec["jobs"],
        },
        "ramp": ramp_stats,
        "steady": seen,
        "server_share": (seen["cpu"] - ramp_stats["cpu"]) / (seen["now"] - ramp_stats["now"]),
        "running": spec["jobs"],
        "failed": sum(not isinstance(how, asyncio.CancelledError) for how in ended),
        "lag_ramp": harness.lags(lag_file, started, steady),
        "lag": harness.lags(lag_file, steady, end),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text("utf-8"))))), flush=True)
