"""The clip pages in a real API server: what they show, and to whom."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.ui.clips.facts import TaskFacts, grouped
from airflow_provider_vidu.ui.clips.failures import OWN_CONNECTION

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_pages(), reason="this Airflow cannot have the pages"),
]
MADE = {"conn_id": "vidu_default", "role": "generate"}
KEPT = {"conn_id": "vidu_default", "role": "download", "artifact": "video"}
EVERY_ROUTE = ("", "/clip.json", "/file", "/cover")


@pytest.fixture(scope="module")
def secret(pages):
    """Add a clip of a DAG that the viewer may not see."""
    pages.add("made", "secret-id", dag="secret", watch=MADE, fields={"prompt": "a secret prompt"})
    return "secret"


@pytest.mark.fault(
    "attacks",
    "a reader asks for a clip of a DAG that is closed to them",
    outcome="refused",
    seen="401 or 403, and not one byte",
)
@pytest.mark.parametrize("then", EVERY_ROUTE[1:])
@pytest.mark.parametrize(("user", "status"), [(None, 401), ("vera", 403), ("nobody", 403)])
def test_without_permission_there_is_not_one_byte(pages, secret, then, user, status):
    """Data and media answer 401 to the anonymous and 403 to those who may not see this DAG, and say nothing."""
    answer = pages.get(pages.at("made", dag=secret, then=then), user=user)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail"}
    assert "secret" not in answer.text


@pytest.mark.parametrize("user", ["vera", "nobody"])
def test_a_page_without_permission_says_no(pages, secret, user):
    """The page of a DAG that one may not see is a refusal that names nothing of it."""
    for path in (pages.at("made", dag=secret), pages.at("made", dag=secret).partition("/tasks")[0]):
        answer = pages.get(path, user=user)
        assert answer.status_code == 403
        assert "secret" not in answer.text
        assert "may not see" in answer.text


def test_the_contact_sheet_is_guarded_too(pages, secret):
    """The list of a run's clips needs the same permission."""
    path = pages.at("made", dag=secret).partition("/tasks")[0] + "/clips.json"
    assert [pages.get(path, user=user).status_code for user in (None, "vera", "admin")] == [401, 403, 200]


def test_a_dry_run_is_shown_as_one(pages):
    """Its page says that nothing was submitted. The service is not asked for an id that it never had."""
    result = {"dry_run": True, "id": "dry-run-0", "video_url": "https://dry-run.invalid/dry-run-0", "credits": 20}
    pages.add("dry", "dry-run-0", fields={"vidu_conn_id": "vidu_default", "prompt": "A kite"}, result=result)
    pages.add("dry-too", "dry-run-1", fields={"prompt": "A kite"}, result={**result, "id": "dry-run-1"})
    assert (pages.clip("dry-too")["notice"], pages.clip("dry-too")["stage"]) == (None, "ready")
    page = pages.clip("dry")
    assert (page["state"], page["prompt"], page["credits"]) == ("dry", "A kite", None)
    assert "dry run: nothing was submitted" in page["pieces"][0]["reason"]
    assert (page["timeline"], page["outlook"], page["support"], page["error"]) == ([], None, "", None)
    assert not page["can_play"]
    assert pages.get(pages.at("dry", then="/file")).status_code in (400, 404, 410)
    assert [seen for seen in pages.sandbox.requests() if "dry-run" in str(seen)] == []


def test_visitors_are_sent_to_the_login(pages, secret):
    """A page leads a user who is not logged in to Airflow's login, and from there back to the page."""
    path = pages.at("made", dag=secret)
    answer = pages.get(path, user=None)
    assert answer.status_code == 307
    login = urlsplit(urljoin(pages.url + path, answer.headers["Location"]))
    assert login.path == "/tools/airflow/api/v2/auth/login"
    following = pages.get(login.path.removeprefix("/tools/airflow") + "?" + login.query, user=None)
    assert following.status_code == 307, following.text
    assert parse_qs(urlsplit(following.headers["Location"]).query)["next"][0].startswith("/tools/airflow/vidu/dags/")


