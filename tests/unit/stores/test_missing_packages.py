"""A store's package that is missing is found without reaching the store."""

from __future__ import annotations

import fsspec
import pytest

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores import destination, schemes
from airflow_provider_vidu.stores.destination import Destination, missing_file_system, needed_host


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_what_needs_no_package_is_there(scheme):
    """File systems that fsspec brings along need nothing else."""
    assert missing_file_system(f"{scheme}://place/clips/") is None


@pytest.mark.fault("orders", "the store's client is installed, its Airflow provider is not, and a connection is named",
                   outcome="refused", says="an Airflow connection needs the store's Airflow provider")  # fmt: skip
@pytest.mark.parametrize(("text", "conn_id"), [("abfs://clips/", "mine"), ("gs://mine@clips/a.mp4", None)])
def test_a_missing_provider_of_a_connection(monkeypatch, text, conn_id):
    """Fsspec alone reads and writes such a store, but with no connection: the generation would be paid for first."""
    monkeypatch.setattr(schemes, "find_spec", lambda name: None if "airflow" in name else True)
    assert missing_file_system("abfs://clips/") is None
    assert "an Airflow connection needs the store's Airflow provider" in str(missing_file_system(text, conn_id))
    monkeypatch.setattr(destination, "_is_registered", lambda scheme: True)
    assert missing_file_system(text, conn_id) is None


def test_a_file_system_that_cannot_be_created_without_a_host():
    """It is there, and of no use: the generation would be paid for, and its file never stored."""
    assert "only an Airflow connection could name the host 'place'" in str(missing_file_system("ftp://place/clips/"))


def test_a_file_system_that_cannot_be_created_without_options(monkeypatch):
    """DBFS needs a token, which no URL holds; fsspec's configuration may."""
    assert "only fsspec's configuration could name its instance and token" in str(missing_file_system("dbfs://clips/"))
    monkeypatch.setitem(fsspec.config.conf, "dbfs", {"instance": "adb.example.com", "token": "hush"})
    assert missing_file_system("dbfs://clips/") is None


@pytest.mark.parametrize(("text", "conn_id"), [("memory://clips/", "mine"), ("memory://mine@clips/a.mp4", None)])
def test_a_connection_of_a_file_system_that_takes_none(text, conn_id):
    """Fsspec has it and Airflow has not: it was refused after the generation had been paid for."""
    assert "uses an Airflow connection" in str(missing_file_system(text, conn_id))


def test_addresses_that_file_systems_cannot_read():
    """They raise an error of Python's own, which Airflow retried."""
    assert needed_host("github://mine@clips/a.png") is None
    with pytest.raises(ViduConfigError, match="There is no file system"):
        Destination("simplecache://clips/a.mp4").file()  # older path libraries refuse it only here


def test_a_scheme_that_fsspec_knows_by_name_alone(monkeypatch):
    """A store that fsspec knows, but whose package is missing, is found before a generation is paid."""
    from importlib import import_module

    registry = import_module("fsspec.registry")  # fsspec.registry itself is the mapping of that name
    entry = {"class": "package_that_is_missing.Store", "err": "Install package_that_is_missing"}
    monkeypatch.setitem(registry.known_implementations, "lacking", entry)
    error = missing_file_system("lacking://place/clips/")
    assert error is not None
    assert "Install package_that_is_missing" in str(error)


def test_a_scheme_that_nobody_knows():
    """A typo in a scheme is named."""
    assert "No file system for mimio://" in str(missing_file_system("mimio://place/"))
