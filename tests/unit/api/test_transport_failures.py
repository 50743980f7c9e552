"""What the errors of exchanges without an answer advise."""

from __future__ import annotations

import pytest

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
