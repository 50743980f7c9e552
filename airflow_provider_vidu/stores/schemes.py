"""One table of the object stores' differences, and the interpretation of their errors.

To add a store, follow "How to add" in ``docs/architecture.md``.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from airflow_provider_vidu.common.text import sanitized

LOCAL: Final = frozenset({"", "file", "local"})
"""The schemes of local files; a path has none."""
WEB: Final = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Store:
    """An object store with multi-part uploads, which shows an object only once its upload is complete.

    :param scheme: the scheme supported by every version of its packages.
    :param provider: the module of its Airflow provider, without which no Airflow connection can be used.
    :param extra: the extra of this distribution that installs both packages.
    :param permissions: the permissions needed to check a destination.
    :param unread: schemes of the store that no Python library supports.
    :param needs_connection: whether its file system fails without the Airflow connection in a URI.
    """

    scheme: str
    aliases: tuple[str, ...]
    package: str
    provider: str
    extra: str
    permissions: str
    unread: tuple[str, ...] = ()
    needs_connection: bool = True

    def is_installed(self) -> bool:
        """Whether its package is installed, without importing it."""
        return find_spec(self.package) is not None

    def has_provider(self) -> bool:
        """Whether its Airflow provider is installed, without importing its client."""
        try:
            return find_spec(self.provider) is not None
        except ModuleNotFoundError:
            return False


# Without a connection, Amazon's file system uses the worker's own credentials.
S3: Final = Store(
    "s3",
    ("s3a", "s3n"),
    "s3fs",
    "airflow.providers.amazon.aws.fs.s3",
    "s3",
    "s3:GetObject and s3:ListBucket",
    unread=("s3n",),
    needs_connection=False,
)
GOOGLE: Final = Store(
    "gs",
    ("gcs",),
    "gcsfs",
    "airflow.providers.google.cloud.fs.gcs",
    "gcs",
    "storage.objects.get and storage.objects.list",
)
AZURE: Final = Store(
    "abfs",
    ("abfss", "az"),
    "adlfs",
    "airflow.providers.microsoft.azure.fs.adls",
    "azure",
    "to read and list blobs (Storage Blob Data Reader)",
    unread=("wasb", "wasbs", "adl"),  # Airflow's provider registers adl, but upath 0.3 refuses it
)
ALL: Final = (S3, GOOGLE, AZURE)
STORES: Final = {scheme: store for store in ALL for scheme in (store.scheme, *store.aliases)}
"""Each store by each of its schemes."""
_UNREAD: Final = {scheme: store for store in ALL for scheme in store.unread}

# Microsoft's spelling, abfss://container@account.dfs.core.windows.net/…: Airflow reads the part before the @ as a
# connection. Container names contain no dot.
_AZURE_ACCOUNT: Final = re.compile(
    rf"(?:{'|'.join((AZURE.scheme, *AZURE.aliases, *AZURE.unread))})://([^/@]+)@[^/.]+\.[^/]+", re.IGNORECASE
)

_UNKNOWN_HEADER: Final = frozenset({"InvalidArgument", "InvalidRequest", "NotImplemented"})
_UNKNOWN_SCHEME: Final = (
    *("No filesystem registered", "Protocol not known", "Unsupported filesystem"),
    "Please provide filesystem instance",  # of a cache, such as simplecache://, which no path can name
)


def scheme_of(text: str) -> str:
    """Return the scheme of a URI in lower case; empty for a path."""
    scheme, marked, _ = text.partition("://")
    return scheme.lower() if marked else ""


def canonical(scheme: str) -> str:
    """Return a store's main scheme (``abfs`` for ``az``); empty for local files."""
    scheme = scheme.lower()
    return STORES[scheme].scheme if scheme in STORES else "" if scheme in LOCAL else scheme


def account_advice(uri: str) -> str | None:
    """Return what to write instead of an Azure address in Microsoft's spelling; None for any other URI.

    The account would be lost: Airflow reads ``abfss://container@account…`` as a connection and a container.
    """
    account = _AZURE_ACCOUNT.match(uri)
    if account is None:
        return None
    return (
        f"names an Azure account, which belongs in its connection. Write abfss://{sanitized(account[1], 63)}/…, and "
        "set storage_conn_id to an Airflow connection to that account."
    )


def is_unknown_scheme(error: BaseException) -> bool:
    """Whether universal_pathlib, fsspec or Airflow reports that a scheme is not registered."""
    return isinstance(error, ValueError) and any(words in str(error) for words in _UNKNOWN_SCHEME)


