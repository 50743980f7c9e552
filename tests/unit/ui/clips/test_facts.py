"""Odd XComs: whatever a DAG has written, the pages read it without a fault and show nothing they must not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.api.dialects.vidu_native import ViduNative
from airflow_provider_vidu.api.messages import ApiAnswer
from airflow_provider_vidu.exceptions import (
    ViduAuthError,
    ViduConfigError,
    ViduCreditError,
    ViduError,
    ViduGenerationFailedError,
    ViduGenerationInterruptedError,
    ViduNotFoundError,
    ViduPolicyError,
    ViduRequestError,
    ViduResponseError,
    ViduServerError,
    ViduTransportError,
)
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from airflow_provider_vidu.ui.clips import views
from airflow_provider_vidu.ui.clips.facts import Action, Clip, TaskFacts, grouped, with_result
from airflow_provider_vidu.ui.clips.failures import CLEARING
from airflow_provider_vidu.ui.clips.service import MAKES_NO_FILE, NO_FILE, NOT_ASKED, Live
from airflow_provider_vidu.ui.clips.xcoms import fields_in, note_in, usable_id
from airflow_provider_vidu.ui.playing.shelf import Known
from tests.rows import each_row

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
RETURNS = {"role": "generate", "result": "return_value"}
SIGNED = "https://cdn.example.com/v.mp4?Signature=hush-hush&Expires=1"
RECORD = {
    "uri": "file:///data/clips/g.mp4",
    "size": 100,
    "sha256": "a" * 64,
    "content_type": "video/mp4",
    "generation_id": "g",
    "source": "https://cdn.example.com/v.mp4",
}


def task(
    task_id: str = "film",
    map_index: int = -1,
    generation_id: str | None = "g",
    result: Any = None,
    result_at: datetime | None = None,
    **more: Any,
) -> TaskFacts:
    """Return a task instance that has published an id and has left a result."""
    more = {"announced_at": NOW, "state": "success", **more}
    return with_result(TaskFacts("d", "r", task_id, map_index, generation_id, **more), result, result_at)


def made(**more: Any) -> dict[str, Any]:
    """Return a succeeded generation as an XCom."""
    known = {
        "status": GenerationStatus.SUCCEEDED,
        "video_url": SIGNED,
        "cover_url": SIGNED,
        "created_at": NOW - timedelta(seconds=30),
        "completed_at": NOW,
        "artifacts": (Artifact(url=SIGNED, cover_url=SIGNED, width=640),),
        "raw": {"url": SIGNED},
    }
    return Generation(id="g", **{**known, **more}).as_xcom()


def view(
    *tasks: TaskFacts,
    live: Live = NOT_ASKED,
    stored: dict[str, str | None] | None = None,
    over: bool = True,
    actions: Sequence[Action] | None = (),
) -> dict[str, Any]:
    """Return what the page shows of the only clip that these tasks make."""
    (clip,) = grouped(tasks, run_is_over=over)
    shown = views.clip_view(replace(clip, actions=actions), clip.main, live, stored=stored or {}, now=NOW)
    json.dumps(shown, allow_nan=False)
    return shown


def test_the_state_at_the_submit_is_not_the_state_now():
    """A task that only submits returns it; while the service cannot be queried, the clip is not said to wait still."""
    submitted = made(status="waiting", provider_status="created", progress=0, completed_at=None)
    film = task(watch={"conn_id": "c", "role": "submit", "credits": 20}, result=submitted, fields={"prompt": "a cat"})
    for live in (NOT_ASKED, Live(error=ViduNotFoundError("no"))):
        shown = view(film, live=live, over=False)
        assert (shown["state"], shown["progress"], shown["provider_status"]) == ("unknown", None, None)
        assert (shown["prompt"], shown["outlook"]["since"]["at"]) == (submitted.get("prompt") or "a cat", None)
    assert view(film, live=Live(Generation.model_validate(made(status="running"))), over=False)["state"] == "running"
    failed = view(replace(film, state="failed"), live=NOT_ASKED)["error"]
    assert "The state of the generation itself is not known" in failed["message"]


def test_a_finished_clip():
    """State, times with durations, file and prompt of a generation that was made and stored."""
    film = task(result=made(), result_at=NOW, watch={"conn_id": "c", "role": "generate"}, fields={"prompt": "a cat"})
    kept = task(
        "keep",
        announced_at=NOW + timedelta(seconds=1),
        watch={"conn_id": "c", "role": "download", "artifact": "video"},
        result=RECORD,
        result_at=NOW + timedelta(seconds=3),
    )
    shown = view(kept, film)
    assert (shown["state"], shown["task_id"], shown["prompt"], shown["conn_id"]) == ("stored", "film", "a cat", "c")
    assert shown["refresh"] is None
    assert [(step["name"], step["seconds"]) for step in shown["timeline"]] == [
        ("queued", None), ("done", 30), ("stored", 3),
    ]  # fmt: skip
    assert shown["files"][0]["sha256"] == "a" * 64
    again = task("again", result=RECORD, result_at=NOW + timedelta(hours=1), watch={"role": "download"})
    twice = view(kept, film, again)
    assert (len(twice["files"]), twice["timeline"][-1]["at"]) == (1, shown["timeline"][-1]["at"])
    assert [(piece["from"], piece["medium"], piece["width"]) for piece in shown["pieces"]] == [
        ("service", "video", 640)
    ]


def test_a_generation_that_a_task_returned():
    """A @task may return what the hook does: Airflow stores a model with its class, some versions as text."""
    stored = {"__classname__": "airflow_provider_vidu.models.Generation", "__version__": 1, "__data__": made()}
    for result in (stored, json.dumps(stored)):
        shown = view(task(result=result, result_at=NOW, watch={"conn_id": "c", "role": "generate"}))
        assert (shown["state"], shown["done"], shown["timeline"][1]["seconds"]) == ("succeeded", True, 30)
    other = {**stored, "__classname__": "airflow_provider_vidu.models.Credits"}
    assert view(task(result=other, watch={"role": "generate"}))["state"] == "unknown"


def test_no_signed_url_is_ever_shown():
    """URLs of the service stand neither in the texts nor in the fields that the page gets."""
    film = task(
        watch={"conn_id": SIGNED, "role": "generate"},
        result=made(enhanced_prompt=f"look at {SIGNED}", model=SIGNED, error_message=SIGNED, provider_status=SIGNED),
        fields={"prompt": f"like {SIGNED}"},
    )
    kept = task("keep", result={**RECORD, "uri": SIGNED, "content_type": SIGNED}, watch={"role": "download"})
    assert "hush-hush" not in json.dumps(view(film, kept))


@pytest.mark.parametrize(
    ("generation", "stored", "since", "kind"),
    [
        (made(), True, NOW, "storage"),
        (made(), False, NOW, "service"),
        (made(), False, NOW - timedelta(hours=25), None),
        (made(video_url=None, artifacts=()), False, NOW, None),
        (made(status=GenerationStatus.RUNNING), False, NOW, None),
    ],
)
def test_where_the_clip_plays_from(generation, stored, since, kind):
    """From storage where that is allowed, else from the service while its URL can be valid, else nowhere."""
    kept = [task("keep", result=RECORD, watch={"role": "download"})] if stored else []
    shown = view(task(result=generation, result_at=since), *kept, stored=dict.fromkeys([RECORD["uri"]]))
    assert shown["pieces"][0]["from"] == kind


def test_an_expired_link_tells_where_the_file_is():
    """After a day the page says what happened and where the clip was stored."""
    old = NOW - timedelta(days=3)
    shown = view(task(result=made(), result_at=old), task("keep", result=RECORD, result_at=old))
    assert "expired" in shown["pieces"][0]["reason"]
    assert "/data/clips/g.mp4" in shown["pieces"][0]["reason"]


@pytest.mark.parametrize(
    ("code", "is_transient", "advice"),
    [
        ("CreationPolicyViolation", False, ViduPolicyError.advice),
        ("a word of a gateway's own", True, ViduGenerationInterruptedError.advice),
        ("x", False, "Change what the reason names"),
    ],
)
def test_a_failure_is_explained(code, is_transient, advice):
    """The service's code and text come with what to do; whether it is transient is what the dialect has read."""
    failed = made(status=GenerationStatus.FAILED, error_code=code, error_message="because", is_transient=is_transient)
    error = view(
        task(state="failed", watch={"conn_id": "c", "role": "generate"}), live=Live(Generation.model_validate(failed))
    )["error"]
    assert (error["code"], error["message"]) == (code, "because")
    assert error["advice"].startswith(advice)


