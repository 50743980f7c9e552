"""``[vidu] input_roots`` and ``[vidu] destination_roots``: which paths the operators may read and write.

A task's paths come from its DAG and, through templates, from the user who triggers it. An empty setting allows every
path that the worker itself may use; otherwise only paths beneath the listed folders and buckets are allowed. Local
paths are compared after resolving links and ``..``, others segment by segment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vidu.common.text import redact_urls, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.paths import local_path
from airflow_provider_vidu.stores.places import MAX_URI_CHARS, Root, read_roots, split_connection
from airflow_provider_vidu.stores.schemes import account_advice

Option = Literal["input_roots", "destination_roots"]

# Parsers disagree about "file:/etc/x", "file://host/x", "s3:bucket/x" and fsspec's chains ("zip://a::/b").
_AMBIGUOUS = re.compile(r"(?is)[a-z][a-z0-9+.-]*:(?!//)|(?:file|local)://(?!/)|.*::")
_MAX_UNQUOTING: Final = 5


def check_input(path: str) -> None:
    """Refuse an input that ``[vidu] input_roots`` does not allow.

    :param path: a local path, or a URI, including its connection if any (``s3://my_aws@bucket/key``).
    :raises ViduConfigError: naming the setting and the path.
    """
    _check("input_roots", path, path)


def check_destination(destination: str) -> None:
    """Refuse a destination that ``[vidu] destination_roots`` does not allow.

    :param destination: the checked destination; with a final slash it is a folder, which may be a root itself.
    :raises ViduConfigError: naming the setting and the destination.
    """
    _check("destination_roots", destination, destination + "x" * destination.endswith("/"))


def check_opened(descriptor: int, path: str, option: Option = "input_roots") -> None:
    """Refuse an open local file outside the roots: a link may have replaced it after the check of its name.

    :raises ViduConfigError: when the file itself is not beneath a root.
    """
    roots = _roots(option)
    if roots and not any(is_really_beneath(descriptor, path, root) for root in roots if not root.spot.scheme):
        raise _refused(option, path)


def check_folder(descriptor: int, path: str, missing: Sequence[str] = ()) -> None:
    """Refuse an open folder for files to write, if it is outside ``[vidu] destination_roots``.

    The path may have been checked in another spelling, and a link may have been swapped into it since.

    :param missing: the folders to create below it; the last one is the folder to check.
    :raises ViduConfigError: when that folder is neither a root nor beneath one.
    """
    roots = _roots("destination_roots")
    real = _real_path(descriptor, path) if roots else None
    folders = [Path(os.path.realpath(root.spot.path)) for root in roots if not root.spot.scheme]
    real = real and real.joinpath(*missing)
    if roots and (real is None or not any(folder in (real, *real.parents) for folder in folders)):
        raise _refused("destination_roots", path)


def is_really_beneath(descriptor: int, path: str, root: Root) -> bool:
    """Whether the open file itself is below a local root, with links resolved on both sides."""
    real = _real_path(descriptor, path)
    return real is not None and Path(os.path.realpath(root.spot.path)) in real.parents


def _real_path(descriptor: int, path: str) -> Path | None:
    """Return the real path of an open file or folder, or None if it is unknown."""
    try:
        if Path("/proc/self/fd").is_dir():
            return Path(f"/proc/self/fd/{descriptor}").readlink()
        # No /proc (macOS): the resolved path must still lead to the opened file.
        real = Path(os.path.realpath(path))
        return real if os.path.samestat(os.fstat(descriptor), real.lstat()) else None
    except OSError:
        return None


def _check(option: Option, given: str, file: str) -> None:
    roots = _roots(option)
    # As written, and as read by a store that decodes it.
    if roots and not all(_is_beneath(spelling, roots) for spelling in _spellings(file)):
        raise _refused(option, given)


def _is_beneath(path: str, roots: Sequence[Root]) -> bool:
    if len(path) > MAX_URI_CHARS or _AMBIGUOUS.match(path):
        return False
    if (local := local_path(path)) is not None:
        return _is_local_beneath(local, roots)
    conn_id, spot = split_connection(path)
    # A connection in the URI may come from a template: only one that a root lists is used.
    return spot is not None and any(spot.is_beneath(root.spot) and conn_id in (None, root.conn_id) for root in roots)


def _is_local_beneath(path: str, roots: Sequence[Root]) -> bool:
    path = os.path.expanduser(path)  # noqa: PTH111 - a destination may begin with ~
    try:
        # Both the link's target and the link itself: some writers follow a link, others replace it.
        places = (Path(os.path.realpath(path)), Path(os.path.realpath(Path(path).parent)) / Path(path).name)
    except ValueError:  # a NUL
        return False
    folders = [Path(os.path.realpath(root.spot.path)) for root in roots if not root.spot.scheme]
    return all(any(folder in place.parents for folder in folders) for place in places)


def _spellings(uri: str) -> list[str]:
    spellings = [uri]
    while (plain := unquote(spellings[-1])) != spellings[-1] and len(spellings) <= _MAX_UNQUOTING:
        spellings.append(plain)
    return spellings


def _roots(option: Option) -> tuple[Root, ...]:
    return _roots_in(option, conf.get("vidu", option, fallback="") or "")


@lru_cache(maxsize=8)
def _roots_in(option: Option, setting: str) -> tuple[Root, ...]:
    roots, refused = read_roots(setting)
    if refused:
        problem = account_advice(refused[0]) or "is not an absolute folder or a bucket."
        raise ViduConfigError(
            f"[vidu] {option} contains {sanitized(refused[0], 120)!r}, which {problem} Until it is corrected, nothing "
            "is read or written."
        )
    return tuple(roots)


def _refused(option: Option, path: str) -> ViduConfigError:
    subject = "The input" if option == "input_roots" else "The destination"
    return ViduConfigError(
        f"{subject} {sanitized(redact_urls(path), 200)!r} is not beneath one of the folders and buckets in [vidu] "
        f"{option} (or it is not a plain path, or names a connection that no root lists). Use a path beneath them, "
        "or have the deployment add the folder or bucket."
    )
