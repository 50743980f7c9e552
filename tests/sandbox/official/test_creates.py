"""Every create of the official API: what it takes, what it refuses, how it is answered and what comes out."""

from __future__ import annotations

import base64

import pytest

from airflow_provider_vidu.sandbox.official.endpoints import CREATES, PARTS
from tests.rows import each_row
from tests.sandbox.service import INLINE_PNG, PNG, Service

WEB = "https://example.com/"
IMAGE, VIDEO, SOUND = WEB + "a.png", WEB + "a.mp4", WEB + "a.mp3"
FRAMES = [{"key_image": IMAGE, "prompt": "x", "duration": 3}] * 2

BODIES = {
    "text2video": {"model": "viduq3-pro", "prompt": "a cat", "duration": 16, "aspect_ratio": "16:9", "off_peak": True},
    "img2video": {"model": "viduq4-preview", "images": [INLINE_PNG], "duration": 3, "audio": True, "is_rec": False},
    "start-end2video": {"model": "viduq2-pro-fast", "images": [IMAGE, IMAGE], "prompt": "x"},
    "reference2video": {"model": "viduq3-mix", "images": [IMAGE] * 7, "prompt": "x", "bgm": True},
    "multiframe": {"start_image": IMAGE, "image_settings": FRAMES, "resolution": "720p"},
    "extend": {"video_url": VIDEO, "images": [IMAGE], "prompt": "x", "duration": 7},
    "upscale-new": {"video_creation_id": "1", "upscale_resolution": "8K"},
    "lip-sync": {"video_url": VIDEO, "text": "hello", "voice_id": "v", "speed": 1.5, "volume": 3},
    "digital-human": {"image": IMAGE, "text": "hello", "voice_id": "v"},
    "image2dance": {"image_url": IMAGE, "video_url": VIDEO},
    "template": {"template": "hugging", "images": [IMAGE], "prompt": "x", "area": "auto", "bgm": True},
    "template-story": {"story": "love_story", "images": [IMAGE, IMAGE]},
    "reference2image": {"model": "viduq2", "prompt": "x", "resolution": "4K", "aspect_ratio": "auto"},
    "text2audio": {"model": "audio1.0", "prompt": "rain", "duration": 5.5},
    "timing2audio": {"model": "audio1.0", "timing_prompts": [{"from": 0, "to": 2.5, "prompt": "rain"}]},
    "audio-tts": {"text": "hello", "voice_setting_voice_id": "v", "voice_setting_speed": 0.5, "payload": "mine"},
    "audio-clone": {"audio_url": SOUND, "voice_id": "mine", "text": "hello", "payload": "mine"},
    "subjects": {"name": "cat", "images": [IMAGE], "voice_id": "v"},
    "img2video-prompt-recommendation": {"images": [IMAGE], "type": ["template", "img2video"], "count": 3},
    "ad-one-click": {"images": [IMAGE], "prompt": "x", "duration": 60, "language": "en", "creative": True},
    "trending-replicate": {"video_url": VIDEO, "images": [IMAGE], "remove_audio": True},
    "one-click/mv": {"images": [IMAGE], "audio_url": SOUND, "prompt": "x"},
    "one-click/general_one_click": {"images": [IMAGE], "prompt": "x", "payload": "mine", "what_else": 1},
}
NO_PAYLOAD = (
    *("lip-sync", "text2audio", "timing2audio", "subjects", "img2video-prompt-recommendation"),
    *("ad-one-click", "trending-replicate", "one-click/mv"),
)


def test_there_are_23_creates() -> None:
    """The table has all the creates that the documentation lists, and each has a test."""
    assert set(CREATES) == set(BODIES)
    assert len(CREATES) == 23


@pytest.mark.parametrize("name", BODIES)
def test_a_documented_request_is_taken(service, name) -> None:
    """It is charged once, under the endpoint's name."""
    status, body = service.ent("POST", name, BODIES[name])
    assert status == 200, body
    (entry,) = service.core.ledger.creates.values()
    assert (entry.endpoint, entry.body) == (name, BODIES[name])
    assert entry.id in body.values()


