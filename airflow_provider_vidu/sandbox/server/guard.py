"""Refuses requests that a foreign web site sends through a browser on this machine.

Such a site can send requests to loopback and, through a name that resolves to 127.0.0.1 ("DNS rebinding"), even read
the answers. They are recognized by ``Origin``, by ``Sec-Fetch-Site`` if an image or a link sends no origin, and by the
name in ``Host``. Reading files is exempt: their signed URLs are secret, and Airflow's clip pages play them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from airflow_provider_vidu.sandbox.messages.calls import Call, split_target

_FILES = ("/files/", "/uploads/")
_READING = frozenset({"GET", "HEAD"})


def problem(call: Call, *, listens_on: str, allowed: Iterable[str] = (), is_control: bool) -> str | None:
    """Return why ``call`` is refused, or None.

    :param listens_on: the address that the sandbox is bound to. Beyond loopback, any name may lead to it; the control
        API accepts only loopback names even then.
    :param allowed: further names that ``Host`` may hold.
    :param is_control: whether the call is for the control API.
    """
    path, _ = split_target(call.target)
    if path.startswith(_FILES) and call.method in _READING and not is_control:
        return None
    host, origin = call.header("host"), call.header("origin")
    if origin is not None and origin.lower() != call.origin.lower():
        return f"requests from other web sites are refused (Origin: {_short(origin)})"
    if (site := call.header("sec-fetch-site")) is not None and site.lower() not in ("none", "same-origin"):
        return f"requests from other web sites are refused (Sec-Fetch-Site: {_short(site)})"
    name = _name(host or "")
    if not name or _is_loopback_name(name) or name in {other.lower() for other in allowed}:
        return None
    if not is_control and (name == listens_on.lower() or not _is_loopback_name(listens_on)):
        return None
    return f"the Host header must hold a loopback name, not {_short(name)}; add other names to allowed_hosts"


@lru_cache(maxsize=256)
def _name(host: str) -> str:
    """Return the lower-case name in a Host header, without port and brackets; "?" if it is invalid."""
    if not host:
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "?").rstrip(".")
    except ValueError:
        return "?"


@lru_cache(maxsize=256)
def _is_loopback_name(name: str) -> bool:
    name = name.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