@each_row(
    ("error", "kind"),
    [
        ({"code": "prompt_blocked", "message": "m"}, ViduPolicyError),
        ("prompt_blocked", ViduPolicyError),
        ({"code": "upstream_error", "message": '{"err_code": "AuditSubmitIllegal"}'}, ViduPolicyError),
        ({"code": "insufficient_user_quota", "message": "m"}, ViduCreditError),
        ({"code": "model_not_found", "message": "m"}, ViduRequestError),
        ({"code": "system_cpu_overloaded", "message": "m"}, ViduGenerationInterruptedError),
        ({"code": "upstream_error", "message": "m"}, ViduGenerationInterruptedError),
        ({"code": "invalid_api_key", "message": "the gateway's own key"}, ViduGenerationFailedError),
    ],
)
@each_row("is_stored", [False, True], ids=["live", "stored"])
def test_a_failure_of_a_gateway_gets_the_advice_of_its_class(error, kind, is_stored):
    """What vidu-native calls a failure is explained as the dialect has read it, live and out of an XCom."""
    body = json.dumps({"id": "g", "status": "failed", "error": error}).encode()
    generation = ViduNative().read_generation("g", ApiAnswer(200, {}, body))
    failed = task(state="failed", watch=RETURNS, result=generation.as_xcom() if is_stored else None)
    shown = view(failed, live=NOT_ASKED if is_stored else Live(generation))
    assert shown["error"]["advice"].startswith(kind.advice.removesuffix(CLEARING))


