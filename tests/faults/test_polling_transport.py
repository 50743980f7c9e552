"""Polling when no answer arrives: refused, reset, silent, TLS, DNS."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.exceptions import ViduTransportError
from airflow_provider_vidu.polling import watch
from tests.faults.polling_cases import sat_out, until_it_is_lifted
from tests.faults.polling_world import BOTH, NATIVE, Arrange, Fault, acted, rows

pytestmark = pytest.mark.integration


def lost(name: str, arrange: Arrange, says: str, **more: object) -> Fault:
    """Return the row of a fault that leaves no answer at all: most are the same whatever is spoken."""
    return Fault(name, arrange, ViduTransportError, says, **{"dialects": (NATIVE,), **more})  # type: ignore[arg-type]


UNSEEN = {"reaches": False}
SLOW = {"timeout": 0.25, "budget": 1}
MADE = r"failed: .*Check the connection's host, port and proxy"
TRUST = r"certificate is not trusted: .*set the connection's verify to the CA bundle"
BROKE = r"broke: .*If this persists, check the gateway"
SILENT = r"was silent for too long \(0.25 s\): .*raise the connection's timeout"

FAULTS = [
    lost("connection refused", lambda world: world.stop(), MADE, dialects=BOTH, **UNSEEN),
    lost("DNS failure", lambda world: world.unresolvable(), MADE, **UNSEEN),
    lost("TLS: certificate of another host", lambda world: world.serve("other host"), TRUST, **UNSEEN),
    lost("TLS: certificate of an unknown authority", lambda world: world.serve("unknown authority"), TRUST, **UNSEEN),
    lost("TLS: expired certificate", lambda world: world.serve("expired"), TRUST, **UNSEEN),
    lost("TLS: https to a port that speaks http", lambda world: world.serve(None), r"connection to https://", **UNSEEN),
    lost("reset before the answer", acted(reset="before"), BROKE, dialects=BOTH),
    lost("closed before the answer", acted(reset="before", fin=True), BROKE),
    lost("reset after the headers", acted(reset="headers"), BROKE),
    lost("reset in the middle of a body", acted(reset="body"), BROKE, dialects=BOTH),
    lost("closed in the middle of a body", acted(reset="body", fin=True), BROKE),
    lost("shorter than announced", acted(content_length=20), BROKE),
    lost("silence before the headers", acted(delay=60.0), SILENT, **SLOW),
    lost("silence between bytes", acted(stall=60.0), SILENT, **SLOW),
    lost("bytes that trickle", acted(trickle=40.0), r"took too long to deliver the answer \(1 s\): .*timeout", **SLOW),
]


@rows(FAULTS)
def test_it_lasts(fault, dialect, side, world, patience, capfd, fault_row):
    """The error says how the exchange was lost and what to look at; when the service is back the wait succeeds."""
    until_it_is_lifted(fault, dialect, side, world, patience, capfd, fault_row)


@rows(FAULTS)
def test_it_passes(fault, dialect, side, world, patience, capfd, fault_row):
    """An outage within the budget costs nothing but a line of the log for each failed poll."""
    sat_out(fault, dialect, side, world, patience, capfd, fault_row)


def test_the_numbers_are_the_documented_ones():
    """The rows shrink the budget; the default is ten failed polls and five repeated requests."""
    from airflow_provider_vidu.network.limits import DEFAULT_MAX_RETRIES

    assert watch.PollPolicy().max_failures == 10
    assert DEFAULT_MAX_RETRIES == 5
