"""Which certificates are trusted: decided once, for the sync client, the async client and downloads."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduConfigError

BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Environment variables that name a CA bundle; the first that is set replaces the usual trust."""


def ssl_context(verify: bool | str = True, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return the TLS settings that a connection's ``verify`` asks for.

    With True, a bundle named by ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE`` or ``SSL_CERT_FILE`` is
    the only trust, as with requests and curl; without one, the system's store and certifi's bundle
    are trusted together (slim images lack the first, companies put their own CA into it).

    The context is cached and shared: do not change it.

    :param verify: true, false, or the path of a CA bundle (a file, or a directory made by ``c_rehash``).
    :param environ: the environment to read; the process's own where left out.
    :raises ViduConfigError: when the bundle cannot be read or holds no certificate.
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
    try:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    except (ImportError, OSError):  # distributions ship Python without certifi's file; the system store is left
        pass
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
        reason = "holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else detail
        raise ViduConfigError(
            f"The CA bundle {sanitized(path)!r} that {source} names cannot be used: {reason}."
        ) from None
    return _http1(context)


@lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _http1(context)


def _http1(context: ssl.SSLContext) -> ssl.SSLContext:
    # Neither client speaks HTTP/2; some gateways pick it unless the client offers only HTTP/1.1.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _fingerprint(path: str) -> tuple[int, int]:
    # A bundle that was replaced on disk must not be answered from the cache.
    try:
        status = Path(path).expanduser().stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_mtime_ns, status.st_size