def test_the_link_leads_to_the_page(pages, monkeypatch, generation):
    """What the operators publish as their link is an address of this server, under its path."""
    from airflow_provider_vidu.links import watch_page

    generation_id, made = generation()
    pages.add("linked", generation_id, index=3, watch=MADE, result=made)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", pages.url)
    link = watch_page(TaskFacts("film", pages.run, "linked", 3, generation_id))
    answer = pages.get(link.removeprefix("/tools/airflow"))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_the_page_loads_nothing_from_elsewhere(pages, generation):
    """Scripts and styles are this server's own files, found under its path; nothing stands inline."""
    generation_id, made = generation()
    pages.add("shell", generation_id, index=1, watch=MADE, result=made)
    page = pages.get(pages.at("shell", index=1))
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    named = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
    assert len(named) >= 4
    assert not re.search(r"<script(?![^>]*src)|<style|\son\w+=|style=", page.text)
    for name in named:
        address = urljoin(page.url, name)
        assert address.startswith(f"{pages.url}/vidu/static/")
        assert pages.get(address.removeprefix(pages.url), user=None).status_code == 200


def test_a_finished_clip(pages, generation):
    """State, prompt, file and times of a clip that one task made and another has stored."""
    generation_id, made = generation(model="viduq3", credits=20)
    (pages.root / "done.mp4").write_bytes(pages.sandbox.file_bytes(generation_id))
    size = (pages.root / "done.mp4").stat().st_size
    record = {"uri": f"file://{pages.root}/done.mp4", "size": size, "sha256": "b" * 64, "generation_id": generation_id}
    pages.add("make", generation_id, watch=MADE, result=made, fields={"prompt": "a cat\nwith <b>wings</b>"})
    pages.add("keep", generation_id, watch=KEPT, result={**record, "content_type": "video/mp4", "source": None})
    for task in ("make", "keep"):
        shown = pages.clip(task)
        assert (shown["state"], shown["done"], shown["refresh"]) == ("stored", True, None)
        assert shown["prompt"] == "a cat\nwith <b>wings</b>"
        assert shown["pieces"][0]["from"] == "storage"
        assert shown["files"][0]["sha256"] == "b" * 64
        assert {each["task_id"] for each in shown["tasks"]} == {"make", "keep"}
        assert shown["task"]["task_id"] == task


def test_a_clip_that_one_task_made_and_stored(pages, generation):
    """A generate task with a destination has the file in its result: the page shows it as a download's record."""
    generation_id, made = generation(model="viduq3", credits=20)
    content = pages.sandbox.file_bytes(generation_id)
    (pages.root / "single.mp4").write_bytes(content)
    record = {"uri": f"file://{pages.root}/single.mp4", "size": len(content), "sha256": "c" * 64}
    record |= {"generation_id": generation_id, "content_type": "video/mp4", "source": None}
    pages.add("single", generation_id, watch={**MADE, "stores": "file"}, result={**made, "file": record})
    shown = pages.clip("single")
    assert (shown["state"], shown["stage"]) == ("stored", "stored")
    assert (shown["can_play"], shown["can_download"]) == (True, True)
    assert (shown["files"][0]["size"], shown["files"][0]["sha256"]) == (len(content), "c" * 64)
    assert shown["timeline"][-1]["name"] == "stored"
    assert shown["timeline"][-1]["reached"]
    assert pages.get(pages.at("single", then="/file")).content == content


def test_no_signed_url_in_any_answer(pages, generation):
    """Neither the page nor its data hold a URL of the service; only the player's redirect does."""
    generation_id, made = generation()
    signature = urlsplit(made["video_url"]).query
    assert len(signature) > 20
    pages.add("signed", generation_id, watch=MADE, result=made)
    for then in ("", "/clip.json"):
        assert signature not in pages.get(pages.at("signed", then=then)).text
    sheet = pages.get(pages.at("signed").partition("/tasks")[0] + "/clips.json?limit=100").text
    assert generation_id in sheet
    assert signature not in sheet


