"""Google Cloud Storage and Azure Blob Storage as emulators on loopback, reached in the two ways that users have."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.integration
from azurite import Azurite
from services import ServiceError
from tests.stores.google_storage import GoogleStorage
from tests.versions import object_stores

HERE = Path(__file__).parent
# The SDK of Looker, which Google's provider brings, installs a package `tests.integration` of its own.
tests.integration.__path__ = [str(HERE.parent / "integration"), *tests.integration.__path__]
CONN_ID = "my_store"


class Store(ABC):
    """A new, empty bucket of an emulator.

    :ivar scheme: what a destination begins with.
    :ivar settings: the environment in which a process finds the store, in the way that is being tested.
    :ivar conn_id: the Airflow connection to use; None for the environment's credentials.
    :ivar stranger: settings under which the store refuses everything.
    :ivar refusal: what it says then.
    """

    scheme: str
    refusal: str

    def __init__(self, conn_id: str | None, settings: dict[str, str], stranger: dict[str, str]) -> None:
        self.conn_id = conn_id
        self.settings = settings
        self.stranger = stranger
        self.bucket = f"clips-{uuid.uuid4().hex[:12]}"

    def uri(self, key: str) -> str:
        """Return the destination of a key."""
        return f"{self.scheme}://{self.bucket}/{key}"

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store an object."""

    @abstractmethod
    def content(self, key: str) -> bytes:
        """Return an object's content."""

    @abstractmethod
    def told(self, key: str) -> tuple[str, str]:
        """Return what an object says of itself: content type and content disposition."""

    @abstractmethod
    def keys(self) -> list[str]:
        """Return the names that everybody sees."""

    @abstractmethod
    def unfinished(self) -> int:
        """Return how many uploads are left to tidy up."""


class GoogleBucket(Store):
    """A bucket of our own server."""

    scheme = "gs"
    refusal = "stranger@here.example does not have"

    def __init__(self, service: GoogleStorage, conn_id: str | None, tmp_path: Path) -> None:
        self.service = service
        owner, stranger = (self._found_by(name, conn_id, tmp_path) for name in ("owner", "stranger"))
        super().__init__(conn_id, owner, stranger)
        service.buckets[self.bucket] = {}

    def _found_by(self, name: str, conn_id: str | None, folder: Path) -> dict[str, str]:
        account = self.service.account(name)
        if conn_id:
            extra = {"keyfile_dict": json.dumps(account), "gcs.endpoint": self.service.url}
            return _connection("google_cloud_platform", extra)
        file = folder / f"{name}.json"
        file.write_text(json.dumps(account))
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "STORAGE_EMULATOR_HOST": self.service.url}

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self.service.put(self.bucket, key, data)

    def content(self, key: str) -> bytes:
        """Return an object's content."""
        return self.service.buckets[self.bucket][key].data

    def told(self, key: str) -> tuple[str, str]:
        """Return content type and content disposition."""
        found = self.service.buckets[self.bucket][key]
        return found.content_type, found.disposition

    def keys(self) -> list[str]:
        """Return the names that everybody sees."""
        return sorted(self.service.buckets[self.bucket])

    def unfinished(self) -> int:
        """Return how many uploads are neither complete nor cancelled."""
        uploads = self.service.uploads.values()
        return sum(upload.bucket == self.bucket and upload.result is None for upload in uploads)


class AzureContainer(Store):
    """A container of Azurite."""

    scheme = "abfs"
    refusal = "Server failed to authenticate the request"

    def __init__(self, azurite: Azurite, conn_id: str | None) -> None:
        from azure.storage.blob import BlobServiceClient

        wrong = azurite.connection_string_with("d3Jvbmc=")
        super().__init__(conn_id, self._found(azurite.connection_string, conn_id), self._found(wrong, conn_id))
        self._client: Any = BlobServiceClient.from_connection_string(azurite.connection_string)
        self._container = self._client.create_container(self.bucket)

    @staticmethod
    def _found(text: str, conn_id: str | None) -> dict[str, str]:
        if conn_id:
            return _connection("wasb", {"connection_string": text})
        return {"AZURE_STORAGE_CONNECTION_STRING": text}

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self._container.upload_blob(key, data, overwrite=True)

    def content(self, key: str) -> bytes:
        """Return an object's content."""
        found: bytes = self._container.download_blob(key).readall()
        return found

    def told(self, key: str) -> tuple[str, str]:
        """Return content type and content disposition."""
        found = self._container.get_blob_client(key).get_blob_properties().content_settings
        return found.content_type, found.content_disposition

    def keys(self) -> list[str]:
        """Return the names that everybody sees."""
        return sorted(blob.name for blob in self._container.list_blobs())

    def unfinished(self) -> int:
        """Return 0: Azure has nothing to abort, it drops uncommitted blocks after a week."""
        return 0

    def close(self) -> None:
        """Let the client's sockets go."""
        self._client.close()


def _connection(conn_type: str, extra: dict[str, str]) -> dict[str, str]:
    return {f"AIRFLOW_CONN_{CONN_ID.upper()}": json.dumps({"conn_type": conn_type, "extra": extra})}


def forget_stores() -> None:
    """Let this process forget which stores it has connected to."""
    from adlfs import AzureBlobFileSystem
    from gcsfs import GCSFileSystem

    object_stores()._STORE_CACHE.clear()
    AzureBlobFileSystem.clear_instance_cache()
    GCSFileSystem.clear_instance_cache()


def point_at(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find the store with these settings alone."""
    names = ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING")
    for name in (*names, f"AIRFLOW_CONN_{CONN_ID.upper()}"):
        monkeypatch.delenv(name, raising=False)
    # Before anything else gcsfs asks by gRPC of what kind a bucket is; the emulator speaks only HTTP. And nobody
    # shall look for Google's metadata server.
    fixed = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", "NO_GCE_CHECK": "true"}
    for name, value in {**fixed, **settings}.items():
        monkeypatch.setenv(name, value)
    forget_stores()


@pytest.fixture(scope="session")
def google_storage() -> Iterator[GoogleStorage]:
    """Run the emulator of Google Cloud Storage."""
    with GoogleStorage() as service:
        yield service


@pytest.fixture(scope="session")
def azurite(tmp_path_factory) -> Iterator[Azurite]:
    """Run the emulator of Azure Blob Storage."""
    try:
        with Azurite(tmp_path_factory.mktemp("azurite")) as service:
            yield service
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(params=["environment", "connection"])
def conn_id(request) -> str | None:
    """Reach the store with the environment's credentials, and with an Airflow connection."""
    return None if request.param == "environment" else CONN_ID


@pytest.fixture
def gcs(google_storage, conn_id, tmp_path, monkeypatch) -> Iterator[GoogleBucket]:
    """Return a new bucket of Google Cloud Storage."""
    store = GoogleBucket(google_storage, conn_id, tmp_path)
    point_at(store.settings, monkeypatch)
    yield store
    google_storage.instead, google_storage.after = None, False
    forget_stores()


@pytest.fixture
def azure(azurite, conn_id, monkeypatch) -> Iterator[AzureContainer]:
    """Return a new container of Azure Blob Storage."""
    store = AzureContainer(azurite, conn_id)
    point_at(store.settings, monkeypatch)
    yield store
    store.close()
    forget_stores()


@pytest.fixture(params=["gcs", "azure"])
def store(request, conn_id) -> Store:  # conn_id: what is asked for by name alone is not taken in turn
    """Each store in turn."""
    found: Store = request.getfixturevalue(request.param)
    return found
