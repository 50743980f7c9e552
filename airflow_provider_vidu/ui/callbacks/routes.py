"""The route ``POST /vidu/callbacks/<token>``.

The token is checked first, then the signature, and the body is read last: an unknown token costs no more than a share
of one query, and only the service gets a body read. Whatever is refused gets the same answer after the same time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from starlette.routing import Route

from airflow_provider_vidu.common.url_parts import CALLBACK_PATH
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.tasks.callbacks.arrivals import callback_base_url
from airflow_provider_vidu.tasks.callbacks.tokens import read_token
from airflow_provider_vidu.ui.callbacks import airflow_assets, airflow_tasks
from airflow_provider_vidu.ui.callbacks.airflow_tasks import WaitingTask
from airflow_provider_vidu.ui.callbacks.keys import Keys
from airflow_provider_vidu.ui.callbacks.nudging import Nudger
from airflow_provider_vidu.ui.callbacks.signatures import Nonces, is_signed
from airflow_provider_vidu.ui.callbacks.waking import Called, Find, Waker
from airflow_provider_vidu.ui.threads import BusyError, Threads

log = logging.getLogger(__name__)

THREADS: Final = 2
"""Threads that read and write the database for callbacks."""
REFUSED_SECONDS: Final = 0.15
"""A refusal is sent this long after its request, so that its time says nothing."""
BODY_SECONDS: Final = 10.0
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The service echoes the order's ``payload``, which may have a million characters."""
KEPT_BODY_BYTES: Final = 64 * 1024
"""So much of a body is kept, to find the state in it."""
MAX_BODIES: Final = 100
"""Bodies that are read at once."""

OK, NOT_FOUND, TOO_SLOW, TOO_LARGE, BUSY = 200, 404, 408, 413, 503

_STATE: Final = re.compile(rb'"(?:state|status)"\s*:\s*"([A-Za-z_]{1,40})"')
_NOT_AN_END: Final = frozenset({b"created", b"queueing", b"queued", b"scheduling", b"pending", b"processing"})

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def route() -> Route:
    """Return the route, for the plugin's application; if callbacks are off or impossible, it refuses everything."""
    return Route("/callbacks/{token:path}", CallbackRoute(_registered_path()))


def _registered_path() -> str | None:
    """Return the path before the token, as it was registered with the service; None without callbacks."""
    try:
        base = callback_base_url()
    except ViduConfigError as error:
        log.warning("No callbacks are taken: %s", error)
        return None
    if base is None:
        return None
    if (lack := airflow_tasks.missing()) is not None:
        log.warning("No callbacks are taken, because this Airflow has changed (%s). Triggers poll instead.", lack)
        return None
    return urlsplit(base).path + CALLBACK_PATH


def _finder(path: str | None) -> Find:
    """Return what finds the tasks and orders of tokens in this Airflow."""
    if path is None:  # nothing is looked for
        return airflow_tasks.find_waiting
    if (lack := airflow_assets.missing()) is not None:
        log.info("Event triggers get no callbacks from this Airflow, and poll at their interval (%s).", lack)
        return airflow_tasks.find_waiting
    return _find


def _find(instances: Collection[UUID]) -> Mapping[UUID, Sequence[Called]]:
    waiting = airflow_tasks.find_waiting(instances)
    return {**airflow_assets.find_unawaited(set(instances) - waiting.keys()), **waiting}


class CallbackRoute:
    """An ASGI application that takes callbacks.

    :param path: the path before the token, as registered with the service; None refuses everything.
    :param waker: finds and resumes tasks.
    :param keys: the API keys.
    :param nudger: nudges event triggers.
    """

    def __init__(
        self,
        path: str | None,
        waker: Waker | None = None,
        keys: Keys | None = None,
        nudger: Nudger | None = None,
    ) -> None:
        self._path = path
        threads = Threads(THREADS)
        self._waker = waker or Waker(_finder(path), airflow_tasks.resume, threads)
        self._nudger = nudger or Nudger(airflow_assets.nudge, threads)
        self._keys = keys or Keys()
        self._nonces = Nonces()
        self._bodies = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        began = time.monotonic()
        try:
            status = await self._status(scope, receive)
        except BusyError:
            status = BUSY
        except Exception as error:  # noqa: BLE001 - the boundary: no answer shows what went wrong
            log.warning("A callback could not be handled (%s); the trigger polls instead.", type(error).__name__)
            status = BUSY
        if status == NOT_FOUND:
            await asyncio.sleep(max(began + REFUSED_SECONDS - time.monotonic(), 0.0))
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _status(self, scope: Message, receive: Receive) -> int:
        token = scope["path_params"]["token"]
        read = read_token(token)
        if self._path is None or read is None or scope["method"] != "POST":
            return NOT_FOUND
        instance, digest = read
        called = await self._waker.find(instance, digest)
        if called is None:
            return NOT_FOUND
        headers = _headers(scope)
        key = await self._keys.get(called.conn_id)
        query = scope.get("query_string", b"").decode("latin-1")
        # Without the key, the token alone decides: it is unguessable, and what follows is one poll at most.
        if key is not None and not is_signed(key, "POST", self._path + token, query, headers, time.time()):
            return NOT_FOUND
        return await self._accepted(called, (instance, digest), headers.get("x-request-nonce", "")[:100], receive)

    async def _accepted(self, called: Called, token: tuple[Any, str], nonce: str, receive: Receive) -> int:
        """Take a callback whose token and signature are right."""
        if self._bodies >= MAX_BODIES:
            return BUSY
        self._bodies += 1
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            return TOO_SLOW
        finally:
            self._bodies -= 1
        if body is None:
            return TOO_LARGE
        digest = token[1]
        if nonce and self._nonces.is_known(digest, nonce):
            return OK
        if not _says_that_it_goes_on(body):
            if isinstance(called, WaitingTask):
                await self._waker.called(called, *token)
            else:
                await self._nudger.called(called)
        if nonce:  # not before: the service may repeat one that was not accepted
            self._nonces.add(digest, nonce, time.time())
        return OK


def _headers(scope: Message) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reversed(scope["headers"])}


async def _body(receive: Receive) -> bytes | None:
    """Return the beginning of the body; None if it is too large."""
    kept, size, goes_on = bytearray(), 0, True
    while goes_on:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunk = message.get("body", b"")
        size += len(chunk)
        kept += chunk[: max(KEPT_BODY_BYTES - len(kept), 0)]
        if size > MAX_BODY_BYTES:
            return None
        goes_on = message.get("more_body", False)
    return bytes(kept)


def _says_that_it_goes_on(body: bytes) -> bool:
    """Whether a body names a state that is not an end. Whatever else it says, the task checks it."""
    found = _STATE.search(body)
    return found is not None and found[1].lower() in _NOT_AN_END