def test_a_service_that_cannot_be_asked_is_told():
    """The page says what is wrong and what to do instead of the state, and goes on asking."""
    error = ViduAuthError("401 at https://internal.example:8443", conn_id="c")
    shown = view(task(state="deferred", watch={"conn_id": "c"}), live=Live(error=error), over=False)
    assert shown["notice"]["message"] == ViduAuthError.advice
    assert shown["refresh"] == views.REFRESH_SECONDS


@pytest.mark.fault(
    "attacks",
    "a reader looks at a connection in trouble",
    outcome="survived",
    side="pages",
    seen="a notice without host, port and type",
)
@pytest.mark.parametrize("kind", [ViduConfigError, ViduTransportError, ViduServerError, ViduResponseError, ViduError])
def test_readers_learn_nothing_of_the_connection(kind):
    """Host, port and type of a connection are not for everybody who may see a clip."""
    error = kind("Cannot reach db.internal:5432; connection 'c' is of type 'postgres'.", conn_id="c")
    told = json.dumps(view(task(state="deferred", watch={"conn_id": "c"}), live=Live(error=error)))
    assert not [word for word in ("db.internal", "5432", "postgres") if word in told]


def test_nobody_knows_whom_to_ask():
    """Without a connection and without a result the page says why it knows nothing."""
    assert "connection" in view(task(state="running"))["notice"]["message"]


def test_the_connection_stands_in_the_rendered_fields_too():
    """A task of an older version has published the id alone; what it was rendered with names the connection."""
    clip = Clip("g", [task(fields={"vidu_conn_id": "older"})])
    assert clip.conn_id == "older"
    assert views.must_ask(clip)


