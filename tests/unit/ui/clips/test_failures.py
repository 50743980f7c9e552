"""What went wrong, what to do and what it costs: never advice that pays twice for a clip that is fine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_vidu.exceptions import ViduNotFoundError, ViduRateLimitError, ViduRequestError
from airflow_provider_vidu.models import Generation
from airflow_provider_vidu.ui.clips import failures, views
from airflow_provider_vidu.ui.clips.clears import LATER_ITERATIONS
from airflow_provider_vidu.ui.clips.facts import Action, Clip, TaskFacts
from airflow_provider_vidu.ui.clips.service import MAKES_NO_FILE, NO_QUERY, NOT_ASKED, Live
from airflow_provider_vidu.ui.clips.xcoms import fields_in, slim
from airflow_provider_vidu.ui.playing.shelf import Known
from tests.unit.ui.clips.test_facts import NOW, RECORD, made, task, view

WATCH = {"conn_id": "c", "role": "generate", "credits": 20}
TRACE = {"metadata": {"trace_id": "trace-7"}}


def generation(status: str, **more: Any) -> Generation:
    """Return a generation in a state."""
    return Generation.model_validate({**made(), "status": status, **more})


def test_a_failure_has_its_trace_id_and_its_price():
    """Reason, code, trace id, advice and the cost of a clear; the trace id is kept of a stored answer, too."""
    failed = generation("failed", error_code="CreationPolicyViolation", error_message="no", raw=TRACE)
    stored = view(task(state="failed", watch=WATCH, result=failed.as_xcom()))["error"]
    assert (stored["code"], stored["trace_id"]) == ("CreationPolicyViolation", "trace-7")
    assert "content policy" in stored["advice"]
    assert (
        "Clearing film submits a new generation and pays for it (the price of this one: 20 credits)." in stored["cost"]
    )


@pytest.mark.parametrize(
    ("status", "title", "advised"),
    [
        ("succeeded", "The task failed, the clip is fine", "ViduDownloadOperator"),
        ("running", "The task failed, the generation continues", "ViduGenerationSensor"),
        (None, "The task failed", "ViduGenerationSensor"),
    ],
)
def test_a_task_failed_beside_its_clip(status, title, advised):
    """The page says how to get the clip without paying again, and that a clear of the task would pay."""
    live = Live(generation(status) if status else None)
    shown = view(task(state="failed", watch=WATCH, ended_at=NOW), live=live)
    error = shown["error"]
    assert error["title"] == title
    assert 'generation_id="g"' in error["advice"]
    assert advised in error["advice"]
    assert 'pays for it (the price of this one: 20 credits) unless it has on_clear="resume"' in error["cost"]
    assert shown["qualifier"] == ("task failed" if status else None)


@pytest.mark.parametrize("more", [{"state": "failed"}, {"state": "success", "resumes": True}])
def test_a_success_without_a_file(more):
    """The clip is not fine, and no download would find it; another look costs nothing."""
    empty = Live(generation("succeeded", artifacts=[], video_url=None, creations=[]))
    error = view(task(watch=WATCH, **more), live=empty)["error"]
    assert error["title"].endswith(", and there is no file")
    assert "succeeded and is paid for, but the service returned no file." in error["message"]
    assert "ViduDownloadOperator" not in error["advice"]
    assert 'run ViduGenerationSensor(generation_id="g"' in error["advice"]
    assert "support" in error["advice"]


def test_a_task_that_was_marked_as_failed_after_its_end():
    """Its log says that it succeeded; what it has stored is not called unstored."""
    since = {"state": "failed", "has_result": True}
    told = "The task film has returned its result and is failed in Airflow: a user marked it since, or its log says"
    made_of_it = view(task(watch=WATCH, **since), live=Live(generation("succeeded")))["error"]
    assert made_of_it["message"].startswith(told)
    download = view(task(watch={**WATCH, "role": "download"}, **since), live=Live(generation("succeeded")))["error"]
    assert (download["title"], download["message"]) == ("The task failed after it had stored its file", f"{told} why.")


@pytest.mark.parametrize("status", ["failed", "succeeded"])
def test_a_clear_of_a_task_that_submits_with_the_hook(status):
    """Its own code decides what it pays; it has no on_clear, and its retries promise nothing."""
    made_by_hook = generation(status, error_code="QuotaExceeded" if status == "failed" else None, is_transient=True)
    error = view(task(state="failed", watch={**WATCH, "by": "hook"}), live=Live(made_by_hook))["error"]
    cost = "Clearing film runs its own code again, which decides what it submits and pays for."
    assert error["cost"].endswith(cost)
    assert "submits a new generation" not in error["advice"]


@pytest.mark.parametrize(
    ("more", "actions", "why"),
    [
        ({}, (), "The task film is a success in Airflow without a result: a user marked it, or"),
        ({}, None, "The task film is a success in Airflow without a result: a user marked it, or"),
        ({"watch": WATCH, "resumes": True}, (), "The task film is a success in Airflow without a result: "),
        ({}, [Action("success", NOW)], "A user marked the task film as success before the task had a result."),
        ({}, [Action("success", NOW, of_run=True)], "A user marked the run as success before the task had a result."),
    ],
)
@pytest.mark.parametrize(
    ("status", "title", "qualifier", "advised"),
    [
        ("running", "The task has no result, the generation continues", "task marked", "ViduGenerationSensor"),
        ("succeeded", "The task has no result, the clip is fine", "task marked", "ViduDownloadOperator"),
        (None, "The task has no result", None, "ViduGenerationSensor"),
    ],
)
def test_a_task_was_marked_beside_its_generation(more, actions, why, status, title, qualifier, advised):
    """Airflow has it as a success; no task waits any more, and the page says how to get the clip without paying."""
    film = task(**{"watch": {**WATCH, "result": "return_value"}, **more})
    shown = view(film, live=Live(generation(status) if status else None), actions=actions)
    assert (shown["stage"], shown["state"], shown["qualifier"]) == ("submitted", status or "unknown", qualifier)
    assert shown["error"]["title"] == title
    assert shown["error"]["message"].startswith(why)
    assert f'{advised}(generation_id="g", vidu_conn_id="c"' in shown["error"]["advice"]
    assert 'pays for it (the price of this one: 20 credits) unless it has on_clear="resume"' in shown["error"]["cost"]


@pytest.mark.parametrize("status", ["waiting", "running", "succeeded"])
def test_a_download_that_did_not_wait(status):
    """Without a sensor before it, it fails before the end; a clear right now would fail in the same way."""
    tasks = [task(watch={**WATCH, "role": "submit"}), task("keep", state="failed", watch={**WATCH, "role": "download"})]
    error = view(*tasks, live=Live(generation(status, completed_at=None)))["error"]
    assert error["title"] == "The clip is not stored"
    assert error["advice"].startswith(
        "Clear that task: " if status == "succeeded" else "The generation has not ended yet."
    )
    assert "osts nothing" in error["advice"]
    unknown = view(*tasks, live=Live(error=ViduRateLimitError("no")))["error"]
    assert unknown["advice"] == "Clear that task once the cause is gone: downloading costs nothing."
    for error in (ViduNotFoundError("no"), ViduRequestError("no")):  # nothing is known to be paid for, or to be there
        assert not view(*tasks, live=Live(error=error))["error"]["advice"]


def test_a_download_of_what_has_no_file():
    """Such as of a subject: a clear would fail as the download did."""
    keep = task("keep", state="failed", watch={**WATCH, "role": "download"})
    made_it = task(watch=WATCH, result=made(video_url=None, artifacts=()), has_result=True)
    assert view(made_it, keep)["error"]["advice"] == failures.NOTHING_THERE
    for endpoint, says in (("subjects", MAKES_NO_FILE), ("text2video", "To look again without paying")):
        watch = {**WATCH, "endpoint": endpoint}
        marked = task(state="failed", watch=watch, result=made(video_url=None, artifacts=()), has_result=True)
        assert says in view(marked)["error"]["advice"]


def test_what_was_answered_at_once_and_is_not_found():
    """Speech and subjects may have no query: neither the id nor the host is wrong."""
    for endpoint, says in (("audio-tts", NO_QUERY), ("text2video", "check the id")):
        said = view(
            task(state="failed", watch={**WATCH, "endpoint": endpoint}), live=Live(error=ViduNotFoundError("no"))
        )
        assert says in said["notice"]["message"]


def test_a_download_that_was_marked():
    """It is no stored clip, and whether there is a file is not known."""
    keeps = task("keep", watch={"conn_id": "c", "role": "download", "result": "return_value"})
    shown = view(task(watch=WATCH, result=made(), has_result=True), keeps)
    assert (shown["stage"], shown["state"], shown["qualifier"]) == ("ready", "succeeded", None)
    assert shown["error"]["title"] == "The clip may not be stored"
    assert (
        "The task keep is a success in Airflow without a result: a user marked it, or removed"
        in shown["error"]["message"]
    )


def test_a_download_that_did_not_run_after_a_clear():
    """What an earlier try has left names it; its own log does not say why, and clearing it alone leads nowhere."""
    keeps = task("keep", state="upstream_failed", watch={"conn_id": "c", "role": "download"})
    error = view(keeps, live=Live(generation("succeeded")))["error"]
    assert error["message"] == "The task keep was cleared and did not run: a task before it failed."
    assert error["advice"] == "Clear the task that failed, with its downstream tasks."


def test_a_sensor_alone_is_not_said_to_submit():
    """A temporary failure is worth another order, but no retry or clear in this run makes one."""
    error = view(task(state="failed", watch={"role": "wait"}), live=Live(generation("failed", is_transient=True)))[
        "error"
    ]
    assert error["advice"] == "This failure is often temporary."
    assert "No task of this run submitted it, so clearing a task here submits nothing." in error["cost"]


def test_a_sensor_that_retries_waits_for_the_same_generation():
    """So that generation's failure is not one of the past."""
    waits = task("wait", state="up_for_retry", watch={"role": "wait"})
    shown = view(waits, live=Live(generation("failed", error_code="Broken")))
    assert (shown["error"]["title"], shown["qualifier"]) == ("The generation failed", "task retries")


