"""A store without an answer is not a store without the file."""

from __future__ import annotations

import errno
import os
from unittest.mock import Mock

import pytest

from airflow_provider_vidu.exceptions import ViduStorageError
from airflow_provider_vidu.stores.base import file_exists_error
from airflow_provider_vidu.stores.local import LocalFile
from airflow_provider_vidu.stores.remote import RemoteFile
from airflow_provider_vidu.stores.small_files import content_of, create_file, is_there
from tests.rows import each_row

TOKEN = "/var/run/secrets/token"


def stored(error: Exception) -> RemoteFile:
    """Return a file whose store answers everything with an error."""
    fs = Mock(**{f"{name}.side_effect": error for name in ("open", "info")})
    return RemoteFile(fs, "s3", "bucket/.vidu/a.json", "s3://bucket/.vidu/a.json")


@each_row(
    "error",
    [
        FileNotFoundError("bucket/.vidu/a.json"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "bucket/.vidu/a.json"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/bucket/.vidu/a.json"),
    ],
)
def test_what_the_store_does_not_have(error):
    """Whether or not its client names the object."""
    file = stored(error)
    assert (file.size(), content_of(file), is_there(file)) == (None, None, False)


def test_what_the_client_does_not_have():
    """A role's token that is not mounted says nothing about what the store has."""
    file = stored(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), TOKEN))
    for ask in (RemoteFile.size, content_of, is_there):
        with pytest.raises(ViduStorageError, match=f"the file '{TOKEN}', which the store's client needs"):
            ask(file)


def test_a_file_that_is_removed_while_it_is_created(tmp_path, monkeypatch):
    """Another process was faster, and is done with it by now: the name is free."""
    file, writer, taken = LocalFile(f"{tmp_path}/a.json"), LocalFile.writer, [file_exists_error("a.json")]

    def first_taken(*args, **named):
        if taken:
            raise taken.pop()
        return writer(*args, **named)

    monkeypatch.setattr(LocalFile, "writer", first_taken)
    create_file(file, b"{}", "application/json")
    assert content_of(file) == b"{}"
