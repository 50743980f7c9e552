"""Requests and answers as values: what the dialects speak and what the shells carry."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_vidu.exceptions import ViduResponseError
from airflow_provider_vidu.text import shown, unescaped

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The largest answer that is read; an honest one has a few KiB."""

CHUNK_BYTES: Final = 64 * 1024

TOTAL_TIMEOUTS: Final = 4
"""An answer must be complete within this many time-outs: a trickle is no life sign."""

MAX_DEPTH: Final = 100
MAX_INTEGER: Final = 10**300


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the service: ``path`` is percent-encoded already and starts with a slash.

    ``bills`` marks a request that must never be repeated when its outcome is unknown.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    bills: bool = False


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
            return plain(json.loads(self.body), self.strike)
        except (ValueError, RecursionError):
            raise ViduResponseError(
                f"The answer is not JSON{self._kind()}. It begins: {self.snippet() or '(empty)'}",
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

    def _kind(self) -> str:
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        return f" but {shown(kind, 60)}" if kind and "json" not in kind else ""


def plain(value: Any, strike: Callable[[str], str] = str, depth: int = 0) -> Any:
    """Return JSON that survives UTF-8, PostgreSQL and strict parsers.

    Lone surrogates and NUL characters become U+FFFD, NaN and infinities become None, integers
    of absurd size become strings.

    :raises ValueError: when the value is nested deeper than 100 levels.
    """
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return strike(text.replace("\0", "\ufffd"))
    if isinstance(value, dict):
        return {plain(name, strike): plain(item, strike, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, strike, depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return str(value)
    return value
