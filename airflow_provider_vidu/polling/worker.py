"""Waits in a worker process, sleeping between polls. Triggers have their own loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

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
    poll_interval: float | None,
    max_failures: int,
    on_change: Callable[[Generation], None] | None = None,
    end_reported: bool = False,
    known: bool = False,
) -> Generation:
    """Poll a generation until it has succeeded, and return it; the arguments are those of :meth:`.ViduHook.wait`.

    :param log: gets a line for each state and each quarter of the progress.
    :param generation_id: the id at Vidu; errors name it and the connection ``conn_id``.
    :param timeout: seconds to wait at most; None for no limit.
    :param end_reported: see :class:`Watch`, as for ``known``.
    :raises ViduError: the error that ended the wait.
    """
    policy = PollPolicy.for_worker(poll_interval, max_failures)
    since = time.time()
    watch = Watch(
        policy,
        generation_id=generation_id,
        since=since,
        deadline=None if timeout is None else since + timeout,
        conn_id=conn_id,
        end_reported=end_reported,
        known=known,
    )
    while True:
        generation, before = None, watch.last
        try:
            generation = poll()
        except ViduError as error:
            result = watch.missed(error, time.time())
        else:
            result = watch.saw(generation, time.time())
        if result.note:
            log.info("Generation %s: %s", generation_id, result.note)
        if on_change and generation and watch.last != before:
            on_change(generation)
        if isinstance(result, Failed):
            raise result.error
        if isinstance(result, Done):
            return result.generation
        time.sleep(result.delay)
