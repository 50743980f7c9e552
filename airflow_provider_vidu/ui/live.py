"""Asking the service how far a generation is, once for all who are watching it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from airflow_provider_vidu.connection import connection_type
from airflow_provider_vidu.connection_form import CONNECTION_TYPE
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.models import GenerationStatus
from airflow_provider_vidu.ui.views import NOT_ASKED, Live

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 5.0
"""The same generation is asked for no more often than this, however many pages show it."""
ERROR_SECONDS: Final = 15.0
DONE_SECONDS: Final = 600.0
"""A finished generation is asked for again after this time: its URLs are new then."""
PATIENCE_SECONDS: Final = 6.0
"""A page does not wait longer for the service; the answer is there when it asks again."""
MAX_KEPT: Final = 2_000
MAX_AT_ONCE: Final = 8


@dataclass(slots=True)
class _Kept:
    live: Live = NOT_ASKED
    good_until: float = 0.0
    task: asyncio.Task[None] | None = None


class LiveStates:
    """What the service said last about each generation, asked anew when that is too old.

    Lives on one event loop. A thousand viewers of a clip cost one request every five seconds, and a slow
    service delays nobody for longer than a few seconds.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def state(self, conn_id: str, generation_id: str, *, patience: float = PATIENCE_SECONDS) -> Live:
        """Return the generation or the error that the service has for it now, or seconds ago.

        :param conn_id: an Airflow connection; anything but one of type ``vidu`` is refused.
        :param generation_id: the id at Vidu.
        :param patience: seconds after which the last known state is returned instead.
        """
        kept = self._entry(conn_id, generation_id)
        if time.monotonic() >= kept.good_until:
            if kept.task is None:
                kept.task = asyncio.create_task(self._ask(kept, conn_id, generation_id))
            await asyncio.wait({kept.task}, timeout=patience)
        return kept.live

    def seen(self, conn_id: str, generation_id: str) -> Live:
        """Return when the generation was seen running, for a result that does not tell; nothing is asked."""
        kept = self._kept.get((conn_id, generation_id))
        return Live(running_since=kept.live.running_since) if kept else NOT_ASKED

    def _entry(self, conn_id: str, generation_id: str) -> _Kept:
        key = (conn_id, generation_id)
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return kept

    async def _ask(self, kept: _Kept, conn_id: str, generation_id: str) -> None:
        before = kept.live
        try:
            async with self._slots:
                kept.live = await _asked(conn_id, generation_id, before)
        except Exception as error:  # the boundary: a page must tell what went wrong, not break
            log.debug("The service could not be asked.", exc_info=True)
            told = error if isinstance(error, ViduError) else ViduError(f"The page broke: {type(error).__name__}.")
            kept.live = replace(before, error=told, asked_at=datetime.now(UTC))
        finally:
            kept.task = None
            kept.good_until = time.monotonic() + _lifetime(kept.live)


def _lifetime(live: Live) -> float:
    if live.error is not None:
        return max(ERROR_SECONDS, min(live.error.retry_after or 0.0, DONE_SECONDS))
    return DONE_SECONDS if live.generation and live.generation.is_done else POLL_SECONDS


async def _asked(conn_id: str, generation_id: str, before: Live) -> Live:
    from airflow_provider_vidu.hooks import ViduHook

    await _check_type(conn_id)
    generation = await ViduHook(conn_id).aget_generation(generation_id, retries=0)
    now = datetime.now(UTC)
    running = before.running_since or (now if generation.status is GenerationStatus.RUNNING else None)
    done = before.done_since or (now if generation.is_done else None)
    return Live(generation, None, now, running, done)


async def _check_type(conn_id: str) -> None:
    """Refuse other connections: a DAG could name one whose password is none of Vidu's business."""
    kind = await connection_type(conn_id)
    if kind != CONNECTION_TYPE:
        raise ViduConfigError(
            f"The connection {conn_id!r} is of type {kind or 'none'!r}, not {CONNECTION_TYPE!r} (such as "
            f"{DEFAULT_CONN_ID!r}): nothing was asked.",
            conn_id=conn_id,
        )
