"""What differs between the object stores: schemes, packages, permissions, arguments and errors. Decisions, no I/O."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any, Final

S3: Final = frozenset({"s3", "s3a", "s3n"})
GOOGLE: Final = frozenset({"gs", "gcs"})
# Not "wasb", which nothing in Python knows, nor "adl", which Airflow's provider names and upath 0.3 refuses.
AZURE: Final = frozenset({"abfs", "abfss", "az"})
WITH_UPLOADS: Final = S3 | GOOGLE | AZURE
"""Schemes of stores that show an object only when its upload is complete."""

EXTRAS: Final = {**dict.fromkeys(S3, "s3"), **dict.fromkeys(GOOGLE, "gcs"), **dict.fromkeys(AZURE, "azure")}
"""The extra of this package that brings the file system of a scheme."""

USUAL: Final = {"s3": "s3", "gcs": "gs", "azure": "abfs"}
"""The scheme by which every version of an extra's packages knows its store."""

PACKAGES: Final = {**dict.fromkeys(S3, "s3fs"), **dict.fromkeys(GOOGLE, "gcsfs"), **dict.fromkeys(AZURE, "adlfs")}
"""The package that holds the file system of a scheme."""

_UNKNOWN_HEADER: Final = frozenset({"InvalidArgument", "InvalidRequest", "NotImplemented"})

_PERMISSIONS: Final = {
    **dict.fromkeys(S3, "s3:GetObject and s3:ListBucket"),
    **dict.fromkeys(GOOGLE, "storage.objects.get and storage.objects.list"),
    **dict.fromkeys(AZURE, "to read and list blobs (Storage Blob Data Reader)"),
}


_SPELLINGS: Final = {"s3n": "s3", "wasb": "azure", "wasbs": "azure", "adl": "azure"}
"""Schemes of these stores that no Python library reads, by the extra of their store."""
_UNKNOWN_SCHEME: Final = ("No filesystem registered", "Protocol not known", "Unsupported filesystem")


def is_unknown_scheme(error: BaseException) -> bool:
    """Return whether an error says that nothing is registered for a scheme: universal_pathlib, fsspec or Airflow."""
    return isinstance(error, ValueError) and any(words in str(error) for words in _UNKNOWN_SCHEME)


def missing_advice(scheme: str, error: BaseException, *, is_installed: bool) -> str:
    """Return what to do about a store that this environment cannot speak with.

    :param scheme: as it is written, in lower case.
    :param error: what was raised.
    :param is_installed: whether the package in :data:`PACKAGES` is there.
    """
    extra = EXTRAS.get(scheme) or _SPELLINGS.get(scheme)
    if extra is None:
        return "Use a local path, or a scheme for which an installed Airflow provider or fsspec package has one."
    # Of the schemes of one store, path libraries do not know all.
    is_unread = is_installed and str(error).startswith("Unsupported") and scheme != USUAL[extra]
    if scheme in _SPELLINGS or is_unread:
        return f"Write {USUAL[extra]}:// instead."
    return f"Install it with: pip install 'airflow-provider-vidu[{extra}]'."


def stored_key(protocol: str, key: str) -> str:
    r"""Return the name under which a store keeps a key: Azure's clients make ``a/b`` of ``a\b`` and of ``a/./b``."""
    return re.sub(r"(?<=/)\./", "", key.replace("\\", "/")) if protocol in AZURE else key


def labels(protocol: str, fs: Any, content_type: str) -> dict[str, Any]:
    """Return the arguments of ``fs.open`` that let an object carry its content type, and browsers show it in place.

    :param protocol: the store's scheme.
    :param fs: its file system; what it sets for all of its objects is kept.
    :param content_type: as proven by the file's first bytes.
    """
    if protocol in S3:
        own = {"ContentType": content_type, "ContentDisposition": "inline"}
        fixed = getattr(fs, "s3_additional_kwargs", None) or {}
        return {name: value for name, value in own.items() if name not in fixed}
    if protocol in GOOGLE:
        return {"content_type": content_type, "fixed_key_metadata": {"content_disposition": "inline"}}
    if protocol in AZURE:
        return {"content_settings": {"content_type": content_type, "content_disposition": "inline"}}
    return {}


def reading_advice(protocol: str) -> str:
    """Return what a role lacks that may not look at the destination, and how to do without."""
    needed = _PERMISSIONS.get(protocol, "to read and list")
    return (
        f"overwrite='skip' and overwrite='error' look at the destination first and need the permissions {needed}; "
        "overwrite='replace' only writes."
    )


def is_refusal(error: BaseException) -> bool:
    """Return whether the store has answered that it will not do it."""
    return any(400 <= status < 500 and status != 408 for status in _statuses(error))


def is_forbidden(error: BaseException) -> bool:
    """Return whether the store says that this role may not do it."""
    if not {401, 403}.isdisjoint(_statuses(error)):
        return True
    # gcsfs makes a plain OSError of a 403, whose text begins so (gcsfs/retry.py).
    return any(isinstance(one, PermissionError) or str(one).startswith("Forbidden: ") for one in _chain(error))


def is_not_implemented(error: BaseException) -> bool:
    """Return whether the store says that it does not know this kind of request.

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
        found = answer.get("Error") if isinstance(answer, dict) else None
        if isinstance(found, dict) and isinstance(found.get("Code"), str):
            yield found["Code"]


def _statuses(error: BaseException) -> Iterator[int]:
    """Yield the HTTP statuses that an error and its causes carry, as Azure, Google and botocore keep them."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for status in (getattr(one, "status_code", None), getattr(one, "code", None), metadata.get("HTTPStatusCode")):
            if isinstance(status, int):
                yield status
