"""A row on its way: the intent of its create, then its open generation, as journal and snapshot hold them. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from airflow_provider_vidu.api.ids import checked_id
from airflow_provider_vidu.common.values import epoch, price, strict_int, text
from airflow_provider_vidu.orders.order import OrderRecord

Event = dict[str, Any]
"""An entry of a batch's journal."""

_MOST_ENDPOINT_CHARS: Final = 1000
"""The longest endpoint of a generation: those of all open ones are arguments of the trigger, in the database."""


@dataclass(frozen=True, slots=True)
class Open:
    """A generation that is paid for and whose file is not stored.

    :param at: when it was submitted, in epoch seconds.
    :param credits: its price, if the answer to the create holds it.
    :param seed: the seed of its request, or the one that the service chose.
    :param endpoint: where it was submitted; None if the fields decided.
    :param request: the digest of its request.
    :param index: the row's place, from 0; -1 if an earlier version submitted it.
    :param prompt: the beginning of the row's prompt, for the pages.
    :param is_shared: whether another task with an equal order has paid for it.
    :param marker: of a create of unknown outcome whose error names the id: budgets count it until its price is known.
    """

    id: str
    at: float
    credits: float | int | None = None
    seed: int | None = None
    endpoint: str | None = None
    request: str = ""
    index: int = -1
    prompt: str | None = None
    model: str | None = None
    is_shared: bool = False
    marker: str = ""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Open:
        """Read what an event or a snapshot holds; raises ViduConfigError when the id is not one."""
        index = stored.get("index", -1)
        return cls(
            checked_id(stored.get("id")),
            epoch(stored.get("at")) or 0.0,
            credits=price(stored.get("credits")),
            seed=strict_int(stored.get("seed")),
            index=index if isinstance(index, int) else -1,
            request=text(stored.get("request")) or "",
            marker=text(stored.get("marker")) or "",
            is_shared=stored.get("is_shared") is True,
            endpoint=endpoint_of(stored),
            **{name: text(stored.get(name)) for name in ("prompt", "model")},
        )


@dataclass(slots=True)
class Intent:
    """A create that is about to be sent, or whose outcome is unknown.

    :param record: the record of the create, for the search.
    :param endpoint: where it is sent.
    :param is_lost: whether the create was sent and its outcome is unknown.
    :param index: the row's place, from 0; -1 if an earlier version recorded it.
    """

    record: OrderRecord
    endpoint: str | None = None
    is_lost: bool = False
    index: int = -1


def key_of(event: Mapping[str, Any]) -> str:
    """Return the key of the row that an event is about; raises TypeError when it is not text."""
    if not isinstance(key := event["key"], str):
        raise TypeError("a key that is not text")
    return key


def row_name(key: str) -> str:
    """Return what names a row in an address: keys may hold anything."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def endpoint_of(event: Mapping[str, Any]) -> str | None:
    """Return where the generation of an event was submitted; None if that is not plausible."""
    endpoint = text(event.get("endpoint"))
    return endpoint if endpoint is None or len(endpoint) <= _MOST_ENDPOINT_CHARS else None


def time_of(value: Any) -> float:
    """Return epoch seconds; raises ValueError when it is none."""
    if (seconds := epoch(value)) is None:
        raise ValueError("a time that is none")
    return seconds


def intended(key: str, intent: Intent) -> dict[str, Any]:
    """Return what an event or a snapshot holds of a row's intent."""
    return {
        "key": key,
        "record": intent.record.to_json(),
        "endpoint": intent.endpoint,
        "lost": intent.is_lost,
        "index": intent.index,
    }


def opened(key: str, job: Open) -> Event:
    """Return the event of a row's generation."""
    return {"e": "id", "key": key, **asdict(job)}
