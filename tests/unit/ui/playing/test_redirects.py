"""Where a viewer's browser may be sent: never to Airflow itself, however its address is spelt."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vidu.ui.playing.redirects import Trust, asker, location, needs_trust, own_hosts, why_not
from tests.properties import properties
from tests.rows import each_row

OWN = own_hosts({"host": "airflow.example.com:8080", "x-forwarded-host": "tools.example.com"}, "https://127.0.0.1/x")
HTTP = Trust(cleartext=True, hosts=("10.0.0.5",))


def test_its_own_names():
    """Those of the request, of the proxy before it, and of the deployment's base_url, without ports."""
    assert own_hosts({"host": "[::1]:80"}, "") == {"::1"}
    assert {"airflow.example.com", "tools.example.com", "127.0.0.1"} == OWN


@pytest.mark.fault(
    "attacks",
    "a clip's address is Airflow's own host, oddly spelt, plain http or private",
    outcome="refused",
    seen="410 with the reason, and no redirect",
)
@each_row(
    "url",
    [
        "https://airflow.example.com/auth/logout",
        "https://AIRFLOW.example.com:9999/steal",
        "https://airflow.example.com./steal",
        "https://tools.example.com/x",
        "https://127.0.0.1:1/x",
        "http://127.0.0.1:8080/api/v2/auth/logout",
        # Browsers read these as one of the above.
        "https://0x7f.1/x",
        "https://2130706433/x",
        "https://127.0.0.1./x",
        "https://0177.0.0.1/x",
        "https://%61irflow.example.com/x",
        "https://\uff41irflow.example.com/x",
        "https://airflow\u3002example.com/x",
        "https://airflow.exam\u00adple.com/x",
        "https://user@airflow.example.com/x",
        "https:///airflow.example.com/x",
        "https:/airflow.example.com/x",
        "https:airflow.example.com",
        "https://airflow.example.com\\@cdn.example.net/x",
        "https://cdn.example.net:x/v",
        # Plain http, and addresses that only the viewer's browser reaches.
        "http://cdn.example.net/v.mp4",
        "https://192.168.1.1/reboot",
        "https://[fe80::1]/x",
        "https://localhost:9000/x",
        "https://printer.local/x",
        "https://intranet/x",
        "https://router.lan/x",
        "https://nas.home.arpa./x",
        "javascript:alert(1)",
        "//cdn.example.net/x",
        None,
    ],
)
def test_where_nobody_is_sent(url):
    """Airflow's own host at any port, odd spellings, plain http and private addresses are refused."""
    assert why_not(url, OWN) is not None


@each_row(
    ("url", "trust"),
    [
        ("https://cdn.example.net/v.mp4?Signature=a%2Fb~c-d__&Expires=1", Trust()),
        ("https://example.com/v.mp4", Trust()),
        ("https://cdn.airflow.example.com/v.mp4", Trust()),
        ("https://93.184.216.34:8443/v.mp4", Trust()),
        ("http://cdn.example.net/v.mp4", HTTP),
        ("http://10.0.0.5:9000/v.mp4", HTTP),
    ],
)
def test_where_the_player_goes(url, trust):
    """Public https addresses are followed; plain http and private hosts where the connection vouches for them."""
    assert why_not(url, OWN, trust) is None
    assert needs_trust(url) == (trust is HTTP)
    assert location(url) == url


def test_no_connection_vouches_for_airflow():
    """Even a connection that leads to Airflow's own host does not make its cookies travel."""
    assert why_not("http://127.0.0.1:9999/x", OWN, Trust(cleartext=True, hosts=("127.0.0.1",))) is not None


@pytest.mark.fault(
    "attacks",
    "a navigation, a script or another site asks for a clip's file",
    outcome="refused",
    seen="400 or 409, and no redirect",
)
@each_row(
    ("headers", "who"),
    [
        ({"sec-fetch-dest": "video", "sec-fetch-mode": "no-cors", "sec-fetch-site": "same-origin"}, "player"),
        ({"sec-fetch-dest": "audio"}, "player"),
        ({"sec-fetch-dest": "image"}, "player"),
        ({"sec-fetch-dest": "empty", "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin"}, "script"),
        ({"sec-fetch-dest": "document", "sec-fetch-mode": "navigate", "sec-fetch-site": "none"}, "other"),
        ({"sec-fetch-dest": "video", "sec-fetch-mode": "navigate"}, "other"),
        ({"sec-fetch-dest": "iframe"}, "other"),
        ({"sec-fetch-dest": "script"}, "other"),
        ({"sec-fetch-dest": "image", "sec-fetch-site": "same-site"}, "other"),
        ({"sec-fetch-dest": "image", "sec-fetch-site": "cross-site"}, "other"),
        # On plain http no browser says where the answer goes.
        ({"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, "other"),
        ({"accept": "video/webm,video/ogg,video/*;q=0.9,*/*;q=0.5"}, "player"),
        ({"accept": "*/*"}, "player"),
        ({}, "player"),
    ],
)
def test_who_asks(headers, who):
    """Only an element that plays or shows is sent on: no navigation, no script, no other site."""
    assert asker(headers) == who


def test_its_name_in_letters_of_any_language():
    """What base_url writes with an umlaut is asked for, and linked to, in ASCII."""
    own = own_hosts({"host": "internal:8080"}, "https://bücher.example/airflow")
    assert why_not("https://xn--bcher-kva.example/auth/logout", own) is not None
    assert own_hosts({}, "https://" + "ü" * 300) == set()


@pytest.mark.fault(
    "attacks", "a reader sends megabytes of X-Forwarded-Host", outcome="survived", seen="the redirect, at once"
)
@pytest.mark.parametrize("unit", ["a,", "[::1],", ","])
def test_a_long_list_of_names_costs_no_time(unit):
    """Of megabytes of names only the end is read, where the nearest proxy writes."""
    began = time.thread_time()
    own = own_hosts({"host": "x", "x-forwarded-host": unit * 500_000 + "tools.example.com"}, "")
    assert why_not("https://tools.example.com/x", own) is not None
    assert why_not("https://cdn.example.net/x", own) is None
    assert time.thread_time() - began < 1


@properties(100)
@given(st.text(max_size=40))
def test_nothing_raises(text):
    """An address is whatever a DAG or a gateway wrote."""
    for url in (text, f"https://{text}", f"https://{text}.example.com/"):
        why_not(url, OWN)
        needs_trust(url)
        own_hosts({"host": text}, url)
