"""Polling when the service, or something before it, answers with an error status."""

from __future__ import annotations

import pytest

from airflow_provider_vidu import exceptions as E  # noqa: N812 - a table of classes
from tests.faults.polling_cases import sat_out, until_it_is_lifted
from tests.faults.polling_world import ENT, NATIVE, Arrange, Fault, answered, rows

pytestmark = pytest.mark.integration

HTML = "<!DOCTYPE html><html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
PASSES = r"internal error, which is often temporary"
SLOWER = r"send fewer, or retry later"
KEY_ADVICE = r"check the connection's password and auth_scheme"


def gateway(code: str, message: str) -> dict:
    """Return the error body of the gateway itself."""
    return {"error": {"message": message, "type": "new_api_error", "code": code}}


def task(code: str, message: str) -> dict:
    """Return the error body of the gateway's task endpoints."""
    return {"code": code, "message": message, "data": None}


def official(status: int, reason: str, message: str = "said the service") -> Arrange:
    """Let the official API answer with an error."""
    body = {"code": status, "reason": reason, "message": message, "metadata": {"trace_id": "04e5"}}
    return answered(status, body)


def final(name: str, arrange: Arrange, error: type[E.ViduError], says: str, **more: object) -> Fault:
    """Return the row of a fault that a repetition cannot mend: one request, one error."""
    return Fault(name, arrange, error, says, tolerated=False, **more)  # type: ignore[arg-type]


def away(status: int) -> Arrange:
    """Redirect every query to another path of the same server, which counts the requests that follow."""
    return lambda world: world.fault(status=status, redirect=f"{world.sandbox.url}/elsewhere?sig=5ecret")


ONLY_NATIVE, ONLY_ENT = {"dialects": (NATIVE,)}, {"dialects": (ENT,)}
REDIRECT = r"redirects to http.*/elsewhere\. The API key is not sent.*the final address.*HTTP status 30"
FRONT = r"A proxy or firewall in front of the service answered: .*check the connection's host"

FAULTS = [
    Fault("302", away(302), E.ViduResponseError, REDIRECT),
    Fault("307", away(307), E.ViduResponseError, REDIRECT),
    Fault("308", away(308), E.ViduResponseError, REDIRECT),
    Fault("304 without a Location", answered(304), E.ViduResponseError, r"redirects to nowhere"),
    final("400, the task endpoint's shape", answered(400, task("bad_request", "no such field")),
          E.ViduRequestError, r"no such field.*code bad_request", **ONLY_NATIVE),
    final("400, the gateway's shape", answered(400, gateway("invalid_request", "no such field")),
          E.ViduRequestError, r"no such field.*code invalid_request"),
    final("400, the official API's shape", official(400, "FieldInvalid"),
          E.ViduRequestError, r"said the service.*code FieldInvalid, trace id 04e5", **ONLY_ENT),
    Fault("400 OperationInProcess", official(400, "OperationInProcess"),
          E.ViduBusyError, r"still processing this: retry later", **ONLY_ENT),
    final("400 CreditInsufficient", official(400, "CreditInsufficient"),
          E.ViduCreditError, r"top up the account", **ONLY_ENT),
    final("401", lambda world: world.refuse(), E.ViduAuthError, KEY_ADVICE),
    final("401 in HTML", answered(401, HTML), E.ViduAuthError, KEY_ADVICE),
    final("403", answered(403, gateway("access_denied", "no permission")), E.ViduAuthError, KEY_ADVICE),
    Fault("403 in HTML, a firewall's", answered(403, HTML), E.ViduResponseError, FRONT),
    Fault("404 in plain text, an ingress's", answered(404, "default backend - 404"), E.ViduResponseError, FRONT),
    Fault("408", answered(408), E.ViduServerError, PASSES),
    final("409", official(409, "Conflict"), E.ViduConflictError, r"^The service said: said.*not in a state"),
    final("413", answered(413, HTML), E.ViduRequestError, r"will be refused again.*HTTP status 413"),
    Fault("429 without Retry-After", answered(429, gateway("rate_limit", "slow down")), E.ViduRateLimitError, SLOWER),
    Fault("429, empty", answered(429), E.ViduRateLimitError, r"gave no reason.*HTTP status 429"),
    final("429 that means: no quota left", answered(429, gateway("insufficient_user_quota", "none left")),
          E.ViduCreditError, r"none left.*top up the account"),
    Fault("429 QuotaExceeded (concurrency)", official(429, "QuotaExceeded"), E.ViduRateLimitError, SLOWER, **ONLY_ENT),
    Fault("500", official(500, "InternalServiceFailure"), E.ViduServerError, PASSES),
    Fault("502 in HTML", answered(502, HTML), E.ViduServerError, r"Bad Gateway.*" + PASSES),
    Fault("503", answered(503, gateway("model_not_found", "no channel")), E.ViduServerError, r"no channel.*" + PASSES),
    Fault("504, empty", answered(504), E.ViduServerError, r"gave no reason.*HTTP status 504"),
]  # fmt: skip


@rows(FAULTS)
def test_it_lasts(fault, dialect, side, world, patience, capfd, fault_row):
    """The error is of the class that fits, says what to do, and a repaired service is used at once."""
    until_it_is_lifted(fault, dialect, side, world, patience, capfd, fault_row)


@rows([fault for fault in FAULTS if fault.tolerated])
def test_it_passes(fault, dialect, side, world, patience, capfd, fault_row):
    """An error status that passes within the budget costs nothing but a line of the log for each failed poll."""
    sat_out(fault, dialect, side, world, patience, capfd, fault_row)