def test_a_marked_task_ends_no_generation():
    """The moment at which a user marks a task says nothing of the generation; its cancel has a cause that is named."""
    marked = task(watch={**WATCH, "result": "return_value"}, ended_at=NOW)
    done = Live(generation("succeeded", completed_at=None), done_since=NOW + timedelta(seconds=70))
    assert view(marked, live=done)["timeline"][1]["at"] == (NOW + timedelta(seconds=70)).isoformat()
    cancelled = Live(generation("failed", error_code="UserCancelled"))
    for actions, told in (
        ([Action("success", NOW)], "Airflow cancelled it: a user marked the task film as success."),
        ((), "The log of film says whether the task cancelled it."),
    ):
        assert told in view(marked, live=cancelled, actions=actions)["error"]["message"]
    late = replace(marked, watch={**marked.watch, "deadline": NOW.timestamp() - 1})
    assert "the timeout of the task film expired" in view(late, live=cancelled)["error"]["message"]


@pytest.mark.parametrize(
    ("more", "qualifier"),
    [
        ({"state": "up_for_retry"}, "task retries"),
        ({"state": "queued", "try_number": 2}, "task retries"),
        ({"state": "up_for_reschedule", "try_number": 2}, "task retries"),  # its worker did not find the DAG
        ({"state": "scheduled", "try_number": 2, "max_tries": 3}, "task cleared"),
        ({"state": None, "max_tries": 3}, "task cleared"),
        ({"state": "restarting"}, "task cleared"),
        ({"state": "scheduled"}, None),  # an event has resumed it
        ({"state": "failed"}, None),
    ],
)
def test_a_failure_of_an_earlier_try_is_called_one(more, qualifier):
    """Airflow goes on by itself: the failure is past, and a clear, which would pay, is not offered as a way out."""
    film = task(watch={**WATCH, "try_number": 1, "max_tries": 1}, **{"try_number": 1, "max_tries": 1, **more})
    shown = view(film, live=Live(generation("failed", error_code="Broken")))
    assert shown["qualifier"] == qualifier
    is_past = qualifier is not None
    assert shown["error"]["title"] == f"The generation{' of the earlier try' if is_past else ''} failed"
    assert ("Clearing film" in shown["error"]["cost"]) is not is_past
    assert (shown["next_try"] is not None) is is_past
    cancelled = view(film, live=Live(generation("failed", error_code="UserCancelled")))["qualifier"]
    assert cancelled == ", ".join(filter(None, ["cancelled", qualifier]))