def test_a_running_generation_is_asked_for_once(pages, generation):
    """However many watch a clip, the service is asked once in five seconds; the page then shows the progress."""
    generation_id, _ = generation(states=[["processing", 0]])
    before = len(pages.sandbox.requests(kind="query", id=generation_id))
    pages.add("waiting", generation_id, state="deferred", watch=MADE)
    pages.clip("waiting")
    with ThreadPoolExecutor(8) as viewers:
        seen = list(viewers.map(lambda _: pages.clip("waiting"), range(24)))
    asked = len(pages.sandbox.requests(kind="query", id=generation_id)) - before
    assert {view["state"] for view in seen} == {"running"}
    assert all(view["refresh"] for view in seen)
    # On a busy machine these requests may take longer than five seconds.
    assert 1 <= asked <= 3


def test_a_failed_generation_is_explained(pages, generation):
    """The service's code comes with what to do, although the failed task has left no result."""
    generation_id, _ = generation(states=[["failed", 0]], error="CreationPolicyViolation")
    pages.add("refused", generation_id, state="failed", watch=MADE)
    shown = pages.clip("refused")
    assert (shown["state"], shown["error"]["code"]) == ("failed", "CreationPolicyViolation")
    assert "prompt" in shown["error"]["advice"]


@pytest.mark.fault(
    "secrets",
    "a reader looks at a clip whose key is refused",
    outcome="clear error",
    side="pages",
    seen="the reason and the advice, without the key",
)
def test_a_refused_key_is_told_without_the_key(pages, generation):
    """The page says in words that the service fails; it never shows the key."""
    generation_id, _ = generation()
    pages.add("locked", generation_id, state="running", watch={**MADE, "conn_id": "wrong_key"})
    shown = pages.clip("locked")
    assert shown["notice"]["message"]
    assert "sk-wrong" not in json.dumps(shown)


@pytest.mark.fault(
    "attacks",
    "an XCom names a connection of another type",
    outcome="refused",
    side="pages",
    seen="a notice without host, port and type",
)
@pytest.mark.parametrize("conn_id", ["not_vidu", "missing_one", "../x"])
def test_a_dag_cannot_choose_any_connection(pages, generation, conn_id):
    """A connection of another type keeps its password, and readers do not learn whether there is one."""
    generation_id, _ = generation()
    before = len(pages.sandbox.requests(id=generation_id))
    task = f"chosen-{len(conn_id)}"
    pages.add(task, generation_id, state="running", watch={**MADE, "conn_id": conn_id})
    notice = pages.clip(task)["notice"]
    assert notice["message"] == OWN_CONNECTION
    assert "http" not in notice["advice"]
    assert len(pages.sandbox.requests(id=generation_id)) == before


@pytest.mark.parametrize("value", [5.5, None, ["x"], {"id": "x"}, "", "..", "x" * 5000, "a\nb"])
def test_an_xcom_that_is_no_id(pages, value):
    """A task that has published something else, or nothing, has no page; its neighbours are not disturbed."""
    task = f"odd-{abs(hash(str(value)))}"
    pages.add(task, value)
    assert pages.get(pages.at(task, then="/clip.json")).status_code == 404


@pytest.mark.fault("attacks", "markup in every field of an XCom", outcome="survived", seen="text")
def test_hostile_xcoms_are_text(pages):
    """Markup in every field an XCom has arrives as plain strings of JSON, and the page is served all the same."""
    evil = "</script><img src=x onerror=alert(1)>"
    result = {"id": evil, "status": "succeeded", "model": evil, "raw": {"prompt": evil}, "enhanced_prompt": evil}
    pages.add("evil", evil, watch={"conn_id": evil, "role": evil}, result=result, fields={"prompt": evil, "body": evil})
    answer = pages.get(pages.at("evil", then="/clip.json"))
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["prompt"] == evil
    assert evil not in pages.get(pages.at("evil")).text


