"""An order that no task waits for, the callback route in front of it, and the trigger that watches the account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

from airflow_provider_vidu.orders.order import OrderRecord
from airflow_provider_vidu.orders.records import STATE_KEY
from airflow_provider_vidu.sandbox import Sandbox
from airflow_provider_vidu.tasks.callbacks.nudges import NUDGE_KEY
from airflow_provider_vidu.ui.callbacks.airflow_assets import UnawaitedOrder
from airflow_provider_vidu.ui.callbacks.nudging import Nudger
from airflow_provider_vidu.ui.callbacks.routes import CallbackRoute
from airflow_provider_vidu.ui.callbacks.waking import Waker
from airflow_provider_vidu.ui.threads import Threads
from tests.faults.callback_world import PATH, CallbackWorld

LONG = 600.0
"""An interval that no test lives to see."""
SHORT = 0.4
"""An interval that is the net of a test."""


class FeedWorld(CallbackWorld):
    """One order without a wait, its callbacks, and the trigger of an asset.

    :param sandbox: the service; its clock stands still.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.asset: dict[str, str] = {}
        """What Airflow keeps beside the asset, as JSON."""
        self.writes = 0
        self.is_watched = True
        self.is_readable = True
        self.events: list[Any] = []
        self._running: asyncio.Task[None] | None = None
        super().__init__(sandbox, wait_for_completion=False)

    def restart(self, path: str | None = PATH) -> None:
        """Restart the API server."""
        threads = Threads(2)
        self.waker = Waker(self._find, self._resume, threads)  # type: ignore[arg-type]
        self.route = CallbackRoute(path, self.waker, self, Nudger(self._nudge, threads))  # type: ignore[arg-type]

    # -- what the route sees of Airflow ----------------------------------------------------------

    def _find(self, instances: Collection[UUID]) -> Mapping[UUID, Sequence[Any]]:  # type: ignore[override]
        if self.broken is not None:
            raise self.broken
        record = OrderRecord.from_json(self.task.store.get(STATE_KEY))
        if record is None or self.instance not in instances:
            return {}
        return {self.instance: [UnawaitedOrder(record.nudges, record.callback, record.generation_id)]}

    def _nudge(self, ended: Collection[tuple[str, str | None]]) -> int:
        if self.is_watched:
            self.writes += 1
            self.asset[NUDGE_KEY] = json.dumps(f"nudge {self.writes}")
        return int(self.is_watched)

    # -- what the trigger sees -------------------------------------------------------------------

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return what is kept beside the asset."""
        if not self.is_readable and key == NUDGE_KEY:
            raise RuntimeError("the API server does not answer")
        return json.loads(self.asset[key]) if key in self.asset else default

    async def aset(self, key: str, value: Any) -> None:
        """Keep something beside the asset."""
        self.asset[key] = json.dumps(value)

    # -- what happens ----------------------------------------------------------------------------

    async def watch(self, interval: float) -> None:
        """Start the trigger, and wait until its first round is over."""
        from airflow_provider_vidu.event_triggers import ViduGenerationFinishedTrigger

        trigger = ViduGenerationFinishedTrigger(poll_interval=interval)
        trigger.asset_state_store = self  # type: ignore[assignment]

        async def run() -> None:
            async with aclosing(trigger.run()) as fired:
                async for event in fired:
                    self.events.append(event.payload)

        before = self.rounds
        self._running = asyncio.create_task(run())
        await self.until(lambda: self.rounds > before)
        await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stop the trigger, as a pause of the DAG or a restart of the triggerer does."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def until(self, condition: Any, seconds: float = 20.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the sandbox runs in another thread
                await asyncio.sleep(0.01)

    @property
    def rounds(self) -> int:
        """How often the account's list was read."""
        return len(self.sandbox.requests("list"))