@pytest.mark.parametrize(
    ("note", "advised"),
    [
        ({"conn_id": "vidu_default"}, 'ViduGenerationSensor(generation_id="g")'),
        ({"conn_id": "night"}, 'ViduGenerationSensor(generation_id="g", vidu_conn_id="night")'),
        (
            {"conn_id": "night", "endpoint": "one-click/mv"},
            'ViduGenerationSensor(generation_id="g", vidu_conn_id="night", endpoint="one-click/mv")',
        ),
    ],
)
def test_the_advice_names_the_account(note, advised):
    """Another account does not know the generation: the operator would clear the task, and pay again."""
    shown = view(task(state="failed", watch={**note, "role": "generate"}), live=Live(generation("running")))
    assert advised in shown["error"]["advice"]
    clip = gone(task(watch={**note, "role": "generate", "stores": "file"}, result={**made(), "file": RECORD}), None)
    lost = views.clip_view(clip, clip.main, NOT_ASKED, stored=dict.fromkeys([RECORD["uri"]]), now=NOW)["error"]
    assert advised.removeprefix("ViduGenerationSensor(").rstrip(")") + ", destination=…)" in lost["advice"]


@pytest.mark.parametrize(
    ("kind", "says"), [(ViduNotFoundError, "does not find the generation"), (ViduRequestError, "refuses the query")]
)
def test_an_unknown_generation_is_not_waited_for_again(kind, says):
    """The service does not find it, or refuses its id, so a second wait would fail in the same way."""
    shown = view(task(state="failed", watch={"conn_id": "c", "role": "wait"}), live=Live(error=kind("no")))
    assert says in shown["error"]["message"]
    assert (shown["error"]["advice"], shown["notice"]["message"]) == ("", kind.advice)