def test_the_contact_sheet(pages):
    """A run of a thousand mapped clips comes in pages, in the order of its scenes, and by stage."""
    now = datetime.now(UTC)
    for index in range(200):
        state = "failed" if index % 10 == 0 else "success"
        pages.add("scene", f"scene-{index}", dag="sheet", index=index, state=state, watch=MADE, at=now)
    path = pages.at("scene", dag="sheet").partition("/tasks")[0]
    assert pages.get(path, user="admin").status_code == 200
    first = pages.get(f"{path}/clips.json", user="admin").json()
    last = pages.get(f"{path}/clips.json?offset=192", user="admin").json()
    assert (first["total"], len(first["clips"]), len(last["clips"])) == (200, 24, 8)
    assert [clip["map_index"] for clip in first["clips"]] == list(range(24))
    assert first["counts"] == {"working": 0, "submitted": 0, "ready": 180, "stored": 0, "failed": 20}
    failed = pages.get(f"{path}/clips.json?stage=failed", user="admin").json()
    assert [clip["map_index"] for clip in failed["clips"]] == list(range(0, 200, 10))
    assert pages.get(f"{path}/clips.json?stage=any", user="admin").status_code == 422
    middle = pages.get(pages.at("scene", dag="sheet", index=7, then="/clip.json"), user="admin").json()
    outside = {"iteration": None, "region_id": None}
    assert [middle[side] for side in ("before", "after")] == [
        {"task_id": "scene", "map_index": index, "region_index": index, **outside} for index in (6, 8)
    ]
    assert middle["place"] == [8, 200]


def test_an_id_that_became_a_number(pages, generation):
    """Some versions of Airflow make a number of an id of digits: it is the same generation, on page and sheet."""
    generation_id, made = generation()
    pages.add("number", int(generation_id), dag="number", watch=MADE, result=made)
    pages.add("text", generation_id, dag="number", watch=MADE, result=made)
    path = pages.at("text", dag="number")
    shown = pages.get(f"{path}/clip.json", user="admin").json()
    assert (shown["generation_id"], len(shown["tasks"])) == (generation_id, 2)
    sheet = pages.get(path.partition("/tasks")[0] + "/clips.json", user="admin").json()
    assert {clip["generation_id"] for clip in sheet["clips"]} == {generation_id}


def test_a_run_that_is_not_there(pages):
    """A run that does not exist is reported as such; one without clips is an empty sheet."""
    assert pages.get("/vidu/dags/film/runs/nothing/clips.json").status_code == 404
    assert pages.get("/vidu/dags/film/runs/nothing/elsewhere").status_code == 404
    pages.add("other", None, dag="empty")
    path = pages.at("other", dag="empty").partition("/tasks")[0]
    assert pages.get(f"{path}/clips.json", user="admin").json()["clips"] == []


def test_an_old_clip_without_a_connection(pages, generation):
    """When the link has expired and the service cannot be asked, the page says so, and where the clip is."""
    generation_id, made = generation()
    old = datetime.now(UTC) - timedelta(days=2)
    pages.add("old", generation_id, result=made, at=old)
    record = {"uri": "s3://far/away.mp4", "size": 7, "generation_id": generation_id, "content_type": "video/mp4"}
    pages.add("old-keep", generation_id, result=record, at=old)
    shown = pages.clip("old")
    assert shown["pieces"][0]["from"] is None
    assert "s3://far/away.mp4" in shown["pieces"][0]["reason"]
    answer = pages.get(pages.at("old", then="/file"))
    assert answer.status_code == 410
    assert "expired" in answer.json()["detail"]


@pytest.mark.fault("attacks", "a reader asks for map_index 2⁶³", outcome="refused", side="pages", seen="404")
@pytest.mark.parametrize("index", [2**31, 2**63, 10**30])
def test_an_index_that_no_database_holds(pages, index):
    """It is a task instance that does not exist, not an error."""
    for then in ("/clip.json", "/file", "/cover"):
        assert pages.get(pages.at("make", index=index, then=then)).status_code == 404


