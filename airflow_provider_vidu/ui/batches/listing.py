"""The rows that a batch has begun, in the stages and orders of a run's sheet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from airflow_provider_vidu.batches.jobs import Intent, Open, row_name
from airflow_provider_vidu.batches.lines import EndedRow, Line
from airflow_provider_vidu.batches.state import BatchState
from airflow_provider_vidu.common.values import moment
from airflow_provider_vidu.ui.clips.cards import STAGE_RANK, STAGES, label_key


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that the batch has begun.

    :param key: as in the manifest.
    :param index: its place among the rows.
    :param stage: ``working``, ``submitted`` (its batch has ended without collecting it), ``stored`` or ``failed``.
    :param kept: its line, its open generation, or its intent.
    """

    key: str
    index: int
    stage: str
    kept: EndedRow | Open | Intent

    @property
    def name(self) -> str:
        """What names the row in an address."""
        return row_name(self.key)

    @property
    def line(self) -> Line:
        """Its line, decoded; empty if it has not ended."""
        return self.kept.line if isinstance(self.kept, EndedRow) else {}

    @property
    def submitted(self) -> datetime | None:
        """When its generation was submitted."""
        if isinstance(self.kept, Intent):
            return moment(self.kept.record.at)
        return moment(self.kept.at if isinstance(self.kept, Open) else self.line.get("submitted_at"))

    @property
    def is_reused(self) -> bool:
        """Whether another order has paid for it."""
        if isinstance(self.kept, Open):
            return self.kept.is_shared
        return isinstance(self.kept, EndedRow) and self.kept.is_reused

    @property
    def credits(self) -> int | float | None:
        """Its price, if that is known; None if another order has paid it."""
        return None if isinstance(self.kept, Intent) or self.is_reused else self.kept.credits


def entries(state: BatchState, *, is_over: bool) -> list[Entry]:
    """Return the rows that a batch has begun, in the order of the rows.

    :param is_over: whether its task has ended, so that no row is in progress any more.
    """
    found = [
        Entry(key, _index(row.index), "stored" if row.is_stored else "failed", row)
        for key, row in state.lines.ended.items()
    ]
    open_ones: list[tuple[str, Open | Intent]] = [*state.open.items(), *state.intents.items()]
    stage = "submitted" if is_over else "working"
    found += [Entry(str(key), _index(one.index), stage, one) for key, one in open_ones]
    return sorted(found, key=lambda entry: (entry.index, entry.key))


def found_row(found: Sequence[Entry], name: str) -> tuple[Sequence[Entry], int | None]:
    """Return rows, and the place of one among them; None if it is not there.

    :param name: the row's, in addresses.
    """
    return found, next((at for at, entry in enumerate(found) if entry.name == name), None)


def _index(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 2**31


def counts(state: BatchState, *, is_over: bool) -> dict[str, int]:
    """Return how many rows are in each stage of the sheet's filter.

    :param is_over: whether the batch's task has ended.
    """
    open_ones = {"submitted" if is_over else "working": len(state.open) + len(state.intents)}
    return {**dict.fromkeys(STAGES, 0), **open_ones, "stored": state.stored, "failed": state.failed}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of a stage, in one of the orders of a sheet.

    :param entries: the rows.
    :param cost: the sum of their known prices.
    :param priced: of how many of them a price is known.
    """

    entries: Sequence[Entry]
    cost: float
    priced: int


def chosen(found: Sequence[Entry], stage: str | None, order: str) -> Chosen:
    """Return the rows of a stage (None: all), in one of the orders of a sheet."""
    ordered = sorted((entry for entry in found if stage in (None, entry.stage)), key=_SORTED_BY[order])
    prices = [entry.credits for entry in ordered if entry.credits is not None]
    return Chosen(ordered, float(sum(prices)), len(prices))


def _newest(entry: Entry) -> Any:
    return -(entry.submitted.timestamp() if entry.submitted else float("inf"))


_SORTED_BY: Final[Mapping[str, Callable[[Entry], Any]]] = {
    "scene": lambda entry: 0,
    "newest": _newest,
    "cost": lambda entry: (entry.credits is None, -(entry.credits or 0)),
    "state": lambda entry: STAGE_RANK[entry.stage],
    "label": lambda entry: label_key(entry.key),
}
