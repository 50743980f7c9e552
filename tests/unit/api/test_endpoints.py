"""Which endpoint a request is for, what is sent there, and what is left open."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vidu.api.dialects import EntV2, ViduNative
from airflow_provider_vidu.api.endpoints import (
    ENDPOINTS,
    MEDIA_FIELDS,
    check_when_parsed,
    endpoint_for,
    is_off_peak,
    named,
    typed,
)
from airflow_provider_vidu.api.messages import ApiRequest
from airflow_provider_vidu.exceptions import ViduConfigError
from tests.rows import each_row

ENT = EntV2()
A = "https://example.com/a"


def test_the_table():
    """The documented creates: which are synchronous, which take a payload, which have a query of their own."""
    assert len(ENDPOINTS) == 25  # 23 creates, and the edit and composition of an advertisement
    assert {name for name, found in ENDPOINTS.items() if found.is_synchronous} == {
        "audio-tts", "audio-clone", "subjects", "img2video-prompt-recommendation",
    }  # fmt: skip
    assert {name for name, found in ENDPOINTS.items() if not found.takes_payload} == {
        "lip-sync", "text2audio", "timing2audio", "subjects", "img2video-prompt-recommendation", "ad-one-click",
        "trending-replicate", "one-click/mv",
        "one-click/general_one_click",
    }  # fmt: skip
    assert {name for name, found in ENDPOINTS.items() if not found.is_listed} == {
        "audio-tts", "audio-clone", "subjects", "img2video-prompt-recommendation", "one-click/mv",
        "one-click/general_one_click",
    }  # fmt: skip
    assert not named("/ent/v2/unheard-of").is_listed
    assert {found.query for name, found in ENDPOINTS.items() if name.startswith("one-click")} == {"one-click/mv/{id}"}
    assert {found.result for found in ENDPOINTS.values()} == {"video", "image", "audio", "none"}
    assert {
        "images", "start_image", "image_settings", "subjects", "image", "image_url", "video_url", "audio_url",
        "videos", "sounds", "ref_photo_url", "lip_ref_url",
    } == MEDIA_FIELDS  # fmt: skip


@each_row(("body", "expected"), [
    ({"prompt": "p"}, "text2video"),
    ({"prompt": "p", "images": []}, "text2video"),
    ({"images": [A]}, "img2video"),
    ({"images": [A], "model": "viduq2"}, "img2video"),
    ({"images": [A, A]}, "start-end2video"),
    ({"images": [A] * 3}, "reference2video"),
    ({"images": [A] * 15, "model": "viduq4-preview"}, "reference2video"),
    ({"images": [A], "model": "viduq3"}, "reference2video"),
    ({"images": [A, A], "model": "viduq3-mix"}, "reference2video"),
    ({"images": [A], "model": "viduq3-turbo"}, "img2video"),
    ({"prompt": "p", "model": "viduq3"}, "text2video"),
    ({"prompt": "p", "videos": [A]}, "reference2video"),
    ({"prompt": "p", "sounds": [A]}, "reference2video"),
    ({"prompt": "@x", "subjects": [{"name": "x", "images": [A]}]}, "reference2video"),
    ({"prompt": "p", "subjects": [{}], "images": []}, "reference2video"),
    ({"template": "hug", "images": [A, A]}, "template"),
    ({"template": "hug", "video_url": None}, "template"),
    ({"story": "love_story", "images": [A]}, "template-story"),
    ({"start_image": A, "image_settings": [{"key_image": A}]}, "multiframe"),
    ({"video_creation_id": "1", "prompt": "p"}, "extend"),
    ({"video_creation_id": "1", "images": [A]}, "extend"),
    ({"video_url": A, "duration": 4}, "extend"),
    ({"video_url": A, "prompt": "p"}, "extend"),
    ({"video_url": A, "images": [A], "duration": 4}, "extend"),
    ({"video_url": A, "upscale_resolution": "4K"}, "upscale-new"),
    ({"video_creation_id": "1", "upscale_resolution": "4K"}, "upscale-new"),
    ({"video_url": A, "audio_url": A}, "lip-sync"),
    ({"video_url": A, "text": "hello", "voice_id": "v"}, "lip-sync"),
    ({"video_url": A, "images": [A, A], "prompt": "p"}, "trending-replicate"),
    ({"video_url": A, "images": [A], "remove_audio": True}, "trending-replicate"),
    ({"image": A, "audio_url": A}, "digital-human"),
    ({"image": A, "text": "hello", "voice_id": "v"}, "digital-human"),
    ({"image_url": A, "video_url": A}, "image2dance"),
    ({"timing_prompts": [{"from": 0, "to": 2, "prompt": "rain"}]}, "timing2audio"),
    ({"model": "audio1.0", "prompt": "rain"}, "text2audio"),
    ({"text": "hello"}, "audio-tts"),
    ({"text": "hello", "voice_setting_voice_id": "v"}, "audio-tts"),
    ({"audio_url": A, "voice_id": "v", "text": "hello"}, "audio-clone"),
    ({"name": "hero", "images": [A], "videos": [A]}, "subjects"),
    ({"images": [A], "type": ["camera"]}, "img2video-prompt-recommendation"),
    ({"images": [A], "creative": "x", "prompt": "p"}, "ad-one-click"),
])  # fmt: skip
def test_the_endpoint_follows_from_the_fields(body, expected):
    """The default is the endpoint whose fields these are; it is where the create goes."""
    assert endpoint_for(body) == expected
    assert ENT.create(body).request == ApiRequest("POST", f"/ent/v2/{expected}", body, bills=True)


@each_row(("body", "choices"), [
    ({"subjects": [{}], "images": [A]}, ["reference2video"]),
    ({"subjects": [{}], "template": "hug"}, ["reference2video", "template"]),
    ({"start_image": A}, ["multiframe"]),
    ({"image_settings": [{}]}, ["multiframe"]),
    ({"video_url": A}, ["extend", "lip-sync", "upscale-new"]),
    ({"video_creation_id": "1"}, ["extend", "upscale-new"]),
    ({"video_url": A, "images": [A], "prompt": "p"}, ["extend", "trending-replicate"]),
    ({"images": [A], "audio_url": A}, ["one-click/general_one_click", "one-click/mv"]),
    ({"audio_url": A}, ["audio-clone", "digital-human", "lip-sync"]),
    ({"text": "hello", "voice_id": "v"}, ["audio-tts", "digital-human", "lip-sync"]),
])  # fmt: skip
def test_what_the_fields_leave_open(body, choices):
    """The error names the choices; a named endpoint is taken, and the fields go there as they are."""
    with pytest.raises(ViduConfigError, match="Nothing was submitted") as caught:
        ENT.create(body)
    assert f"({', '.join(choices)}, or a path" in caught.value.reason
    with pytest.raises(ViduConfigError):
        ENT.marked(body, "m")
    assert ENT.create(body, choices[0]).request == ApiRequest("POST", f"/ent/v2/{choices[0]}", body, bills=True)


@pytest.mark.parametrize("body", [
    {"subjects": [{}], "images": [A]},
    {"subjects": "{{ x }}", "images": ["{{ y }}"]},
    {"image_settings": [{}]},
    {"video_url": "{{ x }}"},
    {"start_image": A, "timing_prompts": "{{ x }}"},
])  # fmt: skip
def test_ambiguous_when_parsed(body):
    """What the official API's own structure leaves open is refused before anything runs."""
    with pytest.raises(ViduConfigError):
        check_when_parsed(body)


