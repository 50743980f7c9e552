"""Callbacks of orders that no task waits for: they nudge event triggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from airflow_provider_vidu.ui.callbacks.airflow_assets import UnawaitedOrder
from airflow_provider_vidu.ui.callbacks.grouped_queries import GroupedQueries
from airflow_provider_vidu.ui.threads import Threads

log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.25
"""So long nudges are gathered for one write, however many callbacks come."""

Ended = tuple[str, str | None]
"""A connection and the id of a generation, if it is known."""


class Nudger:
    """Nudges the event triggers of many orders in one write. Lives on one event loop.

    :param nudge: writes the nudges, and returns how many assets it has found; runs in a thread.
    :param threads: where it runs.
    """

    def __init__(self, nudge: Callable[[Collection[Ended]], int], threads: Threads) -> None:
        self._nudge = nudge
        self._writes: GroupedQueries[Ended, Any] = GroupedQueries(self._write, threads, gather_seconds=GATHER_SECONDS)

    async def called(self, order: UnawaitedOrder) -> None:
        """Nudge the event triggers that watch an order's generation; returns once that is written.

        :raises BusyError: when too many callbacks wait, or the database takes too long.
        """
        await self._writes.get((order.conn_id, order.generation_id))

    def _write(self, ended: Collection[Ended]) -> Mapping[Ended, Sequence[Any]]:
        if assets := self._nudge(ended):
            log.info("Callbacks for %d generations: the event triggers of %d assets poll now.", len(ended), assets)
        return {}
