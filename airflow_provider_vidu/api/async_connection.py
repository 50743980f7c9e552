"""The asynchronous client's connections: aiohttp's, with an account of what was sent and one reader for all answers."""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from airflow_provider_vidu.network.framing import AnswerReader, FramingError, canonically

has_connected: ContextVar[bool] = ContextVar("viduhas_connected")
"""Whether the exchange that this task is in has made a new connection."""
was_sent: ContextVar[bool] = ContextVar("viduwas_sent")
"""Whether the exchange has got a connection to the service, so that its request may have arrived."""

_READ_BYTES: Final = 8 * 1024


class _Protocol(ResponseHandler):
    """Hands aiohttp each answer in its simplest form, as the reader that both clients share understands it.

    aiohttp's own parser refuses heads that curl reads, loses a whole answer to a byte behind its end, and takes any
    number of interim answers at once: a gateway that sends nothing else held up the event loop.
    """

    _reader: AnswerReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take little at a time: a read of 256 KiB may be full of tiny chunks, and 32 connections read in one turn."""
        if hasattr(transport, "max_size"):  # a plain socket's; over TLS the bound on chunk sizes has to do
            transport.max_size = _READ_BYTES
        super().connection_made(transport)

    def set_response_params(self, **options: Any) -> None:
        """Expect the answer to another request."""
        self._reader = AnswerReader()
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer."""
        reader = self._reader
        if reader is None or not data:
            super().data_received(data)
            return
        # Their coming is noted even if none is handed on.
        self.start_timeout()
        try:
            for piece in canonically(reader, data):
                if reader.is_spoiled:
                    self.force_close()
                super().data_received(piece)
        except FramingError as error:
            self._give_up(aiohttp.ClientPayloadError(str(error)))
        if reader.ended and reader.is_spoiled and self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take the end of an answer that has no other end."""
        if self._reader is not None:
            try:
                for piece in canonically(self._reader, b""):
                    super().data_received(piece)
            except FramingError as error:
                if exc is None and self._payload is not None:
                    self._payload.set_exception(aiohttp.ClientPayloadError(str(error)))
                    self._payload = None  # aiohttp would speak of the form in which it got the answer
        super().connection_lost(exc)

    def _give_up(self, error: aiohttp.ClientPayloadError) -> None:
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


class Connector(aiohttp.TCPConnector):
    """Lets an exchange make at most one new connection.

    aiohttp sends a GET again when its connection breaks. That is right where the server has just closed one
    that was kept; but a new one that breaks is a failed poll, to be counted, and repeated by the policy alone.
    (Tracing could tell the same, with a handful of signals sent for every poll.)

    It also notes that there is a connection: what fails before has sent nothing to the service.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment]
        self._known: WeakSet[Any] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Connection:  # noqa: ASYNC109 - aiohttp's signature
        """Return a connection, new or kept.

        :raises aiohttp.ServerDisconnectedError: when the exchange has made a new one already.
        """
        if has_connected.get(False):
            raise aiohttp.ServerDisconnectedError("the server ended it without an answer")
        connection = await super().connect(req, traces, timeout)
        if connection.protocol not in self._known:
            self._known.add(connection.protocol)
            has_connected.set(True)
        was_sent.set(True)
        return connection
