"""A trigger that looks around in the runner process and fires what it saw."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psutil
from airflow.triggers.base import BaseTrigger, TriggerEvent

#: What must be gone when nobody waits any more.
OURS = (
    "ViduGenerationTrigger",
    "Watch",
    "AsyncClient",
    "Connector",
    "_Protocol",
    "Exchange",
    "Generation",
)


class ProbeTrigger(BaseTrigger):
    """Measure the process that runs the triggers.

    :param label: comes back in the event.
    :param trace: what is measured later is compared with this: begin to trace allocations, after everything else.
    """

    def __init__(self, *, label: str, trace: bool = False) -> None:
        super().__init__()
        self.label = label
        self.trace = trace

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        return "tests.soak.probe.ProbeTrigger", {"label": self.label, "trace": self.trace}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measure once."""
        if self.trace:
            await asyncio.gather(*map(asyncio.wrap_future, _fill_pools()))
        yield TriggerEvent({"label": self.label, **measure()})
        if self.trace:
            gc.collect()
            tracemalloc.start()


def _fill_pools() -> Iterator[Future[int]]:
    """Let each pool start all of its threads: otherwise, a busy machine decides how many it has."""
    # isinstance() would wake the lazy proxies of Airflow.
    pools = [thing for thing in gc.get_objects() if type(thing) is ThreadPoolExecutor]
    for pool in pools:
        meeting = threading.Barrier(pool._max_workers)
        yield from (pool.submit(meeting.wait, 60) for _ in range(pool._max_workers))


def measure() -> dict[str, Any]:
    """Return the figures of this process and of the event loop that asks."""
    return {**measure_process(), "tasks": len(asyncio.all_tasks()) - 1}  # without the one that asks


def measure_process() -> dict[str, Any]:
    """Return the figures of this process, rubbish collected first."""
    gc.collect()
    gc.collect()  # what finalisers of the first round let go
    process = psutil.Process()
    names = Counter(type(thing).__name__ for thing in gc.get_objects())
    return {
        "pid": os.getpid(),
        "fds": process.num_fds(),
        "sockets": len(process.net_connections(kind="inet")),
        "threads": threading.active_count(),
        "rss": process.memory_info().rss,
        "traced": tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0,
        "objects": {name: names[name] for name in OURS if names[name]},
    }