@each_row("name", [name for name in BODIES if not CREATES[name].open])
def test_a_surplus_field_is_refused(service, name) -> None:
    """FieldUnwanted names the field, and nothing is charged."""
    status, body = service.ent("POST", name, {**BODIES[name], "surplus": 1})
    assert (status, body["reason"], "surplus" in body["message"]) == (400, "FieldUnwanted", True)
    assert service.core.ledger.creates == {}


@each_row("surplus_fields", ["refuse", "allow-payload", "ignore"])
@each_row("name", NO_PAYLOAD)
def test_payload_where_no_page_has_it(name, surplus_fields) -> None:
    """Refused by default; both other behaviours can be switched on, since the live service was never tried."""
    service = Service(surplus_fields=surplus_fields)
    status, body = service.ent("POST", name, {**BODIES[name], "payload": "airflow:1"})
    assert (status, body.get("reason")) == ((400, "FieldUnwanted") if surplus_fields == "refuse" else (200, None))
    status, _ = service.ent("POST", name, {**BODIES[name], "surplus": 1})
    assert status == (200 if surplus_fields == "ignore" else 400)


def test_payload_is_taken_everywhere_else(service) -> None:
    """Every other page has it, and queries echo it."""
    for name in set(BODIES) - set(NO_PAYLOAD):
        assert "payload" in CREATES[name].fields, name
    task = service.task(payload="mine")
    assert service.ent("GET", f"tasks/{task}/creations")[1]["payload"] == "mine"