@each_row("body", [
    {"prompt": "p", "video_url": A, "images": [A]},  # open for ent-v2, and one request like any other for a gateway
    {"images": [A], "audio_url": A},
    {"text": "t", "voice_id": "v"},
    {"subjects": [{}], "images": "{{ x }}"},  # may render to nothing
    {"image": A, "image_url": A},
    {"start_image": A, "image_settings": [{}]},
    {"settings": {"settings": {"duration": 4}}},
])  # fmt: skip
def test_left_to_the_run(body):
    """What a gateway may take, or what is known only after rendering, does not break a DAG file."""
    check_when_parsed(body)


@each_row(("endpoint", "body", "marked", "synchronous"), [
    (None, {"prompt": "p"}, True, False),
    (None, {"text": "t"}, True, True),
    (None, {"model": "audio1.0", "prompt": "p"}, False, False),
    (None, {"name": "hero", "images": [A]}, False, True),
    ("lip-sync", {}, False, False),
    ("reference2image", {"images": [A]}, True, False),
    ("one-click/mv", {}, False, False),
    ("one-click/mv/7/edit", {}, False, False),
    ("/reseller/ent/v2/audio-tts", {}, True, True),
    ("/reseller/ent/v2/trending-replicate", {}, False, False),
    ("brand-new2video", {}, False, False),
    ("/v1/whatever", {}, False, False),
])  # fmt: skip
def test_the_marker_and_the_synchronous_answer(endpoint, body, marked, synchronous):
    """The marker goes only where payload is documented; paths of resellers are known by their end."""
    assert ENT.marked(body, "m", endpoint) == ({**body, "payload": "m"} if marked else None)
    assert ENT.marked({**body, "payload": "mine"}, "m", endpoint) is None
    assert ENT.is_synchronous(body, endpoint) is synchronous
    assert (ViduNative().marked(body, "m", endpoint), ViduNative().is_synchronous(body, endpoint)) == (None, False)


@pytest.mark.parametrize(("create_path", "marked"), [
    ("/vidu/ent/v2/text2video", True), ("/vidu/ent/v2/lip-sync", False), ("/vidu/create", True),
])  # fmt: skip
def test_a_reseller_with_a_single_path(create_path, marked):
    """The path says which endpoint it is; one that says nothing takes whatever the fields are for."""
    reseller = EntV2(create_path=create_path)
    assert reseller.create({"prompt": "p"}).request.path == create_path
    assert (reseller.marked({"prompt": "p"}, "m") is not None) is marked
    assert reseller.create({"video_url": A}).request.path == create_path
    assert reseller.marked({"video_url": A}, "m") == (
        {"video_url": A, "payload": "m"} if "text2" in create_path else None
    )


