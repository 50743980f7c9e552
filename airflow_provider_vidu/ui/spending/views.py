"""What the page of the spending shows, as plain JSON, and the same as CSV. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.ui.spending.account import OUTCOMES, Account, Spent

PERIODS: Final = (7, 30, 90)
"""The periods that the page offers, in days."""
MAX_ROWS: Final = 500
"""The most rows of the table on the page; the CSV has all."""
MAX_NAMES: Final = 50
"""The most DAGs, and models, that the page lists."""
NO_MODEL: Final = "not known"
COLUMNS: Final = ("day", "dag_id", "model", "outcome", "generations", "with_price", "credits")
# At the begin of a cell. Where the list separator is a semicolon, a spreadsheet opens a CSV with cells that begin after
# one, and takes their quotation marks for text. Eastern editions read the full-width signs, too.
_FORMULA: Final = re.compile(r"(^|[;\t\r\n])(?=[\s\"']*[=+\-@|%\uff1d\uff0b\uff0d\uff20])")


def first_day(days: int, now: datetime) -> datetime:
    """Return when a period begins that ends today: midnight UTC.

    :param days: how many days it has, with today.
    """
    today = now.astimezone(UTC).date()
    return datetime.combine(today - timedelta(days=days - 1), time(), UTC)


def summary(account: Account, readable: Collection[str], *, since: date, days: int) -> dict[str, Any]:
    """Return what a user may see of what was spent.

    :param account: of all DAGs.
    :param readable: the DAGs whose clips the user may see.
    :param since: the first day of the period.
    :param days: how many days it has.
    """
    rows = [row for row in account.rows if row.dag_id in readable]
    calendar = [f"{since + timedelta(days=number):%Y-%m-%d}" for number in range(days)]
    by_day: dict[str, dict[str, float]] = {day: dict.fromkeys(OUTCOMES, 0.0) for day in calendar}
    for row in rows:
        if row.day in by_day:
            by_day[row.day][row.outcome] += row.credits
    costs = {day: {name: _plain(cost) for name, cost in by_day[day].items()} for day in calendar}
    return {
        "days": days,
        "total": _total(rows),
        "calendar": [{"day": day, "credits": costs[day]} for day in calendar],
        "dags": _by(rows, lambda row: redacted(row.dag_id, 250)),
        "models": _by(rows, _model),
        "outcomes": _by(rows, lambda row: row.outcome),
        "rows": [_as_json(row) for row in rows[:MAX_ROWS]],
        "row_count": len(rows),
        "is_cut": account.is_cut,
        "unread": account.unread,
        "begun_again": sum(count for dag_id, count in account.begun_again.items() if dag_id in readable),
    }


def as_csv(account: Account, readable: Collection[str]) -> str:
    """Return what a user may see of what was spent, as CSV; text that a spreadsheet would run is quoted for it.

    :param account: of all DAGs.
    :param readable: the DAGs whose clips the user may see.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in account.rows:
        if row.dag_id in readable:
            cells = _as_json(row)
            writer.writerow([_inert(cells[name]) for name in COLUMNS])
    return file.getvalue()


def _inert(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: authors of DAGs choose the names in it."""
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def _as_json(row: Spent) -> dict[str, Any]:
    return {
        "day": row.day,
        "dag_id": redacted(row.dag_id, 250),
        "model": _model(row),
        "outcome": row.outcome,
        "generations": row.generations,
        "with_price": row.priced,
        "credits": _plain(row.credits),
    }


def _model(row: Spent) -> str:
    return redacted(row.model, 100) if row.model else NO_MODEL


def _total(rows: Iterable[Spent]) -> dict[str, Any]:
    cost, generations, priced = 0.0, 0, 0
    for row in rows:
        cost, generations, priced = cost + row.credits, generations + row.generations, priced + row.priced
    return {"credits": _plain(cost), "generations": generations, "with_price": priced}


def _by(rows: Sequence[Spent], name_of: Callable[[Spent], str]) -> list[dict[str, Any]]:
    """Return the sums of rows by a name, the most expensive first; what is beyond the list is its last entry."""
    groups: dict[str, list[Spent]] = defaultdict(list)
    for row in rows:
        groups[name_of(row)].append(row)
    sums = [{"name": name, **_total(group)} for name, group in groups.items()]
    sums.sort(key=lambda each: (-each["credits"], -each["generations"], each["name"]))
    if others := sums[MAX_NAMES:]:
        total = {key: sum(each[key] for each in others) for key in ("credits", "generations", "with_price")}
        sums[MAX_NAMES:] = [{"name": f"{len(others)} others", **total}]
    return sums


def _plain(amount: float) -> int | float:
    """Return an amount as the service names it: mostly a whole number."""
    return int(amount) if float(amount).is_integer() else round(amount, 6)
