"""Uploads a file to the signed URL that the service returned: once, without the API key, to public hosts only."""

from __future__ import annotations

import contextlib
import re
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
    forgetting_variables,
)
from airflow_provider_vidu.network.addresses import is_allowed_host
from airflow_provider_vidu.network.connection import Connection, Response
from airflow_provider_vidu.network.download_url import DownloadAccess, DownloadURL
from airflow_provider_vidu.network.limits import CHUNK_BYTES, TOTAL_TIMEOUTS, USER_AGENT
from airflow_provider_vidu.network.stream import NETWORK_ERRORS, failure_text

_MIN_RATE: Final = 20_000.0
"""An upload fails if its average falls below this many bytes per second."""
_ERROR_BODY_BYTES: Final = 8192
_MAX_ETAG_CHARS: Final = 1024


def put(url: str, content: BinaryIO, size: int, content_type: str, access: DownloadAccess) -> str:
    """Send a file with one PUT and return the ``ETag`` of the answer. Redirects are not followed.

    The signed URL is used verbatim, without the API key or any other header of the connection. Its host must be public
    or allowed by the connection.

    :param content: the file; it is read from its beginning.
    :param size: its size in bytes.
    :param content_type: its type, which some stores sign.
    :param access: timeouts, trust, proxy and allowed hosts of the connection.
    :raises ViduConfigError: when the URL leads to an address that is not allowed.
    :raises ViduTransportError: when the connection failed; uploading again costs nothing.
    :raises ViduServerError: when the store reports a transient failure.
    :raises ViduRequestError: when the store refused the file.
    :raises ViduResponseError: when the answer has no ETag, or redirects.
    """
    sockets: list[socket.socket] = []
    content.seek(0)
    try:
        target = DownloadURL.parse(url)
        _check_scheme(target, access)
        connection = Connection(target, access, sockets.append)
        try:
            with forgetting_variables():  # such as the password of a proxy
                _send(connection, target, content, size, content_type, access.timeout)
                return _etag(connection.answer(), access, url)
        finally:
            connection.close()
            for sock in sockets:
                with contextlib.suppress(OSError):
                    sock.close()
    except ViduDownloadRefusedError as error:
        reason = re.sub(r"the file really \w+", "uploads really go", error.reason.removeprefix("Not fetched: "))
        raise ViduConfigError(f"The upload service returned an address that is not allowed: {reason}") from None
    except NETWORK_ERRORS as error:
        failure = access.redact_text(failure_text(error), url)
    # Raised outside of the handler: the error's frames hold the signed URL and the password of a proxy.
    raise ViduTransportError(f"A file could not be uploaded: {failure}. A retry uploads it again, at no cost.")


def _check_scheme(target: DownloadURL, access: DownloadAccess) -> None:
    """Refuse an http target of an https connection, unless ``allowed_hosts`` contains its host."""
    is_downgrade = target.scheme == "http" and access.origin is not None and access.origin[0] == "https"
    if is_downgrade and not is_allowed_host(target.host, access.allowed_hosts):
        raise ViduConfigError(
            f"The upload service returned an http:// address at {redacted(target.host, 100)}, although the connection "
            "is https: the file would travel unencrypted. If that is intended, add the host to the connection's "
            "allowed_hosts."
        )


def _send(
    connection: Connection, target: DownloadURL, content: BinaryIO, size: int, content_type: str, timeout: float
) -> None:
    until = time.monotonic() + TOTAL_TIMEOUTS * timeout + size / _MIN_RATE
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
        if 0 < len(etag) <= _MAX_ETAG_CHARS:
            return etag
        problem = f"with an ETag of {len(etag):,} characters" if etag else "without an ETag"
        raise ViduResponseError(f"The store answered the upload of a file {problem}.", status_code=response.status)
    try:
        body = access.redact(response.read(_ERROR_BODY_BYTES), url, _ERROR_BODY_BYTES).decode("utf-8", "replace")
    except NETWORK_ERRORS:
        body = ""
    detail = f" It said: {redacted(body)}" if body.strip() else ""
    if 300 <= response.status < 400:
        raise ViduResponseError(f"The store redirected the upload of a file.{detail}", status_code=response.status)
    # A retry gets a new URL, so an expired one (403) is transient, too.
    is_transient = response.status in (403, 408, 429) or response.status >= 500
    kind = ViduServerError if is_transient else ViduRequestError
    raise kind(f"The store refused the upload of a file.{detail}", status_code=response.status)