@each_row(
    ("tasks", "stage"),
    [
        ([task(state="deferred", watch={"role": "generate"})], "working"),
        ([task(watch={"role": "generate"})], "ready"),
        ([task(watch={"role": "submit"})], "submitted"),
        ([task(watch={"role": "submit"}), task("w", state="deferred", watch={"role": "wait"})], "working"),
        ([task(watch={"role": "submit"}), task("w", state="failed", watch={"role": "wait"})], "failed"),
        ([task(watch={"role": "submit"}), task("w", watch={"role": "wait"})], "ready"),
        ([task(watch={"role": "generate"}), task("k", watch={"role": "download"}, state="running")], "ready"),
        ([task(watch={"role": "generate"}), task("k", watch={"role": "download"})], "stored"),
        ([task(watch={"role": "generate"}), task("k", watch={"role": "download", "artifact": "cover"})], "ready"),
        ([task(watch={"role": "generate", "stores": "file"})], "stored"),
        ([task(watch={"role": "wait", "stores": "file"})], "stored"),
        ([task(watch={"role": "generate", "stores": "file"}, state="deferred")], "working"),
        ([task(watch={"role": "generate", "stores": "file", "artifact": "cover"})], "ready"),
        ([task(generation_id="dry-run-0")], "ready"),
        ([task(state="skipped", watch={"role": "generate"})], "submitted"),
        ([task(state="skipped", watch={"role": "wait"}), task("k", state="upstream_failed")], "submitted"),
        ([task(watch={"role": "download", "artifact": "cover"})], "submitted"),
        ([task(), task("k", state="queued")], "working"),
        ([task(state="failed", watch={"role": "generate"})], "failed"),
        ([task(state="failed"), task("w", state="up_for_retry", watch={"role": "wait"})], "working"),
        ([task(watch=RETURNS, has_result=True)], "ready"),
        ([task(watch=RETURNS)], "submitted"),
        ([task(watch={"role": "generate"}, resumes=True)], "submitted"),
        ([task(watch={"role": "generate"}, resumes=True, has_result=True)], "ready"),  # as dag.test() leaves it
        ([task(watch={**RETURNS, "role": "wait"}), task("f", state="failed", watch={"role": "download"})], "failed"),
        ([task(watch={**RETURNS, "stores": "file"})], "submitted"),
        ([task(watch={"role": "generate"}), task("k", watch={**RETURNS, "role": "download"})], "ready"),
        ([task(watch=RETURNS), task("w", watch={**RETURNS, "role": "wait"}, has_result=True)], "ready"),
        # Cleared after it was taken out of the DAG: Airflow keeps what it has returned.
        ([task(state="removed", watch={**RETURNS, "stores": "file"}, has_result=True)], "stored"),
        ([task(state="removed", watch=RETURNS, has_result=True)], "ready"),
        ([task(state="removed", watch=RETURNS)], "failed"),
        ([task(state="removed", watch={"role": "wait"})], "submitted"),
    ],
)
def test_how_far_a_clip_is(tasks, stage):
    """The tasks' states alone tell the stage, so that a run of thousands is sorted without reading results."""
    assert grouped(tasks)[0].stage == stage


@each_row(
    ("result", "error", "says", "refreshes"),
    [
        (RECORD, ViduTransportError("no"), "stored the file at file:///data/clips/g.mp4, which is not beneath", True),
        (RECORD, ViduNotFoundError("no"), "stored the file at file:///data/clips/g.mp4, which is not beneath", False),
        (RECORD, None, "stored the file at file:///data/clips/g.mp4, which is not beneath", False),
        (None, ViduTransportError("no"), "Where it is cannot be read here", True),
    ],
)
def test_a_stored_clip_of_which_the_service_says_nothing(result, error, says, refreshes):
    """The file is there: the page says where, and claims neither that it waits nor that steps were not reached."""
    shown = view(task(watch={"conn_id": "c", "role": "download"}, result=result, result_at=NOW), live=Live(error=error))
    assert (shown["state"], shown["done"], shown["outlook"]) == ("stored", True, None)
    assert says in shown["pieces"][0]["reason"]
    assert [(step["name"], step["reached"]) for step in shown["timeline"]] == [
        ("queued", True), ("done", True), ("stored", True),
    ]  # fmt: skip
    assert [step["at"] for step in shown["timeline"][1:]] == [NOW.isoformat() if result else None] * 2
    assert (shown["refresh"] is not None) is refreshes


