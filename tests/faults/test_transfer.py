"""Transfers under faults, as a user runs them: every row of the table, into a local folder."""

from __future__ import annotations

import socket

import pytest

from airflow_provider_vidu.exceptions import ViduDownloadRefusedError
from fault_table import REFUSED, SURVIVED
from tests.faults.transfer_table import FAULTS, quick, suffer  # noqa: F401 - a fixture
from tests.faults.transfer_world import OLD, TLS, Folder, scene
from tests.integration.servers import ranged, redirect, whole


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault(fault, tmp_path, capsys, monkeypatch, fault_row):
    """The final name holds what stood there or the whole file, nothing else is left, and a rerun succeeds."""
    tls = TLS(tmp_path) if fault.tls else None
    fault_row("transfer", fault.name, **suffer(fault, Folder(tmp_path), capsys, monkeypatch, tls))


PUBLIC, INNER = "8.8.8.8", "127.0.0.1"


@pytest.fixture
def rebinding(monkeypatch):
    """Let cdn.example.com have a public address first and a private one ever after; return what was asked and dialled.

    The public address is this machine's loopback in truth: only the dialling of it is diverted.
    """
    resolve, dial = socket.getaddrinfo, socket.create_connection
    asked: list[str] = []
    dialled: list[str] = []

    def lookup(host, *args, **kwargs):
        if host != "cdn.example.com":
            return resolve(host, *args, **kwargs)
        asked.append(PUBLIC if not asked else INNER)
        return resolve(asked[-1], *args, **kwargs)

    def connect(address, *args, **kwargs):
        dialled.append(address[0])
        return dial((INNER, address[1]) if address[0] == PUBLIC else address, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    return asked, dialled


def test_a_name_that_becomes_private_after_the_check(rebinding, tmp_path, capsys, monkeypatch, fault_row):
    """Check and connection use one answer of the resolver; the second, private one is never asked for."""
    asked, dialled = rebinding
    with scene(Folder(tmp_path), capsys, monkeypatch) as s:
        s.home.put(OLD)
        s.gateway.files = [redirect(s.foreign.url(host="cdn.example.com"))]
        record = s.download()
        s.check_whole(record, s.body)
        s.check_secrets(record)
        seen, requests = s.seen(record), s.requests()
        assert asked == [PUBLIC]
        assert dialled.count(PUBLIC) == 1
        assert "cdn.example.com" not in dialled
        s.check_rerun()
    fault_row("transfer", "DNS answers public, then private: the checked address is used", side="local", seen=seen,
              requests=requests, outcome=SURVIVED)  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_a_name_that_becomes_private_in_the_middle(rebinding, tmp_path, capsys, monkeypatch, fault_row):
    """The rest would come from a private address: nothing is sent there, and the old file stays."""
    asked, dialled = rebinding
    with scene(Folder(tmp_path), capsys, monkeypatch) as s:
        s.home.put(OLD)
        s.gateway.files = [redirect(s.foreign.url(host="cdn.example.com"))]
        s.foreign.answers = [whole(s.body, cut=s.half), ranged(s.body)]
        error = s.download()
        assert isinstance(error, ViduDownloadRefusedError), error
        assert "'cdn.example.com' has the loopback address" in str(error)
        s.check_secrets(error)
        assert asked == [PUBLIC, INNER]
        assert (dialled.count(PUBLIC), len(s.foreign.requests)) == (1, 1)
        assert s.home.content() == OLD
        assert s.home.left_over() == []
        requests = s.requests()
        s.check_rerun()
    fault_row("transfer", "DNS answers public, and private in the middle", side="local", seen=str(error),
              requests=requests, outcome=REFUSED)  # fmt: skip