def missing_advice(scheme: str, error: BaseException) -> str:
    """Return what to do about a store without a file system in this environment.

    :param scheme: in lower case (:func:`scheme_of`).
    """
    store = STORES.get(scheme) or _UNREAD.get(scheme)
    if store is None:
        return "Use a local path, or a scheme for which an installed Airflow provider or fsspec package has one."
    # Path libraries do not support every scheme of a store, and Airflow uses its connections for fewer still.
    is_refused = str(error).startswith("Unsupported") and store.is_installed()
    is_unregistered = is_unknown_scheme(error) and store.has_provider()
    if scheme in store.unread or (scheme != store.scheme and (is_refused or is_unregistered)):
        return f"Write {store.scheme}:// instead."
    return f"Install it with: pip install 'airflow-provider-vidu[{store.extra}]'."


def stored_key(protocol: str, key: str) -> str:
    r"""Return the name under which a store keeps a key: Azure's clients turn ``a\b`` and ``a/./b`` into ``a/b``."""
    return re.sub(r"(?<=/)\./", "", key.replace("\\", "/")) if STORES.get(protocol) is AZURE else key


def reading_advice(protocol: str) -> str:
    """Return which permissions are needed to check a destination, and how to avoid the check."""
    store = STORES.get(protocol)
    return (
        "overwrite='skip' and overwrite='error' check the destination first and need the permissions "
        f"{store.permissions if store else 'to read and list'}; overwrite='replace' only writes."
    )


def state_advice(scheme: str) -> str:
    """Return which permissions the states beside the files need: without one to list, S3 forbids what is not there.

    :param scheme: of the destination, in lower case.
    """
    store = STORES.get(scheme)
    return (
        "The states in .vidu/ are read, written and removed, and the store must say if one does not exist: that needs "
        f"the permissions {store.permissions if store else 'to read and list'}, and to write and delete."
    )


def is_refusal(error: BaseException) -> bool:
    """Whether the store refused the request."""
    return any(400 <= status < 500 and status != 408 for status in _statuses(error))


def is_forbidden(error: BaseException) -> bool:
    """Whether the store reports that this role lacks the permission."""
    if not {401, 403}.isdisjoint(_statuses(error)):
        return True
    # gcsfs turns a 403 into a plain OSError with this prefix (gcsfs/retry.py).
    return any(isinstance(one, PermissionError) or str(one).startswith("Forbidden: ") for one in _chain(error))


def is_not_implemented(error: BaseException) -> bool:
    """Whether the store reports that it does not support this kind of request.

    Some answer 501, some 400 with an unspecific code (seen: ``InvalidArgument``).
    """
    if 501 in _statuses(error) or any(getattr(one, "errno", None) == errno.ENOSYS for one in _chain(error)):
        return True
    return 400 in _statuses(error) and not _UNKNOWN_HEADER.isdisjoint(_codes(error))


def is_precondition_failed(error: BaseException) -> bool:
    """Whether the store reports that another file was created in the meantime.

    s3fs raises FileExistsError only for AWS's answer, which repeats the condition; MinIO, Ceph and R2 send a bare 412.
    """
    return 412 in _statuses(error)


def conflict_in(error: BaseException) -> Exception | None:
    """Return what Azure has answered if adlfs reports that a file exists; None for any other error.

    adlfs reports each 409 so: a policy that protects the blob, a container that is being deleted.
    """
    one: BaseException | None = error if isinstance(error, FileExistsError) else None
    while one is not None and not isinstance(getattr(one, "error_code", None), str):
        one = one.__cause__ or one.__context__  # older versions name no cause
    return one if isinstance(one, Exception) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: adlfs wraps a store's answer in a RuntimeError, s3fs in an OSError."""
    while error is not None:
        yield error
        error = error.__cause__


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the error codes of S3."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        detail = answer.get("Error") if isinstance(answer, dict) else None
        if isinstance(detail, dict) and isinstance(detail.get("Code"), str):
            yield detail["Code"]


def _statuses(error: BaseException) -> Iterator[int]:
    """Yield the HTTP statuses in an error and its causes, as stored by Azure, Google and botocore."""
    for one in _chain(error):
        answer = getattr(one, "response", None)
        metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for status in (getattr(one, "status_code", None), getattr(one, "code", None), metadata.get("HTTPStatusCode")):
            if isinstance(status, int):
                yield status
