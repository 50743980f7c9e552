"""Whether an order asks for a callback, and whether callbacks arrive."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.tasks.callbacks import arrivals as callbacks
from airflow_provider_vidu.tasks.callbacks.arrivals import MAX_MISSED, Arrivals, address_for
from airflow_provider_vidu.tasks.callbacks.tokens import checked_base, read_token
from tests.rows import each_row

BASE = "https://airflow.example.com/team"


@pytest.fixture
def context():
    """Return the context of a task instance of Airflow 3."""
    return {"ti": SimpleNamespace(id=uuid4())}


@pytest.fixture(autouse=True)
def pages(monkeypatch):
    """Say that this Airflow has the route, whatever it is."""
    monkeypatch.setattr(callbacks, "has_pages", lambda: True)


def test_an_order_gets_an_address_of_its_own(monkeypatch, context):
    """Below the base URL, with a token that names the task instance and is masked in logs."""
    masked = []
    monkeypatch.setattr(callbacks, "mask_secret", masked.append)
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", f" {BASE}/ ")
    address = address_for(context)
    assert address is not None
    assert address.url == f"{BASE}/vidu/callbacks/{address.token}"
    assert read_token(address.token) == (context["ti"].id, address.digest)
    assert masked == [address.token]


def test_without_option_pages_or_instance_there_is_none(monkeypatch, context, caplog):
    """Callbacks are off by default; on an Airflow without the route, and for tasks without an id, a line says so."""
    assert address_for(context) is None
    assert caplog.text == ""
    monkeypatch.setenv("AIRFLOW__VIDU__CALLBACK_BASE_URL", BASE)
    assert address_for({}) is None
    assert address_for({"ti": SimpleNamespace(id="text")}) is None
    monkeypatch.setattr(callbacks, "has_pages", lambda: False)
    caplog.clear()
    assert address_for(context) is None
    assert caplog.text.count("needs Airflow 3.1.1") == 1


@each_row(
    "text",
    ["airflow.example.com", "ftp://h", "https://", "https://h:port", "https://me:pw@h", "https://h/?a=1", "https://h/#a",
     "https://h/a b", "https://h/a%20b", "https://h/a:b", "https://h/a+b", "https://h//a", "https://[h"],
)  # fmt: skip
def test_a_base_url_that_cannot_be_signed_is_refused(text):
    """The error names the option and what it must be."""
    with pytest.raises(ViduConfigError, match="callback_base_url must be"):
        checked_base(text)


@pytest.mark.parametrize("text", ["http://localhost:8080", "https://h/a/b_c-d.e~f/", "https://[::1]:8080/x"])
def test_a_base_url_may_have_a_port_and_a_path(text):
    """A slash at its end makes no difference."""
    assert checked_base(text) == text.rstrip("/")


def test_callbacks_that_do_not_arrive_are_given_up_until_one_does(caplog):
    """After three ends in a row that only a poll has found, polling is as without callbacks, until one comes."""
    caplog.set_level("INFO")
    known = Arrivals("c1")
    assert (known.are_trusted, known.is_proven) == (True, False)
    known.came()
    assert known.is_proven
    for _ in range(MAX_MISSED + 2):
        known.was_missed()
    assert (known.are_trusted, known.is_proven) == (False, False)
    assert caplog.text.count("ended without a callback") == 1
    known.came()
    assert (known.are_trusted, known.is_proven) == (True, True)
    assert "arrive again" in caplog.text