def test_a_clip_that_the_service_no_longer_finds_is_not_called_fine():
    """What was last known of it leads to no download, which would fail; a file that a task has stored is named."""
    forgotten = Live(generation("succeeded"), error=ViduNotFoundError("no"))
    error = view(task(state="failed", watch=WATCH), live=forgotten)["error"]
    assert (error["title"], error["advice"]) == ("The task failed", "")
    assert "is paid for. The service does not find it any more." in error["message"]


def test_a_sensor_that_failed_costs_nothing():
    """Clearing a task that only waits submits nothing."""
    tasks = task("make", watch={"role": "submit"}), task("wait", state="failed", watch={"conn_id": "c", "role": "wait"})
    error = view(*tasks, live=Live(generation("succeeded")))["error"]
    assert error["cost"] == "Clearing wait costs nothing: it only waits."


@pytest.mark.parametrize(
    ("role", "actions", "is_known"), [("generate", (), True), ("generate", None, False), ("wait", (), False)]
)
def test_the_log_of_a_task_that_a_user_may_have_marked(role, actions, is_known):
    """It does not say so: only where Airflow's records were read, and show no mark, the log is sure to say why."""
    tasks = (
        task("make", state="failed" if role == "generate" else "success", watch={**WATCH, "role": "generate"}),
        task("wait", state="failed", watch={"conn_id": "c", "role": "wait"}),
    )
    message = view(*tasks, live=Live(generation("running")), actions=actions)["error"]["message"]
    assert "; its log says why" in message
    assert ("unless a user marked it so" in message) is not is_known
    kept = task(state="failed", watch={"conn_id": "c", "role": "download"})
    assert "unless a user marked it so" in view(kept, actions=())["error"]["message"]


def test_a_timeout_that_cancelled():
    """A generation that was cancelled after the task's deadline was cancelled by that timeout."""
    deadline = (NOW + timedelta(minutes=5)).timestamp()
    film = task(state="failed", watch={**WATCH, "deadline": deadline}, ended_at=NOW + timedelta(minutes=6))
    shown = view(film, live=Live(generation("failed", error_code="UserCancelled", credits=0)))
    assert (shown["qualifier"], shown["error"]["title"]) == ("cancelled", "The generation was cancelled")
    assert "the timeout of the task film expired" in shown["error"]["message"]
    assert "0 credits (20 at its create): they were returned" in shown["error"]["cost"]


