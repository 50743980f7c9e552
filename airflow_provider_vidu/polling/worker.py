"""Waiting in a process that holds a worker: it sleeps between polls. A trigger has a loop of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow_provider_vidu.defaults import checked_count, checked_seconds
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.polling.watch import Done, Failed, PollPolicy, Watch


def watched(
    poll: Callable[[], Generation],
    log: Any,
    *,
    generation_id: str,
    conn_id: str,
    timeout: float | None,
    poll_interval: timedelta | float | None,
    max_failures: int,
    on_change: Callable[[Generation], None] | None = None,
    end_reported: bool = False,
    known: bool = False,
) -> Generation:
    """Poll a generation until it has succeeded, and return it.

    :param poll: returns the generation as it is now.
    :param log: gets a line whenever something has changed.
    :param generation_id: the id at Vidu; errors name it, and the connection ``conn_id``.
    :param timeout: seconds to wait at most; None waits without end.
    :param poll_interval: seconds (or timedelta) between polls; None for the adaptive schedule.
    :param max_failures: failed polls in a row that are tolerated.
    :param on_change: called with the generation for each line in the log.
    :param end_reported: see :class:`Watch`, and so ``known``.
    :raises ViduConfigError: when an argument is wrong.
    :raises ViduError: what the wait ended with.
    """
    interval = None if poll_interval is None else checked_seconds("poll_interval", poll_interval)
    policy = PollPolicy.for_worker(interval, checked_count("max_failures", max_failures))
    since = time.time()
    deadline = None if timeout is None else since + timeout
    watch = Watch(
        policy,
        generation_id=generation_id,
        since=since,
        deadline=deadline,
        conn_id=conn_id,
        end_reported=end_reported,
        known=known,
    )
    while True:
        seen: Generation | None = None
        try:
            seen = poll()
        except ViduError as error:
            result = watch.missed(error, time.time())
        else:
            result = watch.saw(seen, time.time())
        if result.note:
            log.info("Generation %s: %s", generation_id, result.note)
            if on_change and seen:
                on_change(seen)
        if isinstance(result, Failed):
            raise result.error
        if isinstance(result, Done):
            return result.generation
        time.sleep(result.delay)