@each_row(
    ("name", "change", "reason"),
    [
        ("text2video", {"prompt": None}, "FieldLacking"),
        ("text2video", {"model": None}, "FieldLacking"),
        ("text2video", {"model": "viduq9"}, "ModelUnavailable"),
        ("text2video", {"model": "viduq3-mix"}, "FieldInvalid"),
        ("text2video", {"model": 5}, "FieldInvalid"),
        ("text2video", {"prompt": "x" * 5001}, "FieldInvalid"),
        ("text2video", {"duration": 17}, "FieldInvalid"),
        ("text2video", {"duration": "5"}, "FieldInvalid"),
        ("text2video", {"duration": True}, "FieldInvalid"),
        ("text2video", {"model": "viduq2", "duration": 11}, "FieldInvalid"),
        ("text2video", {"model": "viduq1", "duration": 4}, "FieldInvalid"),
        ("text2video", {"off_peak": "true"}, "FieldInvalid"),
        ("text2video", {"resolution": "9p"}, "FieldInvalid"),
        ("text2video", {"payload": 5}, "FieldInvalid"),
        ("text2video", {"payload": "x" * 1_048_577}, "FieldInvalid"),
        ("text2video", {"images": [IMAGE]}, "FieldUnwanted"),
        ("img2video", {"images": [IMAGE] * 2}, "FieldItemCountOutOfRange"),
        ("img2video", {"images": IMAGE}, "FieldInvalid"),
        ("img2video", {"images": [5]}, "FieldInvalid"),
        ("img2video", {"images": ["a.png"]}, "ImageDownloadFailure"),
        ("img2video", {"aspect_ratio": "16:9"}, "FieldUnwanted"),
        ("img2video", {"duration": 2}, "FieldInvalid"),
        ("start-end2video", {"images": [IMAGE]}, "FieldItemCountOutOfRange"),
        ("start-end2video", {"model": "viduq4-preview"}, "FieldInvalid"),
        ("reference2video", {"images": []}, "FieldItemCountOutOfRange"),
        ("reference2video", {"images": [IMAGE] * 8}, "FieldItemCountOutOfRange"),
        ("reference2video", {"subjects": [{"name": "a", "images": [IMAGE]}]}, "FieldUnwanted"),
        ("reference2video", {"sounds": [SOUND]}, "FieldUnwanted"),
        ("multiframe", {"image_settings": FRAMES * 5}, "FieldItemCountOutOfRange"),
        ("multiframe", {"image_settings": [{"prompt": "x"}] * 2}, "FieldLacking"),
        ("multiframe", {"image_settings": [{**FRAMES[0], "own": 1}] * 2}, "FieldUnwanted"),
        ("extend", {"video_url": None}, "FieldLacking"),
        ("extend", {"duration": 8}, "FieldInvalid"),
        ("upscale-new", {"upscale_resolution": "3K"}, "FieldInvalid"),
        ("lip-sync", {"text": None}, "FieldLacking"),
        ("lip-sync", {"video_url": "data:video/mp4;base64,AAAA"}, "VideoDownloadFailure"),
        ("digital-human", {"voice_id": None}, "FieldLacking"),
        ("reference2image", {"model": "viduq1"}, "FieldItemCountOutOfRange"),
        ("text2audio", {"model": "viduq2"}, "FieldInvalid"),
        ("audio-tts", {"voice_setting_emotion": "bored"}, "FieldInvalid"),
        ("audio-tts", {"text": ""}, "FieldLacking"),
        ("subjects", {"images": None}, "FieldLacking"),
        ("ad-one-click", {"duration": 7}, "FieldInvalid"),
    ],
)
def test_a_wrong_request_is_refused(service, name, change, reason) -> None:
    """400 with the reason of the service's table, and nothing is charged."""
    status, body = service.ent("POST", name, {**BODIES[name], **change})
    assert (status, body["reason"]) == (400, reason), body
    assert (body["code"], bool(body["metadata"]["trace_id"])) == (400, True)
    assert service.core.ledger.creates == {}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (
            {"subjects": [{"name": "cat", "images": [IMAGE] * 3, "voice_id": "v"}, {"name": "dog", "videos": [VIDEO]}]},
            200,
        ),
        ({"subjects": [{"name": "cat", "server_id": "7"}], "auto_subjects": True}, 200),
        ({"subjects": [{"name": "cat", "images": [IMAGE] * 4}]}, 400),
        ({"subjects": [{"name": "cat"}]}, 400),
        ({"subjects": [{"images": [IMAGE]}]}, 400),
        ({"subjects": [{"name": "cat", "images": [IMAGE]}] * 8}, 400),
        ({"model": "viduq4-preview", "images": [IMAGE] * 15, "sounds": [SOUND] * 3}, 200),
        ({"model": "viduq4-preview", "images": [IMAGE] * 16}, 400),
        ({"model": "viduq2-pro", "videos": [VIDEO] * 2, "images": [IMAGE]}, 200),
        ({"model": "viduq2-pro", "videos": [VIDEO] * 3}, 400),
    ],
)
def test_the_two_forms_of_references(service, change, status) -> None:
    """By subjects, or by images with videos and sounds; each with its counts."""
    assert service.ent("POST", "reference2video", {"model": "viduq3", "prompt": "@cat runs", **change})[0] == status


@pytest.mark.parametrize(
    ("models", "model", "status"),
    [("any", "m", 200), (("mine",), "mine", 200), (("mine",), "viduq2", 400), ("documented", "viduq2", 200)],
)
def test_the_models_can_be_chosen(models, model, status) -> None:
    """The vendor's lists change: names of one's own, or any, can be taken instead."""
    assert Service(models=models).ent("POST", "text2video", {"model": model, "prompt": "x"})[0] == status


