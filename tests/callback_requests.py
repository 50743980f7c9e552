"""Callbacks as the service sends them, for tests: signed by the rules of the vendor's page, written apart from ours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from email.utils import formatdate
from typing import Any


def signed_headers(
    key: str, path: str, *, query: str = "", at: float | None = None, nonce: str | None = None
) -> dict[str, str]:
    """Return the headers of a callback.

    :param path: as registered.
    :param at: epoch seconds of its date; now if omitted.
    """
    date = formatdate(time.time() if at is None else at, usegmt=True)
    nonce = str(uuid.uuid4()) if nonce is None else nonce
    text = f"POST\n{path}\n{query}\nvidu\n{date}\nDate:{date}\nx-request-nonce:{nonce}\n"
    signature = base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()
    return {
        "Date": date,
        "x-request-nonce": nonce,
        "X-HMAC-SIGNED-HEADERS": "Date;x-request-nonce",
        "X-HMAC-SIGNATURE": signature,
        "X-HMAC-ALGORITHM": "hmac-sha256",
        "X-HMAC-ACCESS-KEY": "vidu",
    }


def body(state: str = "success", **more: Any) -> dict[str, Any]:
    """Return a callback's body, which holds no id."""
    return {"state": state, "err_code": "", "credits": 80, "creations": [], **more}
