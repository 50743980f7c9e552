"""``Sandbox``: the sandbox for Python programs and tests, in its own thread."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from airflow_provider_vidu.sandbox.control import snapshot
from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.messages.calls import NATIVE
from airflow_provider_vidu.sandbox.server.app import Server
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.callbacks import CallbackRecord
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord, RecordedRequest
from airflow_provider_vidu.sandbox.world.uploads import Upload

_STOP_SECONDS = 5.0


class Sandbox:
    """A local Vidu in a background thread; a context manager, usable from any thread.

    ``with Sandbox(speed=50) as sandbox: requests.get(sandbox.url + "/…")``

    Where the vendor's pages disagree or are silent, a parameter chooses between the behaviours that clients must
    handle; the manual's page on the sandbox says which are documented, likely or unknown.

    :param keys: accepted API keys.
    :param speed: sandbox seconds per real second.
    :param queue: sandbox seconds that a generation waits.
    :param duration: sandbox seconds that it then runs.
    :param clip_seconds: length of videos and sounds, in seconds.
    :param url_lifetime: sandbox seconds that a result URL is valid.
    :param balance: initial credits.
    :param price: credits per create; half with ``off_peak``.
    :param seed: makes ids and signatures repeatable; None for different ones at each start.
    :param host: the address to listen on.
    :param port: the port to listen on; 0 for any free one.
    :param tls: the files of a certificate and its key, both PEM, for https.
    :param cover_lifetime: sandbox seconds that a cover's URL is valid.
    :param concurrency: generations of the official API that run at once; None for no limit.
    :param when_full: beyond that, a create waits (``queue``) or gets 429 ``QuotaExceeded`` (``refuse``).
    :param gateway_concurrency: unfinished generations that the gateway accepts; None for no limit.
    :param gateway_refusal: the refusal of a create beyond that, a name in ``refusals.REFUSALS``.
    :param gateway_prompt_limit: longest prompt, in characters, that the gateway's upstream accepts; None for any.
    :param models: ``documented`` (the official API's lists), ``any``, or the names that both dialects accept.
    :param surplus_fields: ``refuse`` fields outside an endpoint's table, all except ``payload`` (``allow-payload``), or
        ``ignore`` them.
    :param list_payload: whether listed tasks hold ``payload`` and ``err_code``.
    :param task_ids: how the list reads this filter: ``repeated``, ``comma``, ``json`` or ``ignored``.
    :param times: ``created_at`` as text (``iso``) or whole seconds (``epoch``).
    :param state_field: the name of the state in official answers, ``state`` or ``status``.
    :param balance_field: the name of the balance's list, ``remains`` or ``remaining_credits``.
    :param balance_check: report an exhausted balance before (``first``) or after (``last``) all other errors.
    :param uploads: accept ``ssupload:`` addresses for ``any`` medium, for ``images``, or not (``off``).
    :param bare_keys: accept a key without an authorization scheme on every path, not only under ``/v1/``.
    :param native_shape: bodies of queries under ``/vidu-native/``: ``flat``, ``wrapped`` or ``official``.
    :param new_api_url: where ``/v1/video/generations`` puts the URL: ``result_url`` or (older) ``fail_reason``.
    :param openai_url: ``metadata.url`` under ``/v1/videos``: ``signed`` or the ``content`` endpoint.
    :param allowed_hosts: further names that the Host header may hold, besides those of loopback.
    :raises ValueError: if a value is invalid.
    """

    def __init__(
        self,
        *,
        keys: Iterable[str] = Settings.keys,
        speed: float = Settings.speed,
        queue: float = Settings.queue,
        duration: float = Settings.duration,
        clip_seconds: float = Settings.clip_seconds,
        url_lifetime: float = Settings.url_lifetime,
        balance: int = Settings.balance,
        price: int = Settings.price,
        seed: int | None = Settings.seed,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: tuple[str | Path, str | Path] | None = None,
        cover_lifetime: float = Settings.cover_lifetime,
        concurrency: int | None = Settings.concurrency,
        when_full: str = Settings.when_full,
        gateway_concurrency: int | None = Settings.gateway_concurrency,
        gateway_refusal: str = Settings.gateway_refusal,
        gateway_prompt_limit: int | None = Settings.gateway_prompt_limit,
        models: str | Iterable[str] = Settings.models,
        surplus_fields: str = Settings.surplus_fields,
        list_payload: bool = Settings.list_payload,
        task_ids: str = Settings.task_ids,
        times: str = Settings.times,
        state_field: str = Settings.state_field,
        balance_field: str = Settings.balance_field,
        balance_check: str = Settings.balance_check,
        uploads: str = Settings.uploads,
        bare_keys: bool = Settings.bare_keys,
        native_shape: str = Settings.native_shape,
        new_api_url: str = Settings.new_api_url,
        openai_url: str = Settings.openai_url,
        allowed_hosts: Iterable[str] = Settings.allowed_hosts,
    ) -> None:
        given = dict(locals())
        self.core = Core(Settings(**{name: given[name] for name in Settings.names()}))
        self._address = (host, port)
        self._tls = tls_context(*tls) if tls is not None else None
        self._url: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the server and return when it listens; OSError if the port is in use.

        After a :meth:`stop` it listens on the same address and keeps its state, like a restarted service.
        """
        started: Future[str] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="vidu-sandbox", daemon=True
        )
        self._thread.start()
        self._url = started.result()
        self._address = self._address[0], urlsplit(self._url).port or 0
        return self

    def stop(self) -> None:
        """Close all connections and stop; the ledger stays readable."""
        if self._loop is not None and self._stopping is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_SECONDS)
        self._loop = self._thread = self._stopping = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, started: Future[str]) -> None:
        server, stopping = Server(self.core, tls=self._tls), asyncio.Event()
        self._loop, self._stopping = asyncio.get_running_loop(), stopping
        try:
            url = await server.start(*self._address)
        except Exception as error:  # noqa: BLE001 - start() waits for it, and raises it
            started.set_exception(error)
            return
        started.set_result(url)
        await stopping.wait()
        await server.stop()

    # -- address -----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL without a trailing slash; RuntimeError before the start."""
        if self._url is None:
            raise RuntimeError("the sandbox is not running: use it in a with statement or call start()")
        return self._url

    @property
    def key(self) -> str:
        """The first of the currently accepted API keys."""
        return self.core.keys[0]

    def connection_json(self, dialect: str = NATIVE, **extra: Any) -> str:
        """Return an Airflow connection of type ``vidu`` as JSON, for AIRFLOW_CONN_VIDU_DEFAULT.

        :param dialect: ``vidu-native`` or ``ent-v2``.
        :param extra: further extras.
        """
        body = {"conn_type": "vidu", "host": self.url, "password": self.key, "extra": {"dialect": dialect, **extra}}
        return json.dumps(body)

    def connection_uri(self, dialect: str = NATIVE, **extra: Any) -> str:
        """Return the same connection as a URI.

        :param dialect: ``vidu-native`` or ``ent-v2``.
        :param extra: further extras; values other than strings are written as JSON.
        """
        fields = {"dialect": dialect, **extra}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in texts.items())
        return f"vidu://:{quote(self.key, safe='')}@{quote(self.url, safe='')}/?{query}"

    # -- control -----------------------------------------------------------------------------------

    def add_fault(self, rule: dict[str, Any] | str) -> None:
        """Make requests fail from now on.

        :param rule: which requests are hit and how, or the name of a refusal such as ``model_not_found`` for the
            next create; see :mod:`airflow_provider_vidu.sandbox.faults.actions`.
        :raises ValueError: if it is invalid.
        """
        self.core.add_rule(rule)

    def add_callback_fault(
        self,
        action: str,
        *,
        word: str | None = None,
        id: str | None = None,  # noqa: A002 - the name that users type
        times: int | None = 1,
        seconds: float = 1.0,
    ) -> None:
        """Make callbacks go wrong from now on.

        :param action: ``lost``, ``late``, ``doubled``, ``replayed``, ``wrong-key``, ``unsigned``, ``old-date``,
            ``wrong-path``, ``not-json``, ``huge``, ``lying``, ``with-id`` or ``unknown-word``.
        :param word: only callbacks with this state (``processing``, ``success``, ``failed``); None for all.
        :param id: only callbacks of this generation; None for all.
        :param times: how many callbacks are hit; None for all.
        :param seconds: how much later a ``late`` one is sent, in real seconds.
        :raises ValueError: if ``action`` is unknown.
        """
        self.core.add_callback_fault(action=action, word=word, id=id, times=times, seconds=seconds)

    def clear_faults(self) -> None:
        """Remove all fault rules, and the faults of callbacks."""
        self.core.clear_rules()

    def add_generation(self, id: str, **fields: Any) -> str:  # noqa: A002 - the name that users type
        """Add a generation with its own script and return its id; it occupies none of the account's slots.

        :param id: its id; an existing generation is replaced.
        :param fields: ``states`` (pairs of word and sandbox seconds from now), ``dialect``, ``error`` (a code or
            ``{"code", "message"}``), ``size`` (bytes of the video), ``answer`` (any JSON that replaces the query's
            body), ``age`` (sandbox seconds since its creation), ``credits``, ``creations`` (count), ``endpoint``,
            ``without_url``, ``video_url``, and of the request ``prompt``, ``model``, ``payload``, ``watermark``,
            ``bgm``, ``off_peak``, ``audio``, ``audio_type``, ``images``, ``duration``, ``resolution``,
            ``aspect_ratio``, ``seed``.
        :raises ValueError: if they are invalid.
        """
        return self.core.add_generation({"id": id, **fields}).id

    def rotate_keys(self, keys: Iterable[str]) -> None:
        """Accept other keys from now on.

        :param keys: all accepted keys.
        """
        self.core.rotate_keys(keys)

    def set_speed(self, speed: float) -> None:
        """Change the speed of the sandbox's clock.

        :param speed: sandbox seconds per real second; 0 stops the clock.
        """
        self.core.clock.set_speed(speed)

    def advance(self, seconds: float) -> None:
        """Advance the sandbox's clock.

        :param seconds: sandbox seconds.
        """
        self.core.clock.advance(seconds)

    def reset(self) -> None:
        """Discard all generations, requests, faults, and changes of keys and speed."""
        self.core.reset()

    # -- records -----------------------------------------------------------------------------------

    @property
    def ledger(self) -> dict[str, Any]:
        """The ledger as JSON: ``balance``, ``creates``, ``requests``, ``requests_by_id`` and ``files``."""
        return snapshot(self.core)

    @property
    def creates(self) -> list[CreateRecord]:
        """All billed creates in order, with the current state of their charge."""
        with self.core.lock:
            self.core.settle()
            return list(self.core.ledger.creates.values())

    def requests(self, kind: str | None = None, id: str | None = None) -> list[RecordedRequest]:  # noqa: A002 - the name that users type
        """Return the received requests in order.

        :param kind: ``create``, ``query``, ``cancel``, ``list``, ``credits``, ``subject``, ``upload``, ``content``,
            ``file`` or ``other``; None for all.
        :param id: the id of their generation; None for all.
        """
        with self.core.lock:
            return [r for r in self.core.ledger.requests if kind in (None, r.kind) and id in (None, r.id)]

    @property
    def callbacks(self) -> list[CallbackRecord]:
        """All attempts to deliver a callback, in order."""
        with self.core.lock:
            return list(self.core.callbacks.records)

    @property
    def uploads(self) -> list[Upload]:
        """All uploads in order, with size and SHA-256 of the received bytes."""
        with self.core.lock:
            return list(self.core.world.uploads.values())

    def issued_signatures(self, id: str | None = None) -> set[str]:  # noqa: A002 - the name that users type
        """Return the signatures of all issued URLs, so that a test can search logs and databases for them.

        :param id: the id of their generation; None for all.
        """
        with self.core.lock:
            return {signature for owner, signature in self.core.issued if id in (None, owner)}

    def file_bytes(self, id: str, artifact: str = "video", creation: int = 1) -> bytes:  # noqa: A002 - the name that users type
        """Return the bytes that a correct download of an artifact yields, all in memory.

        :param id: the id of the generation.
        :param artifact: ``video`` (the result of any medium), ``image`` or ``audio`` (a result of that medium),
            ``cover``, ``watermarked``, ``speech`` or ``sound``.
        :param creation: the number of the creation, from 1.
        :raises KeyError: if the generation is unknown.
        :raises ValueError: if the artifact is unknown.
        """
        content = self.core.content_of(id, artifact, creation)
        return content.read(0, content.size)


def tls_context(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """Return a server's TLS context from the PEM files of a certificate and its key; OSError if unreadable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
