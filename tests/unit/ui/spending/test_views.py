"""What the page of the spending shows: sums of what a user may see, in a bounded answer, and a CSV that is text."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.spending.account import Account, Spent
from airflow_provider_vidu.ui.spending.views import MAX_NAMES, MAX_ROWS, as_csv, first_day, summary
from tests.rows import each_row

SINCE = date(2026, 1, 30)


def spent(day="2026-01-31", dag_id="a", model="m", outcome="succeeded", generations=1, priced=1, cost=1.0):
    """Return one sum."""
    return Spent(day, dag_id, model, outcome, generations, priced, cost)


def test_a_period_begins_at_midnight_utc():
    """Seven days are today and the six before, by the date in UTC."""
    now = datetime(2026, 3, 2, 1, tzinfo=timezone(timedelta(hours=5)))  # still 1 March in UTC
    assert first_day(7, now) == datetime(2026, 2, 23, tzinfo=UTC)


def test_the_sums():
    """Each day of the period is there, also one without generations; what the user may not see is in no sum."""
    rows = (
        spent(cost=2.5), spent(dag_id="b", outcome="failed", cost=4.0), spent(dag_id="secret", cost=1000.0),
        spent(day="2026-02-01", model=None, generations=3, priced=0, cost=0.0), spent(day="2026-03-05"),
    )  # fmt: skip
    account = Account(rows, is_cut=True, unread=2, begun_again={"a": 2, "secret": 5})
    told = summary(account, {"a", "b"}, since=SINCE, days=4)
    assert told["total"] == {"credits": 7.5, "generations": 6, "with_price": 3}
    assert [each["day"] for each in told["calendar"]] == ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]
    assert told["calendar"][1]["credits"] == {"succeeded": 2.5, "working": 0, "submitted": 0, "failed": 4}
    assert [each["name"] for each in told["dags"]] == ["b", "a"]
    assert [each["name"] for each in told["models"]] == ["m", "not known"]
    assert (told["row_count"], told["is_cut"], told["unread"], told["begun_again"]) == (4, True, 2, 2)


def test_the_answer_is_bounded():
    """What is beyond the lists is their last entry, and the CSV has every row."""
    rows = tuple(spent(dag_id=f"d{index:04}", cost=float(index)) for index in range(MAX_ROWS + 1))
    names = {row.dag_id for row in rows}
    told = summary(Account(rows), names, since=SINCE, days=7)
    assert (len(told["rows"]), told["row_count"], len(told["dags"])) == (MAX_ROWS, MAX_ROWS + 1, MAX_NAMES + 1)
    assert told["dags"][-1]["name"] == f"{MAX_ROWS + 1 - MAX_NAMES} others"
    assert sum(each["credits"] for each in told["dags"]) == told["total"]["credits"]
    assert len(as_csv(Account(rows), names).splitlines()) == MAX_ROWS + 2


@each_row("name", ["x;=1+1", 'x; "=1"', "\uff1d1+1", "\uff0b1", "x;\uff201", '"=1"', "x;y;-1"])
def test_no_part_of_a_cell_is_a_formula(name):
    """Where semicolons separate lists, a spreadsheet makes cells of parts; eastern editions read full-width signs."""
    (line,) = as_csv(Account((spent(dag_id="d", model=name),)), {"d"}).splitlines()[1:]
    cells = [cell.strip(' "') for part in line.split(";") for cell in part.split(",")]
    assert all(cell[:1] not in set("=+-@\uff1d\uff0b\uff0d\uff20") for cell in cells)


@each_row("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start):
    """A name that a spreadsheet would run begins with an apostrophe, also behind blanks that are removed."""
    rows = (spent(dag_id="d", model=f"{start}cmd"), spent(dag_id=f"{start}1+1"))
    for line in as_csv(Account(rows), {"d", f"{start}1+1"}).splitlines()[1:]:
        assert all(cell.strip('"')[:1] not in set("=+-@\t\r") for cell in line.split(","))
