"""Resolving an Airflow connection into a :class:`ViduConfig`, in a worker and on an event loop."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.api.settings.fields import EXTRA_PREFIX, is_blank
from airflow_provider_vidu.api.settings.form import CONNECTION_TYPE, EXTRAS
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduConnectionNotFoundError,
    ViduError,
    ViduResponseError,
    ViduTransportError,
    forgetting_variables,
)
from airflow_provider_vidu.network.proxies import proxy_for, without_login
from airflow_provider_vidu.network.secrets_backends import is_there_after_all, kinds_of

log = logging.getLogger(__name__)
T = TypeVar("T")
_warned: set[str | tuple[str, ...]] = set()


def resolve(conn_id: str, hook: type[BaseHook] = BaseHook) -> ViduConfig:
    """Look the connection up, check it, and register its secrets with Airflow's masker.

    :param conn_id: the id of an Airflow connection of type ``vidu``.
    :param hook: the class that provides ``get_connection``.
    :raises ViduConnectionNotFoundError: when the connection does not exist.
    :raises ViduConfigError: when a field is missing or wrong.
    """
    _check_id(conn_id)
    with forgetting_variables():  # they hold the connection
        return _resolved(conn_id, hook)


def _resolved(conn_id: str, hook: type[BaseHook]) -> ViduConfig:
    conn = _looked_up(conn_id, lambda: _get(conn_id, hook))
    config = _checked(conn_id, conn, lambda: conn.extra_dejson)
    for secret in config.secrets():
        mask_secret(secret)
    return config


def problem(error: ViduError, config: ViduConfig | None) -> str:
    """Return in one sentence what is wrong with a connection.

    :param config: the connection, if it could be looked up.
    """
    if isinstance(error, ViduConfigError) or config is None:
        return error.reason
    if isinstance(error, ViduTransportError):
        return f"Cannot reach the service. {error.reason}"
    if isinstance(error, ViduAuthError):
        return f"The service was reached, but the key was refused: {error.reason}"
    if isinstance(error, ViduResponseError):
        return f"The host answered, but it is not a Vidu service ({config.dialect.name}): {error.reason}"
    return f"The service was reached, but it reports: {error.reason}"


def success(config: ViduConfig) -> str:
    """Return in one sentence that a connection works, and through which proxy."""
    proxy = proxy_for(config.base_url, config.proxy)
    through = f" (through the proxy {without_login(proxy)})" if proxy else ""
    return f"Fine: {config.base_url} speaks {config.dialect.name} and accepts the key{through}."


async def aresolve(conn_id: str) -> ViduConfig:
    """Do the same as :func:`resolve` without blocking the event loop.

    :raises ViduTransportError: when the look-up itself failed (API server or secrets backend unreachable): a trigger
        tolerates it like a failed poll.
    """
    _check_id(conn_id)
    with forgetting_variables():
        return await _aresolved(conn_id)


async def _aresolved(conn_id: str) -> ViduConfig:
    from airflow.providers.common.compat.connection import get_async_extra_dejson

    async def look_up() -> tuple[Any, Any]:
        conn = await _aget(conn_id)
        return conn, None if isinstance(conn.extra, Mapping) else await get_async_extra_dejson(conn)

    conn, extra = await _alooked_up(conn_id, look_up())
    config = _checked(conn_id, conn, lambda: extra)
    for secret in config.secrets():
        await _amask(secret)
    return config


def check_type(conn_id: str, kind: str | None) -> None:
    """Refuse a connection of another type, whose password must not be sent: its name may be by someone without rights.

    :param kind: its type.
    :raises ViduConfigError: when it is not ``vidu``.
    """
    if kind != CONNECTION_TYPE:
        raise ViduConfigError(
            f"The connection {conn_id!r} is of type {kind or 'none'!r}, not {CONNECTION_TYPE!r}: nothing was sent.",
            conn_id=conn_id,
        )


def type_of(conn_id: str) -> str | None:
    """Return the type of an Airflow connection, in a worker; it raises as :func:`connection_type`."""
    _check_id(conn_id)
    conn_type: str | None = _looked_up(conn_id, lambda: _get(conn_id, BaseHook)).conn_type
    return conn_type


async def connection_type(conn_id: str) -> str | None:
    """Return the type of an Airflow connection, without blocking the event loop.

    :raises ViduConnectionNotFoundError: when the connection does not exist.
    :raises ViduTransportError: when the look-up itself failed.
    """
    _check_id(conn_id)
    conn_type: str | None = (await _alooked_up(conn_id, _aget(conn_id))).conn_type
    return conn_type


def _get(conn_id: str, hook: type[BaseHook]) -> Any:
    """Look a connection up. Only one that no backend has is missing; otherwise the error of a backend is raised."""
    try:
        return hook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        missing = error
    if not is_there_after_all("connection", conn_id):
        raise missing
    return hook.get_connection(conn_id)


async def _aget(conn_id: str) -> Any:
    """Look a connection up on an event loop.

    ``dag.test()`` and ``airflow tasks test`` run triggers in the task's process, where Airflow's asynchronous look-up
    finds no connection of its database (3.3.2: ``InProcessSupervisorComms`` has no ``asend``). The synchronous one
    does, so it decides; in a triggerer that costs a second look-up if the connection is really missing.
    """
    from airflow.providers.common.compat.connection import get_async_connection
    from asgiref.sync import sync_to_async

    with suppress(AirflowNotFoundException):
        return await get_async_connection(conn_id)
    return await sync_to_async(_get)(conn_id, BaseHook)


def _check_id(conn_id: object) -> None:
    if not isinstance(conn_id, str) or conn_id.strip() in ("", "None") or not conn_id.isprintable():
        shown = repr(conn_id) if isinstance(conn_id, str) or conn_id is None else type(conn_id).__name__
        raise ViduConfigError(f"vidu_conn_id must be the id of an Airflow connection of type vidu, not {shown}.")


def _looked_up(conn_id: str, look_up: Callable[[], T]) -> T:
    """Return the result of ``look_up``, or raise this package's error.

    It is raised outside of the handler: an error of a secrets backend may hold the connection in its text or frames,
    so it must not stay attached as the context of an error that is logged or sent elsewhere.
    """
    try:
        with forgetting_variables():  # of what is no Exception, such as a timeout
            return look_up()
    except Exception as error:  # noqa: BLE001 - raised below, as our own
        failure = _failure(conn_id, error)
    raise failure


async def _alooked_up(conn_id: str, look_up: Awaitable[T]) -> T:
    try:
        with forgetting_variables():
            return await look_up
    except Exception as error:  # noqa: BLE001 - raised below, as our own
        failure = _failure(conn_id, error)
    raise failure


def _failure(conn_id: str, error: Exception) -> ViduError:
    if isinstance(error, ViduError):
        return error
    # Any other error of a secrets backend: the wait must survive its outage.
    return _not_found(conn_id) if isinstance(error, AirflowNotFoundException) else _outage(conn_id, error)


def _checked(conn_id: str, conn: Any, extra: Callable[[], Any]) -> ViduConfig:
    extras: Any = None
    try:
        # A secrets backend may hand over an object, which Airflow itself does not read.
        extras = dict(conn.extra) if isinstance(conn.extra, Mapping) else extra()
        # Airflow 3 returns {} for an extra that is not JSON, and the defaults would be used silently.
        written = json.loads(conn.extra) if isinstance(conn.extra, str) and conn.extra.strip() else None
        extras = extras or ({} if written is None else written)
    except ValueError:  # json's error holds the whole text, so ours is raised outside of this handler
        extras = None
    if not isinstance(extras, dict):
        raise ViduConfigError(f"Connection {conn_id!r}, field 'extra': must be a JSON object.", conn_id=conn_id)
    config = ViduConfig.from_connection(conn_id, conn, extras)
    _warn_of_unknown(conn_id, extras)
    if config.is_cleartext and conn_id not in _warned:
        _warned.add(conn_id)
        log.warning("Connection %r sends its API key over cleartext http to %s: use https.", conn_id, config.origin[1])
    return config


def _warn_of_unknown(conn_id: str, extras: Mapping[str, Any]) -> None:
    """Warn once of extras that have no effect: a misspelt one would be ignored silently."""
    unknown = sorted(name for name in map(str, extras) if not _is_read(name, extras))
    if not unknown or (conn_id, *unknown) in _warned:
        return
    _warned.add((conn_id, *unknown))
    near = {name: get_close_matches(name.removeprefix(EXTRA_PREFIX), EXTRAS, 1) for name in unknown}
    listed = (f"{sanitized(name, 40)!r}{f' (is it {near[name][0]}?)' if near[name] else ''}" for name in unknown)
    log.warning("Connection %r has extras that are not used: %s.", conn_id, ", ".join(listed))


def _is_read(name: str, extras: Mapping[str, Any]) -> bool:
    """Whether an extra has an effect; an unprefixed one overrides its prefixed twin."""
    bare = name.removeprefix(EXTRA_PREFIX)
    return bare in EXTRAS and (bare == name or is_blank(extras.get(bare)))


def _not_found(conn_id: str) -> ViduConnectionNotFoundError:
    from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

    # These silently skip a connection that they cannot write as a URI.
    is_hiding = (3, 0) <= get_base_airflow_version_tuple() < (3, 2)
    hint = " If it exists, check its extra: this Airflow skips one that is not a JSON object." if is_hiding else ""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    advice = f"Create one of type vidu (Admin → Connections), or set {variable}."
    if os.environ.get(variable):  # Airflow says why it skips one only at the level debug
        advice = f"{variable} is set, but Airflow cannot read it: check its JSON or URI (the port is a whole number)."
    return ViduConnectionNotFoundError(f"There is no Airflow connection {conn_id!r}. {advice}{hint}", conn_id=conn_id)


def _outage(conn_id: str, error: BaseException) -> ViduTransportError:
    return ViduTransportError(
        f"The connection could not be looked up ({kinds_of(error)}). Check Airflow's API server or the "
        "secrets backend.",
        conn_id=conn_id,
        sent=False,
    )


async def _amask(secret: str) -> None:
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:  # before 3.2 the masker is only synchronous, and does not block
        from asgiref.sync import sync_to_async

        await sync_to_async(mask_secret)(secret)
    else:
        await amask_secret(secret)
