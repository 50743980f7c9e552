"""``Sandbox``: the sandbox for Python programs and tests, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from airflow_provider_vidu.sandbox.control import snapshot
from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.messages.calls import NATIVE
from airflow_provider_vidu.sandbox.server.app import Server
from airflow_provider_vidu.sandbox.settings import Settings
from airflow_provider_vidu.sandbox.world.ledger import CreateRecord, RecordedRequest
from airflow_provider_vidu.sandbox.world.uploads import Upload

_STOP_SECONDS = 5.0


class Sandbox:
    """A local Vidu that runs in a background thread; a context manager, safe to use from any thread.

    ``with Sandbox(speed=50) as sandbox: requests.get(sandbox.url + "/…")``

    Where the vendor's pages disagree or are silent, a parameter chooses between the behaviours that clients
    must cope with; the manual's page on the sandbox says what is documented, likely or unknown.

    :param keys: accepted API keys.
    :param speed: sandbox seconds per real second.
    :param queue: sandbox seconds that a generation waits.
    :param duration: sandbox seconds that it then runs.
    :param clip_seconds: playing time of videos and sounds, in seconds.
    :param url_lifetime: sandbox seconds that a result URL is valid.
    :param balance: credits at the start.
    :param price: credits that a create takes; half of them with ``off_peak``.
    :param seed: makes ids and signatures repeatable.
    :param host: the address to listen on; loopback unless told otherwise.
    :param port: the port to listen on; 0 takes any free one.
    :param tls: the files of a certificate and its key, both PEM, for https.
    :param cover_lifetime: sandbox seconds that a cover's URL is valid.
    :param concurrency: generations of the official API that run at once; None for no limit.
    :param when_full: ``queue`` (a surplus create waits) or ``refuse`` (429 ``QuotaExceeded``).
    :param gateway_concurrency: unfinished generations that the gateway takes; None for no limit.
    :param gateway_refusal: the refusal that a create beyond them gets, a name of ``refusals.REFUSALS``.
    :param gateway_prompt_limit: longest prompt, in characters, that the gateway's upstream takes; None for any.
    :param models: ``documented`` (the official API's lists), ``any``, or the names that both dialects take.
    :param surplus_fields: ``refuse`` fields outside an endpoint's table, ``allow-payload``, or ``ignore`` them all.
    :param list_payload: whether entries of the list of tasks hold ``payload`` and ``err_code``.
    :param task_ids: how the list reads this filter: ``repeated``, ``comma`` or ``ignored``.
    :param times: ``created_at`` as text (``iso``) or whole seconds (``epoch``).
    :param state_field: ``state`` or ``status`` in official answers.
    :param balance_field: ``remains`` or ``remaining_credits``.
    :param balance_check: whether an exhausted balance is reported ``first`` or ``last``.
    :param uploads: ``ssupload:`` addresses are taken for ``any`` medium, for ``images``, or not (``off``).
    :param bare_keys: whether a key without an authorization scheme is accepted on every path.
    :param native_shape: bodies of queries under ``/vidu-native/``: ``flat``, ``wrapped`` or ``official``.
    :param new_api_url: where ``/v1/video/generations`` puts the URL: ``result_url`` or ``fail_reason``.
    :param openai_url: ``metadata.url`` under ``/v1/videos``: ``signed`` or the ``content`` endpoint.
    :param allowed_hosts: names that the Host header may hold beside those of loopback.
    :raises ValueError: when a value makes no sense.
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
        """Start the server and return when it listens; OSError when the port is taken.

        After a :meth:`stop` it listens where it did before and remembers everything, as a service does that
        was restarted.
        """
        started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="vidu-sandbox", daemon=True)
        self._thread.start()
        self._url = started.result()
        self._address = self._address[0], urlsplit(self._url).port or 0
        return self

    def stop(self) -> None:
        """Stop at once, whatever connections are open; the books can still be read."""
        if self._loop is not None and self._stopping is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_SECONDS)
        self._loop = self._thread = self._stopping = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, started: Future[str]) -> None:
        asyncio.run(self._serve(started))

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

    # -- where it is -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL without a slash at the end; RuntimeError before the start."""
        if self._url is None:
            raise RuntimeError("the sandbox has not been started: use it in a with statement or call start()")
        return self._url

    @property
    def key(self) -> str:
        """The first of the API keys accepted now."""
        return self.core.keys[0]

    def connection_json(self, dialect: str = NATIVE, **extra: Any) -> str:
        """Return an Airflow connection of type ``vidu`` as JSON, for AIRFLOW_CONN_VIDU_DEFAULT.

        :param dialect: ``vidu-native`` or ``ent-v2``.
        :param extra: further extras of the connection.
        """
        body = {
            "conn_type": "vidu",
            "host": self.url,
            "password": self.key,
            "extra": {"dialect": dialect, **extra},
        }
        return json.dumps(body)

    def connection_uri(self, dialect: str = NATIVE, **extra: Any) -> str:
        """Return the same connection as a URI.

        :param dialect: ``vidu-native`` or ``ent-v2``.
        :param extra: further extras; values that are no texts are written as JSON.
        """
        fields = {"dialect": dialect, **extra}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in texts.items())
        return f"vidu://:{quote(self.key, safe='')}@{quote(self.url, safe='')}/?{query}"

    # -- what it shall do --------------------------------------------------------------------------

    def add_fault(self, rule: dict[str, Any] | str) -> None:
        """Let requests go wrong from now on.

        :param rule: what is hit and what happens, or the name of a refusal such as ``model_not_found`` for the
            next create; see :mod:`airflow_provider_vidu.sandbox.faults.actions`.
        :raises ValueError: when it is not understood.
        """
        self.core.add_rule(rule)

    def clear_faults(self) -> None:
        """Remove all fault rules."""
        self.core.clear_rules()

    def add_generation(self, id: str, **fields: Any) -> str:  # noqa: A002 - the name that users type
        """Add a generation with a script of its own and return its id.

        :param id: its id; one that is there is replaced.
        :param fields: ``states`` (pairs of word and sandbox seconds from now), ``dialect``, ``error`` (a code or
            ``{"code", "message"}``), ``size`` (bytes of the video), ``answer`` (any JSON, instead of the query's
            body), ``age`` (sandbox seconds since its creation), ``credits``, ``creations`` (count), ``endpoint``,
            ``without_url``, ``video_url``, and of the request ``prompt``, ``model``, ``payload``, ``watermark``,
            ``bgm``, ``off_peak``, ``audio``, ``audio_type``, ``images``, ``duration``, ``resolution``,
            ``aspect_ratio``, ``seed``. It takes no slot of the account.
        :raises ValueError: when they are not understood.
        """
        return self.core.add_generation({"id": id, **fields}).id

    def rotate_keys(self, keys: Iterable[str]) -> None:
        """Accept other keys from now on.

        :param keys: all that are accepted.
        """
        self.core.rotate_keys(keys)

    def set_speed(self, speed: float) -> None:
        """Let the sandbox's time pass faster or slower.

        :param speed: sandbox seconds per real second; 0 stands still.
        """
        self.core.clock.set_speed(speed)

    def advance(self, seconds: float) -> None:
        """Jump ahead.

        :param seconds: sandbox seconds.
        """
        self.core.clock.advance(seconds)

    def reset(self) -> None:
        """Forget all generations, requests, faults, and changes of keys and speed."""
        self.core.reset()

    # -- what it saw -------------------------------------------------------------------------------

    @property
    def ledger(self) -> dict[str, Any]:
        """The books as JSON: ``balance``, ``creates``, ``requests``, ``requests_by_id`` and ``files``."""
        return snapshot(self.core)

    @property
    def creates(self) -> list[CreateRecord]:
        """All billed creates in their order, with what became of the charge by now."""
        with self.core.lock:
            self.core.settle()
            return list(self.core.ledger.creates.values())

    def requests(self, kind: str | None = None, id: str | None = None) -> list[RecordedRequest]:  # noqa: A002 - the name that users type
        """Return the requests that came, in their order.

        :param kind: ``create``, ``query``, ``cancel``, ``list``, ``credits``, ``subject``, ``upload``, ``content``,
            ``file`` or ``other``; None for all.
        :param id: the generation that they are for; None for all.
        """
        with self.core.lock:
            return [r for r in self.core.ledger.requests if kind in (None, r.kind) and id in (None, r.id)]

    @property
    def uploads(self) -> list[Upload]:
        """All uploads in their order, with size and SHA-256 of what arrived."""
        with self.core.lock:
            return list(self.core.world.uploads.values())

    def issued_signatures(self, id: str | None = None) -> set[str]:  # noqa: A002 - the name that users type
        """Return the signatures of all URLs that were handed out.

        A test that searches logs and databases for them knows where signed URLs have gone.

        :param id: the generation that they are for; None for all.
        """
        with self.core.lock:
            return {signature for owner, signature in self.core.issued if id in (None, owner)}

    def file_bytes(self, id: str, artifact: str = "video", creation: int = 1) -> bytes:  # noqa: A002 - the name that users type
        """Return the bytes that a right download of an artifact must yield.

        A ``size`` of gigabytes is held in memory whole.

        :param id: the generation.
        :param artifact: ``video`` (the result, whatever its medium), ``image`` or ``audio`` (a result of that
            medium), ``cover``, ``watermarked``, ``speech`` or ``sound``.
        :param creation: which of its creations, from 1.
        :raises KeyError: when the generation is unknown.
        :raises ValueError: when the artifact is.
        """
        content = self.core.content_of(id, artifact, creation)
        return content.read(0, content.size)


def tls_context(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """Return a server's TLS context from a certificate and its key, both PEM files; OSError when unreadable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
