"""Places in a store, and whether one is beneath another: names alone, no I/O.

The author of a DAG and the user who triggers it can put a path into Airflow. The settings `[vidu]
preview_roots`, `input_roots` and `destination_roots` name the folders and buckets that such a path may lead to.
Names are compared here, segment by segment. Links do not show in a name: local files are compared once more by
what they really are (:mod:`.roots`, :mod:`~airflow_provider_vidu.ui.playing.preview`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_vidu.common.text import sanitized
from airflow_provider_vidu.stores.schemes import AZURE, LOCAL, WEB, canonical

_BUCKET = re.compile(r"[^@?#]+")
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")
# Microsoft's own spelling, abfss://container@account.dfs.core.windows.net/…: Airflow takes what is before the @ for a
# connection. The names of containers hold no dot.
_AZURE_ACCOUNT = re.compile(
    rf"(?:{'|'.join((AZURE.scheme, *AZURE.aliases, *AZURE.unread))})://([^/@]+)@[^/.]+\.[^/]+", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a store: ``scheme`` is empty for local files, ``netloc`` the bucket, ``parts`` the path."""

    scheme: str
    netloc: str
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        """The local path."""
        return "/" + "/".join(self.parts)

    @property
    def uri(self) -> str:
        """The URI, without a connection."""
        return f"{self.scheme}://{self.netloc}/{'/'.join(self.parts)}" if self.scheme else f"file://{self.path}"

    def is_beneath(self, root: Spot) -> bool:
        """Whether this is a file somewhere below ``root``, by whole path segments."""
        depth = len(root.parts)
        return (
            (self.scheme, self.netloc) == (root.scheme, root.netloc)
            and len(self.parts) > depth
            and self.parts[:depth] == root.parts
        )


@dataclass(frozen=True, slots=True)
class Root:
    """A folder whose files may be used, with the Airflow connection of its store."""

    spot: Spot
    conn_id: str | None = None


def read_roots(setting: str) -> tuple[list[Root], list[str]]:
    """Return the roots of a comma-separated setting, and what of it is none.

    Local paths, ``file://`` and every object store that Airflow knows; ``s3://conn_id@bucket/prefix`` names the
    connection to read with. A root must be absolute and hold no ``..``.
    """
    roots: list[Root] = []
    refused: list[str] = []
    for item in filter(None, (part.strip() for part in setting.split(","))):
        conn_id, spot = split_connection(item)
        if spot is None or not (spot.scheme or spot.parts):  # the whole machine is never meant
            refused.append(item)
        else:
            roots.append(Root(spot, conn_id))
    return roots, refused


def root_of(uri: str, roots: Sequence[Root]) -> tuple[Root, Spot] | None:
    """Return the root of a stored file, and its place; None when it is beneath no root."""
    spot = read_spot(uri)
    if spot is None:
        return None
    return next(((root, spot) for root in roots if spot.is_beneath(root.spot)), None)


def read_spot(uri: str) -> Spot | None:
    """Return the place that a URI or an absolute path names; None for anything that is not plain.

    Nothing is unquoted and nothing folded: what holds ``..``, ``.``, a backslash or a control character has no
    business here, and what looks encoded is taken as it is written.
    """
    if not uri or len(uri) > 4096 or _UNFIT.search(uri):
        return None
    scheme, marked, rest = uri.partition("://")
    if not marked:
        scheme, rest = "", uri
    scheme = scheme.lower()
    if scheme in WEB:
        return None
    netloc, _, path = ("", "", rest.removeprefix("/")) if scheme in LOCAL else rest.partition("/")
    if (scheme in LOCAL and not rest.startswith("/")) or (scheme not in LOCAL and not _BUCKET.fullmatch(netloc)):
        return None
    if scheme not in LOCAL and "::" in rest:  # fsspec opens the part before it
        return None
    parts = tuple(path.rstrip("/").split("/")) if path.strip("/") else ()
    if any(part in ("", ".", "..") for part in parts):
        return None
    return Spot(canonical(scheme), netloc, parts)


def account_advice(uri: str) -> str | None:
    """Return what to write in place of an Azure address in Microsoft's spelling; None for everything else.

    Its account would be lost: Airflow reads ``abfss://container@account…`` as a connection and a container.
    """
    account = _AZURE_ACCOUNT.match(uri)
    if account is None:
        return None
    return (
        f"names an Azure account, which its connection does here. Write abfss://{sanitized(account[1], 63)}/…, and "
        "name an Airflow connection to that account in storage_conn_id."
    )


def split_connection(item: str) -> tuple[str | None, Spot | None]:
    """Return the Airflow connection that a URI names (``s3://my_aws@bucket/key``), and the place without it.

    What is before the ``@`` of an Azure account is a container and not a connection: such an address has no place.
    """
    if account_advice(item):
        return None, None
    scheme, marked, rest = item.partition("://")
    netloc = rest.partition("/")[0]
    if not marked or "@" not in netloc:
        return None, read_spot(item)
    user, _, after = rest.partition("@")
    # Airflow opens the connection of just this name, whatever it looks like.
    return user or None, read_spot(f"{scheme}://{after}")