def test_a_price_above_the_limit_cancelled_it():
    """The task's max_credits is in its rendered fields: a higher price is the cause, and a clear alone repeats it."""
    cancelled = Live(generation("failed", error_code="UserCancelled", credits=0))
    for cap, told in ((19, "its price is above the max_credits of the task film (19)"), (20, "neither a timeout")):
        fields = fields_in({"max_credits": str(cap)})
        error = view(task(state="failed", watch=WATCH, fields=fields), live=cancelled)["error"]
        assert told in error["message"]
        assert ("or its execution_timeout" in error["message"]) is (cap == 20)
        assert ("raise max_credits" in error["advice"]) is (cap < 20)
        goes_on = view(task(state="failed", watch=WATCH, fields=fields), live=Live(generation("running")))["error"]
        assert ("the price, 20 credits, is above its max_credits (19)" in goes_on["message"]) is (cap < 20)
        # A clear pays again even with on_clear="resume": no try uses a generation above the cap.
        assert ('unless it has on_clear="resume"' in goes_on["cost"]) is (cap == 20)
        assert ("raise max_credits before you clear the task." in goes_on["advice"]) is (cap < 20)


def gone(record: TaskFacts, size: int | None) -> Clip:
    """Return a clip whose file was looked at: it has a size, or is not there."""
    known = Known(0.0, size=size, is_absent=size is None)
    return Clip("g", [record], run_is_over=True).with_known({RECORD["uri"]: known})


@pytest.mark.parametrize(
    ("watch", "size", "told"),
    [
        ({"role": "download"}, None, ("file not found", "finds no file at", "Clear film", "costs nothing")),
        ({"role": "download"}, 7, ("file replaced", "is not of the 100 bytes", "Clear film", "costs nothing")),
        ({**WATCH, "stores": "file"}, None, ("file not found", "removed", "ViduDownloadOperator", "pays for it")),
    ],
)
def test_a_stored_file_that_is_gone(watch, size, told):
    """The badge says so in brackets, and the page how to get the clip again without paying."""
    clip = gone(task(watch=watch, result={**made(), **RECORD, "file": RECORD}), size)
    stored = dict.fromkeys([RECORD["uri"]])
    shown = views.clip_view(clip, clip.main, NOT_ASKED, stored=stored, now=NOW)
    assert (shown["state"], shown["qualifier"], shown["stage"]) == ("stored", told[0], "stored")
    error = shown["error"]
    for sentence in told[1:]:
        assert sentence in f"{error['message']} {error['advice']} {error['cost']}"
    assert (shown["can_download"], shown["size"], shown["pieces"][0]["from"] == "storage") == (False, None, False)
    assert shown["files"][0]["lost"]


@pytest.mark.parametrize("watch", [{"role": "download"}, {**WATCH, "stores": "file"}])
def test_a_lost_file_of_a_task_that_was_cleared(watch):
    """It is cleared already: the page says what its next try does, and advises no clear."""
    cleared = task(
        watch={**watch, "try_number": 1, "max_tries": 0}, state=None, max_tries=1, result={**made(), "file": RECORD}
    )
    clip = gone(cleared, None)
    shown = views.clip_view(clip, clip.main, NOT_ASKED, stored=dict.fromkeys([RECORD["uri"]]), now=NOW)
    assert shown["next_try"]["was_cleared"] is True
    assert "finds no file at" in shown["error"]["message"]
    assert (shown["error"]["advice"], shown["error"]["cost"]) == ("", "")


def test_a_failure_of_the_try_before_the_one_that_runs():
    """Until its worker has removed it: the task that runs will not learn of it, nor does a clear help."""
    watch = {**WATCH, "try_number": 1, "max_tries": 1}
    film = task(watch=watch, state="running", try_number=2, max_tries=1)
    shown = view(film, live=Live(generation("failed", error_code="QuotaExceeded", is_transient=True)), over=False)
    assert shown["error"]["title"] == "The generation of the earlier try failed"
    assert "has not ended yet" not in shown["error"]["advice"]
    assert "Clearing" not in shown["error"]["cost"]


def test_a_cancelled_generation_is_not_called_temporary():
    """A new submit would meet the same person, or the same other code."""
    made_by = task("make", watch={**WATCH, "role": "submit"})
    cancelled = generation("failed", error_code="UserCancelled", is_transient=True, was_cancelled=True)
    shown = view(made_by, live=Live(cancelled), over=False)
    assert shown["error"]["title"] == "The generation was cancelled"
    assert "temporary" not in shown["error"]["advice"]