@pytest.mark.fault(
    "attacks",
    "a run of thousands of mapped tasks",
    outcome="survived",
    seen="the database counts, and one page leaves it",
)
def test_the_database_counts_as_the_pages_do(pages):
    """A stage in SQL is the same as in Python, whatever states, roles and ids the tasks of a run have."""
    states = ["success", "failed", "running", "skipped", "removed", "upstream_failed", None]
    notes = [
        {"role": "generate"}, {"role": "wait"}, {"role": "submit"}, {"role": "download"},
        {"role": "download", "artifact": "video"}, {"role": "download", "artifact": "image"},
        {"role": "download", "artifact": "cover"}, {"role": ["download"]}, "text", None,
        {"role": "generate", "stores": "file"}, {"role": "wait", "stores": "file", "artifact": "video"},
        {"role": "generate", "stores": "file", "artifact": "cover"}, {"role": "submit", "stores": "file"},
        json.dumps({"role": "generate"}),
        {"role": "generate", "result": "return_value"}, {"role": "download", "result": "return_value"},
    ]  # fmt: skip
    facts, now = [], datetime.now(UTC)
    for index in range(260):
        state, note = states[index % 7], notes[(index * 7) % len(notes)]
        generation_id = f"{'dry-run' if index % 37 == 5 else 'id'}-{index if index % 3 else index // 9}"
        at = now - timedelta(seconds=index % 50)
        if isinstance(note, dict):
            note = {**note, "created_at": index}  # no two tasks leave the same note
        # A user marks a task as success that has not returned, or would be resumed.
        has_result, resumes = index % 5 == 0, index % 11 == 3
        more = {"result": {"id": "of another"} if has_result else None, "resumes": resumes}
        pages.add("mixed", generation_id, dag="stages", index=index, state=state, watch=note, at=at, **more)
        known = {"watch": note, "has_result": has_result, "resumes": resumes}
        facts.append(TaskFacts("stages", pages.run, "mixed", index, generation_id, at, state, **known))
    expected = grouped(facts)
    path = pages.at("mixed", dag="stages").partition("/tasks")[0]
    told = pages.get(f"{path}/clips.json?limit=100", user="admin").json()
    assert told["counts"] == {name: sum(clip.stage == name for clip in expected) for name in told["counts"]}
    assert told["total"] == len(expected)
    seen = [clip for at in (0, 100, 200) for clip in pages.get(
        f"{path}/clips.json?limit=100&offset={at}", user="admin").json()["clips"]]  # fmt: skip
    assert [(clip["generation_id"], clip["map_index"], clip["stage"]) for clip in seen] == [
        (clip.generation_id, clip.main.map_index, clip.stage) for clip in expected
    ]


@pytest.mark.fault(
    "attacks",
    "a DAG author stores XComs of 4 MiB",
    outcome="survived",
    side="pages",
    seen="the clips; the results are not read",
)
def test_large_results_stay_in_the_database(pages, generation):
    """Results of megabytes are measured by the database and not read: the page asks the service instead."""
    made = [generation() for _ in range(6)]
    for index, (generation_id, result) in enumerate(made):
        result = {**result, "raw": {"more": ["x" * 1000] * 4000}}
        pages.add("large", generation_id, dag="large", index=index, watch=MADE, result=result)
    path = pages.at("large", dag="large").partition("/tasks")[0]
    began = memory(pages)
    for _ in range(3):
        told = pages.get(f"{path}/clips.json?stage=ready", user="admin").json()
    assert [clip["state"] for clip in told["clips"]] == ["succeeded"] * 6
    # 24 MB of JSON, read and parsed, would be several times as much, three times.
    assert memory(pages) - began < 24_000_000
    # An id or a note of megabytes belongs to no clip.
    pages.add("vast", "x" * 3_000_000, dag="large", watch=MADE)
    assert pages.get(pages.at("vast", dag="large", then="/clip.json"), user="admin").status_code == 404


