"""One request for a file, and its answer, streamed."""

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
from airflow_provider_vidu.exceptions import ViduError, forgetting_variables
from airflow_provider_vidu.network.connection import Connection, Response, TooSlowError
from airflow_provider_vidu.network.download_url import DownloadAccess, DownloadURL
from airflow_provider_vidu.network.framing import Answer
from airflow_provider_vidu.network.limits import USER_AGENT

ERROR_BODY_BYTES: Final = 8192
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException)
"""The errors of a broken connection; ``ssl.SSLError`` and timeouts are OSErrors."""


class UnclearLengthError(http.client.HTTPException):
    """The headers do not determine where the body ends."""


class Stream:
    """An answer whose body has not been read yet. Close it, for example with :func:`contextlib.closing`.

    :raises OSError, http.client.HTTPException: when the connection fails (:data:`NETWORK_ERRORS`).
    :raises ViduDownloadRefusedError: when the address is not permitted.
    """

    def __init__(self, target: DownloadURL, access: DownloadAccess, headers: dict[str, str], *, own: bool) -> None:
        self.target = target
        self._access = access
        self._socket: socket.socket | None = None
        self._response: Response
        self._connection = Connection(target, access, self._remember)
        try:
            with forgetting_variables():
                self._send(headers, access.headers if own else ())
                self._response = self._connection.answer()
            head = self._response.headers
            lowered = {name.lower(): ", ".join(head.get_all(name, ())) for name in head}
            # The headers are read as Latin-1, which would garble a raw UTF-8 path, and hide a secret in it.
            location = lowered.pop("location", "").encode("latin-1", "replace").decode("utf-8", "replace")
            self.location = Secret(location) if location else None
            """Where a redirect leads; verbatim, because it may have to be followed."""
            redact = access.redaction(target.url)
            self.headers = {name: redact(value) for name, value in lowered.items()}
            self.status = self._response.status
            self.relay = self._connection.relay
            self.length = self._announced()
        except (*NETWORK_ERRORS, ViduError) as error:
            self.close()
            if isinstance(error, ViduError):  # a redirect may name a host after the key
                error.reason = access.redact_text(error.reason, target.url)
                error.args = (error.reason,)
            # The traceback's frames hold the request, including the key in its headers.
            error.__cause__ = error.__context__ = None
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except BaseException:  # even if a signal handler raised it, close the socket
            self.close()
            raise
        self._left = self.length

    def _announced(self) -> int | None:
        """Return the body's length, or None if chunks or the connection's end delimit it.

        :raises UnclearLengthError: when neither is clear. ``http.client`` would read until the connection ends, and
            accept a truncated file or one that contains chunk sizes.
        """
        coding = self.headers.get("transfer-encoding", "identity").strip().lower()
        lengths = {part.strip() for part in self.headers.get("content-length", "0").split(",")}
        if coding not in ("identity", "chunked") or len(lengths) > 1 or not re.fullmatch("[0-9]{1,19}", lengths.pop()):
            raise UnclearLengthError
        return None if self._response.chunked else self._response.length

    def answer(self) -> Answer:
        """Return status and headers, and the beginning of an error's body."""
        body = b""
        if self.status >= 400:
            self._response.deadline.renew(self._access.timeout)
            with contextlib.suppress(*NETWORK_ERRORS):
                body = self._access.redact(self._response.read(ERROR_BODY_BYTES), self.target.url, ERROR_BODY_BYTES)
        return Answer(self.status, self.headers, self.length, body)

    def readinto(self, buffer: memoryview) -> int:
        """Read what has arrived, waiting for at least one byte.

        :return: the number of bytes; 0 at the end.
        :raises OSError, http.client.HTTPException: when the connection broke.
        """
        self._response.deadline.renew(self._access.timeout)
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
        """Whether a truncated body can be distinguished from a complete one."""
        return self.length is not None or self._response.chunked

    def has_surplus(self) -> bool:
        """Whether bytes beyond the announced length have already arrived; does not wait."""
        if self._socket is None or self._response.chunked or self._response.fp is None or self.length is None:
            return False
        try:
            self._response.deadline.end()
            return bool(self._response.fp.peek(1))
        except OSError:
            return False

    def abort(self) -> None:
        """Shut the connection down, so that a waiting read returns at once."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # already closed
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "_response"):
            self._response.close()
        self._connection.close()
        if self._socket is not None:
            self._socket.close()

    def _remember(self, sock: socket.socket) -> None:
        """Keep the socket: http.client drops it when the server announces that it will close."""
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


def failure_text(error: BaseException) -> str:
    """Return a network error's meaning in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate cannot be verified ({sanitized(error.verify_message, 100)})"
    if isinstance(error, TooSlowError):
        return "the transfer became too slow"
    if isinstance(error, TimeoutError):
        return "the server stopped responding"
    if isinstance(error, UnclearLengthError):
        return "the answer's headers do not show where its body ends"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended before the body did"
    if isinstance(error, OSError):
        return sanitized(error.strerror or str(error) or type(error).__name__, 120)
    return f"the answer is not HTTP ({type(error).__name__})"
