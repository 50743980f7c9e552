"""Callbacks as tasks and triggers see them: whether an order asks for one, and whether they arrive.

The route that takes them is in the API server (``ui.callbacks``). A task asks for a callback if it will wait in the
triggerer; its trigger then polls seldom. A task that does not wait asks for one that nudges event triggers
(:mod:`.nudges`). If the callbacks do not arrive (a firewall, a wrong address, a gateway that
drops the field), the triggers of the connection poll as if there were none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from airflow.providers.common.compat.sdk import conf, mask_secret

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.tasks.callbacks.tokens import OPTION, CallbackAddress, checked_base, new_address

log = logging.getLogger("airflow.task.airflow_provider_vidu.callbacks")  # below a logger that every Airflow shows

MAX_MISSED: Final = 3
"""How many ends in a row a sparse poll must find, without a callback between, to show that callbacks do not arrive."""


def callback_base_url() -> str | None:
    """Return the address that the service reaches the API server at; None if callbacks are off.

    :raises ViduConfigError: when the option cannot be parsed.
    """
    return checked_base(conf.get("vidu", OPTION, fallback=None))


def address_for(context: Mapping[str, Any], *, nudges: str = "") -> CallbackAddress | None:
    """Return a new callback address for a task's order; None if callbacks are off or this Airflow has no route for it.

    :raises ViduConfigError: when the option cannot be parsed.
    """
    base = callback_base_url()
    instance = getattr(context.get("ti"), "id", None)
    if base is None:
        return None
    if not has_pages() or not isinstance(instance, UUID):
        log.warning("[vidu] %s needs Airflow 3.1.1: the wait polls, as without callbacks.", OPTION)
        return None
    address = new_address(base, instance, nudges=nudges)
    mask_secret(address.token)
    return address


@dataclass(slots=True)
class Arrivals:
    """Whether the callbacks of one connection arrive, as far as the triggers of this process can tell."""

    conn_id: str
    missed: int = 0
    is_proven: bool = False

    @property
    def are_trusted(self) -> bool:
        """Whether a sparse schedule is enough."""
        return self.missed < MAX_MISSED

    def came(self) -> None:
        """Note that a callback has resumed a task."""
        if not self.are_trusted:
            log.info("Callbacks for connection %s arrive again: polling seldom.", self.conn_id)
        self.missed, self.is_proven = 0, True

    def was_missed(self) -> None:
        """Note that a sparse poll has found an end that no callback reported."""
        self.missed += 1
        if self.missed == MAX_MISSED:
            self.is_proven = False
            log.warning(
                "%d generations in a row of connection %s ended without a callback: polling as without callbacks. "
                "Check that the service can reach [vidu] %s.",
                self.missed,
                self.conn_id,
                OPTION,
            )


_arrivals: dict[str, Arrivals] = {}


def arrivals(conn_id: str) -> Arrivals:
    """Return what this process knows about the callbacks of a connection."""
    return _arrivals.setdefault(conn_id, Arrivals(conn_id))
