"""Nudges: callbacks for orders that no task waits for, as the event trigger of an asset sees them.

The API server writes a time beside the asset (``ui.callbacks.airflow_assets``). The trigger reads it every few seconds
and polls at once when it has changed. It stays the only one that reports, so a nudge decides about latency alone, and
one that is lost costs no more than the trigger's interval.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.tasks.callbacks.arrivals import callback_base_url

NUDGE_KEY: Final = "vidu_nudged"
"""The name under which Airflow keeps the time of the latest nudge beside an asset (Airflow ≥ 3.3)."""
READ_SECONDS: Final = 5.0
"""Seconds between two reads, and so between two rounds that callbacks cause. A read takes the triggerer's supervisor 50
to 160 ms, and meanwhile it serves no other trigger."""
SHARE_SECONDS: Final = 2.0
"""All event triggers of a process together read once in so many seconds: many of them read less often."""
REPEAT_SECONDS: Final = 30.0
"""Seconds until a round that a callback caused is repeated."""

_readers: weakref.WeakSet[Nudges] = weakref.WeakSet()


def nudges_of(store: Any, log: Any) -> Nudges | None:
    """Return the nudges of an asset; None if there can be none.

    :param log: gets a line when nudges come for the first time, and one when they cannot be read.
    """
    try:
        return Nudges(store, log) if store is not None and callback_base_url() is not None else None
    except ViduConfigError:  # without a valid address, nothing is submitted with one
        return None


class Nudges:
    """The nudges of one asset, read by its trigger."""

    def __init__(self, store: Any, log: Any) -> None:
        self._store = store
        self._log = log
        self._latest: Any = None
        self._has_shortened = False
        self._are_known = False
        self._is_readable = True
        _readers.add(self)

    @property
    def interval(self) -> float:
        """The seconds between two reads."""
        return max(READ_SECONDS, SHARE_SECONDS * len(_readers))

    async def have_come(self) -> bool:
        """Read whether there was a nudge since the last read, or ever."""
        try:
            latest = await self._store.aget(NUDGE_KEY)
        except Exception as error:  # noqa: BLE001 - any backend's error; the interval is the net
            if self._is_readable:
                self._log.warning("Could not read whether callbacks have come: %s", redacted(error))
            self._is_readable = False
            return False
        self._is_readable = True
        is_new = latest not in (None, self._latest)
        self._latest = latest
        return is_new

    async def pause(self, seconds: float, *, had_events: bool) -> None:
        """Wait for the next round, no longer than until a callback comes.

        A round that a callback caused is repeated once, because the service may call before its answers show the end.
        If it found no end at all, no callback is heeded until then: untrue ones cost two rounds in half a minute.

        :param seconds: until the next round without callbacks.
        :param had_events: whether the latest round found an end.
        """
        was_called, self._has_shortened = self._has_shortened, False
        if was_called:
            seconds = min(seconds, REPEAT_SECONDS)
            if not had_events:
                await asyncio.sleep(seconds)
                return
        while seconds > 0:
            if await self.have_come():
                self._note()
                return
            step = min(self.interval, seconds)
            await asyncio.sleep(step)
            seconds -= step

    def _note(self) -> None:
        self._has_shortened = True
        if not self._are_known:
            self._log.info("Callbacks arrive: polling as soon as one comes, not at the interval alone.")
        self._are_known = True
