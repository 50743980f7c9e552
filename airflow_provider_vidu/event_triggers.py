"""The trigger for event-driven scheduling: a generation has finished, whoever submitted it. Airflow 3.0 or newer."""

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
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID, checked_seconds
from airflow_provider_vidu.exceptions import ViduError, ViduRequestError
from airflow_provider_vidu.polling.watch import PollPolicy
from airflow_provider_vidu.tasks.clients import shared_client
from airflow_provider_vidu.tasks.completions import CompletionTracker, named

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:
    raise AirflowOptionalProviderFeatureException(
        "Event-driven scheduling, and with it ViduGenerationFinishedTrigger, needs Airflow 3.0 or newer."
    ) from None

if TYPE_CHECKING:
    from airflow_provider_vidu.api.async_client import AsyncClient
    from airflow_provider_vidu.models import Generation

STATE_KEY: Final = "vidu_finished"
SETTLE_SECONDS: Final = 5.0
"""How long after an event the memory of it is stored: Airflow takes about a second to store the event, and a crash in
between must rather repeat an event than lose it."""


class ViduGenerationFinishedTrigger(BaseEventTrigger):
    """Fires once for each generation that finishes: succeeded, failed, or cancelled. It never ends by itself.

    For an ``AssetWatcher``::

        finished = Asset("vidu-finished", watchers=[AssetWatcher(name="vidu", trigger=ViduGenerationFinishedTrigger())])

    The payload is that of :class:`~airflow_provider_vidu.triggers.ViduGenerationTrigger`'s event: id,
    outcome, status and, if it failed, the reason; no URL. One DAG run may take several events up, so map
    over them.

    Without ``generation_ids`` it watches the whole account, which needs a dialect with a list
    (``ent-v2``); with ``vidu-native``, name the generations. Each round reads the list's pages back to what is known,
    5,000 generations at most.

    *After a restart of the triggerer.* Airflow ≥ 3.3 keeps a memory beside the asset: generations that finished
    meanwhile are reported then, and none twice, except in the last seconds before a crash. Before 3.3, or when several
    assets share one trigger, there is no memory: named generations, and with ``since`` all listed ones that were
    created after it, are reported again; without ``since``, those that finished meanwhile are not reported.

    :param vidu_conn_id: the Airflow connection.
    :param generation_ids: one id or several; None for every generation of the account.
    :param poll_interval: seconds (or timedelta) between two rounds.
    :param since: a time (aware datetime, ISO 8601 or epoch seconds); generations of the account that were
        created before are never reported. If omitted, those that had finished before the first round.
        A constant: a time that changes with every parsing makes another trigger every time.
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
        super().__init__()  # type: ignore[no-untyped-call]
        self.vidu_conn_id = vidu_conn_id
        self.generation_ids = named(generation_ids)
        self.poll_interval = checked_seconds("poll_interval", poll_interval)
        self.since = epoch_of("since", since)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow knows a trigger again by them."""
        return (
            "airflow_provider_vidu.event_triggers.ViduGenerationFinishedTrigger",
            {
                "vidu_conn_id": self.vidu_conn_id,
                "generation_ids": self.generation_ids,
                "poll_interval": self.poll_interval,
                "since": self.since,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run a round per interval, for ever: Airflow restarts an asset's trigger that ends or raises at once."""
        finished = CompletionTracker(PollPolicy.for_trigger(self.poll_interval), self.generation_ids, self.since)
        finished.remember(await self._recalled(), time.time())
        kept = finished.memory()
        async with await shared_client(self.vidu_conn_id) as client:
            while True:
                events, delay = await self._round(client, finished)
                for event in events:
                    yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                settle = min(SETTLE_SECONDS, delay)
                await asyncio.sleep(settle)
                if kept != (kept := finished.memory()):
                    await self._keep(kept)
                await asyncio.sleep(delay - settle)

    async def _round(self, client: AsyncClient, finished: CompletionTracker) -> tuple[list[dict[str, Any]], float]:
        errors: list[ViduError] = []
        if finished.lists:
            try:
                full = finished.listed(await self._listed(client, finished), time.time())
                if full:
                    self.log.warning("Vidu connection %s: %s", self.vidu_conn_id, full)
            except ViduError as error:
                errors.append(error)
        events: list[dict[str, Any]] = []
        if not errors:
            # The client lets through as many at a time as it has sockets.
            polls = (self._poll(client, finished, each, errors) for each in finished.to_ask(time.time()))
            events = [event for event in await asyncio.gather(*polls) if event is not None]
        delay, note = finished.pause(errors)
        if note:
            self.log.log(_level(errors), "Vidu connection %s: %s", self.vidu_conn_id, note)
        return events, delay

    async def _listed(self, client: AsyncClient, finished: CompletionTracker) -> list[Generation]:
        """Read the list back to where everything is known."""
        walk = finished.listing()
        try:
            listed = await client.list_generations(walk)
        except ViduRequestError:
            if not finished.drop_filter():
                raise
            return await client.list_generations(finished.listing())
        return await client.list_generations(finished.listing()) if finished.distrusts(walk) else listed

    async def _poll(
        self, client: AsyncClient, finished: CompletionTracker, generation_id: str, errors: list[ViduError]
    ) -> dict[str, Any] | None:
        try:
            event, note = finished.saw(await client.get_generation(generation_id), time.time())
        except ViduError as error:
            event, note = None, finished.missed(generation_id, error, time.time())
            if note is None:
                errors.append(error)
        if note:
            self.log.info("%s", note)
        return event

    async def _recalled(self) -> object:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return None
        try:
            return await store.aget(STATE_KEY)
        except Exception as error:  # noqa: BLE001 - whatever the store is made of; without it events may come twice
            self.log.warning("No memory of earlier events: %s", redacted(error))
            self.asset_state_store = None
            return None

    async def _keep(self, memory: dict[str, Any]) -> None:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return
        try:
            await store.aset(STATE_KEY, memory)
        except Exception as error:  # noqa: BLE001 - as above
            self.log.warning("Which events were fired could not be stored: %s", redacted(error))


def _level(errors: list[ViduError]) -> int:
    if not errors:
        return logging.INFO
    return logging.WARNING if all(error.retryable for error in errors) else logging.ERROR
