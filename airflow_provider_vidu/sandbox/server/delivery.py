"""Sends an answer, with every fault that a delivery can have."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator

from aiohttp import web

from airflow_provider_vidu.sandbox.faults.actions import Action
from airflow_provider_vidu.sandbox.messages.answers import Answer

_CHUNK = 256 * 1024
#: Time between two writes of a trickle, in seconds.
_TICK = 0.05
_BODILESS = (204, 304)


async def deliver(request: web.BaseRequest, answer: Answer, action: Action) -> web.StreamResponse:
    """Send ``answer`` to the peer of ``request`` with the faults of ``action``; return the response for aiohttp."""
    if action.delay:
        await asyncio.sleep(action.delay)
    if action.cuts_before:
        return _cut(request, fin=action.fin)
    if _is_plain(answer, action):
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body())
    return await _stream(request, answer, action)


def _is_plain(answer: Answer, action: Action) -> bool:
    special = action.stall, action.reset, action.content_length, action.chunked, action.gzip, action.trickle
    return answer.length <= _CHUNK and not any(special)


async def _stream(request: web.BaseRequest, answer: Answer, action: Action) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    announced = answer.length + action.content_length
    if action.gzip:
        response.headers["Content-Encoding"] = "gzip"
    if action.gzip or action.chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = max(0, announced)
    if action.content_length:
        # The announced length is wrong, so the connection must be closed.
        response.force_close()
    await response.prepare(request)
    if action.reset == "headers":
        await _flushed(request)
        return _cut(request, fin=action.fin)
    if request.method != "HEAD" and answer.status not in _BODILESS:
        await _send_body(request, response, answer, action)
        if action.reset == "body":
            await _flushed(request)
            return _cut(request, fin=action.fin)
    await response.write_eof()
    return response


async def _send_body(request: web.BaseRequest, response: web.StreamResponse, answer: Answer, action: Action) -> None:
    turn = answer.start + action.offset(answer.length)
    stop = turn if action.reset == "body" else answer.start + answer.length
    pack = zlib.compressobj(wbits=31) if action.gzip else None
    async for block in _blocks(answer, stop, turn, action):
        data = block if pack is None else pack.compress(block) + pack.flush(zlib.Z_SYNC_FLUSH)
        if data:
            await response.write(data)
    if pack is not None and action.reset != "body":
        await response.write(pack.flush())


async def _blocks(answer: Answer, stop: int, turn: int, action: Action) -> AsyncIterator[bytes]:
    """Yield the bytes from the answer's start to ``stop``, stalling at ``turn`` or trickling as ``action`` requires."""
    step = max(1, int(action.trickle * _TICK)) if action.trickle else _CHUNK
    at = answer.start
    while at < stop:
        end = min(at + step, stop)
        if action.stall and at < turn < end:
            end = turn
        if action.stall and at == turn:
            await asyncio.sleep(action.stall)
        yield answer.content.read(at, end)
        at = end
        if action.trickle:
            await asyncio.sleep(step / action.trickle)


async def _flushed(request: web.BaseRequest) -> None:
    """Wait until the data has left this process: a RST would discard what is still buffered."""
    transport = request.transport
    while transport is not None and not transport.is_closing() and transport.get_write_buffer_size():  # noqa: ASYNC110 - no event announces it
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


def _cut(request: web.BaseRequest, *, fin: bool) -> web.StreamResponse:
    """End the connection with a RST, or with an orderly close if ``fin``."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        if not fin and sock is not None:
            # SO_LINGER of zero seconds turns the close into a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return _Nothing()


class _Nothing(web.StreamResponse):
    """The response after a cut connection: nothing can be sent."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send no headers."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send no end."""
