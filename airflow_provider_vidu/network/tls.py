"""The trusted certificates of the sync client, the async client and downloads."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.guarded import GuardedSocket

BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Environment variables that name a CA bundle; the first one set replaces the default trust store."""


def ssl_context(verify: bool | str = True, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return the TLS context for a connection's ``verify``. It is cached and shared: do not change it.

    With True, a bundle named by ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE`` or ``SSL_CERT_FILE`` is the only one
    trusted, as with requests and curl. Without one, the system's store and certifi's bundle are both trusted: slim
    images lack the former, companies add their own CA to it.

    :param verify: true, false, or the path of a CA bundle (a file, or a directory made by ``c_rehash``).
    :param environ: the environment to read; the process's own if omitted.
    :raises ViduConfigError: when the bundle cannot be read or contains no certificate.
    """
    if verify is False:
        return _unverified()
    if isinstance(verify, str):
        return _trusting("the connection's verify", verify, _fingerprint(verify))
    for name in BUNDLE_VARIABLES:
        if path := environ.get(name):
            return _trusting(f"the environment variable {name}", path, _fingerprint(path))
    return _default()


@lru_cache(maxsize=1)
def _default() -> ssl.SSLContext:
    context = ssl.create_default_context()
    with suppress(ImportError, OSError):  # distributions ship Python without certifi's file; the system store remains
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return _http1(context)


@lru_cache(maxsize=32)
def _trusting(source: str, path: str, _fingerprint: tuple[int, int]) -> ssl.SSLContext:
    place = Path(path).expanduser()
    try:
        is_folder = place.is_dir()
        context = ssl.create_default_context(
            cafile=None if is_folder else str(place), capath=str(place) if is_folder else None
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        detail = getattr(error, "strerror", None) or str(error)
        reason = "it contains no certificate in PEM form" if isinstance(error, ssl.SSLError) else detail
        raise ViduConfigError(
            f"The CA bundle {sanitized(path)!r} named by {source} cannot be used: {reason}."
        ) from None
    return _http1(context)


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _http1(context)


def _http1(context: ssl.SSLContext) -> ssl.SSLContext:
    # Neither client supports HTTP/2; some gateways choose it unless the client offers only HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = GuardedSocket
    return context


def _fingerprint(path: str) -> tuple[int, int]:
    # A bundle replaced on disk must not come from the cache.
    try:
        status = Path(path).expanduser().stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_mtime_ns, status.st_size