def inline_png(size: int) -> str:
    """Return a data URI of a picture with so many bytes."""
    return "data:image/png;base64," + base64.b64encode(PNG.ljust(size, b"\0")).decode()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (INLINE_PNG, None),
        (INLINE_PNG.replace("data:image", "Data:Image"), None),
        ("data:image/png;base64," + base64.b64encode(b"no picture at all").decode(), "ImageFormatInvalid"),
        ("data:image/png;base64,!!", "FieldInvalid"),
        ("data:text/plain;base64,QUJD", "FieldInvalid"),
        ("data:image/png," + "QUJD", "FieldInvalid"),
        (inline_png(9_999_998), None),
        (inline_png(9_999_999), None),
        (inline_png(10_000_000), "ImageSizeInvalid"),
    ],
    ids=["png", "capitals", "no picture", "no base64", "no image", "not encoded", "large", "largest", "too large"],
)
def test_an_inline_image_must_be_one(service, image, reason) -> None:
    """PNG, JPEG or WebP of less than 10 MB, as base64; megabytes are decimal."""
    status, body = service.ent("POST", "img2video", {"model": "viduq2", "images": [image]})
    assert (status, body.get("reason")) == ((200, None) if reason is None else (400, reason))


def test_a_request_has_at_most_20_mb(service) -> None:
    """413 before anything is read."""
    status, body = service.ent("POST", "text2video", b" " * 20_000_001)
    assert (status, body["reason"]) == (413, "FieldInvalid")
    assert service.ent("POST", "text2video", b" " * 20_000_000)[0] != 413


@pytest.mark.parametrize("order", ["first", "last"])
def test_which_refusal_comes_first(order) -> None:
    """The balance is checked before the model's name [likely], or after everything else."""
    service = Service(balance=79, balance_check=order)
    wrong, right = {"model": "viduq9", "prompt": "x"}, {"model": "viduq2", "prompt": "x"}
    reason = "CreditInsufficient" if order == "first" else "ModelUnavailable"
    assert service.ent("POST", "text2video", wrong)[1]["reason"] == reason
    assert service.ent("POST", "text2video", right)[1]["reason"] == "CreditInsufficient"
    assert service.call("POST", "/ent/v2/text2video", right, Authorization="Token wrong")[0] == 401


def test_off_peak_costs_half(service) -> None:
    """Rounded up."""
    service = Service(price=81)
    assert service.ent("POST", "text2video", BODIES["text2video"])[1]["credits"] == 41


@pytest.mark.parametrize(("times", "written"), [("iso", "2027-01-15T08:00:00.000000000Z"), ("epoch", 1_800_000_000)])
@pytest.mark.parametrize("field", ["state", "status"])
def test_both_spellings_of_time_and_state(times, written, field) -> None:
    """Both have been recorded: a text with nine digits or whole seconds; state or status."""
    service = Service(times=times, state_field=field)
    _, created = service.ent("POST", "text2video", {"model": "viduq2", "prompt": "x"})
    assert (created["created_at"], created[field]) == (written, "created")
    answer = service.ent("GET", f"tasks/{created['task_id']}/creations")[1]
    listed = service.ent("GET", "tasks")[1]["tasks"][0]
    assert (answer[field], listed[field], listed["created_at"]) == ("created", "created", written)
    other = {"state": "status", "status": "state"}[field]
    assert all(other not in body for body in (created, answer, listed))


