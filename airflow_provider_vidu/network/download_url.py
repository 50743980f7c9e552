"""The parsed URL of a download, and the part of a connection that the download uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urljoin

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.common.origins import PORTS, Origin, origin_of
from airflow_provider_vidu.common.redaction import Redactor, Secret
from airflow_provider_vidu.common.text import before_cut, sanitized, signatures
from airflow_provider_vidu.common.url_parts import split_url
from airflow_provider_vidu.common.urls import shown_url, url_problem
from airflow_provider_vidu.common.values import web_url, whole
from airflow_provider_vidu.exceptions import ViduConfigError, ViduDownloadRefusedError, forgetting_variables
from airflow_provider_vidu.network.addresses import Resolver
from airflow_provider_vidu.network.allowed_hosts import parse_allowed
from airflow_provider_vidu.network.limits import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT
from airflow_provider_vidu.network.proxies import environment_secrets, secrets_of

MAX_BYTES: Final = 20 * 1024**3
"""The default of ``[vidu] max_bytes``."""


def deployment_hosts() -> frozenset[str]:
    """Return the hosts and networks of ``[vidu] allowed_hosts``; they apply to downloads without a connection, too.

    :raises ViduConfigError: when an entry is neither a host nor a network.
    """
    try:
        return parse_allowed(conf.get("vidu", "allowed_hosts", fallback="") or None)
    except ViduConfigError as error:
        raise ViduConfigError(f"[vidu] allowed_hosts in Airflow's configuration: {error.reason}") from None


def most_bytes(max_bytes: int | None = None) -> int:
    """Return the size of the largest file that a download accepts, in bytes.

    :param max_bytes: the task's own limit; ``[vidu] max_bytes`` if omitted.
    :raises ViduConfigError: when the setting is not a number of bytes.
    """
    if max_bytes is not None:
        return max_bytes
    setting = conf.get("vidu", "max_bytes", fallback="") or MAX_BYTES
    most = whole(setting)
    if not isinstance(most, int) or most <= 0:
        raise ViduConfigError(f"[vidu] max_bytes must be a whole number above 0, not {sanitized(setting, 40)!r}.")
    return most


@dataclass(frozen=True, slots=True)
class DownloadAccess:
    """The part of a connection that a download uses.

    :param origin: the connection's own origin, the only one that receives ``headers``.
    :param headers: the key and the connection's other headers.
    :param allowed_hosts: hosts and networks that may be private; the deployment's if omitted.
    :param timeout: seconds to connect, and the longest silence in seconds.
    :param max_retries: how often a broken transfer is resumed.
    :param verify: as in :func:`airflow_provider_vidu.network.tls.ssl_context`.
    :param proxy: the proxy for every request; the environment's if None.
    :param secrets: values redacted from messages, should a server quote them.
    """

    origin: Origin | None = None
    headers: tuple[tuple[str, Secret], ...] = ()
    allowed_hosts: frozenset[str] = field(default_factory=deployment_hosts)
    timeout: float = DEFAULT_TIMEOUT
    max_retries: int = DEFAULT_MAX_RETRIES
    verify: bool | str = True
    proxy: Secret | None = None
    resolve: Resolver | None = field(default=None, repr=False)
    secrets: tuple[Secret, ...] = ()

    def redact(self, data: bytes, url: str | None = None, most: int | None = None) -> bytes:
        """Return ``data`` with every secret replaced by ``***``: some gateways quote the key they refuse.

        :param data: bytes from a server.
        :param url: the requested URL: stores quote the signature that they refuse.
        :param most: how many bytes were read at most; of so many, the end is dropped, where a secret may be cut off.
        """
        text = data.decode("utf-8", "surrogateescape")
        clean = self.redact_text(text, url)
        if len(data) == most:
            clean = before_cut(clean)
        return data if clean == text else clean.encode("utf-8", "replace")

    def redact_text(self, text: str, url: str | None = None) -> str:
        """Return a text without secrets, those of the proxies among them: like :meth:`redact`."""
        return self.redaction(url)(text)

    def redaction(self, url: str | None = None) -> Callable[[str], str]:
        """Return what :meth:`redact_text` does, for several texts: spelling the secrets takes longer than a search."""
        with forgetting_variables():
            return self._redaction(url)

    def _redaction(self, url: str | None) -> Callable[[str], str]:
        hidden = {secret.reveal() for secret in self.secrets} | signatures(url) | environment_secrets()
        hidden |= secrets_of(self.proxy) if self.proxy else set()
        return Redactor(hidden).redact if hidden else str


@dataclass(frozen=True, slots=True)
class DownloadURL:
    """A parsed URL, with path and query unchanged."""

    url: str = field(repr=False)
    scheme: str
    host: str = field(repr=False)
    port: int
    path: str = field(repr=False)

    @property
    def authority(self) -> str:
        """The Host header, with the port unless it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> Origin | None:
        """Scheme, host and port."""
        return origin_of(self.url)

    @classmethod
    def parse(cls, url: str) -> DownloadURL:
        """Parse ``url``; surrounding whitespace is dropped, only non-ASCII letters of path and query are encoded.

        :raises ViduDownloadRefusedError: when it is not an http(s) URL with a host, or contains a user.
        """
        url = url.strip()
        ascii_url = "".join(char if char.isascii() else quote(char, errors="replace") for char in url)
        parts = split_url(url) if web_url(url) and web_url(ascii_url) else None
        try:
            port = parts.port if parts else None
        except ValueError:
            parts = None
        if parts is None or not parts.hostname or "\\" in parts.netloc:
            why = url_problem(url) or "has no valid host"
            raise ViduDownloadRefusedError(f"Not fetched: {shown_url(url)!r} is not an http(s) URL; it {why}.")
        if "@" in parts.netloc:
            raise ViduDownloadRefusedError("Not fetched: the URL contains a user name or password.")
        scheme = parts.scheme.lower()
        rest = ascii_url.partition("://")[2].partition("#")[0]
        cut = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
        path = rest[cut:] if rest[cut:].startswith("/") else "/" + rest[cut:]
        return cls(url, scheme, _ascii_host(parts.hostname), port or PORTS[scheme], path)

    def redirected(self, location: str) -> str:
        """Resolve a ``Location`` header against this URL, without re-quoting it."""
        location = location.strip().replace(" ", "%20")
        if location.startswith("//"):
            return f"{self.scheme}:{location}"
        if location.startswith("/"):
            return f"{self.scheme}://{self.authority}{location}"
        return location if split_url(location).scheme else urljoin(self.url, location)


def _ascii_host(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii")  # a name in ASCII stays as it is, unless a part of it is too long
    except UnicodeError:
        raise ViduDownloadRefusedError(f"Not fetched: {sanitized(host, 80)!r} is not a host name.") from None
