"""Where files go: any place that Airflow's ``ObjectStoragePath`` reaches, published whole or not at all.

Under the final name there is at every moment nothing, the old file or the whole new one. How that is
done depends on the store:

- local files: a temporary file beside it, fsync, then one rename (:mod:`.local_store`);
- S3, Google Cloud Storage, Azure: the store's own multi-part upload, which shows nothing before it is
  completed and is aborted on failure;
- everything else that fsspec knows: a temporary file beside it, then the store's own move. That is as
  atomic as the store's move is.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Final

from airflow_provider_vidu.common.text import redact_urls, redacted, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.base import StoredFile, storage_error
from airflow_provider_vidu.stores.local import LocalFile
from airflow_provider_vidu.stores.naming import is_folder
from airflow_provider_vidu.stores.remote import RemoteFile, listed
from airflow_provider_vidu.stores.roots import local_path
from airflow_provider_vidu.stores.schemes import (
    PACKAGES,
    WITH_UPLOADS,
    is_unknown_scheme,
    missing_advice,
    stored_key,
)

log = logging.getLogger(__name__)

_LOCAL: Final = frozenset({"", "file", "local"})
_WEB: Final = frozenset({"http", "https"})
_CREDENTIALS: Final = (
    "Give the store credentials that hold in this worker: storage_conn_id, or its client's own environment variables."
)


class Destination:
    """What the user named: a file, or (ending in a slash) a folder.

    :param text: a checked destination (:func:`.naming.checked_destination`).
    :param conn_id: the Airflow connection of the store, if any. It wins over one that ``text`` names.
    :param options: what an ``ObjectStoragePath`` carries besides (:func:`options_of`), such as the key that S3 encrypts
        with; the store's file system gets them beside what the connection says.
    :raises ViduConfigError: when there is no file system for its scheme.
    """

    def __init__(self, text: str, conn_id: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        self.text = text
        self.is_folder = is_folder(text)
        self._options = dict(options or {})
        try:
            # Which of two connections wins is not left to Airflow, whose versions differ.
            path: Any = ObjectStoragePath(_bare(text), conn_id=conn_id) if conn_id else ObjectStoragePath(text)
            self._protocol = str(path.protocol or "")
            self._path = str(path.path)
            # Before Airflow 3.2 the path has no such property and keeps the connection among its options.
            self._conn_id = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
        except (ValueError, TypeError, ImportError) as error:
            raise _no_file_system(text, error) from None
        self._object_path = path
        if self._protocol in _LOCAL:
            # As it is written: path libraries take "localhost" and further slashes for folders below this one.
            self._path = local_path(text) or self._path
        elif not self._path.strip("/"):
            raise ViduConfigError(f"destination {sanitized(text, 120)!r} names no file and no folder.")
        elif self._protocol in WITH_UPLOADS:
            meant = stored_key(self._protocol, self._path).strip("/")
            if meant != self._uri.partition("://")[2].strip("/"):
                # The file would be stored under another name than is told. Path libraries drop a "?" or "#" at the end.
                raise ViduConfigError(
                    f"destination {sanitized(text, 120)!r} means {sanitized(meant, 120)!r} to its store. Write that."
                )

    def check(self) -> None:
        """Find out before anything is fetched what would stop the end: a missing file system, a folder, a link.

        :raises ViduConfigError: when there is no file system, or something else than a file.
        :raises ViduStorageError: when the store cannot be reached.
        """
        if not self.is_folder:
            self.place().check()
        elif self._protocol not in _LOCAL:
            _ = self._file_system

    def place(self, name: str | None = None) -> StoredFile:
        """Return the file itself, or, of a folder, the file ``name`` in it.

        :raises ViduConfigError: when there is no file system for the scheme.
        """
        path = f"{self._folder}/{name}" if name else self._path
        if self._protocol in _LOCAL:
            if self._conn_id:
                raise ViduConfigError(f"storage_conn_id {self._conn_id!r} makes no sense for a local destination.")
            if self._options:
                raise ViduConfigError(f"A local destination takes no options ({', '.join(self._options)}).")
            return LocalFile(path)
        uri = f"{self._uri.rstrip('/')}/{name}" if name else self._uri
        return RemoteFile(self._file_system, self._protocol, path, uri)

    def existing(self, names: Sequence[str] = ()) -> StoredFile | None:
        """Return the file that is there already and not empty, or None.

        :param names: in a folder, the names that it may have, the likeliest first.
        :raises ViduStorageError: when the store cannot be asked.
        """
        if not self.is_folder:
            place = self.place()
            return place if place.size() else None
        if self._protocol not in _LOCAL:
            names = listed(self._file_system, self._protocol, self._folder, names)
        return next((place for place in map(self.place, names) if place.size()), None)

    @property
    def _folder(self) -> str:
        return self._path.rstrip("/")

    @property
    def _uri(self) -> str:
        """The destination without a connection (``s3://my_aws@bucket/key``)."""
        return _bare(self.text) if "://" in self.text else f"{self._protocol}://{self._path.lstrip('/')}"

    @cached_property
    def _file_system(self) -> Any:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        if self._conn_id:
            _warn_if_missing(self._conn_id, self.text)
        try:
            fs = self._object_path.fs
        except AirflowNotFoundException:
            raise ViduConfigError(
                f"There is no Airflow connection {self._conn_id!r}, which the destination "
                f"{sanitized(self.text, 120)!r} is to be reached with. Create it, or correct storage_conn_id."
            ) from None
        except ImportError as error:
            raise _no_file_system(self.text, error) from None
        except Exception as error:  # whatever a provider raises while it connects: Airflow's, botocore's, google's
            # Airflow only knows schemes that a provider registers; fsspec knows more, without connections.
            if not is_unknown_scheme(error):
                raise storage_error("reached", self.text, error, advice=_CREDENTIALS) from error
            if self._conn_id:
                raise _no_file_system(self.text, error) from None
            fs = _plain_file_system(self._protocol, self.text)
        return _with_options(fs, self._options, self.text) if self._options else fs


def _warn_if_missing(conn_id: str, text: str) -> None:
    """Say that a connection of a store does not exist: Amazon's provider then takes the worker's own credentials."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    with contextlib.suppress(Exception):  # whatever else is wrong shows when the store is reached
        try:
            BaseHook.get_connection(conn_id)
        except AirflowNotFoundException:
            log.warning(
                "There is no Airflow connection %r for %s. Its store may be reached with this worker's own credentials "
                "instead, and at another endpoint.",
                sanitized(conn_id, 80),
                sanitized(text, 120),
            )


def _bare(text: str) -> str:
    """Return a URI without the connection that it names; a path as it is."""
    scheme, marked, rest = text.partition("://")
    netloc, slash, path = rest.partition("/")
    return f"{scheme}{marked}{netloc.rpartition('@')[2]}{slash}{path}" if marked else text


def options_of(destination: object) -> dict[str, Any]:
    """Return the options that an ``ObjectStoragePath`` carries for its file system; none for text."""
    options = dict(getattr(destination, "storage_options", None) or {})
    options.pop("conn_id", None)  # there before Airflow 3.2; the path shows it
    return options


def missing_file_system(text: str, conn_id: str | None = None) -> ViduConfigError | None:
    """Return the error of a destination that no store of this environment takes; None when nothing is known.

    Cheap: no package of S3, Google or Azure is imported.

    :param text: a destination; only its scheme counts.
    :param conn_id: whether an Airflow connection is used, which only Airflow's providers can.
    """
    scheme, marked, _ = text.partition("://")
    scheme = scheme.lower()
    if not marked or scheme in _LOCAL:
        return None
    if scheme in _WEB:
        return _web_address(text)
    package = PACKAGES.get(scheme)
    if package is None:
        problem = _problem_with(scheme)
        return None if problem is None else _no_file_system(text, problem)
    if find_spec(package) is None:
        return _no_file_system(text, ImportError(f"{package} is not installed"))
    return None


def _problem_with(scheme: str) -> Exception | None:
    """Return why neither Airflow nor fsspec has a file system for a scheme; None when one has."""
    import fsspec

    if _airflow_has(scheme):
        return None
    try:
        # What fsspec knows by name may need a package that is missing (sftp: paramiko, oss: ossfs).
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        return error
    except ValueError:
        return ValueError(f"No file system for {scheme}://")
    return None


def _airflow_has(scheme: str) -> bool:
    from importlib import import_module

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # airflow.sdk.io, in Airflow 2 airflow.io
    return bool(import_module(ObjectStoragePath.__module__.rpartition(".")[0]).has_fs(scheme))


def _with_options(fs: Any, options: dict[str, Any], text: str) -> Any:
    """Return a file system like ``fs`` with further options. An error names them alone: their values may be secret."""
    try:
        return type(fs)(*fs.storage_args, **{**fs.storage_options, **options})
    except (TypeError, ValueError) as error:
        raise ViduConfigError(
            f"The store of destination {sanitized(text, 120)!r} does not take the options {', '.join(options)} "
            f"({type(error).__name__})."
        ) from None


def _plain_file_system(protocol: str, text: str) -> Any:
    import fsspec

    if protocol in _WEB:
        raise _web_address(text)
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        raise _no_file_system(text, error) from None
    except Exception as error:  # credentials or a host that are missing: adlfs raises ValueError, sshfs TypeError
        if is_unknown_scheme(error):
            raise _no_file_system(text, error) from None
        raise storage_error("reached", text, error, advice=_CREDENTIALS) from error


def _web_address(text: str) -> ViduConfigError:
    return ViduConfigError(f"destination {sanitized(redact_urls(text), 120)!r}: a web address cannot be written to.")


def _no_file_system(text: str, error: Exception) -> ViduConfigError:
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    package = PACKAGES.get(scheme)
    advice = missing_advice(scheme, error, is_installed=package is not None and find_spec(package) is not None)
    return ViduConfigError(
        f"There is no file system for destination {sanitized(text, 120)!r} ({redacted(error, 160)}). {advice}"
    )
