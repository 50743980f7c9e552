"""Sending a file to the signed URL that the service names for it: once, without the API key, nowhere private."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import BinaryIO, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.exceptions import (
    ViduConfigError,
    ViduDownloadRefusedError,
    ViduRequestError,
    ViduResponseError,
    ViduServerError,
    ViduTransportError,
)
from airflow_provider_vidu.network.addresses import is_allowed_host
from airflow_provider_vidu.network.connection import Connection, Response
from airflow_provider_vidu.network.limits import CHUNK_BYTES, TOTAL_TIMEOUTS, USER_AGENT
from airflow_provider_vidu.network.stream import NETWORK_ERRORS, failure_text
from airflow_provider_vidu.network.target import DownloadAccess, Target

_LEAST_RATE: Final = 20_000.0
"""Bytes a second below which, on the whole, an upload is given up."""
_ERROR_BODY_BYTES: Final = 2048
_MOST_ETAG_CHARS: Final = 1024


def put(url: str, content: BinaryIO, size: int, content_type: str, access: DownloadAccess) -> str:
    """Send a file with one PUT and return the ``ETag`` of the answer. Redirects are not followed.

    The URL comes from the service and is signed: it is used verbatim, and gets neither the API key nor any other
    header of the connection. It may name public addresses only, or a host that the connection allows.

    :param url: where the bytes go.
    :param content: the file; it is read from its beginning.
    :param size: its size in bytes.
    :param content_type: its type, which some stores sign.
    :param access: what the connection grants: time-outs, trust, proxy, allowed hosts.
    :raises ViduConfigError: when the URL leads to an address that is not allowed.
    :raises ViduTransportError: when the connection failed; uploading again costs nothing.
    :raises ViduServerError: when the store reports a failure that may pass.
    :raises ViduRequestError: when the store refused the file.
    :raises ViduResponseError: when the answer has no ETag, or redirects.
    """
    sockets: list[socket.socket] = []
    content.seek(0)
    try:
        target = Target.parse(url)
        _check_scheme(target, access)
        connection = Connection(target, access, sockets.append)
        try:
            _send(connection, target, content, size, content_type, access.timeout)
            return _etag(connection.answer(), access, url)
        finally:
            connection.close()
            for sock in sockets:
                with contextlib.suppress(OSError):
                    sock.close()
    except ViduDownloadRefusedError as error:
        reason = error.reason.removeprefix("Not fetched: ").replace("the file really lies", "uploads really go")
        raise ViduConfigError(f"The upload service names an address that is not allowed: {reason}") from None
    except NETWORK_ERRORS as error:
        failed = access.redact_text(failure_text(error), url)
    # Raised outside of the handler: the frames of the error hold the signed URL, and the password of a proxy.
    raise ViduTransportError(f"A file could not be uploaded: {failed}. A retry uploads it again, at no cost.")


def _check_scheme(target: Target, access: DownloadAccess) -> None:
    """Refuse to send a file in the clear that the connection would send encrypted.

    :raises ViduConfigError: when the connection is https, the target http, and its host not in ``allowed_hosts``.
    """
    is_downgrade = target.scheme == "http" and access.origin is not None and access.origin[0] == "https"
    if is_downgrade and not is_allowed_host(target.host, access.allowed_hosts):
        raise ViduConfigError(
            f"The upload service names an http:// address at {redacted(target.host, 100)}, although the connection is "
            "https: the file would travel unencrypted. If that is intended, add the host to the connection's "
            "allowed_hosts."
        )


def _send(
    connection: Connection, target: Target, content: BinaryIO, size: int, content_type: str, timeout: float
) -> None:
    until = time.monotonic() + TOTAL_TIMEOUTS * timeout + size / _LEAST_RATE
    connection.putrequest("PUT", connection.request_target, skip_host=True, skip_accept_encoding=True)
    headers = {
        "Host": target.authority,
        "User-Agent": USER_AGENT,
        "Content-Type": content_type,
        "Content-Length": str(size),
    }
    for name, value in {**headers, **connection.proxy_headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    while piece := content.read(CHUNK_BYTES):
        if time.monotonic() > until:
            raise TimeoutError("the upload was too slow")
        connection.send(piece)


def _etag(response: Response, access: DownloadAccess, url: str) -> str:
    if 200 <= response.status < 300:
        etag = response.headers.get("ETag", "")
        if 0 < len(etag) <= _MOST_ETAG_CHARS:
            return etag
        wrong = f"with an ETag of {len(etag):,} characters" if etag else "without an ETag"
        raise ViduResponseError(f"The store answered the upload of a file {wrong}.", status_code=response.status)
    try:
        body = access.redact(response.read(_ERROR_BODY_BYTES), url).decode("utf-8", "replace")
    except NETWORK_ERRORS:
        body = ""
    said = f" It said: {redacted(body)}" if body.strip() else ""
    if 300 <= response.status < 400:
        raise ViduResponseError(f"The store redirects the upload of a file.{said}", status_code=response.status)
    # A retry gets a new URL, so one that has expired meanwhile (403) may pass as well.
    is_transient = response.status in (403, 408, 429) or response.status >= 500
    kind = ViduServerError if is_transient else ViduRequestError
    raise kind(f"The store did not take the upload of a file.{said}", status_code=response.status)