def test_a_retry_of_a_sensor_submits_nothing():
    """The task that submitted has ended well; what retries is its sensor, which fails again for the same reason."""
    made_by, sensor = (
        task("make", watch={**WATCH, "role": "submit"}),
        task("wait", state="up_for_retry", watch={"conn_id": "c", "role": "wait"}),
    )
    failed = generation("failed", error_code="SystemThrottling", is_transient=True)
    shown = view(made_by, sensor, live=Live(failed), over=False)
    assert shown["next_try"]["does"] == "It waits for the same generation; nothing more is paid."
    assert shown["error"]["advice"] == "This failure is often temporary."
    assert "Clearing make submits a new generation" in shown["error"]["cost"]


def test_a_task_that_failed_after_it_had_stored_its_file():
    """There is a file, which the service may not have any more: no download is advised."""
    kept = {"watch": {**WATCH, "stores": "file"}, "state": "failed", "has_result": True}
    stored = task(result={**made(), "file": RECORD}, **kept)
    error = view(stored)["error"]
    assert error["title"] == "The task failed, the clip is fine"
    assert error["advice"] == f"A task has stored its file at {RECORD['uri']}: use that one."
    live, known = Live(generation("succeeded")), dict.fromkeys([RECORD["uri"]])
    lost = views.clip_view(gone(stored, None), stored, live, stored=known, now=NOW)["error"]
    assert "finds no file at" in lost["message"]


def test_a_clear_of_a_reused_clip_pays():
    """A clear asks for another generation, whatever was reused: it is never said to cost nothing."""
    kept = {"conn_id": "c", "role": "wait", "stores": "file"}
    told = 'Clearing film submits a generation of its own and pays for it unless it has on_clear="resume".'
    clip = gone(task(watch=kept, result={**made(), "file": RECORD, "reused_from": "g"}), None)
    stored = dict.fromkeys([RECORD["uri"]])
    assert views.clip_view(clip, clip.main, NOT_ASKED, stored=stored, now=NOW)["error"]["cost"] == told
    shared = task(watch={**kept, "shared": True}, state="failed")
    always = "Clearing film submits a generation of its own and pays for it."  # a failed one is never resumed
    for status, expected in (("failed", always), ("succeeded", told)):
        assert expected in view(shared, live=Live(generation(status)))["error"]["cost"]
    both = view(task("first", watch=WATCH, state="failed"), shared, live=Live(generation("failed")))["error"]
    assert "Clearing first submits a new generation and pays for it" in both["cost"]
    assert both["cost"].endswith("Clearing film submits one of its own, and pays for that.")


def test_a_stored_file_that_is_there():
    """One whose size is right, or of which nothing is known, is stored; so is a clip with another copy."""
    kept = task(watch={"role": "download"}, result=RECORD)
    copy = task("copy", watch={"role": "download"}, result={**RECORD, "uri": "file:///data/clips/copy.mp4"})
    there, nothing = gone(kept, 100), Clip("g", [kept], run_is_over=True)
    both = Clip("g", [kept, copy], run_is_over=True).with_known({RECORD["uri"]: Known(0.0, is_absent=True)})
    for clip in (there, nothing, both):
        shown = views.clip_view(clip, clip.main, NOT_ASKED, stored={RECORD["uri"]: None}, now=NOW)
        assert (shown["qualifier"], shown["error"]) == (None, None)
    assert {each["lost"] for each in shown["files"]} == {"missing", None}


@pytest.mark.parametrize(
    ("price", "told"),
    [
        (None, "does not report whether the credits were returned"),
        (20, "reports a cost of 20 credits; it does not say whether they were returned"),
        (0, "reports a cost of 0 credits."),
    ],
)
def test_whether_credits_came_back(price, told):
    """Only what the service reports is claimed."""
    shown = view(task(state="failed", watch={"role": "generate"}), live=Live(generation("failed", credits=price)))
    assert told in shown["error"]["cost"]


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ([task(state="failed", watch=WATCH)], "neither a timeout nor an action"),
        ([task(state="skipped", watch=WATCH)], "as when a run's timeout expires"),
        ([task("wait", state="failed", watch={"role": "wait"})], "No task of this run submitted it"),
        ([task(has_result=True, watch={"role": "submit"})], "The task film had ended before that: it was cancelled at"),
        ([task(has_result=True, watch={"role": "submit", "by": "hook"})], "neither a timeout nor an action"),
    ],
)
def test_who_cancelled_is_not_guessed(tasks, told):
    """Without a record of a timeout or a kill the page says so."""
    assert told in view(*tasks, live=Live(generation("failed", error_code="UserCancelled")))["error"]["message"]


