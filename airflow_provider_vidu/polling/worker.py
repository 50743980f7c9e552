"""Waiting in a process that holds a worker: it sleeps between polls. A trigger has a loop of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow_provider_vidu.defaults import checked_count, checked_seconds, is_adaptive
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.polling.policy import PollPolicy, Watch


def watched(
    poll: Callable[[], Generation],
    log: Any,
    *,
    generation_id: str,
    conn_id: str,
    timeout: float | None,
    poll_interval: timedelta | float,
    max_failures: int,
    on_change: Callable[[Generation], None] | None = None,
    told: bool = False,
    known: bool = False,
) -> Generation:
    """Poll a generation until it has succeeded, and return it.

    :param poll: returns the generation as it is now.
    :param log: gets a line whenever something has changed.
    :param generation_id: the id at Vidu; errors name it, and the connection ``conn_id``.
    :param timeout: seconds to wait at most; None waits without end.
    :param poll_interval: seconds (or timedelta) between polls.
    :param max_failures: failed polls in a row that are tolerated.
    :param on_change: called with the generation for each line in the log.
    :param told: see :class:`Watch`, and so ``known``.
    :raises ViduConfigError: when an argument is wrong.
    :raises ViduError: what the wait ended with.
    """
    interval = poll_interval if is_adaptive(poll_interval) else checked_seconds("poll_interval", poll_interval)
    policy = PollPolicy.for_worker(interval, checked_count("max_failures", max_failures))
    since = time.time()
    deadline = None if timeout is None else since + timeout
    watch = Watch(
        policy, generation_id=generation_id, since=since, deadline=deadline, conn_id=conn_id, told=told, known=known
    )
    while True:
        seen: Generation | None = None
        try:
            seen = poll()
        except ViduError as error:
            step = watch.missed(error, time.time())
        else:
            step = watch.saw(seen, time.time())
        if step.note:
            log.info("Generation %s: %s", generation_id, step.note)
            if on_change and seen:
                on_change(seen)
        if step.error is not None:
            raise step.error
        if step.delay is None and step.generation is not None:
            return step.generation
        time.sleep(step.delay or 0.0)
