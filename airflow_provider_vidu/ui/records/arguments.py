"""What a trigger keeps in Airflow's database. Needs no name of Airflow's: callbacks work where one is missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def arguments_of(trigger: Any) -> Mapping[str, Any] | None:
    """Return the stored arguments of a trigger; None if they cannot be read."""
    try:
        arguments = trigger.kwargs
    except Exception as error:  # noqa: BLE001 - a key that was replaced, or what another version has written
        log.warning("The arguments of trigger %s cannot be read (%s).", trigger.id, type(error).__name__)
        return None
    return arguments if isinstance(arguments, Mapping) else None
