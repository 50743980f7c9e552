"""What differs between the object stores: one table, and what their errors mean.

To add a store, add a row here and a class in :mod:`.uploads`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

LOCAL: Final = frozenset({"", "file", "local"})
"""The schemes of local files; a path has none."""
WEB: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Store:
    """An object store with multi-part uploads: it shows an object only when its upload is complete.

    :param scheme: the scheme that every version of its packages reads.
    :param aliases: its other schemes.
    :param package: the package that holds its file system.
    :param extra: the extra of this distribution that installs the package.
    :param permissions: what a role needs to look at a destination.
    :param unread: spellings of its scheme that no Python library reads.
    :param needs_connection: whether its file system fails without the Airflow connection that a URI names.
    """

    scheme: str
    aliases: tuple[str, ...]
    package: str
    extra: str
    permissions: str
    unread: tuple[str, ...] = ()
    needs_connection: bool = True

    def is_installed(self) -> bool:
        """Whether its package is installed; it is not imported."""
        return find_spec(self.package) is not None


# Amazon's file system falls back to the worker's own credentials.
S3: Final = Store(
    "s3", ("s3a", "s3n"), "s3fs", "s3", "s3:GetObject and s3:ListBucket", unread=("s3n",), needs_connection=False
)
GOOGLE: Final = Store("gs", ("gcs",), "gcsfs", "gcs", "storage.objects.get and storage.objects.list")
AZURE: Final = Store(
    "abfs",
    ("abfss", "az"),
    "adlfs",
    "azure",
    "to read and list blobs (Storage Blob Data Reader)",
    unread=("wasb", "wasbs", "adl"),  # Airflow's provider names adl, and upath 0.3 refuses it
)
STORES: Final = {scheme: store for store in (S3, GOOGLE, AZURE) for scheme in (store.scheme, *store.aliases)}
"""Each store under all of its schemes."""
_UNREAD: Final = {scheme: store for store in (S3, GOOGLE, AZURE) for scheme in store.unread}

_UNKNOWN_HEADER: Final = frozenset({"InvalidArgument", "InvalidRequest", "NotImplemented"})
_UNKNOWN_SCHEME: Final = ("No filesystem registered", "Protocol not known", "Unsupported filesystem")


def scheme_of(text: str) -> str:
    """Return the scheme of a URI in lower case; nothing for a path."""
    scheme, marked, _ = text.partition("://")
    return scheme.lower() if marked else ""


def canonical(scheme: str) -> str:
    """Return the one scheme for a store that has several (``abfs`` for ``az``); nothing for local files."""
    scheme = scheme.lower()
    return STORES[scheme].scheme if scheme in STORES else "" if scheme in LOCAL else scheme


def is_unknown_scheme(error: BaseException) -> bool:
    """Whether an error says that nothing is registered for a scheme: universal_pathlib, fsspec or Airflow."""
    return isinstance(error, ValueError) and any(words in str(error) for words in _UNKNOWN_SCHEME)


def missing_advice(scheme: str, error: BaseException) -> str:
    """Return what to do about a store that has no file system in this environment.

    :param scheme: in lower case (:func:`scheme_of`).
    :param error: what was raised.
    """
    store = STORES.get(scheme) or _UNREAD.get(scheme)
    if store is None:
        return "Use a local path, or a scheme for which an installed Airflow provider or fsspec package has one."
    # Path libraries do not read every scheme of a store.
    is_refused = scheme != store.scheme and str(error).startswith("Unsupported") and store.is_installed()
    if scheme in store.unread or is_refused:
        return f"Write {store.scheme}:// instead."
    return f"Install it with: pip install 'airflow-provider-vidu[{store.extra}]'."


def stored_key(protocol: str, key: str) -> str:
    r"""Return the name under which a store keeps a key: Azure's clients make ``a/b`` of ``a\b`` and of ``a/./b``."""
    return re.sub(r"(?<=/)\./", "", key.replace("\\", "/")) if STORES.get(protocol) is AZURE else key


def reading_advice(protocol: str) -> str:
    """Return which permissions a role lacks that may not look at the destination, and how to do without them."""
    store = STORES.get(protocol)
    return (
        "overwrite='skip' and overwrite='error' look at the destination first and need the permissions "
        f"{store.permissions if store else 'to read and list'}; overwrite='replace' only writes."
    )


def is_refusal(error: BaseException) -> bool:
    """Whether the store has answered that it refuses the request."""
    return any(400 <= status < 500 and status != 408 for status in _statuses(error))


def is_forbidden(error: BaseException) -> bool:
    """Whether the store says that this role lacks the permission."""
    if not {401, 403}.isdisjoint(_statuses(error)):
        return True
    # gcsfs makes a plain OSError of a 403, whose text begins so (gcsfs/retry.py).
    return any(isinstance(one, PermissionError) or str(one).startswith("Forbidden: ") for one in _chain(error))


def is_not_implemented(error: BaseException) -> bool:
    """Whether the store says that it does not support this kind of request.

    Some say so with 501, some with 400 and a code (seen: ``InvalidArgument``) that names no reason.
    """
    if 501 in _statuses(error) or any(getattr(one, "errno", None) == errno.ENOSYS for one in _chain(error)):
        return True
    return 400 in _statuses(error) and not _UNKNOWN_HEADER.isdisjoint(_codes(error))


def is_precondition_failed(error: BaseException) -> bool:
    """Return whether the store says that another file has come in the meantime.

    s3fs makes a FileExistsError of AWS's answer alone, which repeats the condition; MinIO, Ceph and R2 send a bare 412.
    """
    return 412 in _statuses(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: adlfs wraps a store's answer in a RuntimeError, s3fs in an OSError."""
    while error is not None:
        yield error
        error = error.__cause__


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the words for an error of S3."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        detail = answer.get("Error") if isinstance(answer, dict) else None
        if isinstance(detail, dict) and isinstance(detail.get("Code"), str):
            yield detail["Code"]


def _statuses(error: BaseException) -> Iterator[int]:
    """Yield the HTTP statuses that an error and its causes carry, as Azure, Google and botocore keep them."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for status in (getattr(one, "status_code", None), getattr(one, "code", None), metadata.get("HTTPStatusCode")):
            if isinstance(status, int):
                yield status
