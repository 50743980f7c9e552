"""The API keys with which signatures are checked, looked up seldom."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from airflow_provider_vidu.api.settings.connection import aresolve, connection_type
from airflow_provider_vidu.api.settings.form import CONNECTION_TYPE
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import ViduError, ViduTransportError
from airflow_provider_vidu.ui.threads import BusyError

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 30.0
FAILURE_SECONDS: Final = 5.0
"""How long a look-up that failed stands for the next ones."""
LOOK_UP_SECONDS: Final = 5.0
MAX_STRANGERS: Final = 2
"""Look-ups under way for connections without a known key: a DAG may name thousands of them, and Airflow looks
connections up in one thread."""
MAX_KEPT: Final = 500
MAX_ID_CHARS: Final = 250
"""Airflow's own limit; the author of a DAG may write any text."""


class Keys:
    """The keys of connections. Lives on one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[asyncio.Task[_Key], float]] = OrderedDict()
        self._strangers = asyncio.Semaphore(MAX_STRANGERS)

    async def get(self, conn_id: str) -> str | None:
        """Return the key of a connection; None if this process has no such connection, so that nothing can be checked.

        :param conn_id: an Airflow connection; only one of type ``vidu`` has a key here.
        :raises BusyError: when the look-up failed: an outage must not accept what has no signature.
        """
        if len(conn_id) > MAX_ID_CHARS:
            return None
        task, began = self._kept.get(conn_id, (None, 0.0))
        if task is None or (task.done() and time.monotonic() >= began + _lasts(task.result())):
            is_known = task is not None and task.result().key is not None
            task = asyncio.create_task(_looked_up(conn_id, nullcontext() if is_known else self._strangers))
            self._kept[conn_id] = (task, time.monotonic())
            self._kept.move_to_end(conn_id)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        found = await asyncio.shield(task)
        if not found.is_certain:
            raise BusyError("The connection cannot be looked up.")
        return found.key


@dataclass(frozen=True, slots=True)
class _Key:
    """What a look-up has found.

    :param key: None if there is none.
    :param is_certain: whether the look-up worked.
    """

    key: str | None = field(default=None, repr=False)
    is_certain: bool = True


def _lasts(found: _Key) -> float:
    return KEPT_SECONDS if found.is_certain else FAILURE_SECONDS


async def _looked_up(conn_id: str, slot: AbstractAsyncContextManager[None]) -> _Key:
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS), slot:
            if await connection_type(conn_id) != CONNECTION_TYPE:
                return _Key()
            return _Key((await aresolve(conn_id)).api_key.reveal())
    except (ViduError, TimeoutError) as error:
        shown = redacted(conn_id, 80)
        log.info("Signatures of callbacks for connection %r cannot be checked: %s", shown, type(error).__name__)
        return _Key(is_certain=not isinstance(error, (ViduTransportError, TimeoutError)))