def test_a_task_was_skipped_by_a_user():
    """It is the user who ended it; without a record of that, no cause is left out."""
    skipped = task(state="skipped", watch=WATCH, ended_at=NOW)
    cancelled, running = Live(generation("failed", error_code="UserCancelled")), Live(generation("running"))

    def told(actions: list[Action] | None, live: Live) -> str:
        return str(view(skipped, live=live, actions=actions)["error"]["message"])

    marked = [Action("skipped", NOW)]
    assert told(marked, cancelled).startswith("Airflow cancelled it: a user marked the task film as skipped.")
    assert told(marked, running).startswith("A user marked the task film as skipped before it had a result.")
    causes = "as when a run's timeout expires, another task of a DAG with fail_fast fails, or a user marks it so."
    assert all(causes in told(actions, live) for actions in ([], None) for live in (cancelled, running))


@pytest.mark.parametrize(
    ("more", "told", "advised"),
    [
        ({"state": "deferred"}, "Airflow's records do not show by what it was cancelled.", "has not ended yet"),
        ({"state": "running"}, "Airflow's records do not show by what it was cancelled.", "has not ended yet"),
        ({"state": "up_for_retry"}, "The log of film says whether the task cancelled it.", None),
        ({"state": "queued", "try_number": 2}, "The log of film says whether the task cancelled it.", None),
        ({"state": None, "max_tries": 2}, "The task film was cleared since: the clear cancelled it, or", None),
    ],
)
def test_who_cancelled_what_a_task_has_not_noticed(more, told, advised):
    """The wait goes on, or another try is to come: nothing is claimed of how the wait has ended."""
    watch = {**WATCH, "try_number": 1, "max_tries": 1}
    film = task(watch=watch, **{"try_number": 1, "max_tries": 1, **more})
    error = view(film, live=Live(generation("failed", error_code="UserCancelled")), over=False)["error"]
    assert error["message"].startswith(told)
    assert (advised or "") in error["advice"]
    assert bool(error["advice"]) is bool(advised)


def test_a_generate_task_that_did_not_run_after_a_clear():
    """An earlier try has made the clip; the log of the latest try says nothing of it."""
    error = view(task(state="upstream_failed", watch=WATCH), live=Live(generation("succeeded")))["error"]
    assert error["title"] == "The task did not run, the clip is fine"
    assert error["message"].startswith("The task film was cleared and did not run: a task before it failed.")


@pytest.mark.parametrize(
    ("state", "why", "cost"),
    [
        (
            "skipped",
            "The task film was skipped before it had a result, as when",
            "pays for it (the price of this one: ",
        ),
        ("removed", "The task film is not in the DAG any more, and Airflow has", "so clearing it submits nothing."),
    ],
)
@pytest.mark.parametrize(
    ("status", "title", "advised"),
    [
        ("running", "the generation continues", "ViduGenerationSensor"),
        ("succeeded", "the clip is fine", "ViduDownloadOperator"),
    ],
)
def test_a_task_was_skipped_or_removed_beside_its_generation(state, why, cost, status, title, advised):
    """Nothing was said of it, and no task waits for what it has paid for; what has a result is as good as before."""
    late = {"ended_at": NOW, "watch": {**WATCH, "deadline": (NOW - timedelta(seconds=9)).timestamp()}}
    shown = view(task(**{"state": state, **late}), live=Live(generation(status)))
    stage = "failed" if state == "removed" else "submitted"
    assert (shown["stage"], shown["qualifier"]) == (stage, f"task {state}")
    assert shown["error"]["title"] == f"The task was {state}, {title}"
    assert shown["error"]["message"].startswith(why)
    assert f'{advised}(generation_id="g"' in shown["error"]["advice"]
    assert cost in shown["error"]["cost"]
    dry = view(task(generation_id="dry-run-1", state=state, watch=WATCH))
    ended = view(task(state="removed", watch=WATCH, result=made(), has_result=True))
    sensor = view(task(state=state, watch={**WATCH, "role": "wait"}), live=Live(generation(status)))
    assert (dry["error"], ended["error"], sensor["error"]) == (None, None, None)


def test_a_clear_of_a_task_that_was_removed():
    """The DAG has it no more, or the mapping fewer of them: there is nothing to clear."""
    error = view(task(state="removed", watch=WATCH), live=Live(generation("failed", error_code="Broken")))["error"]
    assert "is not in the DAG any more, so clearing it submits nothing." in error["cost"]


