"""What the errors of exchanges without an answer advise."""

from __future__ import annotations

import ssl
from types import SimpleNamespace

import pytest
import requests

from airflow_provider_vidu.api.clients.sync_client import _loss
from airflow_provider_vidu.api.dialects import ViduNative
from airflow_provider_vidu.api.messages import TransportFailure
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.common.redaction import Secret


def told(loss: TransportFailure, scheme: str, host: str, port: int) -> str:
    """Return the text of an error."""
    config = ViduConfig("c", f"{scheme}://{host}:{port}", ViduNative(), "Bearer", Secret("GEHEIM"), timeout=5)
    return str(config.no_answer(loss, "timed out"))


@pytest.mark.parametrize(
    ("scheme", "port", "hints"), [("https", 8000, True), ("https", 443, False), ("http", 80, False)]
)
def test_a_handshake_that_no_server_answers_hints_at_plain_http(scheme, port, hints):
    """A server of plain HTTP may wait for the end of a line, so that a TLS handshake only runs out of time."""
    assert ("write http://" in told(TransportFailure.UNREACHED, scheme, "gw.example", port)) is hints


def test_an_address_of_version_6_is_bracketed():
    """Without brackets, the port would look like a part of the address."""
    assert "http://[fd00::1]:8000 " in told(TransportFailure.UNMADE, "http", "[fd00::1]", 8000)


@pytest.mark.fault(
    "orders",
    "create: the server requires a client certificate (TLS 1.3), and says so after the request",
    outcome="refused",
    says="requires a client certificate",
)
@pytest.mark.parametrize("reason", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"])
def test_a_client_certificate_that_is_missing(reason):
    """The handshake is refused, so no service has got the request; once an answer has begun, one has."""
    alert = ssl.SSLError(1, f"[SSL: {reason}]")
    alert.reason = reason
    exchange = SimpleNamespace(sent=True, reached=True, is_over=False)
    error = requests.exceptions.SSLError(alert)
    loss = _loss(error, exchange, is_secure=True, has_answer=False)
    assert not loss.sent
    assert "requires a client certificate" in told(loss, "https", "gw.example", 443)
    assert _loss(error, exchange, is_secure=True, has_answer=True).sent
