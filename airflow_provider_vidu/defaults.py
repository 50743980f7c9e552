"""What a DAG file needs to know when it is parsed: names, defaults and the checks of arguments.

Kept apart from what uses it, so that parsing a DAG loads no more than this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from airflow_provider_vidu.exceptions import ViduConfigError

DEFAULT_CONN_ID: Final = "vidu_default"

ID_KEY: Final = "generation_id"
"""The XCom under which an operator publishes the id of its generation."""

CANCEL_PATIENCE_SECONDS: Final = 60.0
"""So long a cancel waits between its attempts, all in all: a task that is over waits for it in its worker."""

DEFER_MARGIN_SECONDS: Final = 300.0
"""How much longer than the deadline a deferral may last: the trigger reports a timeout by itself, and
Airflow's own is only the net below it."""

WAIT_SECONDS: Final = 24 * 3600.0
"""How long a generation is waited for if the user sets no timeout."""

OFF_PEAK_WAIT_SECONDS: Final = 50 * 3600.0
"""The same for an off-peak generation: the service takes up to 48 hours, and then cancels it."""

LONGEST_SECONDS: Final = 10 * 366 * 86_400.0
"""No timeout is longer: Airflow adds it to a date, and dates end."""


SWITCH: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
"""The words that mean true or false, in lower case."""


POLL_SECONDS: Final = 15.0
"""Seconds between polls where no interval was given and the adaptive schedule cannot decide: in a sensor that holds a
worker, as the base of the backoff, and in the rows of triggers."""


def check_interval(seconds: float) -> None:
    """Refuse a wait without a pause between its polls: it would be an attack on the service.

    :raises ViduConfigError: when ``seconds`` is not above 0, or has no end.
    """
    if not 0 < seconds < math.inf:
        raise ViduConfigError(f"The interval between polls must be more than 0 seconds, not {seconds!r}.")


def seconds_of(value: timedelta | float) -> float:
    """Return a span of time in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_length(name: str, value: object) -> None:
    """Refuse a timeout that no date can hold; a value that is not a span of time passes unchecked.

    :raises ViduConfigError: when it is more than ten years, or not a number (NaN).
    """
    if isinstance(value, (timedelta, int, float)) and not seconds_of(value) <= LONGEST_SECONDS:
        raise ViduConfigError(f"{name} must be at most ten years, not {value!r}.")


def checked_count(name: str, value: int) -> int:
    """Return an argument that counts something.

    :raises ViduConfigError: when it is not a whole number of 0 or more.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ViduConfigError(f"{name} must be a whole number of 0 or more, not {value!r}.")
    return value


def checked_flag(name: str, value: object) -> bool:
    """Return an argument that is true or false, also as the text that an environment variable or a file holds.

    Any other text would count as true, the word "false" included, and so would a template: these are not rendered.

    :raises ViduConfigError: when it is neither.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in SWITCH:
        raise ViduConfigError(f"{name} must be True or False (it is not templated), not {value!r}.")
    return SWITCH[word]


def checked_seconds(name: str, value: timedelta | float) -> float:
    """Return the seconds of an argument.

    :raises ViduConfigError: when it is neither a timedelta nor a number, not above 0, or more than ten years.
    """
    if isinstance(value, bool) or not isinstance(value, (timedelta, int, float)) or seconds_of(value) <= 0:
        raise ViduConfigError(f"{name} must be a timedelta or a positive number of seconds, not {value!r}.")
    check_length(name, value)
    return float(seconds_of(value))