def test_a_stored_clip_without_a_link_of_the_service():
    """What names no link has not been asked for one: the page does not say that the service returned no file."""
    result = {**made(video_url=None, artifacts=()), "file": RECORD}
    kept = task(watch={"conn_id": "c", "role": "generate", "stores": "file"}, result=result, result_at=NOW)
    assert "stored the file at" in view(kept)["pieces"][0]["reason"]
    for known, reason in (
        (Known(0.0, is_absent=True), "The API server does not find the stored file."),
        (Known(0.0, size=7), "Another file has replaced the stored one."),
    ):
        gone = Clip("g", [kept]).with_known({RECORD["uri"]: known})
        shown = views.clip_view(gone, gone.main, NOT_ASKED, stored={RECORD["uri"]: None}, now=NOW)
        assert shown["pieces"][0]["reason"] == reason
    made_only = view(task(watch={"role": "generate"}, result=made(video_url=None, artifacts=())))
    assert made_only["pieces"][0]["reason"] == NO_FILE
    subject = view(task(watch={"role": "generate", "endpoint": "subjects"}, result=made(video_url=None, artifacts=())))
    assert subject["pieces"][0]["reason"] == MAKES_NO_FILE


def test_a_clip_that_is_reused_says_so():
    """Its own page does, while it waits for an equal order, too; on the sheet only where no task has paid for it.

    There the price is not named: it is what the equal order has paid.
    """
    kept = {"conn_id": "c", "role": "wait", "stores": "file"}
    result = {**made(credits=80), "file": RECORD}
    served = task("second", watch=kept, result={**result, "reused_from": "g"}, result_at=NOW)
    waits = task("second", watch=note_in({**kept, "shared": True}), state="deferred")
    paid = task("first", watch={**kept, "role": "generate"}, result=result, result_at=NOW)
    for clip, page, of_page, of_card in (
        (Clip("g", [served]), served, "g", "g"),
        (Clip("g", [waits]), waits, "g", "g"),
        (Clip("g", [paid, served]), served, "g", None),
        (Clip("g", [paid, served]), paid, None, None),
    ):
        assert views.clip_view(clip, page, NOT_ASKED, stored={}, now=NOW)["reused_from"] == of_page
        card = views.card_view(clip, NOT_ASKED, stored={}, now=NOW)
        assert (card["reused_from"], card["credits"] is None) == (of_card, of_card is not None)


def test_clips_stand_in_the_order_of_their_scenes():
    """Mapped tasks come by their index, whatever finished first; tasks of one generation are one clip."""
    scenes = [task("scene", index, f"g{index}", announced_at=NOW - timedelta(seconds=index)) for index in (2, 0, 1)]
    kept = [task("keep", index, f"g{index}", announced_at=NOW + timedelta(seconds=9)) for index in (0, 1, 2)]
    clips = grouped([*kept, *scenes, task("later", generation_id="x", announced_at=NOW + timedelta(hours=1))])
    assert [(clip.main.task_id, clip.main.map_index) for clip in clips] == [
        ("scene", 0), ("scene", 1), ("scene", 2), ("later", -1),
    ]  # fmt: skip


@each_row(
    "value",
    [
        None, 5.5, "", "None", "..", "a\nb", ["g"], {"id": "g"}, "x" * 2000, '"',
        "file:///data/xcom/d/r/t/a.json", "s3://c@bucket/xcom/a.json", '"gs://bucket/a"', "/data/xcom/a.json",
    ],
)  # fmt: skip
def test_what_is_no_id(value):
    """An XCom of that name that holds no id is not a clip."""
    assert usable_id(value) in (None, '"')


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20) | st.just(SIGNED),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = "video_url progress credits created_at completed_at raw artifacts sha256 content_type enhanced_prompt model"
FIELDS = dict.fromkeys(NAMES.split(), JSON)
RESULT = st.one_of(
    JSON,
    st.fixed_dictionaries({"id": st.just("g"), "status": st.sampled_from(["succeeded", "failed", 3])}, optional=FIELDS),
    st.fixed_dictionaries({"generation_id": st.just("g"), "uri": st.text(), "size": st.integers()}, optional=FIELDS),
)


@pytest.mark.fault(
    "attacks", "any JSON as result, note and rendered fields", outcome="survived", seen="a page that is valid JSON"
)
@given(RESULT, JSON, JSON)
def test_no_xcom_breaks_the_page(result, watch, fields):
    """Any JSON as result, as connection note and as rendered fields gives a page that is valid JSON itself."""
    shown = view(
        task(result=result, watch=watch, fields=fields, result_at=NOW), task("k", result=RECORD, result_at=NOW)
    )
    assert "hush-hush" not in json.dumps(shown)


