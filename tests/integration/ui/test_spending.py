"""The page of the spending before a real API server: its sums, who sees which, and the CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.spending import sums
from private_airflow import wait_for

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC)
MADE = {"conn_id": "c", "role": "generate", "model": "viduq3-turbo"}


def shown_sums(pages, user="admin", days=30):
    """Return what the page gets as JSON."""
    answer = pages.get(f"/vidu/spending.json?days={days}", user=user)
    assert answer.status_code == 200, answer.text
    return answer.json()


def of_dag(told, dag):
    """Return the sums of one DAG by day, model and outcome: other tests fill the same database."""
    rows = [row for row in told["rows"] if row["dag_id"] == dag]
    return {
        (row["day"], row["model"], row["outcome"]): (row["credits"], row["generations"], row["with_price"])
        for row in rows
    }


def settled(pages, dag, count):
    """Wait until so many sums of a DAG are there: an answer that took long is kept for a moment."""
    assert wait_for(lambda: len(of_dag(shown_sums(pages), dag)) == count, 30, every=0.3), of_dag(shown_sums(pages), dag)
    return of_dag(shown_sums(pages), dag)


def day(ago: float) -> str:
    """Return a day as the page writes it."""
    return f"{NOW - timedelta(days=ago):%Y-%m-%d}"


def spend(pages, dag, index, note, *, ago=0.0, **more):
    """Add a task that has submitted a generation."""
    at = NOW - timedelta(days=ago)
    known = {"created_at": at.isoformat(), **note}
    pages.add("make", f"{dag}-{index}", dag=dag, index=index, watch={**MADE, **known}, at=at, **more)


def test_the_sums(pages):
    """By day, model and outcome; a price is counted once, wherever it stands, and none is invented."""
    dag = "spend-sums"
    spend(pages, dag, 0, {"credits": 40})
    spend(pages, dag, 1, {"credits": 2.5})
    spend(pages, dag, 2, {"credits": 80}, state="failed", ago=2)
    spend(pages, dag, 3, {"credits": 20}, state="deferred", ago=2)
    spend(pages, dag, 4, {"credits": 30, "role": "submit"}, ago=2)
    # A user has marked them as success: no task has waited for their ends.
    spend(pages, dag, 9, {"credits": 1, "result": "return_value"}, ago=2)
    spend(pages, dag, 10, {"credits": 2}, ago=2, resumes=True)
    spend(pages, dag, 11, {"credits": 4, "result": "return_value"}, ago=20, result={"id": f"{dag}-11"})
    # Cleared after it was taken out of the DAG: Airflow keeps what it has returned.
    spend(pages, dag, 12, {"credits": 8}, ago=20, state="removed", result={"id": f"{dag}-12"})
    spend(pages, dag, 5, {}, ago=2)  # no price
    spend(pages, dag, 6, {"credits": 7}, ago=20)
    spend(pages, dag, 7, {"credits": 9}, ago=40)
    # A sensor repeats id and price, and a second task publishes the same generation: neither has paid again.
    pages.add("wait", f"{dag}-0", dag=dag, watch={**MADE, "role": "wait", "credits": 40}, at=NOW)
    pages.add("again", f"{dag}-0", dag=dag, watch={**MADE, "credits": 40}, at=NOW)
    # Several generations of one task, of another model.
    more = [("s-2", {**MADE, "credits": 5, "model": "viduq1"})]
    pages.add("loop", "s-1", dag=dag, watch={**MADE, "credits": 6, "model": "viduq1"}, more=more, at=NOW)
    # A wait for a slot has no price; nonsense is no price.
    pages.add("waits", None, dag=dag, watch={"role": "generate", "waiting_since": 1.5}, state="deferred", at=NOW)
    spend(pages, dag, 8, {"credits": "much"}, ago=2)
    told = settled(pages, dag, 7)
    assert told == {
        (day(0), "viduq3-turbo", "succeeded"): (42.5, 2, 2),
        (day(0), "viduq1", "succeeded"): (11, 2, 2),
        (day(2), "viduq3-turbo", "succeeded"): (0, 2, 0),
        (day(2), "viduq3-turbo", "failed"): (80, 1, 1),
        (day(2), "viduq3-turbo", "working"): (20, 1, 1),
        (day(2), "viduq3-turbo", "submitted"): (33, 3, 3),
        (day(20), "viduq3-turbo", "succeeded"): (19, 3, 3),
    }
    assert (day(20), "viduq3-turbo", "succeeded") not in of_dag(shown_sums(pages, days=7), dag)
    assert of_dag(shown_sums(pages, days=90), dag)[day(40), "viduq3-turbo", "succeeded"] == (9, 1, 1)


def test_generations_of_two_services_that_are_numbered_alike(pages):
    """Each has its own price."""
    dag = "spend-alike"
    for conn_id in ("c", "other"):
        pages.add(f"by-{conn_id}", "1", dag=dag, watch={**MADE, "conn_id": conn_id, "credits": 40}, at=NOW)
    assert settled(pages, dag, 1) == {(day(0), "viduq3-turbo", "succeeded"): (80, 2, 2)}


def test_what_earlier_tries_have_spent(pages):
    """A budget has refused the latest try, or it waits for a slot: it has no id, and what was paid before counts."""
    dag, made = "spend-earlier", {"operator": "ViduGenerateOperator", "fields": {"model": "viduq3-turbo"}}
    made["at"] = NOW - timedelta(days=2)
    pages.add("refused", None, dag=dag, spent=40, state="failed", tried=2, **made)
    note = {"role": "generate", "waiting_since": 1.5}
    pages.add("waits", None, dag=dag, spent=20, watch=note, state="deferred", tried=2, **made)
    pages.add("refunded", None, dag=dag, spent=0, state="failed", tried=2, **made)
    pages.add("again", f"{dag}-0", dag=dag, spent=30, watch={**MADE, "credits": 10}, tried=2, **made)
    assert settled(pages, dag, 3) == {
        (day(2), "viduq3-turbo", "failed"): (40, 1, 1),
        (day(2), "viduq3-turbo", "working"): (20, 1, 1),
        (day(2), "viduq3-turbo", "succeeded"): (30, 1, 1),
    }


def test_a_batch_counts_once(pages):
    """With all that it has ordered, as its newest task left it; one that has ordered nothing is not there."""
    dag = "spend-batches"

    def batch(name, task, ago, state="success", **spent):
        place = {"batch": name, "folder": "s3://clips/b/", "manifest": "s3://clips/b/m", "conn_id": "c", "rows": 500}
        at = NOW - timedelta(days=ago)
        pages.add(task, None, dag=dag, batch={**place, **spent}, state=state, at=at, fields={"model": "viduq3-turbo"})

    batch("films", "monday", 3, generations=300, priced=300, credits=6000)
    batch("films", "tuesday", 2, generations=500, priced=490, credits=9800.5)  # the same batch, which has gone on
    batch("stopped", "stopped", 2, state="failed", generations=7, priced=7, credits=140)
    batch("waits", "waits", 0, state="deferred", generations=4, priced=0, credits=0)
    batch("new", "new", 0, state="running", generations=0, priced=0, credits=0)
    batch("older", "older", 0)  # of a version that published no sums
    if pages.keeps_any_text:
        pages.spoil("older", "vidu_batch_place", '{"batch": "older", "generations": NaN}', dag=dag)
    assert settled(pages, dag, 3) == {
        (day(2), "viduq3-turbo", "succeeded"): (9800.5, 500, 490),
        (day(2), "viduq3-turbo", "failed"): (140, 7, 7),
        (day(0), "viduq3-turbo", "working"): (0, 4, 0),
    }


def test_another_dag_does_not_hide_a_batch(pages, monkeypatch):
    """Its author may name any batch, with another sum; nor do thousands of them, without a word."""
    from sqlalchemy.orm import Session

    place = {"batch": "films", "folder": "s3://clips/own/", "manifest": "s3://clips/own/m", "conn_id": "c", "rows": 5}
    spent = {"generations": 5, "priced": 5, "credits": 100}
    pages.add("films", None, dag="spend-owner", batch={**place, **spent}, at=NOW - timedelta(days=1))
    pages.add("films", None, dag="spend-forger", batch={**place, "generations": 1, "priced": 1, "credits": 0}, at=NOW)
    assert settled(pages, "spend-owner", 1) == {(day(1), "not known", "succeeded"): (100, 5, 5)}
    monkeypatch.setattr(sums, "MAX_BATCHES", 1)
    with Session(pages.engine) as session:
        assert sums.account(session, NOW - timedelta(days=30)).is_cut


def test_where_price_and_model_come_from(pages):
    """The sum over retries and clears comes before the note, and a small result or the rendered fields fill gaps."""
    dag, bare = "spend-sources", {"conn_id": "c", "role": "generate"}
    pages.add("cleared", "c-1", dag=dag, watch={**bare, "credits": 40}, at=NOW, spent=120)
    pages.add("refunded", "c-2", dag=dag, watch={**bare, "credits": 40}, state="failed", at=NOW, spent=0)
    pages.add("late", "c-3", dag=dag, watch=bare, result={"id": "c-3", "credits": 15, "model": "viduq2"}, at=NOW)
    pages.add("fields", "c-4", dag=dag, watch={**bare, "credits": 1}, fields={"model": "viduq2-pro"}, at=NOW)
    pages.add("large", "c-5", dag=dag, watch=bare, result={"credits": 3, "raw": "x" * 20_000}, at=NOW)
    if pages.keeps_any_text:
        pages.add("nan", "c-6", dag=dag, watch={**bare, "credits": 1}, at=NOW)
        pages.spoil("nan", "vidu_watch", '{"role": "generate", "credits": NaN}', dag=dag)
    told = settled(pages, dag, 4)
    assert told == {
        (day(0), "not known", "succeeded"): (120, 2, 1),
        (day(0), "not known", "failed"): (0, 1, 1),
        (day(0), "viduq2", "succeeded"): (15, 1, 1),
        (day(0), "viduq2-pro", "succeeded"): (1, 1, 1),
    }


def test_each_user_sees_their_own_dags(pages):
    """Sums, names and CSV hold only DAGs whose clips the user may see; without a login there is nothing."""
    spend(pages, "film", 900, {"credits": 11, "model": "viduq-of-film"})
    spend(pages, "spend-secret", 0, {"credits": 1234567, "model": "secret-model"})
    settled(pages, "spend-secret", 1)
    vera = shown_sums(pages, "vera")
    assert [each["name"] for each in vera["dags"]] == ["film"]
    assert "viduq-of-film" in [each["name"] for each in vera["models"]]
    assert vera["total"]["credits"] < 1234567
    assert sum(sum(each["credits"].values()) for each in vera["calendar"]) == vera["total"]["credits"]
    assert "secret" not in str(vera)
    assert "secret" not in pages.get("/vidu/spending.csv", user="vera").text
    stranger = shown_sums(pages, "nobody")
    assert (stranger["total"], stranger["dags"], stranger["rows"]) == (
        {"credits": 0, "generations": 0, "with_price": 0}, [], [],
    )  # fmt: skip
    for path in ("/vidu/spending.json", "/vidu/spending.csv"):
        assert pages.get(path, user=None).status_code == 401
    login = pages.get("/vidu/spending", user=None)
    assert (login.status_code, login.headers["location"][:26]) == (307, "../api/v2/auth/login?next=")
    assert pages.get("/vidu/spending", user="vera").status_code == 200
    assert pages.get("/vidu/spending.json?days=31", user="admin").status_code == 422


def test_a_try_that_has_published_nothing_yet(pages):
    """Airflow has removed what the earlier ones had published; the page says of how many tasks that its reader sees."""
    place = {"batch": "b", "folder": "s3://clips/again/", "manifest": "m"}
    made, batch = {"operator": "ViduGenerateOperator"}, {"operator": "ViduBatchOperator"}
    pages.add("resumes", None, dag="spend-again", state="running", tried=2, **batch)
    pages.add("broke", None, dag="spend-again", state="failed", tried=3, **made)
    for task, known in {
        "first": {"state": "running", **batch},
        "published": {"state": "running", "tried": 2, "batch": place, **batch},
        "noted": {"state": "failed", "tried": 2, "watch": {**MADE, "credits": 1}, **made},
        "dry": {"state": "success", "tried": 2, **batch},
        "foreign": {"state": "failed", "tried": 2, "operator": "BashOperator"},
        "old": {"state": "failed", "tried": 2, "at": NOW - timedelta(days=100), **made},
    }.items():
        pages.add(task, None, dag="spend-again", **known)
    assert wait_for(lambda: shown_sums(pages)["begun_again"] == 2, 30, every=0.3)
    assert shown_sums(pages, "vera")["begun_again"] == 0


def test_the_csv_runs_nothing(pages):
    """What a spreadsheet would take for a formula is text in it; numbers stay numbers."""
    for index, name in enumerate(('=cmd|"x"', "+1", "-1", "@SUM(1)", "plain,2")):
        spend(pages, "spend-csv", index, {"credits": index + 1, "model": name})
    assert wait_for(lambda: len(of_dag(shown_sums(pages, days=7), "spend-csv")) == 5, 30, every=0.3)
    answer = pages.get("/vidu/spending.csv?days=7", user="admin")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="vidu-credits-7-days.csv"'
    rows = [row for row in csv.DictReader(io.StringIO(answer.text)) if row["dag_id"] == "spend-csv"]
    assert {row["model"]: row["credits"] for row in rows} == {
        "'=cmd|\"x\"": "1", "'+1": "2", "'-1": "3", "'@SUM(1)": "4", "plain,2": "5",
    }  # fmt: skip
    assert {row["day"] for row in rows} == {day(0)}


def test_no_more_than_the_newest(pages, monkeypatch):
    """Beyond the limit the newest generations are added up, and the account says that it is cut."""
    from sqlalchemy.orm import Session

    for index in range(3):
        spend(pages, "spend-newest", index, {"credits": 1}, ago=-1 - index / 100)  # newer than all others
    monkeypatch.setattr(sums, "MAX_GENERATIONS", 2)
    with Session(pages.engine) as session:
        found = sums.account(session, NOW - timedelta(days=1))
    assert found.is_cut
    batches = ("spend-batches", "spend-owner", "spend-forger")
    assert sum(row.generations for row in found.rows if row.dag_id not in batches) == 2


def test_one_dag_does_not_hide_the_others(pages, monkeypatch):
    """Its author names its models, and may name a new one each time: the other DAGs keep their sums."""
    from sqlalchemy.orm import Session

    spend(pages, "spend-quiet", 0, {"credits": 3})
    for index in range(4):
        spend(pages, "spend-loud", index, {"credits": 100, "model": f"m{index}"})
    monkeypatch.setattr(sums, "MAX_OF_DAG", 2)
    with Session(pages.engine) as session:
        found = sums.account(session, NOW - timedelta(days=1))
    assert found.is_cut
    assert [row.dag_id for row in found.rows if row.dag_id in ("spend-quiet", "spend-loud")].count("spend-loud") == 2
    assert "spend-quiet" in [row.dag_id for row in found.rows]


def test_many_dags_of_one_author_do_not_hide_the_others(pages, monkeypatch):
    """Each DAG has its newest sums before any has all of them; the account is in its order all the same."""
    from sqlalchemy.orm import Session

    spend(pages, "spend-hushed", 0, {"credits": 3}, ago=0.5)
    for index in range(12):
        spend(pages, f"spend-chorus-{index % 3}", index, {"credits": 900, "model": f"m{index}"})
    with Session(pages.engine) as session:
        names = {row.dag_id for row in sums.account(session, NOW - timedelta(days=1)).rows}
        monkeypatch.setattr(sums, "MAX_GROUPS", len(names))
        found = sums.account(session, NOW - timedelta(days=1))
    assert found.is_cut
    assert {row.dag_id for row in found.rows} == names
    order = [(row.day, row.credits) for row in found.rows]
    assert order == sorted(order, reverse=True)


def test_half_a_surrogate_pair_breaks_no_page(pages):
    """The XComs of one DAG ended everyone's page with an error, and the sheet of their own run."""
    spend(pages, "spend-halves", 0, {"credits": 5})
    if pages.keeps_any_text:
        spend(pages, "spend-halves", 1, {"credits": "\ud800", "model": "\ud800"})
    spend(pages, "spend-halves", 2, {"model": None, "credits": 5}, fields={"model": "\udfff"})
    # Half a pair behind the letters of the other half.
    spend(pages, "spend-halves", 3, {"model": None, "credits": 5}, fields={"model": "\\ud83d\ude00"})
    assert sum(count for _, count, _ in settled(pages, "spend-halves", 2).values()) == 3
    run = pages.at("make", dag="spend-halves").partition("/tasks/")[0]
    assert pages.get(f"{run}/clips.json", user="admin").status_code == 200
