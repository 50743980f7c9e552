"""Destinations of files: any location that Airflow's ``ObjectStoragePath`` reaches, published whole or not at all.

At every moment the final name refers to nothing, the old file or the whole new one. The method depends on the store:

- local files: a temporary file in the same folder, fsync, then one rename (:mod:`.local`);
- S3, Google Cloud Storage, Azure: the store's own multi-part upload, invisible until completed and aborted on failure
  (:mod:`.uploads`);
- every other fsspec store: a temporary file, then the store's own move, and as atomic as that move (:mod:`.remote`).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.common.redaction import MASK
from airflow_provider_vidu.common.text import redact_urls, redacted, sanitized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.secrets_backends import is_there_after_all, kinds_of
from airflow_provider_vidu.stores.base import StoredFile, file_exists_error, storage_error
from airflow_provider_vidu.stores.local import LocalFile, absolute, obstacle
from airflow_provider_vidu.stores.naming import candidate_names
from airflow_provider_vidu.stores.paths import Overwrite, is_folder, local_path
from airflow_provider_vidu.stores.places import split_connection
from airflow_provider_vidu.stores.remote import RemoteFile, existing_names
from airflow_provider_vidu.stores.schemes import (
    LOCAL,
    STORES,
    WEB,
    is_unknown_scheme,
    missing_advice,
    scheme_of,
    stored_key,
)

if TYPE_CHECKING:
    from airflow_provider_vidu.common.artifacts import Artifact

log = logging.getLogger(__name__)

_REHEARSAL: Final = "vidu-rehearsal"
"""The name of a file that is begun and given up."""
_CREDENTIALS: Final = (
    "Give the store credentials that are valid in this worker: storage_conn_id, or its client's environment variables."
)


class Destination:
    """The user's destination: a file, or (ending in a slash) a folder.

    :param text: a checked destination (:func:`.naming.checked_destination`).
    :param conn_id: the Airflow connection of the store, if any; it overrides one in ``text``.
    :param options: options of an ``ObjectStoragePath`` (:func:`options_of`), such as S3's encryption key, for the
        store's file system in addition to the connection's own.
    :raises ViduConfigError: when there is no file system for its scheme.
    """

    def __init__(self, text: str, conn_id: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        self.text = text
        self._options = dict(options or {})
        try:
            # Airflow versions differ in which of two connections wins, so only one is passed.
            path: Any = ObjectStoragePath(_bare(text), conn_id=conn_id) if conn_id else ObjectStoragePath(text)
            self._protocol = str(path.protocol or "")
            self._path = str(path.path)
            # Before Airflow 3.2 the path has no conn_id and keeps the connection among its options.
            self._conn_id = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
        except (ValueError, TypeError, LookupError, ImportError) as error:
            raise _no_file_system(text, error) from None
        self._object_path = path
        if self._protocol in LOCAL:
            # Path libraries take "localhost" and extra slashes for subfolders.
            self._path = local_path(text) or self._path
        elif not self._path.strip("/"):
            raise ViduConfigError(f"destination {sanitized(text, 120)!r} names neither a file nor a folder.")
        elif not self._is_named_as_written:
            key = stored_key(self._protocol, self._path).strip("/")
            raise ViduConfigError(
                f"The store would use the name {sanitized(key, 120)!r} for destination {sanitized(text, 120)!r}. "
                "Write that name."
            )

    def file(self, name: str | None = None) -> StoredFile:
        """Return the file itself, or the file ``name`` in a folder."""
        path = f"{self._folder}/{name}" if name else self._path
        if self._protocol in LOCAL:
            if self._conn_id:
                named = shown_connection(self._conn_id)
                raise ViduConfigError(f"storage_conn_id {named!r} does not apply to a local destination.")
            if self._options:
                raise ViduConfigError(f"A local destination takes no options ({', '.join(self._options)}).")
            return LocalFile(path)
        uri = f"{self._uri.rstrip('/')}/{name}" if name else self._uri
        return RemoteFile(self._file_system, self._protocol, path, uri)

    def obstacle(self, name: str | None = None) -> str | None:
        """Return why this process could not store the file, or the file ``name`` or any of a folder, if that shows.

        Only a local destination shows that; no other store is asked.

        :raises ViduConfigError: when the connection or the options do not apply to a local destination.
        :raises ViduStorageError: when its mount is missing, or does not answer.
        """
        if self._protocol not in LOCAL:
            return None
        whole = is_folder(self.text) and name is None
        self.file("x" if whole else name)
        return obstacle(f"{self._folder}/{name}" if name else self._path, is_folder=whole)

    def rehearse(self, artifact: Artifact | None = None) -> None:
        """Begin to write the file, or one in the folder, and take it back, so that what prevents it shows.

        A local file is not begun: :meth:`obstacle` looks at its place.

        :param artifact: names the file in a folder; None for the result, whatever its medium.
        :raises ViduConfigError: when the name belongs to a folder.
        :raises ViduStorageError: when the store refuses it, or cannot be reached.
        """
        name = candidate_names(_REHEARSAL, artifact)[0] if is_folder(self.text) else None
        if isinstance(file := self.file(name), RemoteFile):
            file.rehearse()

    def keeps(self, overwrite: Overwrite, artifact: Artifact | None = None) -> bool:
        """Whether a download would keep the file that is there; a new file in a folder has a name of its own.

        :param artifact: as for :meth:`rehearse`.
        :raises DestinationExistsError: with ``overwrite="error"``, when the file is there.
        :raises ViduStorageError: when the store cannot be reached, or refuses the look, which the download needs.
        """
        if overwrite == "replace" or (is_folder(self.text) and self._protocol in LOCAL):
            return False
        files = self.files(candidate_names(_REHEARSAL, artifact)) if is_folder(self.text) else [self.file()]
        file = next((file for file in files if file.size()), None)
        if file is not None and overwrite == "error":
            raise file_exists_error(file.uri)
        return file is not None

    def files(self, names: Sequence[str]) -> Iterator[StoredFile]:
        """Return those files of a folder that may exist.

        :param names: the candidates, which differ only in their extensions.
        """
        if self._protocol not in LOCAL:
            names = existing_names(self._file_system, self._protocol, self._folder, names)
        return map(self.file, names)

    def holds(self, name: str) -> bool:
        """Whether the file ``name`` is really in a folder: links among the folders in its name may lead out of it.

        Stores that are not local show no links.
        """
        if self._protocol not in LOCAL:
            return True
        folder = absolute(self._folder)
        return Path(os.path.realpath((folder / name).parent)).is_relative_to(os.path.realpath(folder))

    @property
    def _is_named_as_written(self) -> bool:
        """Whether the store uses the reported name: path libraries drop a "?" or "#" at the end, or all behind it."""
        written = self._uri.partition("://")[2].strip("/")
        if self._protocol in STORES:
            return written == stored_key(self._protocol, self._path).strip("/")
        # The host is not always part of the path.
        return not {"?", "#"} & set(written) or written.rpartition("/")[2] == self._folder.rpartition("/")[2]

    @property
    def _folder(self) -> str:
        return self._path.rstrip("/")

    @property
    def _uri(self) -> str:
        """The destination without the connection that it may contain (``s3://my_aws@bucket/key``)."""
        return _bare(self.text) if "://" in self.text else f"{self._protocol}://{self._path.lstrip('/')}"

    @cached_property
    def _file_system(self) -> Any:
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        if self._conn_id and self._lacks_connection(self._conn_id):
            # Amazon's provider then uses the worker's own credentials.
            log.warning(
                "There is no Airflow connection %r for %s. The worker's own credentials may be used instead, and "
                "another endpoint.",
                shown_connection(self._conn_id),
                sanitized(self.text, 120),
            )
        try:
            fs = self._object_path.fs
        except AirflowNotFoundException:
            raise ViduConfigError(
                f"There is no Airflow connection {shown_connection(self._conn_id)!r} for destination "
                f"{sanitized(self.text, 120)!r}. Create it, or correct storage_conn_id."
            ) from None
        except ImportError as error:
            raise _no_file_system(self.text, error) from None
        except Exception as error:  # each provider raises its own: Airflow's, botocore's, google's
            # Airflow supports schemes registered by a provider; fsspec supports more, without connections.
            if not is_unknown_scheme(error):
                raise storage_error("reached", self.text, error, advice=_CREDENTIALS) from error
            if self._conn_id:
                raise _no_file_system(self.text, error) from None
            fs = _plain_file_system(self._protocol, self.text)
        return _with_options(fs, self._options, self.text) if self._options else fs

    def _lacks_connection(self, conn_id: str) -> bool:
        """Whether the store's connection is missing.

        :raises ViduStorageError: when it could not be looked up: Google's and Azure's file systems would report it as
            missing, and Amazon's would write with other credentials, perhaps to another endpoint.
        """
        try:
            return is_missing_connection(conn_id)
        except Exception as error:  # noqa: BLE001 - raised below: a backend's error may hold the connection
            kinds = kinds_of(error)
        outage = ConnectionError(f"its connection {shown_connection(conn_id)!r} could not be looked up ({kinds})")
        raise storage_error("reached", self.text, outage)


def shown_connection(conn_id: object) -> str:
    """Return the name of a connection for a message: ``user:password@host`` names the connection ``user:password``."""
    name, mark, _ = str(conn_id).partition(":")
    return sanitized(f"{name}:{MASK}" if mark else name, 80)


def is_missing_connection(conn_id: str) -> bool:
    """Whether there is no Airflow connection of that name.

    :raises Exception: when it could not be looked up; the error may hold secrets.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    with contextlib.suppress(AirflowNotFoundException):
        BaseHook.get_connection(conn_id)
        return False
    return not is_there_after_all("connection", conn_id)


def _bare(text: str) -> str:
    """Return a URI without the connection in it; a path is returned unchanged."""
    scheme, marked, rest = text.partition("://")
    netloc, slash, path = rest.partition("/")
    return f"{scheme}{marked}{netloc.rpartition('@')[2]}{slash}{path}" if marked else text


def options_of(destination: object) -> dict[str, Any]:
    """Return the options of an ``ObjectStoragePath`` for its file system; none for text."""
    options = getattr(destination, "storage_options", None) or {}
    return {name: value for name, value in options.items() if name != "conn_id"}  # Airflow before 3.2 adds conn_id


def missing_file_system(text: str, conn_id: str | None = None) -> ViduConfigError | None:
    """Return the error of a destination for which this environment has no file system, or None.

    Cheap: no package of S3, Google or Azure is imported.

    :param text: a destination; only its scheme counts, and whether it names a connection.
    :param conn_id: the Airflow connection of its store, if any.
    """
    scheme = scheme_of(text)
    if scheme in LOCAL:
        return None
    if scheme in WEB:
        return _web_address(text)
    store = STORES.get(scheme)
    if store is None:
        problem = _problem_with(scheme, text, conn_id or split_connection(text)[0])
        return None if problem is None else _no_file_system(text, problem)
    if not store.is_installed():
        return _no_file_system(text, ImportError(f"{store.package} is not installed"))
    if (conn_id or split_connection(text)[0]) and not (store.has_provider() or _is_registered(scheme)):
        lacking = f"an Airflow connection needs the store's Airflow provider: {store.provider} is not installed"
        return _no_file_system(text, ImportError(lacking))
    return None


def _is_registered(scheme: str) -> bool:
    """Whether an Airflow provider has a file system for a scheme; all of them are imported."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    # airflow.sdk.io, in Airflow 2 airflow.io
    return bool(import_module(ObjectStoragePath.__module__.rpartition(".")[0]).has_fs(scheme))


def _problem_with(scheme: str, text: str, conn_id: str | None = None) -> Exception | None:
    """Return why neither Airflow nor fsspec has a file system for a scheme; None if one has.

    :param text: the destination; fsspec's file system must not need the host in it.
    :param conn_id: the Airflow connection, if any, which fsspec's file system would not use.
    """
    import fsspec

    if _is_registered(scheme):
        return None
    try:
        # A scheme in fsspec's registry may need a missing package (sftp: paramiko, oss: ossfs).
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        return error
    except ValueError:
        return ValueError(f"No file system for {scheme}://")
    if conn_id:
        return ValueError("no installed Airflow provider has one that uses an Airflow connection")
    if host := needed_host(text):
        return ValueError(f"only an Airflow connection could name the host {sanitized(host, 80)!r}")
    if missing := _needed_options(scheme):
        return ValueError(f"only fsspec's configuration could name its {' and '.join(missing)}")
    return None


def needed_host(text: str) -> str | None:
    """Return the host in a URI with which fsspec creates the file system of its scheme; None if it needs none.

    Without it, those of FTP and SMB cannot be created, and that of HDFS uses the worker's default cluster instead.

    :param text: the URI; fsspec has its scheme.
    """
    import fsspec

    try:
        host = fsspec.get_filesystem_class(scheme_of(text))._get_kwargs_from_urls(text).get("host")
    except (ValueError, LookupError):  # a template where the host is; GitHub's without a repository
        return None
    return host if isinstance(host, str) and host else None


def _needed_options(scheme: str) -> list[str]:
    """Return the options without which fsspec cannot create the file system of its scheme: DBFS needs a token.

    The host is not among them (:func:`needed_host`).
    """
    import fsspec

    kind = fsspec.get_filesystem_class(scheme)
    known = {"self", "host", *fsspec.config.apply_config(kind, {})}
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = (one for one in inspect.signature(kind.__init__).parameters.values() if one.kind not in unnamed)
    return [one.name for one in needed if one.default is one.empty and one.name not in known]


def _with_options(fs: Any, options: dict[str, Any], text: str) -> Any:
    """Return a copy of ``fs`` with more options. An error shows only their names: the values may be secret."""
    try:
        return type(fs)(*fs.storage_args, **{**fs.storage_options, **options})
    except (TypeError, ValueError) as error:
        raise ViduConfigError(
            f"The store of destination {sanitized(text, 120)!r} does not support the options {', '.join(options)} "
            f"({type(error).__name__})."
        ) from None


def _plain_file_system(protocol: str, text: str) -> Any:
    import fsspec

    if protocol in WEB:
        raise _web_address(text)
    if problem := _problem_with(protocol, text):
        raise _no_file_system(text, problem)
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        raise _no_file_system(text, error) from None
    except Exception as error:  # without credentials or host, adlfs raises ValueError, sshfs TypeError
        if is_unknown_scheme(error):
            raise _no_file_system(text, error) from None
        raise storage_error("reached", text, error, advice=_CREDENTIALS) from error


def _web_address(text: str) -> ViduConfigError:
    return ViduConfigError(f"destination {sanitized(redact_urls(text), 120)!r}: a web address cannot be written to.")


def _no_file_system(text: str, error: Exception) -> ViduConfigError:
    return ViduConfigError(
        f"There is no file system for destination {sanitized(text, 120)!r} ({redacted(error, 160)}). "
        f"{missing_advice(scheme_of(text), error)}"
    )
