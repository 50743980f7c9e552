"""What the object stores' own errors mean, and which headers objects get."""

from __future__ import annotations

import errno
from importlib.metadata import metadata
from types import SimpleNamespace

import pytest
from fsspec.registry import known_implementations

from airflow_provider_vidu.stores.schemes import (
    STORES,
    Store,
    canonical,
    is_forbidden,
    is_not_implemented,
    is_refusal,
    is_unknown_scheme,
    missing_advice,
    reading_advice,
    stored_key,
)
from airflow_provider_vidu.stores.uploads import UPLOADS, S3Upload
from tests.rows import each_row


class StoreError(Exception):
    """An error with whatever attributes a store's client gives it."""

    def __init__(self, **attributes: object) -> None:
        super().__init__("no")
        self.__dict__.update(attributes)


def wrapped(error: Exception) -> Exception:
    """Return an error whose cause is another one, as adlfs and s3fs raise."""
    try:
        raise RuntimeError("Failed to upload block") from error
    except RuntimeError as outer:
        return outer


def of_boto(status: int, code: str = "") -> Exception:
    """Return an error as botocore keeps it."""
    return StoreError(response={"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}})


@each_row("wrap", [lambda error: error, wrapped], ids=["bare", "wrapped"])
@each_row(
    ("error", "refusal", "forbidden", "unknown"),
    [
        (StoreError(status_code=403), True, True, False),
        (StoreError(code=401), True, True, False),
        (of_boto(403), True, True, False),
        (PermissionError("AccessDenied"), False, True, False),
        (OSError("Forbidden: b/clips/o\nno access"), False, True, False),
        (StoreError(status_code=409), True, False, False),
        (StoreError(status_code=408), False, False, False),
        (StoreError(status_code=500), False, False, False),
        (of_boto(501), False, False, True),
        (of_boto(400, "InvalidArgument"), True, False, True),
        (of_boto(400, "InvalidRequest"), True, False, True),
        (of_boto(400, "EntityTooSmall"), True, False, False),
        (of_boto(412, "PreconditionFailed"), True, False, False),
        (
            OSError(errno.ENOSYS, "A header you provided implies functionality that is not implemented"),
            False,
            False,
            True,
        ),
        (StoreError(code="AccessDenied", response=SimpleNamespace(status=200)), False, False, False),
        (OSError(errno.EIO, "disk"), False, False, False),
    ],
)
def test_what_an_error_means(error, refusal, forbidden, unknown, wrap):
    """Statuses are read where each client keeps them, also through the errors that are wrapped around them."""
    found = wrap(error)
    assert (is_refusal(found), is_forbidden(found), is_not_implemented(found)) == (refusal, forbidden, unknown)


@each_row("protocol", sorted(STORES))
def test_each_scheme_is_known_everywhere(protocol):
    """Every scheme has an extra that pip knows, the package of fsspec's own table, permissions, and a content type."""
    store = STORES[protocol]
    assert store.extra in (metadata("airflow-provider-vidu").get_all("Provides-Extra") or [])
    assert known_implementations[store.scheme]["class"].partition(".")[0] == store.package
    assert store.permissions in reading_advice(protocol)
    labels = str(UPLOADS[store].labels(SimpleNamespace(), "image/webp"))
    assert "image/webp" in labels
    assert "inline" in labels


@each_row(
    ("scheme", "one"),
    [("s3a", "s3"), ("S3N", "s3"), ("gcs", "gs"), ("az", "abfs"), ("abfss", "abfs"), ("file", ""), ("sftp", "sftp")],
)
def test_a_store_has_one_name(scheme, one):
    """Roots, assets and lineage compare the same name, in whichever spelling a user writes the scheme."""
    assert canonical(scheme) == one


@pytest.mark.parametrize(
    ("protocol", "key", "stored"),
    [
        ("abfs", "c/a\\b.mp4", "c/a/b.mp4"),
        ("az", "c/./a/./b.mp4", "c/a/b.mp4"),
        ("abfss", "c/a./.b.mp4", "c/a./.b.mp4"),
        ("s3", "c/./a\\b.mp4", "c/./a\\b.mp4"),
    ],
)
def test_names_that_mean_another_one(protocol, key, stored):
    """Seen with adlfs 2026.8 and Azurite; S3 takes every key as it is."""
    assert stored_key(protocol, key) == stored


def test_what_a_file_system_sets_for_all_objects_is_kept():
    """A disposition that the user chose is not replaced, and the type is still set."""
    fs = SimpleNamespace(s3_additional_kwargs={"ContentDisposition": "attachment"})
    assert S3Upload.labels(fs, "video/mp4") == {"ContentType": "video/mp4"}


@pytest.mark.parametrize(
    ("scheme", "text", "is_installed", "advice"),
    [
        ("gs", "gcsfs is not installed", False, "pip install 'airflow-provider-vidu[gcs]'"),
        ("s3n", "Unsupported filesystem: 's3n'", True, "Write s3:// instead."),
        ("gcs", "Unsupported filesystem: 'gcs'", True, "Write gs:// instead."),
        ("gcs", "Unsupported filesystem: 'gcs'", False, "pip install 'airflow-provider-vidu[gcs]'"),
        ("az", "No filesystem registered for scheme az", True, "Write abfs:// instead."),
        ("az", "No filesystem registered for scheme az", False, "pip install 'airflow-provider-vidu[azure]'"),
        ("abfs", "No filesystem registered for scheme abfs", False, "pip install 'airflow-provider-vidu[azure]'"),
        ("wasbs", "Unsupported filesystem: 'wasbs'", False, "Write abfs:// instead."),
        ("adl", "Azure Data Lake Storage Gen1 is retired", False, "Write abfs:// instead."),
        ("foo", "Protocol not known: foo", False, "Use a local path"),
        ("", "Protocol not known: foo", False, "Use a local path"),
    ],
)
def test_what_to_do_about_a_missing_store(scheme, text, is_installed, advice, monkeypatch):
    """Another spelling, or a package: whichever helps."""
    monkeypatch.setattr(Store, "is_installed", lambda _store: is_installed)
    monkeypatch.setattr(Store, "has_provider", lambda _store: is_installed)
    error = ValueError(text)
    assert advice in missing_advice(scheme, error)
    unknown = ("Unsupported", "Protocol not known", "No filesystem registered")
    assert is_unknown_scheme(error) is text.startswith(unknown)
    assert not is_unknown_scheme(ImportError(text))
