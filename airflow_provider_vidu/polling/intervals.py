"""The interval between two polls where the adaptive schedule does not decide. Light: DAG files load it."""

from __future__ import annotations

import math
from typing import Final

from airflow_provider_vidu.exceptions import ViduConfigError

POLL_SECONDS: Final = 15.0
"""Seconds between polls if no interval was given and the adaptive schedule cannot decide: in a sensor that holds a
worker, as the base of the backoff, and in the rows of triggers."""


def check_interval(seconds: float) -> None:
    """Refuse an interval between polls that would flood the service.

    :raises ViduConfigError: unless ``seconds`` is above 0 and finite.
    """
    if not 0 < seconds < math.inf:
        raise ViduConfigError(f"The interval between polls must be more than 0 seconds, not {seconds!r}.")
