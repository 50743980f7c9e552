"""One request for a file, and the answer whose body is still on the wire."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
from collections.abc import Iterable
from typing import Final

from airflow_provider_vidu.common.redaction import Secret
from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.network.connection import Connection, Response, TooSlowError
from airflow_provider_vidu.network.framing import Answer
from airflow_provider_vidu.network.limits import USER_AGENT
from airflow_provider_vidu.network.target import DownloadAccess, Target

ERROR_BODY_BYTES: Final = 2048
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException)
"""What a broken connection raises here; ``ssl.SSLError`` and timeouts are OSErrors."""


class UnclearLengthError(http.client.HTTPException):
    """The headers do not show where the body ends."""


class Stream:
    """An answer whose body is still on the wire. Close it, as with :func:`contextlib.closing`.

    :raises OSError, http.client.HTTPException: when the connection fails (:data:`NETWORK_ERRORS`).
    :raises ViduDownloadRefusedError: when the address is not permitted.
    """

    def __init__(self, target: Target, access: DownloadAccess, headers: dict[str, str], *, own: bool) -> None:
        self.target = target
        self._access = access
        self._socket: socket.socket | None = None
        self._response: Response
        self._connection = Connection(target, access, self._remember)
        try:
            self._send(headers, access.headers if own else ())
            self._response = self._connection.answer()
            found = _lowered(self._response)
            self.location = Secret(found.pop("location")) if found.get("location") else None
            """Where a redirect leads; verbatim, for it may have to be followed."""
            self.headers = {name: access.redact_text(value, target.url) for name, value in found.items()}
            self.status = self._response.status
            self.relay = self._connection.relay
            self.length = self._announced()
        except (*NETWORK_ERRORS, ViduError) as error:
            self.close()
            if isinstance(error, ViduError):  # a redirect may name a host after the key
                error.reason = access.redact_text(error.reason, target.url)
                error.args = (error.reason,)
            # The frames below hold the request as it was written, the key among its headers.
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except BaseException:  # also for what a signal handler raises: the socket must not stay open
            self.close()
            raise
        self._left = self.length

    def _announced(self) -> int | None:
        """Return the length of the body, or None where it ends by itself.

        :raises UnclearLengthError: when the end of the body is unclear. ``http.client`` would read on
            until the connection ends, and take a cut file, or one with chunk sizes in it, for the video.
        """
        coding = self.headers.get("transfer-encoding", "identity").strip().lower()
        lengths = {part.strip() for part in self.headers.get("content-length", "0").split(",")}
        if coding not in ("identity", "chunked") or len(lengths) > 1 or not re.fullmatch("[0-9]{1,19}", lengths.pop()):
            raise UnclearLengthError
        return None if self._response.chunked else self._response.length

    def answer(self) -> Answer:
        """Return status and headers, and of an error the beginning of its body."""
        body = b""
        if self.status >= 400:
            self._response.patience.renew(self._access.timeout)
            try:
                body = self._access.redact(self._response.read(ERROR_BODY_BYTES), self.target.url)
            except NETWORK_ERRORS:
                body = b""
        return Answer(self.status, self.headers, self.length, body)

    def readinto(self, buffer: memoryview) -> int:
        """Read what has arrived, waiting for at least a byte; return its length, 0 at the end.

        :raises OSError, http.client.HTTPException: when the connection broke.
        """
        self._response.patience.renew(self._access.timeout)
        if self._response.chunked or self._response.fp is None:
            data = self._response.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        if wanted == 0:
            return 0
        count = self._response.fp.readinto1(buffer[:wanted])
        if self._left is not None:
            self._left -= count
        return count

    @property
    def shows_its_end(self) -> bool:
        """Whether a body that is cut differs from one that has ended."""
        return self.length is not None or self._response.chunked

    def has_surplus(self) -> bool:
        """Whether bytes beyond the announced length have arrived already (does not wait for any)."""
        if self._socket is None or self._response.chunked or self._response.fp is None or self.length is None:
            return False
        try:
            self._response.patience.end()
            return bool(self._response.fp.peek(1))
        except OSError:
            return False

    def abort(self) -> None:
        """Break the connection off, so that a read which waits comes back at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may be closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "_response"):
            self._response.close()
        self._connection.close()
        if self._socket is not None:
            self._socket.close()

    def _remember(self, sock: socket.socket) -> None:
        """Keep hold of the socket: http.client lets go of it when the server announces to close."""
        self._socket = sock

    def _send(self, headers: dict[str, str], secret: Iterable[tuple[str, Secret]]) -> None:
        connection = self._connection
        connection.putrequest("GET", connection.request_target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", self.target.authority)
        ours = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        theirs = {name.lower(): (name, value) for name, value in secret}
        for name, value in ours.items():
            if name.lower() not in theirs:
                connection.putheader(name, value)
        for name, hidden in theirs.values():
            connection.putheader(name, hidden.reveal())
        for name, value in connection.proxy_headers.items():
            connection.putheader(name, value)
        connection.endheaders()


def _lowered(response: http.client.HTTPResponse) -> dict[str, str]:
    lowered: dict[str, list[str]] = {}
    for name, value in response.getheaders():
        lowered.setdefault(name.lower(), []).append(value)
    return {name: ", ".join(values) for name, values in lowered.items()}


def failure_text(error: BaseException) -> str:
    """Return in a few words what a network error means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate cannot be verified ({sanitized(error.verify_message, 100)})"
    if isinstance(error, TooSlowError):
        return "the transfer became too slow"
    if isinstance(error, TimeoutError):
        return "the server fell silent"
    if isinstance(error, UnclearLengthError):
        return "the answer's headers do not show where its body ends"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended before the body did"
    if isinstance(error, OSError):
        return sanitized(error.strerror or str(error) or type(error).__name__, 120)
    return f"the answer is not HTTP ({type(error).__name__})"
