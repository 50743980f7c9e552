"""The API keys with which signatures are checked, looked up seldom."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Final

from airflow_provider_vidu.api.connection import aresolve, connection_type
from airflow_provider_vidu.api.connection_form import CONNECTION_TYPE
from airflow_provider_vidu.exceptions import ViduError

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 30.0
LOOK_UP_SECONDS: Final = 5.0
MAX_KEPT: Final = 500


class Keys:
    """The keys of connections. Lives on one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[asyncio.Task[str | None], float]] = OrderedDict()

    async def get(self, conn_id: str) -> str | None:
        """Return the key of a connection; None if this process cannot look it up, so that nothing can be checked.

        :param conn_id: an Airflow connection; only one of type ``vidu`` has a key here.
        """
        task, good_until = self._kept.get(conn_id, (None, 0.0))
        if task is None or (task.done() and time.monotonic() >= good_until):
            task = asyncio.create_task(_looked_up(conn_id))
            self._kept[conn_id] = (task, time.monotonic() + KEPT_SECONDS)
            self._kept.move_to_end(conn_id)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return await asyncio.shield(task)


async def _looked_up(conn_id: str) -> str | None:
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            if await connection_type(conn_id) != CONNECTION_TYPE:
                return None
            return (await aresolve(conn_id)).api_key.reveal()
    except (ViduError, TimeoutError) as error:
        log.info("Signatures of callbacks for connection %r cannot be checked: %s", conn_id, type(error).__name__)
        return None
