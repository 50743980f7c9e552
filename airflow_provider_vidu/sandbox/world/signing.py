"""Pre-signed URLs as strict as those of a CDN: the query is checked byte by byte.

The query holds characters that clients like to "repair": a raw ``;``, a raw ``~`` and the escapes ``%2F`` and ``%7E``.
A re-quoted query gets 403.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

_QUERY = (
    "response-content-disposition=attachment;filename={name}"
    "&Expires={expires}&X-Scope=sandbox%2Fvideo%7E{serial}&Key-Pair-Id=SANDBOX"
)
_PARTS = re.compile(r"&Expires=(\d{1,15})&X-Scope=sandbox%2Fvideo%7E(\d{1,15})&")


class Signer:
    """Signs paths and checks signed requests with one ``secret``; times are sandbox epoch seconds."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._serial = 0

    def sign(self, path: str, expires: int) -> str:
        """Return ``path`` with a new query that is valid until ``expires``."""
        self._serial += 1
        return f"{path}?{self._query(path, expires, self._serial)}"

    def problem(self, path: str, query: str, now: float) -> str | None:
        """Return None if the raw ``query`` is valid for the raw ``path`` at ``now``, else the S3 error code.

        The codes are ``AccessDenied`` (expired or unsigned) and ``SignatureDoesNotMatch``.
        """
        if not query:
            return "AccessDenied"
        parts = _PARTS.search(query)
        if parts is None:
            return "SignatureDoesNotMatch"
        expires = int(parts[1])
        expected = self._query(path, expires, int(parts[2]))
        if not hmac.compare_digest(expected.encode(), query.encode("utf-8", "surrogateescape")):
            return "SignatureDoesNotMatch"
        return "AccessDenied" if now > expires else None

    def _query(self, path: str, expires: int, serial: int) -> str:
        query = _QUERY.format(name=file_name(path), expires=expires, serial=serial)
        digest = hmac.new(self._secret, f"{path}?{query}".encode("utf-8", "surrogateescape"), hashlib.sha256)
        # The alphabet of CloudFront: '+' becomes '-', '=' becomes '_', '/' becomes '~'.
        encoded = base64.b64encode(digest.digest()).decode().translate(str.maketrans("+=/", "-_~"))
        return f"{query}&Signature=v1~{encoded}"


def file_name(path: str) -> str:
    """Return the name under which a browser would store the file at ``path``."""
    ending = path[path.rfind(".") :] if "." in path else ""
    return {".png": "image", ".mp3": "audio", "": "upload"}.get(ending, "video") + ending


def signature_of(url: str) -> str:
    """Return the secret part of a URL signed by a :class:`Signer`."""
    return url.rpartition("&Signature=")[2]
