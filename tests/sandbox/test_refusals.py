"""Refusals by name: on demand, in a prompt, and what they look like."""

from __future__ import annotations

import json

import pytest
import requests

from airflow_provider_vidu.sandbox.faults.refusals import REFUSALS
from tests.sandbox.service import Service

NATIVE = "/vidu-native/video/generations"
EXPECTED = {
    "model_not_found": (503, "model_not_found"),
    "convert_request_failed": (500, "convert_request_failed"),
    "build_request_failed": (500, "build_request_failed"),
    "get_channel_failed": (500, "get_channel_failed"),
    "rate_limited": (429, ""),
    "token_concurrency_limit_reached": (429, "token_concurrency_limit_reached"),
    "video_queue_full": (429, "video_queue_full"),
    "video_queue_full_200": (200, "video_queue_full"),
    "insufficient_user_quota": (403, "insufficient_user_quota"),
    "insufficient_quota": (429, "insufficient_quota"),
    "upstream_credit_insufficient": (400, "CreditInsufficient"),
    "upstream_rate_limited": (429, "TooManyRequests"),
    "quota_exceeded": (429, "QuotaExceeded"),
    "system_throttling": (429, "SystemThrottling"),
    "credit_insufficient": (400, "CreditInsufficient"),
}


def code_of(body) -> str:
    """Return the code string of an error in any of its shapes."""
    if body in (b"", None):
        return ""
    if "error" in body:
        return body["error"]["code"]
    if "reason" in body:
        return body["reason"]
    return json.loads(body["message"])["reason"] if body["code"] == "fail_to_fetch_task" else body["code"]


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_on_demand(service, name) -> None:
    """By its name alone: the next create gets it, is not performed, and the one after it goes through."""
    service.core.add_rule(name)
    status, body = service.gateway("POST", NATIVE, {"model": "viduq2", "prompt": "x"})
    assert (status, code_of(body)) == EXPECTED[name]
    assert service.core.ledger.creates == {}
    assert service.gateway("POST", NATIVE, {"model": "viduq2", "prompt": "x"})[0] == 200


@pytest.mark.parametrize("path", [NATIVE, "/ent/v2/text2video"])
def test_a_prompt_can_ask_for_a_refusal(service, path) -> None:
    """[refuse:NAME], in either dialect; an unknown name is just text."""
    order = {"model": "viduq2", "prompt": "a cat [refuse:build_request_failed]"}
    assert service.gateway("POST", path, order)[0] == 500
    assert service.gateway("POST", path, {**order, "prompt": "a cat [refuse:nothing]"})[0] == 200
    assert len(service.core.ledger.creates) == 1


def test_a_rule_can_say_more(service) -> None:
    """Which requests, how often, and under which status."""
    service.core.add_rule({"refusal": "video_queue_full", "match": {"kind": "query"}, "times": None})
    service.core.add_rule({"match": {"kind": "list"}, "action": {"refusal": "video_queue_full", "status": 400}})
    assert [service.gateway("GET", f"{NATIVE}/x")[0] for _ in range(2)] == [429, 429]
    status, body = service.ent("GET", "tasks")
    assert (status, body["code"]) == (400, "video_queue_full")


def test_an_unknown_refusal_is_an_error(service) -> None:
    """A misspelt name names the known ones instead of passing silently."""
    for rule in ("model_not_fuond", {"action": {"refusal": "x"}}):
        with pytest.raises(ValueError, match="model_not_found"):
            service.core.add_rule(rule)
    with pytest.raises(ValueError, match="model_not_found"):
        Service(gateway_refusal="x")


def test_the_control_api_takes_them(sandbox, client) -> None:
    """By name over HTTP, and the model stands in the message."""
    rule = {"refusal": "model_not_found"}
    assert requests.post(f"{sandbox.url}/_sandbox/faults", json=rule, timeout=5).status_code == 200
    answer = client.call("POST", NATIVE, json={"model": "vidu-typo", "prompt": "x"})
    assert (answer.status_code, "vidu-typo" in answer.json()["error"]["message"]) == (503, True)


def test_a_gateway_may_know_its_models() -> None:
    """With names given, another one is 503 model_not_found before anything is charged."""
    service = Service(models=("TC-Vidu",))
    assert service.gateway("POST", NATIVE, {"model": "TC-Vidu", "prompt": "x"})[0] == 200
    status, body = service.gateway("POST", NATIVE, {"model": "typo", "prompt": "x"})
    assert (status, body["error"]["code"]) == (503, "model_not_found")


@pytest.mark.parametrize("path", [NATIVE, "/v1/videos", "/v1/video/generations", "/v1/video/create"])
def test_a_gateway_has_no_channel_for_an_unknown_model(path) -> None:
    """Any model of the vendor's tables has one, whatever its endpoint; a typo has none, and costs nothing."""
    service = Service()
    for model in ("viduq3-mix", "audio1.0", "TC-Vidu"):
        assert service.gateway("POST", path, {"model": model, "prompt": "x"})[0] == 200
    before = len(service.core.ledger.creates)
    status, body = service.gateway("POST", path, {"model": "viduq9-ultra", "prompt": "x"})
    assert (status, body["error"]["code"]) == (503, "model_not_found")
    assert len(service.core.ledger.creates) == before
    assert Service(models="any").gateway("POST", path, {"model": "viduq9-ultra", "prompt": "x"})[0] == 200


@pytest.mark.parametrize(("limit", "status"), [(5_000, 400), (None, 200)])
def test_a_long_prompt_is_refused_by_the_service_behind(limit, status) -> None:
    """The gateway passes the official error on, wrapped in its own message."""
    service = Service(gateway_prompt_limit=limit)
    found, body = service.gateway("POST", NATIVE, {"model": "viduq2", "prompt": "x" * 5_001})
    assert found == status
    if status == 400:
        assert (body["code"], code_of(body)) == ("fail_to_fetch_task", "FieldInvalid")
