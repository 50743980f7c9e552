"""The token in the address of a callback: which task instance has submitted, and a secret that belongs to the order.

The token stands in the create's ``callback_url`` alone. Airflow keeps its digest, from which it cannot be computed, so
readers of XComs, triggers and records cannot make a callback.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from airflow_provider_vidu.common.url_parts import CALLBACK_PATH
from airflow_provider_vidu.exceptions import ViduConfigError

OPTION: Final = "callback_base_url"
"""The option of section ``[vidu]``."""
SECRET_BYTES: Final = 17
"""With the 16 bytes of the task instance's id, the token has 44 characters without padding: one spelling each."""
_LENGTH: Final = 44
_TOKEN: Final = re.compile(rf"[A-Za-z0-9_-]{{{_LENGTH}}}\Z")
_PLAIN_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*/?\Z")


@dataclass(frozen=True, slots=True)
class CallbackAddress:
    """Where the service reports the end of a generation.

    :param url: the address with the token; nothing but the create may hold it.
    :param digest: what Airflow keeps of the token.
    :param nudges: the connection whose event triggers a callback nudges; empty if it resumes the task.
    """

    url: str
    digest: str
    nudges: str = ""

    def __repr__(self) -> str:
        return f"CallbackAddress(digest={self.digest!r})"

    @property
    def token(self) -> str:
        """The token, for the secrets masker."""
        return self.url.rpartition("/")[2]


def new_address(base_url: str, instance: UUID, *, nudges: str = "") -> CallbackAddress:
    """Return the address for a new order.

    :param base_url: the API server's address as :func:`checked_base` returns it.
    """
    raw = instance.bytes + secrets.token_bytes(SECRET_BYTES)
    token = base64.urlsafe_b64encode(raw).decode("ascii")
    return CallbackAddress(base_url + CALLBACK_PATH + token, _digest(raw), nudges)


def read_token(token: str) -> tuple[UUID, str] | None:
    """Return the task instance's id and the digest of a token; None if it is not one."""
    if not _TOKEN.match(token):
        return None
    try:
        raw = base64.urlsafe_b64decode(token)
    except (binascii.Error, ValueError):
        return None
    return UUID(bytes=raw[:16]), _digest(raw)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(b"vidu callback\n" + raw).hexdigest()[:40]


def checked_base(value: str | None) -> str | None:
    """Return the base URL without a slash at its end; None if there is none.

    The service signs the path as registered, and its samples disagree about escapes, so a path that may be spelt in
    several ways is refused.

    :raises ViduConfigError: when it is not an http(s) address, or has a query or a path with other characters than
        letters, digits and ``. _ ~ -``.
    """
    text = (value or "").strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or "@" in parts.netloc or "?" in text or "#" in text or not _PLAIN_PATH.match(parts.path):
        raise ViduConfigError(
            f"[vidu] {OPTION} must be the http(s) address of Airflow's API server as the service reaches it, such as "
            "https://airflow.example.com/team: without user, query and fragment, and with a path of letters, digits, "
            "'.', '_', '~' and '-'."
        )
    return text.rstrip("/")
