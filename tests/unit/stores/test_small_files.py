"""A store without an answer is not a store without the file."""

from __future__ import annotations

import errno
import os
import re
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


@each_row(
    ("number", "state"),
    [
        (errno.ENOENT, "does not exist"),
        (errno.EACCES, "may not be read"),
        (errno.EISDIR, "is a folder"),
        (errno.ENOTDIR, "does not exist"),
    ],
)
@pytest.mark.parametrize("token", [TOKEN, "/token"])
def test_what_the_client_does_not_have(number, state, token):
    """A role's token that is not mounted, or not readable, says nothing about what the store has, or permits."""
    file = stored(OSError(number, os.strerror(number), token))
    reason = re.escape(f"the file '{token}', which the store's client needs, {state} in this worker")
    for ask in (RemoteFile.size, content_of, is_there):
        with pytest.raises(ViduStorageError, match=reason) as raised:
            ask(file)
        assert "s3:Get" not in str(raised.value), ask


@each_row("own", ["/bucket", "/bucket/.vidu/a.json", "bucket/.vidu/a.json"])
def test_what_the_role_may_not_do(own):
    """The store's own refusal names the object, not a file of the worker."""
    file = stored(PermissionError(errno.EACCES, os.strerror(errno.EACCES), own))
    with pytest.raises(ViduStorageError, match=r"(?i)permission denied.* s3:GetObject"):
        file.size()


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
