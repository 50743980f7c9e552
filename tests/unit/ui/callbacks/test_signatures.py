"""Vidu's signature of a callback, by the vendor's own example and by everything that may be wrong with it."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_vidu.ui.callbacks.signatures import DATE_WINDOW_SECONDS, Nonces, is_signed
from tests.rows import each_row

KEY = "your_secret_token"
NONCE = "123e4567-e89b-12d3-a456-426614174000"
SIGNED = {
    "date": "Tue, 06 May 2025 12:09:42 GMT",
    "x-request-nonce": NONCE,
    "x-hmac-signed-headers": "Date;x-request-nonce",
    "x-hmac-signature": "PrO4+kG4W+b3HOSimdHMHn8pnQ6YXQTseBDC/8yvvNA=",
    "x-hmac-algorithm": "hmac-sha256",
    "x-hmac-access-key": "vidu",
}
NOW = datetime(2025, 5, 6, 12, 9, 42, tzinfo=UTC).timestamp()


def check(*, key: str = KEY, path: str = "/vidu/callback", query: str = "name=james&age=36", now: float = NOW, **more):
    """Check the vendor's example with changes; a header that is None is missing."""
    headers = {**SIGNED, **{name.replace("_", "-"): value for name, value in more.items()}}
    return is_signed(
        key, "POST", path, query, {name: value for name, value in headers.items() if value is not None}, now
    )


def test_the_vendors_example():
    """The vector that was computed from the vendor's page is accepted."""
    assert check()
    assert check(now=NOW + DATE_WINDOW_SECONDS - 1)


@each_row(
    "change",
    [
        {"key": "another"},
        {"path": "/callback"},
        {"query": ""},
        {"now": NOW + DATE_WINDOW_SECONDS + 1},
        {"now": NOW - DATE_WINDOW_SECONDS - 1},
        {"date": None},
        {"date": "yesterday"},
        {"date": "Tue, 06 May 2025 12:09:43 GMT"},
        {"date": "9" * 10_000},
        {"x_request_nonce": "another"},
        {"x_request_nonce": None},
        {"x_hmac_signature": None},
        {"x_hmac_signature": ""},
        {"x_hmac_signature": "PrO4+kG4W+b3HOSimdHMHn8pnQ6YXQTseBDC/8yvvNA"},
        {"x_hmac_signature": "\udcff"},
        {"x_hmac_algorithm": "none"},
        {"x_hmac_signed_headers": None},
        {"x_hmac_signed_headers": "Date"},
        {"x_hmac_signed_headers": "Date;x-request-nonce;host"},
        {"x_hmac_signed_headers": "Date;x-request-nonce" + ";Date" * 100},
    ],
    ids=str,
)
def test_anything_else_is_refused(change):
    """Another key, path, query, date, nonce, algorithm or list of headers is refused, and nothing raises."""
    assert check(**change) is False


def test_nonces_are_kept_for_their_time_and_bounded():
    """A nonce is known per token until its date is too old, and the memory has a limit."""
    nonces = Nonces(most=2)
    nonces.add("d", "1", NOW)
    assert nonces.is_known("d", "1")
    assert not nonces.is_known("e", "1")
    nonces.add("d", "2", NOW)
    nonces.add("d", "3", NOW)
    assert not nonces.is_known("d", "1")
    nonces.add("d", "4", NOW + 3 * DATE_WINDOW_SECONDS)
    assert [nonces.is_known("d", number) for number in "234"] == [False, False, True]