def memory(pages):
    """Return the bytes that the API server has in memory."""
    return int(Path(f"/proc/{pages.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.fault(
    "attacks", "a gateway is silent", outcome="survived", side="pages", seen="the clips of other connections, at once"
)
def test_a_silent_gateway_delays_nobody_else(pages, generation):
    """While one connection says nothing, the clips of another are asked for at once."""
    for index in range(12):
        pages.add(
            "hung", f"hung-{index}", index=index, dag="silent", state="deferred", watch={**MADE, "conn_id": "silent"}
        )
    path = pages.at("hung", dag="silent").partition("/tasks")[0]
    pages.get(f"{path}/clips.json", user="admin")  # it has given up waiting; the questions are still under way
    generation_id, _ = generation(states=[["processing", 0]])
    pages.add("beside", generation_id, state="deferred", watch=MADE)
    began = time.monotonic()
    assert pages.clip("beside")["state"] == "running"
    assert time.monotonic() - began < 5


@pytest.mark.fault(
    "attacks",
    "an XCom that Python does not parse: deep, of 5,000 digits, cut off",
    outcome="survived",
    seen="its siblings, and the clip without it",
)
def test_no_stored_text_breaks_its_siblings(pages):
    """One XCom that is nested, long or broken beyond parsing costs its own clip something, and no other anything."""
    if not pages.keeps_any_text:
        pytest.skip("PostgreSQL keeps no XCom that it cannot parse")
    texts = {
        "deep": '{"id":' * 3000 + "1" + "}" * 3000,
        "digits": '{"id": "x", "credits": ' + "9" * 5000 + "}",
        "cut": '{"id":',
    }
    for kind, text in texts.items():
        for key in ("generation_id", "vidu_watch", "return_value", None):
            task = f"{kind}-{key}"
            pages.add(task, task, dag="spoilt", watch=MADE, result={"id": task}, fields={"prompt": "x"})
            pages.spoil(task, key, text[:7000] if key in ("generation_id", "vidu_watch") else text, dag="spoilt")
            answer = pages.get(pages.at(task, dag="spoilt", then="/clip.json"), user="admin")
            assert answer.status_code == (404 if key == "generation_id" else 200), task
    odd = "https://cdn.example.com/\\ud800"
    pages.add("well", "well", dag="spoilt", watch=MADE, fields={"prompt": odd})
    assert pages.get(pages.at("well", dag="spoilt", then="/clip.json"), user="admin").json()["state"]
    sheet = pages.get(pages.at("well", dag="spoilt").partition("/tasks")[0] + "/clips.json?limit=100", user="admin")
    assert {clip["generation_id"] for clip in sheet.json()["clips"]} >= {"well", "deep-return_value", "cut-None"}


@pytest.mark.fault(
    "attacks",
    "a task publishes 24 notes of 8,000 characters of empty lists",
    outcome="survived",
    seen="the clip without them",
)
@pytest.mark.parametrize("form", [lambda note: note, json.dumps], ids=["object", "text"])
def test_a_note_of_many_values_is_not_parsed(pages, form, request):
    """A look reads thousands of notes: 22 MB of such ones took the API server seven seconds."""
    shown = {}
    for count in (100, 1_900):
        task = f"noted-{count}-{request.node.callspec.id}"
        pages.add(task, task, dag="spoilt", watch=form({**MADE, "more": [[]] * count}), fields={"prompt": "x"})
        shown[count] = pages.get(pages.at(task, dag="spoilt", then="/clip.json"), user="admin").json()["conn_id"]
    assert shown == {100: MADE["conn_id"], 1_900: None}


@pytest.mark.fault(
    "attacks", "an encoded slash makes a page load scripts from above Airflow", outcome="refused", seen="404"
)
@pytest.mark.parametrize("path", ["/vidu/dags/film/runs%2Fx", "/vidu/dags%2ffilm%2Fruns%2Fx/tasks/t"])
def test_an_encoded_slash_is_no_folder(pages, path):
    """A page's addresses are relative: it is served where a browser counts the folders that the routes count."""
    assert pages.get(path).status_code == 404
    assert pages.get(path.replace("%2F", "/").replace("%2f", "/")).status_code == 200