class TestAtOnce:
    def test_speech(self, service) -> None:
        """The create's answer is the end: an MP3, with nothing to poll."""
        _, body = service.ent("POST", "audio-tts", BODIES["audio-tts"])
        assert (body["state"], body["payload"], body["credits"]) == ("success", "mine", 80)
        status, kind, sound = service.fetch(body["file_url"])
        assert (status, kind, sound[:3]) == (200, "audio/mpeg", b"ID3")

    def test_speech_can_fail(self, service) -> None:
        """200 with state failed, and the credits come back."""
        _, body = service.ent("POST", "audio-tts", {**BODIES["audio-tts"], "text": "[fail:AuditFailed]"})
        assert (body["state"], body["err_code"], body["file_url"]) == ("failed", "AuditFailed", "")
        service.core.settle()
        assert service.core.ledger.balance == 100_000

    def test_a_voice(self, service) -> None:
        """The voice has the name that was asked for, and a sound to listen to."""
        _, body = service.ent("POST", "audio-clone", BODIES["audio-clone"])
        assert (body["state"], body["voice_id"]) == ("success", "mine")
        assert service.fetch(body["demo_audio"])[:2] == (200, "audio/mpeg")

    def test_a_subject_has_no_state(self, service) -> None:
        """It is listed and can be edited; an unknown one is a 404."""
        _, body = service.ent("POST", "subjects", BODIES["subjects"])
        assert (body["name"], "state" in body, "task_id" in body) == ("cat", False, False)
        status, changed = service.ent("PUT", f"subjects/{body['id']}", {"name": "dog"})
        assert (status, changed["name"], changed["images"]) == (200, "dog", [IMAGE])
        assert service.ent("GET", "subjects")[1]["subjects"] == [changed]
        assert service.ent("PUT", f"subjects/{body['id']}", {"state": 1})[1]["reason"] == "FieldUnwanted"
        assert service.ent("GET", "subjects/123")[0] == 404
        assert service.ent("GET", f"tasks/{body['id']}/creations")[0] == 404

    def test_recommended_prompts(self, service) -> None:
        """As many as asked for, of the types asked for."""
        _, body = service.ent("POST", "img2video-prompt-recommendation", BODIES["img2video-prompt-recommendation"])
        assert (body["count"], len(body["prompts"]), "state" in body) == (3, 3, False)
        assert {prompt["type"] for prompt in body["prompts"]} == {"template", "img2video"}


class TestFilms:
    def test_a_film_has_a_query_of_its_own(self, service) -> None:
        """The create answers an id alone; the result is in signed_url, the parts in job_records."""
        _, body = service.ent("POST", "one-click/mv", BODIES["one-click/mv"])
        assert list(body) == ["id"]
        path = f"one-click/mv/{body['id']}"
        assert service.ent("GET", path)[1]["state"] == "created"
        assert service.ent("GET", f"tasks/{body['id']}/creations")[0] == 404
        service.core.clock.advance(100)
        film = service.ent("GET", path)[1]
        assert (film["state"], film["type"], film["err_code"], film["err_msg"]) == ("success", "mv", "", "")
        assert service.fetch(film["signed_url"])[:2] == (200, "video/mp4")
        jobs = [job for record in film["job_records"] for job in record["jobs"]]
        assert {job["type"] for job in jobs} == {"generate_video", "compose"}

    def test_a_film_that_fails_says_why(self, service) -> None:
        """err_code and err_msg."""
        _, body = service.ent(
            "POST", "one-click/general_one_click", {"images": [IMAGE], "prompt": "[fail:AuditFailed]"}
        )
        service.core.clock.advance(100)
        film = service.ent("GET", f"one-click/mv/{body['id']}")[1]
        assert (film["state"], film["err_code"], film["signed_url"]) == ("failed", "AuditFailed", "")
        assert film["err_msg"]

    @pytest.mark.parametrize(
        ("part", "body"), [("edit", {"job_id": "1", "prompt": "x"}), ("compose", {"job_ids": ["1"]})]
    )
    def test_parts_of_a_film(self, service, part, body) -> None:
        """They get ids of their own, and appear among the film's jobs."""
        film = service.ent("POST", "one-click/mv", BODIES["one-click/mv"])[1]["id"]
        _, made = service.ent("POST", f"one-click/mv/{film}/{part}", body)
        assert made["id"] != film
        assert service.ent("GET", f"one-click/mv/{made['id']}")[1]["state"] == "created"
        records = service.ent("GET", f"one-click/mv/{film}")[1]["job_records"]
        assert made["id"] in [job["id"] for record in records for job in record["jobs"]]
        assert service.ent("POST", f"one-click/mv/123/{part}", body)[0] == 404

    def test_an_ad_and_its_parts(self, service) -> None:
        """The ad is a task; edits and compositions answer with names of their own, before they are done."""
        ad = service.ent("POST", "ad-one-click", BODIES["ad-one-click"])[1]["task_id"]
        assert service.state(ad) == "created"
        parts = service.ent("GET", f"ad-one-click/{ad}")[1]["data_records"]
        edit = {"ad_one_click_task_id": ad, "type": "generate_video", "storyboard_video_index": 1, "prompt": "x"}
        _, edited = service.ent("POST", "ad-one-click/edit", {**edit, "payload": "mine"})
        assert (edited["ad_one_click_task_id"], edited["state"]) == (ad, "success")
        assert service.state(edited["sub_task_id"]) == "created"
        params = parts["completed_creation_records"][0]["params"]
        order = {"ad_one_click_task_id": ad, **params}
        _, composed = service.ent("POST", "ad-one-click/compose", order)
        assert service.state(composed["compose_sub_task_id"]) == "created"
        short = {**order, "video_task_ids": params["video_task_ids"][:1]}
        assert service.ent("POST", "ad-one-click/compose", short)[1]["reason"] == "FieldItemCountOutOfRange"
        assert service.ent("POST", "ad-one-click/edit", {**edit, "ad_one_click_task_id": "5"})[0] == 404
        assert set(PARTS) >= {"ad-one-click/edit", "ad-one-click/compose"}


