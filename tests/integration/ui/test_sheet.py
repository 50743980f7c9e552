"""The contact sheet before a real API server: what tells its clips apart, in which order, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.clips.cards import ORDERS, in_order
from airflow_provider_vidu.ui.clips.facts import TaskFacts, grouped

pytestmark = pytest.mark.integration
MADE = {"conn_id": "vidu_default", "role": "generate"}
KEPT = {"conn_id": "vidu_default", "role": "download"}
MP4 = b"\0\0\0\x20ftypisom" + b"a clip" * 10


def sheet(pages, task, dag, query=""):
    """Return what the sheet of a DAG's run gets as JSON."""
    path = pages.at(task, dag=dag).partition("/tasks")[0]
    answer = pages.get(f"{path}/clips.json{query}", user="admin")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_distinguishes_clips(pages):
    """A card has label, seed, parameters, cost, time and size, also where the service's answer has none of them."""
    began = datetime.now(UTC) - timedelta(minutes=5)
    note = {**MADE, "created_at": began.isoformat(), "credits": 80, "seed": 4711}
    fields = {
        "prompt": "A kite",
        "parameters": {"duration": 4, "payload": "m-1", "callback_url": "https://x.example/c"},
    }
    result = {"id": "g-1", "status": "succeeded"}
    pages.add("make", "g-1", dag="card", watch=note, fields=fields, result=result, label="scene of the kite", at=began)
    (pages.root / "k.mp4").write_bytes(MP4[:70])
    record = {"uri": f"file://{pages.root}/k.mp4", "size": 70, "generation_id": "g-1", "content_type": "video/mp4"}
    pages.add("keep", "g-1", dag="card", watch=KEPT, result=record, at=began + timedelta(seconds=75))
    (card,) = sheet(pages, "make", "card")["clips"]
    assert (card["label"], card["credits"], card["size"], card["seconds"]) == ("scene of the kite", 80, 70, 75.0)
    assert card["parameters"] == {"seed": 4711, "duration": 4}
    assert card["prompt"] == "A kite"


@pytest.mark.parametrize(("age", "triggerer", "is_told"), [(90, None, True), (20, None, False), (90, 1, False)])
def test_a_card_says_that_no_triggerer_has_its_wait(pages, age, triggerer, is_told):
    """After a minute; also where the generation itself has ended meanwhile."""
    deferred, dag = datetime.now(UTC) - timedelta(seconds=age), f"unattended-{age}-{triggerer}"
    known = {"dag": dag, "state": "deferred", "deferred": deferred, "triggerer": triggerer, "at": deferred}
    pages.add("goes", "u-1", watch=MADE, **known)
    pages.add("done", "u-2", watch=MADE, result={"id": "u-2", "status": "succeeded"}, **known)
    assert [clip["is_unattended"] for clip in sheet(pages, "goes", dag)["clips"]] == [is_told] * 2


def test_the_beginning_of_a_prompt_is_marked_as_such(pages):
    """What Airflow cut off a long rendered prompt is shown as its beginning, without the sentence about a setting."""
    cut = f"Truncated. You can change this behaviour in [core]max_templated_field_length. 'A kite {'x' * 4000}..."
    pages.add("long", "g-long", dag="prompts", watch={"role": "generate"}, fields={"prompt": cut})
    (card,) = sheet(pages, "long", "prompts")["clips"]
    assert card["prompt"].startswith("A kite x")
    assert card["prompt"].endswith("x…")


def test_the_database_sorts_as_the_pages_do(pages):
    """Every order of the sheet is the same in SQL as in Python, and so is the sum, whatever stands in the notes."""
    now, facts = datetime.now(UTC), []
    states = ["success", "failed", "running"]
    for index in range(40):
        prices = [80, 2.5, None, "12", "much", -5, "eight", [1], 10**12]
        note = {**MADE, "credits": prices[index % len(prices)], "created_at": index}
        number = index * 7 % 20
        label = [None, f"label {number}", str(number), f"{number} kites"][index % 4]
        at, state = now - timedelta(seconds=index * 13 % 41), states[index % 3]
        pages.add("mixed", f"o-{index}", dag="orders", index=index, state=state, watch=note, at=at, label=label)
        facts.append(TaskFacts("orders", pages.run, "mixed", index, f"o-{index}", at, state, watch=note, label=label))
    if pages.keeps_any_text:
        # What Python writes and a database cannot parse breaks none of its siblings.
        spoilt = '{"conn_id": "c", "role": "generate", "credits": NaN}'
        pages.spoil("mixed", "vidu_watch", spoilt, dag="orders", index=38)
        facts[38] = replace(facts[38], watch=MADE)
    expected = grouped(facts)
    for order in ORDERS:
        told = sheet(pages, "mixed", "orders", f"?limit=100&order={order}")
        assert [clip["generation_id"] for clip in told["clips"]] == [
            clip.generation_id for clip in in_order(expected, order)
        ], order
    assert told["credits"] == {"sum": 80 * 5 + 2.5 * 5 + 12 * 5, "clips": 15}
    path = pages.at("mixed", dag="orders").partition("/tasks")[0]
    assert pages.get(f"{path}/clips.json?order=any", user="admin").status_code == 422


