"""How the entries that a budget counts are named. Decisions, no I/O.

Every generation that was paid for is one entry, and its amount is in the entry's *name*: :mod:`.ledger` needs to list
names only, each writer has names of its own, and writing an entry again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from airflow_provider_vidu.common.values import number
from airflow_provider_vidu.orders.money.budget import LOST, OPEN, Period, amount

KEY_PREFIX: Final = "vidu_spent_"
KEPT_MONTHS: Final = 2
"""How many months an entry is kept."""
KEPT_SECONDS: Final = 28 * 86400.0
"""How long an entry is kept in any case, after its create: the date of a backfill's run may be years old."""
_NO_MONTH: Final = "000000"


@dataclass(frozen=True, slots=True)
class Scope:
    """The period that a budget counts: a DAG run, or a day of a DAG.

    :param run_id: the DAG run; ignored for a day.
    :param at: for a day, the time of the create; for a run, a time that never changes; None if there is none.
    :param conn_id: the connection of a generation: two services may number theirs alike. Of entries that an earlier
        version has written, None.
    """

    per: Period
    dag_id: str
    run_id: str
    at: datetime | None
    conn_id: str | None = None

    @property
    def prefix(self) -> str:
        """How the names of the period's entries begin. The months are in it so that old entries can be removed."""
        dag = _digest(self.dag_id)
        at = None if self.at is None else self.at.astimezone(UTC)
        month = _NO_MONTH if at is None else f"{at:%Y%m}"
        own = f"d{at:%d}" if at is not None and self.per == "day" else f"r{_digest(self.run_id)}"
        return f"{KEY_PREFIX}{dag}_{month}_{own}_"

    @property
    def expired_prefix(self) -> str | None:
        """How the names of the DAG's entries begin that are no longer kept; None if there are none."""
        if self.at is None:
            return None
        at = self.at.astimezone(UTC)
        months = at.year * 12 + at.month - 1 - KEPT_MONTHS
        return f"{KEY_PREFIX}{_digest(self.dag_id)}_{months // 12:04d}{months % 12 + 1:02d}_"

    def entry(self, generation_id: str, price: float) -> str:
        """Return the name of a generation's entry: always the same for the same generation."""
        return f"{self.prefix}{self._named(generation_id)}_{amount(price)}"

    @property
    def unpriced_entry(self) -> str:
        """The name of the entry that says that a generation has succeeded without a price."""
        return f"{self.prefix}unpriced"

    def lost_entry(self, marker: str) -> str:
        """Return the name of the entry of a create of unknown outcome."""
        return f"{self.prefix}{_digest(marker)}{LOST}"

    def open_entry(self, generation_id: str) -> str:
        """Return the name of the entry of a generation whose create named no price."""
        return f"{self.prefix}{self._named(generation_id)}{OPEN}"

    def without_amount(self, names: Iterable[str]) -> tuple[int, list[str]]:
        """Return how many creates of unknown outcome count, and the entries of the open generations that do.

        At a service whose results name no price, none: no limit on credits applies to it.
        """
        known = {name for name in names if name.startswith(self.prefix)}
        priced = self._priced(known)
        if self.unpriced_entry in known and not priced:
            return 0, []
        of_open = [name for name in known if name.endswith(OPEN)]
        unpriced = [name for name in of_open if name.removeprefix(self.prefix).removesuffix(OPEN) not in priced]
        return sum(name.endswith(LOST) for name in known), sorted(unpriced)

    def prices(self, names: Iterable[str]) -> list[float]:
        """Return the prices in the names of entries; other names, and second ones of a generation, are omitted."""
        return list(self._priced(names).values())

    def _named(self, generation_id: str) -> str:
        return _digest(generation_id if self.conn_id is None else f"{self.conn_id}\n{generation_id}")

    def _priced(self, names: Iterable[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in names:
            generation, _, price = name.removeprefix(self.prefix).partition("_")
            if name.startswith(self.prefix) and (read := number(price)) is not None and read > 0:
                found[generation] = max(read, found.get(generation, 0.0))
        return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