def test_a_lost_file_of_a_task_that_was_removed():
    """It downloads nothing again; the generation may still be there."""
    removed = task(watch={"role": "download"}, state="removed", has_result=True, result={**made(), **RECORD})
    clip = gone(removed, None)
    error = views.clip_view(clip, clip.main, NOT_ASKED, stored=dict.fromkeys([RECORD["uri"]]), now=NOW)["error"]
    assert error["advice"].startswith("To store it again without paying, run ViduDownloadOperator(")
    assert error["cost"] == "The task film is not in the DAG any more, so clearing it submits nothing."


def test_a_sheet_that_reads_no_actions_does_not_say_that_there_were_none():
    """Only the page of the clip reads Airflow's audit log."""
    killed = Live(generation("failed", error_code="UserCancelled"))
    shown = view(task(state="failed", watch=WATCH), live=killed, actions=None)["error"]["message"]
    assert shown.startswith("The log of film says whether the task cancelled it.")


def test_the_text_for_support():
    """Ids, state, code, trace id and times in UTC; neither the prompt nor anything signed."""
    failed = generation("failed", error_code="Unknown", raw=TRACE, completed_at=None, model="viduq3")
    film = task(3 * "x", 7, state="failed", watch=WATCH, try_number=2, ended_at=NOW, fields={"prompt": "a secret cat"})
    text = view(film, live=Live(slim(failed), busy_until=NOW - timedelta(seconds=9), done_since=NOW))["support"]
    for line in (
        "Generation: g",
        "Trace id: trace-7",
        "Model: viduq3",
        "Submitted: 2026-01-02 11:59:30 UTC",
        "Ended: between 2026-01-02 11:59:51 and 2026-01-02 12:00:00 UTC",
        "Task: xxx [7], try 2, failed",
    ):
        assert line in text.splitlines()
    assert "cat" not in text
    assert "hush" not in text


def test_an_old_state_is_told_as_such():
    """While the service cannot be queried the last known state stays, with the code and trace id of the refusal."""
    error = ViduRateLimitError("slow down", code="TooManyRequests", trace_id="t-9")
    live = Live(generation("running")).failed(error, NOW)
    notice = view(task(state="deferred", watch=WATCH), live=live, over=False)["notice"]
    assert (notice["is_old"], notice["code"], notice["trace_id"]) == (True, "TooManyRequests", "t-9")


@pytest.mark.parametrize("region", ["01a21b08", None])
@pytest.mark.parametrize(
    ("role", "status"),
    [("generate", "failed"), ("generate", "succeeded"), ("wait", "failed"), ("download", "succeeded")],
)
def test_a_clear_in_a_loop(region, role, status):
    """Airflow's dialog clears the later iterations with it, which pay again: even those of a download do."""
    failed = task(state="failed", watch={**WATCH, "role": role}, ended_at=NOW, region_id=region, iteration=1)
    cost = view(failed, live=Live(generation(status)))["error"]["cost"]
    assert cost.endswith(LATER_ITERATIONS) is (region is not None)
    assert cost.count("later iterations") == (region is not None)


def test_a_lost_file_in_a_loop():
    """Downloading it again costs nothing, and what Airflow clears with it does."""
    clip = gone(task(watch={"role": "download"}, result={**made(), "file": RECORD}, region_id="r", iteration=0), None)
    shown = views.clip_view(clip, clip.main, NOT_ASKED, stored=dict.fromkeys([RECORD["uri"]]), now=NOW)
    assert shown["error"]["cost"] == f"That costs nothing. {LATER_ITERATIONS}"


def test_the_download_of_the_clip_is_named_before_that_of_its_cover():
    """The page said to clear the task of the cover, which stores no clip; its link dies within a day."""
    keeps = {**WATCH, "role": "download"}
    cover = task("cover", state="failed", watch={**keeps, "artifact": "cover"})
    tasks = [task(watch={**WATCH, "role": "generate"}), cover, task("video", state="failed", watch=keeps)]
    assert "The task video failed" in view(*tasks, live=Live(generation("succeeded")))["error"]["message"]
    assert "The task cover failed" in view(*tasks[:2], live=Live(generation("succeeded")))["error"]["message"]