class TestResults:
    def finished(self, service, name, **change) -> dict:
        """Return the one creation of a finished task."""
        status, body = service.ent("POST", name, {**BODIES[name], **change})
        assert status == 200, body
        service.core.clock.advance(100)
        return service.ent("GET", f"tasks/{body['task_id']}/creations")[1]["creations"][0]

    def test_a_picture(self, service) -> None:
        """reference2image yields a PNG, which is not its cover."""
        creation = self.finished(service, "reference2image", watermark=True)
        status, kind, picture = service.fetch(creation["url"])
        assert (status, kind, picture[:8]) == (200, "image/png", PNG[:8])
        others = [service.fetch(creation[name])[2] for name in ("cover_url", "watermarked_url")]
        assert len({picture, *others}) == 3
        assert "video" not in creation

    @pytest.mark.parametrize("name", ["text2audio", "timing2audio"])
    def test_a_sound(self, service, name) -> None:
        """text2audio and timing2audio yield an MP3 without a cover."""
        creation = self.finished(service, name)
        assert service.fetch(creation["url"])[:2] == (200, "audio/mpeg")
        assert creation["cover_url"] == ""

    @pytest.mark.parametrize(
        ("audio_type", "expected"),
        [("all", {"speech_url", "sound_url"}), ("speech-only", {"speech_url"}), ("sound-effect-only", {"sound_url"})],
    )
    def test_speech_and_sound_of_a_video(self, service, audio_type, expected) -> None:
        """With audio a creation has them beside the video, each an MP3 of its own [likely]."""
        creation = self.finished(service, "img2video", audio_type=audio_type)
        found = {name for name in creation if name in ("speech_url", "sound_url")}
        assert found == expected
        assert all(service.fetch(creation[name])[:2] == (200, "audio/mpeg") for name in found)
        assert service.fetch(creation["url"])[:2] == (200, "video/mp4")

    def test_how_long_links_are_valid(self, service) -> None:
        """A cover for one hour, video and watermarked for a day; those of an ad for one hour."""
        creation = self.finished(service, "text2video", watermark=True)
        ad = self.finished(service, "ad-one-click")
        service.core.clock.advance(3_601)
        assert service.fetch(creation["cover_url"])[0] == 403
        assert service.fetch(ad["url"])[0] == 403
        assert service.fetch(creation["url"])[0] == service.fetch(creation["watermarked_url"])[0] == 200
        service.core.clock.advance(86_400)
        assert service.fetch(creation["url"])[0] == 403
