"""Which proxy a request takes: the connection's, else the environment's."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_provider_vidu.config import Secret, is_loopback


def proxy_for(url: str, proxy: Secret | None) -> str | None:
    """Return the URL of the proxy to use for ``url``, or None to connect directly.

    The connection's own proxy wins. Otherwise ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and
    ``NO_PROXY`` of the environment are honoured; loopback is never proxied by the environment.

    :param url: an absolute http(s) URL.
    :param proxy: the connection's proxy, if any.
    """
    if proxy is not None:
        return proxy.reveal()
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    # Many write the proxy without a scheme.
    return f"http://{found}" if found and "://" not in found else found