def test_several_generations_of_one_task(pages):
    """What a task has published through the hook are clips of their own, each with a page and its files."""
    submitted = {**MADE, "role": "submit"}
    more = [("n-2", {**MADE, "credits": 40}), ("n-3", submitted)]
    (pages.root / "n3.mp4").write_bytes(MP4)
    pages.add(
        "loop",
        "n-1",
        dag="numbers",
        watch={**submitted, "credits": 20},
        more=more,
        result={"id": "n-2", "status": "succeeded"},
    )
    record = {
        "uri": f"file://{pages.root}/n3.mp4",
        "size": len(MP4),
        "generation_id": "n-3",
        "content_type": "video/mp4",
    }
    pages.add("keep", "n-3", dag="numbers", watch=KEPT, result=record)
    told = sheet(pages, "loop", "numbers")
    assert [(clip["generation_id"], clip["number"], clip["stage"]) for clip in told["clips"]] == [
        ("n-1", 1, "submitted"), ("n-2", 2, "ready"), ("n-3", 3, "stored"),
    ]  # fmt: skip
    assert told["credits"] == {"sum": 60, "clips": 2}
    second = pages.get(pages.at("loop", dag="numbers", then="/generations/2/clip.json"), user="admin").json()
    assert (second["generation_id"], second["state"]) == ("n-2", "succeeded")
    third = pages.at("loop", dag="numbers", then="/generations/3")
    assert pages.get(third, user="admin").status_code == 200
    assert pages.get(f"{third}/file", user="admin").content == MP4
    assert pages.get(pages.at("loop", dag="numbers", then="/generations/4/clip.json"), user="admin").status_code == 404
    assert pages.get(f"{third}/file", user="nobody").status_code == 403
    assert pages.get(f"{third}/clip.json", user=None).status_code == 401


def test_a_download_of_a_stored_file(pages):
    """The same file behind the same checks, as an attachment under its own name; a stranger gets not one byte."""
    (pages.root / 'zwölf; "a".mp4').write_bytes(MP4)
    uri = f'file://{pages.root}/zwölf; "a".mp4'
    record = {"uri": uri, "size": len(MP4), "generation_id": "saved", "content_type": "video/mp4"}
    pages.add("saved", "saved", result=record, watch=KEPT)
    assert pages.clip("saved")["can_download"] is True
    answer = pages.get(pages.at("saved", then="/file?download=1"))
    assert answer.content == MP4
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"zw_lf_ _a_.mp4\"; filename*=UTF-8''zw%C3%B6lf%3B%20%22a%22.mp4"
    )
    assert "Content-Disposition" not in pages.get(pages.at("saved", then="/file")).headers
    assert pages.get(pages.at("saved", then="/file?download=1"), user="nobody").status_code == 403


def test_tasks_that_have_failed_without_a_generation(pages):
    """They have no card, so the sheet counts and names them; one that waits, or has a generation, is not among them."""
    made = {"operator": "ViduGenerateOperator"}
    for index in range(5):
        known = {"index": index, "state": "failed", "label": f"scene {index}" if index == 1 else None, **made}
        pages.add("refused", "f-4" if index == 4 else None, dag="without", watch=MADE if index == 4 else None, **known)
    pages.add("batch", None, dag="without", state="failed", operator="ViduBatchOperator")
    pages.add("foreign", None, dag="without", state="failed", operator="BashOperator")
    pages.add("waits", None, dag="without", state="up_for_retry", **made)
    lost = sheet(pages, "any", "without")["no_generation"]
    assert (lost["count"], [task["task_id"] for task in lost["tasks"]]) == (5, ["batch", "refused", "refused"])
    assert [(task["map_index"], task["label"]) for task in lost["tasks"][1:]] == [(0, None), (1, "scene 1")]
    assert sheet(pages, "any", "without", "?stage=failed")["no_generation"]["count"] == 5
