"""The async client that all triggers of a connection share, imported without blocking the event loop."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_vidu.api.clients.async_client import AsyncClient

_client_module: ModuleType | None = None


async def shared_client(conn_id: str) -> AbstractAsyncContextManager[AsyncClient]:
    """Return the event loop's shared client of a connection, for ``async with``."""
    global _client_module
    if _client_module is None:
        # The first import of the HTTP client would block the loop for too long.
        _client_module = await asyncio.to_thread(
            importlib.import_module, "airflow_provider_vidu.api.clients.async_client"
        )
    client: AbstractAsyncContextManager[AsyncClient] = _client_module.async_client(conn_id)
    return client
