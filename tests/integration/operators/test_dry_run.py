"""A dry run of generate and the tasks behind it: everything is checked, nothing is sent, and the DAG passes."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_vidu import exceptions
from airflow_provider_vidu.hooks import ViduHook
from airflow_provider_vidu.operators import ViduDownloadOperator
from airflow_provider_vidu.sandbox.media.pictures import png
from airflow_provider_vidu.sensors import ViduGenerationSensor
from tests.integration.operators.test_generate import Task

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_backoff", "variables")]


@pytest.fixture(autouse=True)
def nothing_is_sent(sandbox) -> Any:
    """Check after each test that the service got no request at all."""
    yield
    assert sandbox.requests() == []


def test_a_dry_run_says_what_would_be_sent(connect, tmp_path):
    """The endpoint that the fields choose, and the request, with the digest in the place of a file."""
    connect("ent-v2")
    (tmp_path / "a.png").write_bytes(png("start"))
    task = Task(images=[str(tmp_path / "a.png")], parameters={"duration": 4, "payload": "token"}, dry_run=True)
    result = task.run()
    assert result["dry_run"] is True
    assert result["endpoint"] == "/ent/v2/img2video"
    assert result["request"]["images"][0].startswith("sha256:")
    assert result["request"]["duration"] == 4
    assert "payload" not in result["request"]
    assert result["parameters"] == {"duration": 4}
    assert json.loads(json.dumps(result)) == result
    assert task.store == {}
    assert "vidu_watch" not in task.xcoms


def test_inline_media_do_not_get_into_the_result(connect):
    """A data URI, and bare Base64, would put megabytes into an XCom."""
    connect("ent-v2")
    data = base64.b64encode(png("start") * 50).decode()
    task = Task(images=[f"data:image/png;base64,{data}"], parameters={"start_image": data}, endpoint="x", dry_run=True)
    assert len(json.dumps(task.run())) < 2000


def test_the_deployment_can_run_dry(connect, monkeypatch):
    """The option applies to tasks that say nothing."""
    connect()
    monkeypatch.setenv("AIRFLOW__VIDU__DRY_RUN", "True")
    assert Task().run()["dry_run"] is True


def test_the_hook_in_a_task_runs_dry_with_the_deployment(connect, monkeypatch):
    """As an operator: it is skipped, and nothing is sent."""
    connect("ent-v2")
    monkeypatch.setenv("AIRFLOW__VIDU__DRY_RUN", "True")
    hook = ViduHook()
    for send in (
        lambda: hook.create_generation(model="m", prompt="a cat with wings"),
        lambda: hook.request("POST", "/ent/v2/subjects", {"name": "cat"}),
    ):
        with pytest.raises(AirflowSkipException, match="nothing was submitted"):
            send()


def test_files_that_would_be_uploaded_are_read_and_stay(connect, tmp_path, monkeypatch):
    """An address of the same form stands in for the upload, so that the request is checked whole."""
    from airflow_provider_vidu.orders.media import prepared as media

    connect("ent-v2")
    monkeypatch.setattr(media, "MAX_IMAGE_BYTES", 10)
    (tmp_path / "a.png").write_bytes(png("start"))
    assert Task(images=[str(tmp_path / "a.png")], dry_run=True).run()["dry_run"] is True


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"images": ["/no/such/file.png"]}, "file.png"),
        ({"prompt": ""}, "prompt is"),
        ({"vidu_conn_id": "absent"}, "absent"),
        ({"max_credits": "None"}, "max_credits"),
    ],
    ids=["file", "prompt", "connection", "cap"],
)
def test_what_cannot_be_sent_fails_a_dry_run(connect, arguments, problem):
    """With the error of the real run."""
    connect("ent-v2")
    with pytest.raises(exceptions.ViduError, match=problem):
        Task(dry_run=True, **arguments).run()


def test_the_price_of_an_earlier_run_is_shown(connect, monkeypatch):
    """Only if model and parameters were the same; the seed that the service chose does not matter."""
    connect("ent-v2")
    earlier = {"model": "m", "parameters": {"duration": 4, "seed": 7}, "credits": 40}

    def priced(duration: int) -> Any:
        task = Task(parameters={"duration": duration}, dry_run=True)
        context = task.context()
        context["ti"].xcom_pull = lambda **asked: earlier if asked["include_prior_dates"] else None
        return task.operator.execute(context).get("credits")

    assert priced(4) == 40
    assert priced(8) is None


def test_tasks_behind_a_dry_run_are_skipped(connect, context, tmp_path):
    """However they take the generation: its return value, its id, the published id, or its URL."""
    connect()
    task = Task(dry_run=True)
    result = task.run()
    published = task.xcoms["generation_id"]
    takes = [{"generation": result}, {"generation_id": result["id"]}, {"generation_id": published}]
    for arguments in [*takes, {"video_url": result["video_url"]}]:
        with pytest.raises(AirflowSkipException, match="dry run"):
            ViduDownloadOperator(task_id="d", destination=f"{tmp_path}/", **arguments).execute(context)
    for arguments in takes:
        with pytest.raises(AirflowSkipException, match="dry run"):
            ViduGenerationSensor(task_id="s", deferrable=True, **arguments).execute(context)
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_in_the_result(connect, monkeypatch):
    """A key that got into the request, and signatures of URLs, are not repeated."""
    connect("ent-v2")
    from tests.integration.conftest import KEY

    task = Task(
        images=["https://x.example/a.png?X-Amz-Signature=5ec2e7"], parameters={"style": f"as {KEY}"}, dry_run=True
    )
    text = json.dumps(task.run())
    assert KEY not in text
    assert "5ec2e7" not in text


def test_each_task_has_an_id_of_its_own(connect):
    """By task, map index and iteration: the clip pages show task instances with the same id as one clip."""
    connect()

    def published(task_id: str, index: int, iteration: int | None = None) -> str:
        task = Task(dry_run=True)
        context = task.context()
        context["ti"].task_id, context["ti"].map_index = task_id, index
        if iteration is not None:
            context["loop"] = SimpleNamespace(index=iteration)
        task.operator.execute(context)
        return str(task.xcoms["generation_id"])

    places = [("opening", -1), ("ending", -1), ("scene", 1), ("scene", 2), ("scene", -1, 0), ("scene", -1, 1)]
    found = [published(*place) for place in places]
    assert len(set(found)) == len(places)
    assert all(name.startswith("dry-run-") for name in found)
    assert published("opening", -1) == found[0]
