"""Requests and answers as values: what the dialects speak and what the shells carry."""

from __future__ import annotations

import enum
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_vidu.exceptions import ViduConfigError, ViduResponseError, ViduTransportError
from airflow_provider_vidu.text import shown, unescaped
from airflow_provider_vidu.values import MAX_DEPTH, plain

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The largest answer that is read; an honest one has a few KiB."""

CHUNK_BYTES: Final = 64 * 1024

TOTAL_TIMEOUTS: Final = 4
"""An answer must be complete within this many time-outs: a trickle is no life sign."""

IF_IT_LASTS: Final = "If this lasts, check the connection's host and whatever stands before it."
"""What to do about an answer that is not Vidu's."""

_LONG_NUMBER: Final = re.compile(rb"[0-9]{300}")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the service: ``path`` is percent-encoded already and starts with a slash.

    ``bills`` marks a request that must never be repeated when its outcome is unknown.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    bills: bool = False

    def __post_init__(self) -> None:
        """Refuse a body that is no JSON.

        Left to the HTTP client, it would look like a create that broke on its way, of unknown outcome.

        :raises ViduConfigError: when JSON cannot hold a value (bytes, NaN, an object).
        """
        if self.body is None:
            return
        try:
            json.dumps(dict(self.body), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ViduConfigError(f"The request body is not JSON serializable: {error}") from None


METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_PATH: Final = re.compile(r"/(?!/)[!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]*")


def checked_request(method: object, path: object, body: object, *, bills: bool | None = None) -> ApiRequest:
    """Return a request that a user has put together.

    :param method: one of ``METHODS``, in any case.
    :param path: starts with a slash and is percent-encoded; it may have a query.
    :param body: a JSON object, or None.
    :param bills: whether it may cost credits; None means that a POST does.
    :raises ViduConfigError: naming the argument that cannot be sent.
    """
    name = method.strip().upper() if isinstance(method, str) else ""
    if name not in METHODS:
        raise ViduConfigError(f"method must be one of {', '.join(METHODS)}, not {shown(method, 40)!r}.")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ViduConfigError(
            "path must start with one slash and be percent-encoded ASCII without a fragment, such as "
            f"/ent/v2/subjects?pager.page=1 (got {shown(path, 100)!r}). The host comes from the connection."
        )
    if body is not None and not isinstance(body, Mapping):
        raise ViduConfigError(f"json must be a JSON object, not {type(body).__name__}.")
    return ApiRequest(name, path, body, bills=name == "POST" if bills is None else bills)


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer: status, headers with lower-case names, and the body's bytes (never in ``repr``).

    ``strike`` takes secrets out of every text that is read from the body: some gateways quote the key
    in their refusal.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    strike: Callable[[str], str] = field(default=str, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON that every store can hold.

        :raises ViduResponseError: when it is no JSON; the message shows its beginning.
        """
        try:
            if self._is_harmless():
                return _DECODER.decode(self.body.decode())
            return plain(json.loads(self.body), self.strike)
        except (ValueError, RecursionError):
            raise ViduResponseError(
                f"The answer is not JSON{self._kind()}. It begins: {self.snippet() or '(empty)'}. {IF_IT_LASTS}",
                status_code=self.status,
            ) from None

    def json_or_none(self) -> Any:
        """Return the body as JSON, or None when it is none (error pages come as HTML)."""
        try:
            return self.json()
        except ViduResponseError:
            return None

    def snippet(self) -> str:
        """Return the first 200 characters of the body as one redacted line."""
        return shown(self.strike(unescaped(self.body[:4000].decode("utf-8", "replace"))))

    def _is_harmless(self) -> bool:
        """Whether nothing in the body can need mending but floats, so that parsing alone makes it plain.

        Nearly every poll brings such an answer, and a look at the whole is much cheaper than one at each value.
        """
        body = self.body
        # Proper UTF-8 without escapes has no surrogates; with so few brackets it cannot be deep.
        if b"\\" in body or b"\0" in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            return False
        if len(body) >= 300 and _LONG_NUMBER.search(body):
            return False
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return False
        return not text.startswith("\ufeff") and self.strike(text) == text

    def _kind(self) -> str:
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        return f" but {shown(kind, 60)}" if kind and "json" not in kind else ""


def _finite(digits: str) -> float | None:
    found = float(digits)
    return found if math.isfinite(found) else None


_DECODER: Final = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)


def inflated(body: bytes, encoding: str, status: int | None = None) -> bytes:
    """Return a body as it was before its ``Content-Encoding``, never more than ``MAX_BODY_BYTES``.

    No encoding is asked for; some gateways gzip all the same. The HTTP libraries must not unpack by
    themselves: how much of a gzip bomb they inflate at a time depends on their version.

    :raises ViduResponseError: when it is larger, broken, or in an encoding that nobody asked for.
    """
    name = encoding.strip().lower()
    if name in ("", "identity") or not body:
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise ViduResponseError(f"The answer is encoded as {shown(name, 60)!r}, unasked.", status_code=status)
    try:
        found = _unpacked(body, 15 + 32)  # 32: the header tells gzip from zlib
    except zlib.error:
        try:
            found = _unpacked(body, -15)  # deflate without its header, as some old servers send it
        except zlib.error:
            raise ViduResponseError(f"The answer is broken {name}.", status_code=status) from None
    if len(found) > MAX_BODY_BYTES:
        raise too_large(status)
    return found


def _unpacked(body: bytes, wbits: int) -> bytes:
    return zlib.decompressobj(wbits=wbits).decompress(body, MAX_BODY_BYTES + 1)


def too_large(status: int | None) -> ViduResponseError:
    """Return the error of an answer that is larger than ``MAX_BODY_BYTES``."""
    return ViduResponseError(f"The answer is larger than {MAX_BODY_BYTES} bytes. {IF_IT_LASTS}", status_code=status)


class Loss(enum.Enum):
    """How an exchange can end without an answer, and what the user may do about it."""

    UNTRUSTED = (
        "could not be made, for the server's certificate is not trusted",
        "Check the host, or set the connection's verify to the CA bundle that has signed it.",
    )
    NO_TLS = (
        "could not be made, for the TLS handshake failed",
        "Check the host and its port. If the service speaks plain HTTP, write http:// before the connection's host.",
    )
    UNMADE = ("could not be made", "Check the connection's host, port and proxy.")
    UNREACHED = ("could not be made in time", "Check the connection's host, port, proxy and timeout.")
    BROKEN = ("broke", "It may pass; if it lasts, check the gateway and the proxies before it.")
    SILENT = ("was silent for too long", "It may pass; if it lasts, raise the connection's timeout.")
    SLOW = ("brought no whole answer in time", "It may pass; if it lasts, raise the connection's timeout.")

    @property
    def sent(self) -> bool:
        """Whether the request may have reached the service."""
        return self not in (Loss.UNTRUSTED, Loss.NO_TLS, Loss.UNMADE, Loss.UNREACHED)


def no_answer(
    loss: Loss, reason: str, *, origin: tuple[str, str, int], timeout: float, conn_id: str
) -> ViduTransportError:
    """Return the error of an exchange that brought no answer, in the same words for both clients.

    :param loss: how it ended.
    :param reason: what the HTTP client said, without secrets.
    :param origin: scheme, host and port that were asked.
    :param timeout: the connection's timeout in seconds.
    :param conn_id: the connection.
    """
    what, advice = loss.value
    limits = {Loss.UNREACHED: timeout, Loss.SILENT: timeout, Loss.SLOW: TOTAL_TIMEOUTS * timeout}
    limit = f" ({limits[loss]:g} s)" if loss in limits else ""
    scheme, host, port = origin
    return ViduTransportError(
        f"The connection to {scheme}://{host}:{port} {what}{limit}: {shown(reason).rstrip('.')}. {advice}",
        conn_id=conn_id,
        sent=loss.sent,
    )
