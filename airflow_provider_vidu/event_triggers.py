"""The trigger for event-driven scheduling: fires for every finished generation. Airflow 3.0 or newer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from airflow.triggers.base import TriggerEvent

from airflow_provider_vidu.api.dialects.task_list import epoch_of
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID, checked_seconds
from airflow_provider_vidu.exceptions import ViduError, ViduRequestError
from airflow_provider_vidu.polling.watch import PollPolicy
from airflow_provider_vidu.tasks.asset_memory import AssetMemory
from airflow_provider_vidu.tasks.callbacks.nudges import nudges_of
from airflow_provider_vidu.tasks.clients import shared_client
from airflow_provider_vidu.tasks.completions import CompletionTracker, named

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:
    raise AirflowOptionalProviderFeatureException(
        "Event-driven scheduling with ViduGenerationFinishedTrigger needs Airflow 3.0 or newer."
    ) from None

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.async_client import AsyncClient
    from airflow_provider_vidu.models import Generation

SETTLE_SECONDS: Final = 5.0
"""Seconds between an event and storing that it was fired. Airflow takes about one to store the event, and a crash in
between should repeat an event rather than lose it. The last one of several events follows the others so much later:
Airflow before 3.4 gives a DAG run the events up to the one that queued it, and leaves the rest to the run of the next
event, whenever that comes (https://github.com/apache/airflow/issues/54659)."""


class ViduGenerationFinishedTrigger(BaseEventTrigger):
    """Fires once for each generation that finishes: succeeded, failed, or cancelled. It never ends by itself.

    For an ``AssetWatcher``::

        finished = Asset("vidu-finished", watchers=[AssetWatcher(name="vidu", trigger=ViduGenerationFinishedTrigger())])

    The payload is the event of :class:`~airflow_provider_vidu.triggers.ViduGenerationTrigger`: id, outcome, status and,
    if it failed, the reason; no URL. One DAG run may receive several events, so map over them.

    Without ``generation_ids`` it watches the whole account, which needs a dialect with a list (``ent-v2``). With
    ``vidu-native``, name the generations. Each round reads the list back to the last known entry, up to 5,000
    generations.

    *Callbacks.* If ``[vidu] callback_base_url`` is set (Airflow ≥ 3.3), the callback of an order with
    ``wait_for_completion=False`` makes the next round begin within about five seconds, so ``poll_interval`` can be
    long. Requires a trigger with the order's ``vidu_conn_id`` and an asset of its own.

    *After a restart of the triggerer.* Airflow ≥ 3.3 stores the trigger's memory with the asset: generations that
    finished during the restart are reported then, and each only once, except in the last seconds before a crash.
    Before 3.3, or when several assets share one trigger, there is no memory: named generations, and with ``since`` all
    listed ones created after it, are reported again; without ``since``, those that finished during the restart are not.

    :param vidu_conn_id: the Airflow connection.
    :param generation_ids: one id or several, at most 20,000; None for every generation of the account.
    :param poll_interval: seconds (or timedelta) between two rounds.
    :param since: a time (aware datetime, ISO 8601 or epoch seconds); generations created before it are never reported.
        If omitted, those that finished before the first round are not. Use a constant: a value that changes with every
        parse creates a new trigger every time.
    :raises ViduConfigError: when an argument is wrong.
    """

    def __init__(
        self,
        *,
        vidu_conn_id: str = DEFAULT_CONN_ID,
        generation_ids: str | Sequence[str] | None = None,
        poll_interval: timedelta | float = 60.0,
        since: datetime | str | float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.vidu_conn_id = vidu_conn_id
        self.generation_ids = named(generation_ids)
        self.poll_interval = checked_seconds("poll_interval", poll_interval)
        self.since = epoch_of("since", since)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, by which Airflow identifies a trigger."""
        names = ("vidu_conn_id", "generation_ids", "poll_interval", "since")
        path = "airflow_provider_vidu.event_triggers.ViduGenerationFinishedTrigger"
        return path, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll once per interval, without end: Airflow immediately restarts an asset's trigger that ends or raises."""
        tracker = CompletionTracker(PollPolicy.for_trigger(self.poll_interval), self.generation_ids, self.since)
        memory = AssetMemory(getattr(self, "asset_state_store", None), self.log)
        tracker.remember(await memory.recalled(), time.time())
        kept = tracker.memory()
        if nudges := nudges_of(memory.store, self.log):
            await nudges.have_come()  # those that came before the first round
        async with await shared_client(self.vidu_conn_id) as client:
            while True:
                events, delay = await self._round(client, tracker)
                settle = min(SETTLE_SECONDS, delay)
                for number, event in enumerate(events, 1):
                    if 1 < number == len(events):
                        await asyncio.sleep(settle)
                    yield TriggerEvent(event)
                await asyncio.sleep(settle)
                if kept != (kept := tracker.memory()):
                    await memory.keep(kept)
                if nudges is None or tracker.is_failing:  # no callback shortens a backoff
                    await asyncio.sleep(delay - settle)
                else:
                    await nudges.pause(delay - settle, had_events=bool(events))

    async def _round(self, client: AsyncClient, tracker: CompletionTracker) -> tuple[list[dict[str, Any]], float]:
        # A round may have thousands, in a cycle with the frames of their tracebacks: each held the answer that failed.
        errors: list[ViduError] = []
        events: list[dict[str, Any]] = []
        try:
            if tracker.lists and (full := tracker.listed(await self._listed(client, tracker), time.time())):
                self.log.warning("Vidu connection %s: %s", self.vidu_conn_id, full)
        except ViduError as error:
            errors.append(error.without_frames())
        else:
            # The client's connection limit bounds the concurrency.
            polls = (
                self._poll(client, tracker, each, errors) for each in await self._unlisted(client, tracker, errors)
            )
            events = [event for event in await asyncio.gather(*polls) if event is not None]
        delay, note = tracker.pause(errors)
        if note:
            self.log.log(_level(errors), "Vidu connection %s: %s", self.vidu_conn_id, note)
        return events, delay

    async def _listed(self, client: AsyncClient, tracker: CompletionTracker) -> list[Generation]:
        """Read the list back to the first page without news."""
        walk = tracker.listing()
        try:
            listed = await client.list_generations(walk)
        except ViduRequestError:
            if not tracker.drop_filter():
                raise
            return await client.list_generations(tracker.listing())
        return await client.list_generations(tracker.listing()) if tracker.distrusts(walk) else listed

    async def _unlisted(self, client: AsyncClient, tracker: CompletionTracker, errors: list[ViduError]) -> list[str]:
        """Look up which generations are unfinished, as many as possible per request; return those left to poll."""
        ids = tracker.to_poll(time.time())
        try:
            states = await client.shared_polls.states(ids)
        except ViduError as error:  # a failure for all of them
            errors.append(error.without_frames())
            return []
        for generation_id, snapshot in states.items():
            if note := tracker.glimpsed(generation_id, snapshot, time.time()):
                self.log.info("%s", note)
        return [generation_id for generation_id in ids if generation_id not in states]

    async def _poll(
        self, client: AsyncClient, tracker: CompletionTracker, generation_id: str, errors: list[ViduError]
    ) -> dict[str, Any] | None:
        try:
            event, note = tracker.saw(await client.get_generation(generation_id), time.time())
        except ViduError as error:
            event, note = None, tracker.missed(generation_id, error, time.time())
            if note is None:
                errors.append(error.without_frames())
        if note:
            self.log.info("%s", note)
        return event


def _level(errors: list[ViduError]) -> int:
    if not errors:
        return logging.INFO
    return logging.WARNING if all(error.retryable for error in errors) else logging.ERROR
