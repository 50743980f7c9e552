"""Log lines about progress: their wording, and when one is due. No I/O.

The log gets a line for each change, none for each poll or buffer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted, sanitized
from airflow_provider_vidu.common.url_parts import CALLBACK_PATH

FIRST_SECONDS: Final = 3.0
"""Seconds before the first progress line; a shorter transfer gets none."""
QUARTER: Final = 0.25
_VALUE_CHARS: Final = 500
_BASE64: Final = re.compile(
    r"(?=[A-Za-z0-9+/_-]{60})(?=[^A-Z]{0,499}[A-Z])(?=[^a-z]{0,499}[a-z])(?=[^0-9]{0,499}[0-9])"
    r"[A-Za-z0-9+/_\r\n-]{500}"
)
"""Some gateways take images as base64 without a data URI's prefix; no prompt has 500 such characters in a row, unless
one key was held down."""
_CALLBACK_TOKEN: Final = re.compile(rf"(?<={CALLBACK_PATH})[A-Za-z0-9_-]+")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


class ProgressLog:
    """Decides when the progress of a transfer is worth a log line, and words it.

    The first line is due after a few seconds, the next ones after each further quarter or after ``interval`` seconds.
    In a long transfer the interval grows to a tenth of the elapsed time, to keep the log short.

    :param interval: minimum seconds between two lines within a quarter.
    """

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._first = min(FIRST_SECONDS, interval)
        self._began = self._logged = 0.0
        self._bytes = self._quarters = 0

    def start(self, now: float, received: int, total: int | None) -> None:
        """Record that a body begins at ``now``, after ``received`` bytes of earlier attempts."""
        self._began = self._logged = now
        self._bytes, self._quarters = received, _quarters(received, total)

    def line(self, now: float, received: int, total: int | None) -> str | None:
        """Return a progress line, or None if none is due or the transfer is complete."""
        silent = now - self._logged
        is_first = self._logged == self._began
        interval = self._first if is_first else max(self._interval, (now - self._began) / 10)
        quarters = _quarters(received, total)
        if received == total or silent < self._first or (silent < interval and quarters == self._quarters):
            return None
        rate = (received - self._bytes) / silent if silent else 0.0
        self._logged, self._bytes, self._quarters = now, received, quarters
        return progress_line(received, total, rate)


def _quarters(received: int, total: int | None) -> int:
    return int(received / (total * QUARTER)) if total else 0


def progress_line(received: int, total: int | None, rate: float) -> str:
    """Return the progress of a transfer, such as ``31 %: 37.4 MB of 120.0 MB, 12.5 MB/s, about 7 s left``."""
    speed = f"{size(rate)}/s"
    if not total:
        return f"{size(received)} so far, {speed}"
    left = f", about {duration((total - received) / rate)} left" if rate > 0 else ""
    return f"{100 * received // total} %: {size(received)} of {size(total)}, {speed}{left}"


def finish_line(count: int, kind: str, seconds: float) -> str:
    """Return the summary of a finished transfer, such as ``Fetched 37.4 MB of video/mp4 in 3.0 s (12.5 MB/s)``.

    :param count: bytes.
    :param seconds: since the first byte; below one second the rate is omitted as meaningless.
    """
    rate = f" ({size(count / seconds)}/s)" if seconds >= 1 else ""
    return f"Fetched {size(count)} of {kind} in {duration(max(seconds, 0.1))}{rate}"


def size(count: float) -> str:
    """Format a number of bytes: ``512 B``, ``37.4 MB``."""
    unit = 0
    while count >= 999.95 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.{1 if unit else 0}f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Format a duration: ``0.4 s``, ``17 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(round(seconds), 0)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def request_lines(body: Mapping[str, Any]) -> list[str]:
    """Return a line for each field of a request, bounded, without image data or signatures of URLs."""
    return [f"{sanitized(name, 60)}: {_CALLBACK_TOKEN.sub('…', _worded(value))}" for name, value in body.items()]


def _worded(value: Any) -> str:
    if isinstance(value, str):
        if value[:5].lower() == "data:":
            kind = sanitized(value[5:300].partition(";")[0].partition(",")[0], 40)
            return f"(inline {kind}, {size(len(value))} in the request)"
        if _BASE64.match(value):
            return f"(inline base64, {size(len(value))} in the request)"
        return redacted(value, _VALUE_CHARS)
    if isinstance(value, Mapping):
        return sanitized(
            "{" + ", ".join(f"{name}: {_worded(inner)}" for name, inner in value.items()) + "}", _VALUE_CHARS
        )
    if isinstance(value, Sequence):
        return sanitized("[" + ", ".join(map(_worded, value)) + "]", _VALUE_CHARS)
    return redacted(value, _VALUE_CHARS)
