"""The HTTP server: turns requests into calls of the core and sends the answers."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import replace

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from airflow_provider_vidu.sandbox import control
from airflow_provider_vidu.sandbox.core import Call, Core
from airflow_provider_vidu.sandbox.faults.actions import NO_ACTION, Action
from airflow_provider_vidu.sandbox.messages.answers import Answer, json_answer
from airflow_provider_vidu.sandbox.server import guard
from airflow_provider_vidu.sandbox.server.callbacks import CallbackSender
from airflow_provider_vidu.sandbox.server.delivery import deliver

#: In bytes: creates hold images inside their JSON.
_MAX_BODY = 128 * 1024 * 1024
_CONTROL = "/_sandbox/"

#: Called after each request with its method, raw target and status (0: the connection was cut).
Observer = Callable[[str, str, int], None]


class Server:
    """Serves ``core`` over HTTP, or over HTTPS if ``tls`` is given; calls ``observer`` after each request."""

    def __init__(self, core: Core, *, tls: ssl.SSLContext | None = None, observer: Observer | None = None) -> None:
        self.core = core
        self._tls = tls
        self._observer = observer
        self._runner: web.ServerRunner | None = None
        self._url = ""
        self._host = ""
        self._sending: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen on ``host`` and ``port`` (0: any free one) and return the base URL; OSError if it is in use."""
        server = web.Server(self._handle, request_factory=_request_factory, handler_cancellation=True, access_log=None)
        # Stalled deliveries must not delay the shutdown.
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._tls, backlog=4096)
        try:
            await site.start()
        except OSError:
            await self.stop()
            raise
        self._host = host
        name = f"[{host}]" if ":" in host else host
        self._url = f"{'https' if self._tls else 'http'}://{name}:{self._runner.addresses[0][1]}"
        self._sending = asyncio.create_task(CallbackSender(self.core, self._url).run())
        return self._url

    async def stop(self) -> None:
        """Stop listening and sending, and close every connection at once."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            await asyncio.wait({sending})
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # Without a Host header, aiohttp's own property would query the resolver, which may take seconds.
        host = request.headers.get("Host")
        call = Call(
            method=request.method,
            target=request.raw_path,
            headers=_headers(request),
            origin=f"{request.scheme}://{host}" if host else self._url,
        )
        answer, action = await self._answer(call, request)
        if self._observer is not None:
            self._observer(call.method, call.target, 0 if action.cuts_before else answer.status)
        return await deliver(request, answer, action)

    async def _answer(self, call: Call, request: web.BaseRequest) -> tuple[Answer, Action]:
        is_control = call.target.startswith(_CONTROL)
        allowed = self.core.settings.allowed_hosts
        problem = guard.problem(call, listens_on=self._host, allowed=allowed, is_control=is_control)
        if problem is None and is_control and not _is_loopback(request.remote):
            problem = "the control API is available only on loopback"
        if problem is not None:  # before the body is read: a web site may send any number of large ones
            return json_answer({"message": problem}, 403), NO_ACTION
        if request.body_exists:
            call = replace(call, body=await request.read())
        return (control.handle(self.core, call), NO_ACTION) if is_control else self.core.handle(call)


def _headers(request: web.BaseRequest) -> dict[str, str]:
    """Return the headers; values of repeated ones are joined by commas."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def _request_factory(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY)