@pytest.mark.fault(
    "attacks",
    "escapes inside a URL stand for line ends, overrides and lone surrogates",
    outcome="survived",
    seen="blanks in their place",
)
@pytest.mark.parametrize("escape", ["\\ud800", "\\u202e", "\\u0007"])
def test_escapes_in_a_url_are_no_way_in(escape):
    """JSON's escapes in a URL are spelt out to find its query: what they stand for is cleaned like all else."""
    odd = f"https://cdn.example.com/{escape}x"
    result = {"id": "g", "status": "succeeded", "enhanced_prompt": odd}
    stored = {"generation_id": "g", "uri": odd, "size": 1}
    tasks = [task(result=result, result_at=NOW, fields={"prompt": odd + "p"}), task("k", result=stored, result_at=NOW)]
    shown = view(*tasks)
    for told in (shown["prompt"], shown["enhanced_prompt"], shown["files"][0]["uri"]):
        assert told.encode()
        assert not set(told) & {"\ud800", "\u202e", "\u0007"}


@pytest.mark.fault(
    "attacks",
    "a gigabyte of JSON text in notes and rendered fields",
    outcome="survived",
    seen="what the page shows of them, read once",
)
def test_what_is_kept_of_notes_and_fields():
    """Both are reduced when they are read: no look at a page parses the JSON in them again."""
    body = json.dumps({"prompt": "p", "model": "m", "more": ["x"] * 10_000})
    assert fields_in({"vidu_conn_id": "c", "body": body, "x": body}) == {
        "vidu_conn_id": "c",
        "model": "m",
        "prompt": "p",
    }
    assert fields_in({"prompt": "", "parameters": {"prompt": "q"}}) == {"prompt": "q"}
    assert len(fields_in({"prompt": "x" * 1_000_000})["prompt"]) <= 40_000
    note = {"conn_id": "c", "role": "wait", "artifact": None, "created_at": 5, "endpoint": "x" * 5000, "more": body}
    assert note_in(json.dumps(note)) == {"conn_id": "c", "role": "wait", "created_at": 5}
    assert note_in(["x"]) == fields_in("text") == {}


def test_an_id_that_cannot_be_read_is_unknown():
    """A task whose id is kept elsewhere has a clip of its own, is never asked for, and the page says why."""
    tasks = [task(name, generation_id=None, watch={"conn_id": "c"}) for name in ("a", "b")]
    assert len(grouped(tasks)) == 2
    assert not views.may_ask(grouped(tasks)[0])
    shown = view(tasks[0])
    assert (shown["generation_id"], shown["state"], shown["outlook"]) == (None, "unknown", None)
    assert "back end" in shown["notice"]["message"]


@pytest.mark.fault(
    "attacks",
    "a gateway answers the pages in megabytes",
    outcome="survived",
    side="pages",
    seen="the clip; only what is shown is kept",
)
def test_what_is_remembered_is_what_is_shown():
    """Of an answer of megabytes only the bounded texts stay, and the prompt that stood in it."""
    artifacts = tuple(Artifact(url=f"https://cdn.example.com/{n}.mp4") for n in range(500))
    texts = {"prompt": "y" * 100_000, "enhanced_prompt": "x" * 100_000}
    huge = made(artifacts=artifacts, **texts, raw={"more": ["z" * 1000] * 1000})
    kept = task(result=huge).generation
    assert kept is not None
    assert kept.raw == {}
    assert len(kept.model_dump_json()) < 60_000
    assert kept.prompt is not None
    assert kept.prompt.startswith("y")


@pytest.mark.parametrize(
    ("endpoint", "used"),
    [("one-click/mv", "one-click/mv"), ("text2video", "text2video"), ("/admin/{id}", None), ("../x", None), (5, None)],
)
def test_the_endpoint_is_the_name_of_a_product(endpoint, used):
    """An XCom may say which product's query to use, and never which path is asked for with the key."""
    assert Clip("g", [task(watch={"endpoint": endpoint}), task("w", watch={"role": "wait"})]).endpoint == used
