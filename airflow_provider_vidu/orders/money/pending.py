"""The generations of a budget whose price is not known yet, because the answers to their creates named none.

Each has an entry until a later answer names its price or its end. Most have a task that waits for that and writes it
down, but not all: a task may have ended without waiting, or was killed or removed. So a task that such entries stop
queries some of the generations itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from airflow_provider_vidu.api.ids import is_safe_id
from airflow_provider_vidu.common.values import epoch, text
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduNotFoundError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.orders.lost_order import GRACE_SECONDS
from airflow_provider_vidu.orders.money.entries import Scope
from airflow_provider_vidu.orders.money.ledger import Ledger

MOST_QUERIES: Final = 10
"""The most generations that one check of a budget queries."""

Query = Callable[[str, str, str | None], Generation]
"""Returns a generation, by its connection, its id and the endpoint that it was submitted to."""


def observe(entries: Ledger, scope: Scope, generation: Generation, facts: Mapping[str, Any]) -> None:
    """Enter what an answer says about the price of a generation; repeating it changes nothing.

    :param generation: as it was answered.
    """
    if generation.credits:
        known = {**facts, "credits": generation.credits}
        entries.add(scope.prefix, scope.entry(generation.id, generation.credits), known)
    elif not generation.is_done:
        entries.add(scope.prefix, scope.open_entry(generation.id), facts)
        return
    elif generation.succeeded and generation.credits is None:
        entries.add(scope.prefix, scope.unpriced_entry, facts)
    entries.remove(scope.prefix, scope.open_entry(generation.id))


def has_news(entries: Ledger, scope: Scope, names: Sequence[str], query: Query, log: Any) -> bool:
    """Query some open generations; return whether one of them is open no longer.

    :param log: gets a line about each that could not be queried.
    """
    is_news = False
    for name in random.sample(names, min(len(names), MOST_QUERIES)):
        facts = entries.facts(scope.prefix, name)
        conn_id, generation_id = text(facts.get("conn_id")), text(facts.get("generation_id"))
        # A user who may edit Variables may have written them.
        if conn_id is None or generation_id is None or not is_safe_id(generation_id):
            continue
        named = (replace(scope, conn_id=each) for each in (conn_id, None))
        own = next((each for each in named if each.open_entry(generation_id) == name), None)
        if own is None:
            continue
        try:
            generation = query(conn_id, generation_id, text(facts.get("endpoint")))
        except ViduNotFoundError:
            if time.time() - (epoch(facts.get("at")) or 0.0) < GRACE_SECONDS:
                continue
            log.warning("The service does not find generation %s, and has named no price for it.", generation_id)
            entries.remove(scope.prefix, name)
            is_news = True
        except ViduError as error:
            log.info("The price of generation %s is not known yet: %s", generation_id, error)
            if not isinstance(error, ViduConfigError):  # without a connection, nothing was sent
                return is_news  # the next one would take as long
        else:
            observe(entries, own, generation, facts)
            is_news = is_news or bool(generation.credits) or generation.is_done
    return is_news
