"""Names, defaults and argument checks that a DAG file needs while it is parsed, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.common.values import SWITCH, strict_int
from airflow_provider_vidu.exceptions import ViduConfigError

DEFAULT_CONN_ID: Final = "vidu_default"

CANCEL_PATIENCE_SECONDS: Final = 60.0
"""The longest that a cancel waits between all its attempts: a task that has ended waits for it in its worker."""

REFETCH_PATIENCE_SECONDS: Final = 300.0
"""How long a generation that was reported as finished is queried until the service shows that."""

WAIT_SECONDS: Final = 24 * 3600.0
"""The timeout if the user sets none."""

OFF_PEAK_WAIT_SECONDS: Final = 50 * 3600.0
"""The same for an off-peak generation: the service takes up to 48 hours, then cancels it."""

LONGEST_SECONDS: Final = 10 * 366 * 86_400.0
"""The longest timeout: Airflow adds it to a date, and dates end."""


def seconds_of(value: timedelta | float) -> float:
    """Return a duration in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_length(name: str, value: object) -> None:
    """Refuse a timeout that no date can hold; a value that is not a duration passes unchecked.

    :raises ViduConfigError: when it is more than ten years, or NaN.
    """
    if isinstance(value, (timedelta, int, float)) and not seconds_of(value) <= LONGEST_SECONDS:
        raise ViduConfigError(f"{name} must be at most ten years, not {value!r}.")


def check_word(name: str, value: object, words: Sequence[str | None]) -> None:
    """Refuse a value of an argument that must be one of a few words.

    :param words: the words; None among them if the argument may be omitted.
    :raises ViduConfigError: naming the words.
    """
    if value not in words:
        raise ViduConfigError(f"{name} must be one of {', '.join(filter(None, words))}, not {sanitized(value, 40)!r}.")


def check_on_clear(value: object, *, is_durable: bool) -> None:
    """Check the argument ``on_clear`` of a single generation.

    :raises ViduConfigError: when it is another word, or nothing keeps what it is to resume.
    """
    check_word("on_clear", value, ("new", "resume"))
    if value == "resume" and not is_durable:
        raise ViduConfigError('on_clear="resume" needs durable=True: nothing else keeps what it resumes.')


def checked_count(name: str, value: int) -> int:
    """Return a count unchanged.

    :raises ViduConfigError: unless it is a whole number of 0 or more.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ViduConfigError(f"{name} must be a whole number of 0 or more, not {value!r}.")
    return value


def check_size(name: str, value: object) -> None:
    """Refuse a limit in bytes that no file could keep, or that cannot be compared; None passes.

    :raises ViduConfigError: unless it is a whole number above 0.
    """
    if value is not None and ((size := strict_int(value)) is None or size <= 0):
        raise ViduConfigError(f"{name} must be a whole number above 0, not {sanitized(value, 40)!r}.")


def checked_flag(name: str, value: object) -> bool:
    """Return a flag as a bool, also if an environment variable or a file gave it as text.

    Any other text, a template included (flags are not rendered), would count as true.

    :raises ViduConfigError: when it is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in SWITCH:
        raise ViduConfigError(f"{name} must be True or False (it is not templated), not {value!r}.")
    return SWITCH[word]


def checked_seconds(name: str, value: timedelta | float) -> float:
    """Return a duration in seconds.

    :raises ViduConfigError: unless it is a timedelta or a number, above 0 and at most ten years.
    """
    if isinstance(value, bool) or not isinstance(value, (timedelta, int, float)) or seconds_of(value) <= 0:
        raise ViduConfigError(f"{name} must be a timedelta or a positive number of seconds, not {value!r}.")
    check_length(name, value)
    return float(seconds_of(value))


def optional_seconds(name: str, value: timedelta | float | None) -> float | None:
    """Return a duration as :func:`checked_seconds` does; None passes."""
    return None if value is None else checked_seconds(name, value)
