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

from typing import Any, Final

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.local_store import LocalPlace
from airflow_provider_vidu.naming import is_folder
from airflow_provider_vidu.remote_store import RemotePlace
from airflow_provider_vidu.storage import Place, storage_error
from airflow_provider_vidu.text import one_line, shown

_LOCAL: Final = frozenset({"", "file", "local"})
_EXTRAS: Final = {
    **dict.fromkeys(("s3", "s3a", "s3n"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    # Not "wasb", which nothing in Python knows, nor "adl", which Airflow's provider names and upath 0.3 refuses.
    **dict.fromkeys(("abfs", "abfss", "az"), "azure"),
}


class Destination:
    """What the user named: a file, or (ending in a slash) a folder.

    :param text: a checked destination (:func:`.naming.checked_destination`).
    :param conn_id: the Airflow connection of the store, if any.
    :raises ViduConfigError: when there is no file system for its scheme.
    """

    def __init__(self, text: str, conn_id: str | None = None) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        self.text = text
        self.is_folder = is_folder(text)
        try:
            path: Any = ObjectStoragePath(text, conn_id=conn_id) if conn_id else ObjectStoragePath(text)
            self._protocol = str(path.protocol or "")
            self._path = str(path.path)
            # Before Airflow 3.2 the path has no such property and keeps the connection among its options.
            self._conn_id = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
        except (ValueError, TypeError) as error:
            raise _no_file_system(text, error) from None
        self._object_path = path
        if self._protocol not in _LOCAL and not self._path.strip("/"):
            raise ViduConfigError(f"destination {one_line(text, 120)!r} names no file and no folder.")

    def place(self, name: str | None = None) -> Place:
        """Return the file itself, or, of a folder, the file ``name`` in it.

        :raises ViduConfigError: when there is no file system for the scheme.
        """
        path = f"{self._path.rstrip('/')}/{name}" if name else self._path
        if self._protocol in _LOCAL:
            if self._conn_id:
                raise ViduConfigError(f"storage_conn_id {self._conn_id!r} makes no sense for a local destination.")
            return LocalPlace(path)
        uri = f"{self._uri.rstrip('/')}/{name}" if name else self._uri
        return RemotePlace(self._file_system(), self._protocol, path, uri)

    @property
    def _uri(self) -> str:
        """The destination without a connection (``s3://my_aws@bucket/key``)."""
        scheme, marked, rest = self.text.partition("://")
        if not marked:
            return f"{self._protocol}://{self._path.lstrip('/')}"
        netloc, slash, path = rest.partition("/")
        return f"{scheme}://{netloc.rpartition('@')[2]}{slash}{path}"

    def _file_system(self) -> Any:
        try:
            return self._object_path.fs
        except ValueError as error:
            # Airflow only knows schemes that a provider registers; fsspec knows more, without connections.
            if "No filesystem registered" not in str(error) or self._conn_id:
                raise _no_file_system(self.text, error) from None
        except ImportError as error:
            raise _no_file_system(self.text, error) from None
        except Exception as error:  # whatever a provider raises while it connects: Airflow's, botocore's, google's
            raise storage_error("reached", self.text, error) from error
        return _plain_file_system(self._protocol, self.text)


def _plain_file_system(protocol: str, text: str) -> Any:
    import fsspec

    if protocol in ("http", "https"):
        raise ViduConfigError(f"destination {one_line(text, 120)!r}: a web address cannot be written to.")
    try:
        return fsspec.filesystem(protocol)
    except (ValueError, ImportError, TypeError) as error:
        raise _no_file_system(text, error) from None


def _no_file_system(text: str, error: Exception) -> ViduConfigError:
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    extra = _EXTRAS.get(scheme)
    advice = (
        f"Install it with: pip install 'airflow-provider-vidu[{extra}]'."
        if extra
        else "Use a local path, or a scheme for which an installed Airflow provider or fsspec package has one."
    )
    return ViduConfigError(
        f"There is no file system for destination {one_line(text, 120)!r} ({shown(error, 160)}). {advice}"
    )
