"""The asynchronous client's connections: aiohttp's, with a record of what was sent and one reader for all answers."""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from airflow_provider_vidu.network.framing import AnswerReader, FramingError, canonically

has_connected: ContextVar[bool] = ContextVar("vidu_has_connected")
"""Whether this task's exchange has made a new connection."""
was_sent: ContextVar[bool] = ContextVar("vidu_was_sent")
"""Whether the exchange got a connection to the service, so that its request may have arrived."""

_READ_BYTES: Final = 8 * 1024


class _Protocol(ResponseHandler):
    """Passes each answer to aiohttp in its simplest form, as parsed by the reader that both clients share.

    aiohttp's own parser refuses heads that curl accepts, loses a whole answer to one byte after its end, and reads any
    number of interim answers at once: a gateway that sent nothing else blocked the event loop.
    """

    was_used = False
    """Whether an exchange has got this connection before."""
    _reader: AnswerReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit reads: one of 256 KiB may be full of tiny chunks, and 32 connections read in one turn of the loop."""
        if hasattr(transport, "max_size"):  # a plain socket's; over TLS the bound on chunk sizes must suffice
            transport.max_size = _READ_BYTES
        super().connection_made(transport)

    def set_response_params(self, **options: Any) -> None:
        """Prepare for the answer to another request."""
        self._reader = AnswerReader()
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Handle bytes of an answer."""
        reader = self._reader
        if reader is None or not data:
            super().data_received(data)
            return
        is_passed_on = False
        try:
            for piece in canonically(reader, data):
                if reader.is_spoiled:
                    self.force_close()
                super().data_received(piece)  # which restarts the timeout
                is_passed_on = True
        except FramingError as error:
            self._give_up(aiohttp.ClientPayloadError(str(error)))
        else:
            if not is_passed_on:  # an interim answer, or a part of a head: the service is not silent
                self.start_timeout()
        if reader.ended and reader.is_spoiled and self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End an answer that only the end of its connection delimits."""
        if self._reader is not None:
            try:
                for piece in canonically(self._reader, b""):
                    super().data_received(piece)
            except FramingError as error:
                if exc is None and self._payload is not None:
                    self._payload.set_exception(aiohttp.ClientPayloadError(str(error)))
                    self._payload = None  # aiohttp's own error would describe the simplified form
        super().connection_lost(exc)

    def _give_up(self, error: aiohttp.ClientPayloadError) -> None:
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


class Connector(aiohttp.TCPConnector):
    """Lets an exchange make at most one new connection, and records when it has one: until then nothing was sent.

    aiohttp resends a GET when its connection breaks. That is right if the server has just closed a kept one; but a new
    one that breaks is a failed poll, which only the retry policy may repeat.
    (Tracing would report the same, at several signals per poll.)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment]  # a subclass

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Connection:  # noqa: ASYNC109 - aiohttp's signature
        """Return a connection, new or kept.

        :raises aiohttp.ServerDisconnectedError: when the exchange has already made a new one.
        """
        if has_connected.get(False):
            raise aiohttp.ServerDisconnectedError("the server closed it without an answer")
        connection = await super().connect(req, traces, timeout)
        protocol: Any = connection.protocol
        if not protocol.was_used:
            protocol.was_used = True
            has_connected.set(True)
        was_sent.set(True)
        return connection
