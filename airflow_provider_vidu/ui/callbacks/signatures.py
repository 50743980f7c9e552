"""Vidu's signature of a callback: over method, path, query, date and the listed headers, not over the body. Pure.

[doc] It is the HMAC-SHA256, in Base64, of lines that each end with a newline: METHOD, PATH, QUERY, ``vidu``, DATE, and
``NAME:VALUE`` for each name in ``X-HMAC-SIGNED-HEADERS``. [?] Whether the key is the API key of the create or a
"TokenSecret": the vendor's pages disagree. A callback that another key has signed is refused, and polling notices the
end.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

DATE_WINDOW_SECONDS: Final = 600.0
"""How far a callback's date may be from now. [?] The vendor names neither a window nor the time between its retries."""
MAX_SIGNED_HEADERS: Final = 8
MAX_NONCES: Final = 20_000
_ALGORITHM: Final = "hmac-sha256"
_ACCESS_KEY: Final = "vidu"
_MUST_SIGN: Final = frozenset({"date", "x-request-nonce"})


def is_signed(key: str, method: str, path: str, query: str, headers: Mapping[str, str], now: float) -> bool:
    """Whether a request was signed with a key, not long ago.

    :param key: the API key.
    :param path: as registered with the service: a proxy may have changed it since.
    :param query: as it came, without the question mark.
    :param headers: by their names in lower case.
    :param now: epoch seconds.
    """
    names = headers.get("x-hmac-signed-headers", "").split(";")
    if headers.get("x-hmac-algorithm", "").lower() != _ALGORITHM or len(names) > MAX_SIGNED_HEADERS:
        return False
    if not {name.lower() for name in names} >= _MUST_SIGN or any(name.lower() not in headers for name in names):
        return False
    sent_at = _epoch(headers.get("date", ""))
    if sent_at is None or abs(now - sent_at) > DATE_WINDOW_SECONDS:
        return False
    lines = [method.upper(), path, query, _ACCESS_KEY, headers["date"]]
    lines += [f"{name}:{headers[name.lower()]}" for name in names]
    text = "".join(f"{line}\n" for line in lines)
    made = hmac.new(key.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    given = headers.get("x-hmac-signature", "").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(base64.b64encode(made), given)


def _epoch(date: str) -> float | None:
    if len(date) > 64:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class Nonces:
    """The nonces of accepted callbacks, so that a recorded one has no effect when it is sent again.

    Of this process only: in another process of the API server, a repeated callback costs one poll at most.
    """

    def __init__(self, most: int = MAX_NONCES) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_known(self, digest: str, nonce: str) -> bool:
        """Whether a callback with this token and nonce was accepted."""
        return (digest, nonce) in self._seen

    def add(self, digest: str, nonce: str, now: float) -> None:
        """Keep a nonce until its date is too old to be accepted."""
        self._seen[(digest, nonce)] = now
        while self._seen:
            oldest, at = next(iter(self._seen.items()))
            if len(self._seen) <= self._most and now - at <= 2 * DATE_WINDOW_SECONDS:
                return
            del self._seen[oldest]