def test_the_queries_of_one_click():
    """They have a query of their own and no cancel; the id is encoded, and prefixes stay."""
    ours = "/ent/v2/one-click/mv/9%2F1"
    for endpoint in ("one-click/mv", "one-click/general_one_click", "one-click/mv/5/compose", "/x/ent/v2/one-click/mv"):
        assert ENT.query("9/1", endpoint).request == ApiRequest("GET", ours)
        assert not ENT.can_cancel(endpoint)
        with pytest.raises(ViduConfigError, match="ent-v2 has no cancel"):
            ENT.cancel("9/1", endpoint)
    assert ENT.query("9", "one-click/mv/{id}/edit").request == ApiRequest("GET", "/ent/v2/one-click/mv/9/edit")
    assert ENT.query("9", "/x/{id}").request == ApiRequest("GET", "/x/9")
    assert EntV2(create_path="/r/v2/{endpoint}").query("9", "one-click/mv").request.path == "/r/v2/one-click/mv/9"
    for endpoint in (None, "text2video", "ad-one-click", "brand-new"):
        assert ENT.query("9", endpoint).request == ApiRequest("GET", "/ent/v2/tasks/9/creations")
        assert ENT.can_cancel(endpoint)
        assert ENT.cancel("9", endpoint).request == ApiRequest("POST", "/ent/v2/tasks/9/cancel", {"id": "9"})
    assert ViduNative().query("9", "one-click/mv").request == ViduNative().query("9").request


@pytest.mark.parametrize(("endpoint", "path"), [
    ("one-click/mv", "/ent/v2/one-click/mv"),
    ("one-click/mv/a b/edit", "/ent/v2/one-click/mv/a%20b/edit"),
    ("a?b#c", "/ent/v2/a%3Fb%23c"),
])  # fmt: skip
def test_the_path_of_a_named_endpoint(endpoint, path):
    """A name may have several segments; none of them can leave its place."""
    assert ENT.create({}, endpoint).request.path == path
    for wrong in ("../credits", "a/./b", "a//b", "a/"):
        with pytest.raises(ViduConfigError, match="neither a name nor a path"):
            ENT.create({}, wrong)


def test_whole_numbers_are_written_as_such():
    """A fraction of nothing, as pandas makes it of a column with gaps, is the same number."""
    found = typed({"duration": 4.0, "seed": "7.0", "speed": 1.5, "scale": 2.0})
    assert json.dumps(found) == '{"duration": 4, "seed": 7, "speed": 1.5, "scale": 2.0}'


@pytest.mark.fault(
    "from Airflow", "a template makes text of a number in parameters", outcome="survived", seen="the number"
)
def test_text_where_a_number_is_documented():
    """A template that is not rendered natively makes text of numbers; only what cannot be anything else is changed."""
    body = {
        "duration": "4", "seed": " 12 ", "speed": "1.5", "off_peak": "True", "bgm": "false", "watermark": "yes",
        "text": "1984", "resolution": "720", "count": "many", "voice_setting_pitch": "-3", "wm_position": 2,
        "volume": "1e9", "audio": A,
    }  # fmt: skip
    expected = {
        **body, "duration": 4, "seed": 12, "speed": 1.5, "off_peak": True, "bgm": False, "voice_setting_pitch": -3,
    }  # fmt: skip
    assert typed(body) == expected
    assert ENT.create(body, "text2video").request.body == expected
    assert ViduNative().create(body).request.body == body


@each_row(("value", "expected"), [
    (True, True), ("True", True), ("true", True), (False, False), ("False", False), (None, False), ("", False),
    (1, False),
])  # fmt: skip
def test_off_peak(value, expected):
    """It is asked for by a true value, also by one that a template made text of."""
    assert is_off_peak({"off_peak": value}) is expected
    assert not is_off_peak({})


def test_an_endpoint_is_known_by_its_whole_name():
    """The end of a name is not the name: an edit of an advertisement is not the edit of something else."""
    assert named("ad-one-click/edit").name == "ad-one-click/edit"
    assert named("my-template").name == "my-template"
    assert named("/ent/v2/template/").name == "template"
    assert named(" one-click/mv\n") == named("one-click/mv")


@pytest.mark.parametrize("images", ["https://h/a.png", {"a": 1}, 7, b"x"], ids=repr)
def test_images_must_be_a_list(images: Any):
    """A single address instead of a list is the usual mistake."""
    with pytest.raises(ViduConfigError, match="images must be a list"):
        endpoint_for({"images": images})


def test_the_manual_says_the_same():
    """The page lists every endpoint with its media, its marker, how it answers and what is kept."""
    page = (Path(__file__).parents[3] / "docs" / "endpoints.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    told = {
        name.strip("`"): (tuple(re.findall(r"`([^`]+)`", media)), marker, answer, kept)
        for name, media, _, marker, answer, kept in rows
    }
    assert told == {
        name: (
            found.media,
            "yes" if found.takes_payload else "no",
            "at once" if found.is_synchronous else "polled",
            found.result,
        )
        for name, found in ENDPOINTS.items()
    }
