"""What an earlier task handed over: its id, its URL, and what only it knows."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.models import Artifact, Generation, GenerationStatus
from airflow_provider_vidu.orders.upstream import check_source, continued, handed_over, id_of, url_of
from tests.rows import each_row

URL, COVER = "https://h/v.mp4?a=1;b", "https://h/c.jpg"
DONE = Generation(
    id="7", status=GenerationStatus.SUCCEEDED, video_url=URL, artifacts=(Artifact(url=URL, cover_url=COVER),)
)


@pytest.mark.parametrize("read", [id_of, lambda text: url_of(text, None), lambda text: continued(DONE, text)])
def test_a_text_of_too_many_values_is_not_parsed(read):
    """Who fills the template may be anyone: 60 MB of empty lists took a worker 1.4 GB."""
    text = '{"id": "7", "status": "succeeded", "raw": [' + "[]," * 5_000_000 + "7]}"
    with pytest.raises(ViduConfigError, match=r"^generation holds more than 5,000,000 JSON values"):
        read(text)


@each_row("handed", [
    DONE, DONE.as_xcom(), {"uri": "s3://b/k", "generation_id": "7"}, {"id": " 7\n"}, "7", " 7\n", '"7"', ' {"id": "7"}',
])  # fmt: skip
def test_the_id(handed):
    """Of a generation, as an object or as JSON, of a download's record, or as it is."""
    assert id_of(handed) == "7"


@pytest.mark.parametrize("handed", [{"status": "succeeded"}, str(DONE.as_xcom())], ids=["nothing", "text"])
def test_without_an_id(handed):
    """The error says what to pass instead; the text of an object, which a template makes, is not an id."""
    with pytest.raises(ViduConfigError, match=r"generation=generate\.output"):
        id_of(handed)


@each_row("handed", ["s3://conn@bucket/xcom/d/r/t/0b1c", " file:///xcom/d\n", {"id": "https://h/v.mp4?sig=secret"}])
def test_an_address_is_no_id(handed):
    """A worker without the XCom back end sent the service where Airflow keeps its data, and called the clip unknown."""
    with pytest.raises(ViduConfigError, match="is an address instead of an id") as error:
        id_of(handed)
    assert "secret" not in str(error.value)


@each_row(("handed", "artifact", "expected"), [
    (DONE, None, URL), (DONE.as_xcom(), "video", URL), (DONE.as_xcom(), "cover", COVER),
    (DONE.as_xcom(), "watermarked", None), ({"uri": "s3://b/k", "generation_id": "7"}, None, None), ("7", None, None),
    ({"status": "made by hand"}, None, None),
    ({**DONE.as_xcom(), "video_url": "nonsense", "artifacts": []}, None, None),
])  # fmt: skip
def test_the_url(handed, artifact, expected):
    """Verbatim, of the file that is meant; without one the id is enough."""
    assert url_of(handed, artifact) == expected


def test_what_is_continued():
    """The parameters of the request go on; another thing than a generation's JSON adds nothing."""
    bare = Generation(id="7", status=GenerationStatus.SUCCEEDED)
    found, parameters = continued(bare, {"id": "7", "prompt": "p", "model": 5, "parameters": {"seed": 1}})
    assert (found.prompt, found.model, parameters) == ("p", "5", {"seed": 1})
    assert continued(bare, {"id": "7", "parameters": "x", "created_at": "never"}) == (bare, None)
    assert continued(bare, "7") == (bare, None)
    assert continued(bare, '{"prompt": "p", "parameters": {}}')[0].prompt == "p"
    assert continued(bare, "{'prompt': 'p'}") == (bare, None)
    made = bare.model_copy(update={"prompt": "p", "model": "m", "credits": 4, "created_at": datetime.now(UTC)})
    assert continued(bare, made) == continued(bare, made.as_xcom()) == (made, None)


def test_what_was_handed_over():
    """A generation in each of its forms; an id, a record or nonsense is none."""
    assert handed_over(DONE) == handed_over(DONE.as_xcom()) == handed_over(json.dumps(DONE.as_xcom())) == DONE
    for other in (None, "7", {"id": "7"}, {"status": "made by hand"}):
        assert handed_over(other) is None


def test_exactly_one_source():
    """Named by its parts or as a whole."""
    check_source("X", None, generation_id="1", video_url=None)
    check_source("X", {"id": "1"}, generation_id=None)
    for generation, generation_id in ((None, None), ({"id": "1"}, "1")):
        with pytest.raises(ViduConfigError, match="generation"):
            check_source("X", generation, generation_id=generation_id)


@pytest.mark.parametrize("handed", [[DONE.as_xcom()], (), '[{"id": "7"}]'], ids=["list", "empty", "text"])
def test_the_output_of_a_mapped_task_is_mapped_over(handed):
    """Whole, it is many generations, and its text is not an id."""
    with pytest.raises(ViduConfigError, match=r"generation=generate\.output"):
        id_of(handed)
