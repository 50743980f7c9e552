"""Places in a store, and whether one is beneath another, by name only. No I/O.

DAG authors and the users who trigger a DAG supply paths. The settings `[vidu] preview_roots`, `input_roots` and
`destination_roots` limit them to certain folders and buckets. Names are compared here, segment by segment; since a name
does not show links, local files are checked again once open (:mod:`.roots`,
:mod:`~airflow_provider_vidu.ui.playing.preview`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from airflow_provider_vidu.stores.schemes import LOCAL, WEB, account_advice, canonical, scheme_of

MAX_URI_CHARS: Final = 4096
"""The longest URI or path of a file; to resolve the links of a hundred thousand folders takes a minute."""
_BUCKET = re.compile(r"[^@?#]+")
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")


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
        """The URI without a connection."""
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
    """Return the roots of a comma-separated setting, and its invalid entries.

    A root is a local path, a ``file://`` URI or one of an object store; ``s3://conn_id@bucket/prefix`` names the
    connection to read with. It must be absolute and contain no ``..``.
    """
    roots: list[Root] = []
    refused: list[str] = []
    for item in filter(None, (part.strip() for part in setting.split(","))):
        conn_id, spot = split_connection(item)
        if spot is None or not (spot.scheme or spot.parts):  # "/" would allow the whole machine
            refused.append(item)
        else:
            roots.append(Root(spot, conn_id))
    return roots, refused


def root_of(uri: str, roots: Sequence[Root]) -> tuple[Root, Spot] | None:
    """Return the root of a stored file, and its place; None if it is not beneath a root."""
    spot = read_spot(uri)
    if spot is None:
        return None
    return next(((root, spot) for root in roots if spot.is_beneath(root.spot)), None)


def read_spot(uri: str) -> Spot | None:
    """Return the place of a URI or an absolute path; None if it is not plain.

    Nothing is unquoted or normalized: a path with ``..``, ``.``, a backslash or a control character is not plain, and
    encoded characters are taken literally.
    """
    if not uri or len(uri) > MAX_URI_CHARS or _UNFIT.search(uri):
        return None
    scheme = scheme_of(uri)
    rest = uri.partition("://")[2] if "://" in uri else uri
    netloc, _, path = rest.partition("/")
    if scheme in LOCAL:
        is_plain = rest.startswith("/")
    else:  # fsspec would open the part before a "::"
        is_plain = scheme not in WEB and _BUCKET.fullmatch(netloc) is not None and "::" not in rest
    parts = tuple(path.rstrip("/").split("/")) if path.strip("/") else ()
    if not is_plain or any(part in ("", ".", "..") for part in parts):
        return None
    return Spot(canonical(scheme), netloc, parts)


def split_connection(item: str) -> tuple[str | None, Spot | None]:
    """Return the Airflow connection in a URI (``s3://my_aws@bucket/key``), and the place without it.

    An Azure address in Microsoft's spelling has neither: the part before its ``@`` is a container.
    """
    if account_advice(item):
        return None, None
    scheme, marked, rest = item.partition("://")
    netloc = rest.partition("/")[0]
    if not marked or "@" not in netloc:
        return None, read_spot(item)
    user, _, after = rest.partition("@")
    # Airflow opens the connection of exactly this name.
    return user or None, read_spot(f"{scheme}://{after}")
