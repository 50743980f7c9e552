"""Publishing: under the final name there is nothing, the old file or the whole new one."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import re
import resource
import stat
import threading
import time
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from airflow_provider_vidu.exceptions import ViduConfigError, ViduStorageError
from airflow_provider_vidu.orders.media.files import MediaFile
from airflow_provider_vidu.stores import destination, local, schemes
from airflow_provider_vidu.stores.base import DestinationExistsError, temporary_name
from airflow_provider_vidu.stores.destination import Destination
from airflow_provider_vidu.stores.paths import checked_destination
from airflow_provider_vidu.stores.remote import MovedWriter
from airflow_provider_vidu.stores.roots import check_destination
from airflow_provider_vidu.stores.targets import FileTarget
from airflow_provider_vidu.stores.uploads import UploadWriter
from tests.rows import each_row

OLD, NEW = b"the old file", b"the whole new file" * 1000


class PlainFileSystem(DirFileSystem):
    """Stands for a store of a package that this provider has never heard of."""

    protocol = "plainfs"
    sep = "/"  # on the class: older path libraries look it up there, and find its parent's property


@pytest.fixture
def plainfs(tmp_path, monkeypatch, recwarn):
    """Register an unknown file system whose root is a folder; return the folder."""
    fs = PlainFileSystem(path=str(tmp_path), fs=LocalFileSystem())
    fsspec.register_implementation("plainfs", PlainFileSystem, clobber=True)
    monkeypatch.setattr(fsspec, "filesystem", lambda protocol, **_: fs if protocol == "plainfs" else None)
    return tmp_path


@pytest.fixture
def memory():
    """Return fsspec's memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture(params=["path", "file", "memory", "plainfs"])
def home(request, tmp_path):
    """Return a folder in each kind of store that needs no server."""
    if request.param == "path":
        return f"{tmp_path}/clips/"
    if request.param == "file":
        return f"file://{tmp_path}/clips/"
    request.getfixturevalue(request.param)
    return f"{request.param}://clips/"


def put(target: str, data: bytes, *, replace: bool = True, name: str | None = None) -> str:
    """Publish ``data`` and return the URI."""
    stored = Destination(target).file(name)
    writer = stored.writer(len(data), replace=replace)
    writer.write(memoryview(data))
    writer.publish()
    return stored.uri


def content(target: str) -> bytes | None:
    """Return what stands under the final name, or None."""
    stored = Destination(target).file()
    return None if stored.size() is None else b"".join(stored.read())


def test_a_new_file_is_published(home):
    """Folders are made on the way; the URI leads back to the file."""
    uri = put(home + "deep/er/a.mp4", NEW)
    assert content(home + "deep/er/a.mp4") == NEW
    assert content(uri) == NEW


def test_a_folder_and_a_name_are_a_file(home):
    """The name chosen for a folder is appended to it."""
    assert put(home, NEW, name="a b.mp4").endswith("clips/a b.mp4")
    assert content(home + "a b.mp4") == NEW


def test_nothing_is_visible_before_it_is_published(home):
    """While it is being written the old file stands."""
    put(home + "a.mp4", OLD)
    writer = Destination(home + "a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(NEW))
    assert content(home + "a.mp4") == OLD
    writer.publish()
    assert content(home + "a.mp4") == NEW


@pytest.mark.parametrize("old", [None, OLD])
def test_a_discarded_file_leaves_nothing(home, old):
    """Neither the final name nor a temporary one shows a trace."""
    if old:
        put(home + "a.mp4", old)
    writer = Destination(home + "a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.discard()
    writer.discard()
    assert content(home + "a.mp4") == old
    assert names(home) == (["a.mp4"] if old else [])


def listing(folder: str | Path) -> list[str]:
    """Return the names in a local folder, hidden ones too."""
    return sorted(path.name for path in Path(folder).iterdir())


def names(home: str) -> list[str]:
    """Return the names of all files in a folder of any store."""
    fs = Destination(home + "x").file()
    if isinstance(fs, local.LocalFile):
        return listing(home.removeprefix("file://"))
    return sorted(Path(path).name for path in fs._fs.ls("clips", detail=False))


@pytest.mark.parametrize("name", ["a[1].mp4", "a*.mp4", "a?.mp4", "a#b%20c.mp4", "é e\u0301.mp4", "{{x}}.mp4"])
def test_a_name_is_no_pattern(home, name):
    """Whatever letters a name has, the file is stored under it, and nothing else is left."""
    put(home + name, OLD)
    assert put(home + name, NEW).endswith(f"/{name}")
    assert content(home + name) == NEW
    assert names(home) == [name]


def test_discarding_after_publishing_keeps_the_file(home):
    """A late discard does not take back what was published."""
    stored = Destination(home + "a.mp4").file()
    writer = stored.writer(None, replace=True)
    writer.write(memoryview(NEW))
    writer.publish()
    writer.discard()
    assert content(home + "a.mp4") == NEW
    assert names(home) == ["a.mp4"]


def test_a_file_that_must_not_be_replaced_stays(home):
    """A file that came in the meantime wins, and nothing else is left."""
    writer = Destination(home + "a.mp4").file().writer(None, replace=False)
    writer.write(memoryview(NEW))
    put(home + "a.mp4", OLD)
    with pytest.raises(DestinationExistsError, match="overwrite="):
        writer.publish()
    writer.discard()
    assert content(home + "a.mp4") == OLD
    assert names(home) == ["a.mp4"]


def test_without_a_file_there_not_replacing_is_publishing(home):
    """Nothing there: the new file is published."""
    put(home + "a.mp4", NEW, replace=False)
    assert content(home + "a.mp4") == NEW
    assert names(home) == ["a.mp4"]


def test_two_writers_leave_one_whole_file(home):
    """The last one to publish wins, whole; the other's bytes are nowhere in it."""
    other = b"#" * 30_000
    writers = [(Destination(home + "a.mp4").file().writer(None, replace=True), data) for data in (NEW, other)]
    for at in range(0, 30_000, 5000):
        for writer, data in writers:
            writer.write(memoryview(data[at : at + 5000]))
    writers[1][0].publish()
    assert content(home + "a.mp4") == other
    writers[0][0].publish()
    assert content(home + "a.mp4") == NEW
    assert names(home) == ["a.mp4"]


def test_a_local_file_has_the_mode_of_the_umask(tmp_path):
    """Others may read it as they may read any new file."""
    before = os.umask(0o027)
    try:
        put(f"{tmp_path}/a.mp4", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) == 0o640


def test_the_longest_name_is_possible(tmp_path):
    """A name of 255 bytes leaves room for the temporary one."""
    name = "ä" * 125 + ".mp4a"
    put(f"{tmp_path}/{name}", NEW)
    assert (tmp_path / name).read_bytes() == NEW


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    """The error names destination and reason; neither a part nor a file stays."""

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(b"some"))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ViduStorageError, match=r"a\.mp4.*No space left") as caught:
        writer.write(memoryview(NEW))
    assert caught.value.retryable
    writer.discard()
    assert listing(tmp_path) == []


def test_a_limit_of_the_system_is_told(tmp_path):
    """A real limit on the size of files, met in the middle, ends in the same error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = 10_000_000
    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ViduStorageError, match="File too large"):
            writer.write(memoryview(bytes(limit + 1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.discard()
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    """A file where a folder should be is an error with words."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ViduStorageError, match="could not be checked: a part of the path is a file"):
        Destination(f"{tmp_path}/file/a.mp4").file().writer(None, replace=True)


def test_a_store_that_denies_is_told(plainfs, monkeypatch):
    """A store's refusal becomes an error that names the destination and the reason."""

    def deny(*_args, **_kwargs):
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(PlainFileSystem, "open", deny)
    with pytest.raises(ViduStorageError, match=r"plainfs://clips/a\.mp4.*permission denied \(AccessDenied\)"):
        Destination("plainfs://clips/a.mp4").file().writer(None, replace=True)


def test_a_store_that_fails_at_the_end_keeps_the_old_file(plainfs, monkeypatch):
    """A move that fails leaves the old file and no temporary one."""
    put("plainfs://clips/a.mp4", OLD)

    def fail(*_args, **_kwargs):
        raise OSError("the line is dead")

    writer = Destination("plainfs://clips/a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(NEW))
    monkeypatch.setattr(PlainFileSystem, "mv", fail)
    with pytest.raises(ViduStorageError, match=r"could not be completed: the line is dead\. Nothing was published"):
        writer.publish()
    writer.discard()
    assert listing(plainfs / "clips") == ["a.mp4"]
    assert (plainfs / "clips/a.mp4").read_bytes() == OLD


def test_a_store_that_never_moves_over_a_file(plainfs, monkeypatch):
    """SFTP and SMB refuse; then the old file is put aside first, and only then."""
    put("plainfs://clips/a.mp4", OLD)
    move = PlainFileSystem.mv

    def strict(self, source, target, **kwargs):
        if self.exists(target):
            raise FileExistsError(target)
        move(self, source, target, **kwargs)

    monkeypatch.setattr(PlainFileSystem, "mv", strict)
    put("plainfs://clips/a.mp4", NEW)
    assert content("plainfs://clips/a.mp4") == NEW
    assert listing(plainfs / "clips") == ["a.mp4"]


def test_a_move_that_only_the_file_system_itself_has(plainfs, monkeypatch):
    """Fsspec gives asynchronous file systems (SFTP) their move on the instance.

    A copy over the old file is not atomic, and the one over SSH is a command that SFTP servers refuse.
    """
    put("plainfs://clips/a.mp4", OLD)
    fs, move = fsspec.filesystem("plainfs"), PlainFileSystem.mv

    def refuse(*_args, **_kwargs):
        raise OSError("Session request failed")

    monkeypatch.setattr(PlainFileSystem, "mv", AbstractFileSystem.mv)
    monkeypatch.setattr(PlainFileSystem, "cp_file", refuse)
    monkeypatch.setattr(fs, "mv", lambda source, target: move(fs, source, target), raising=False)
    put("plainfs://clips/a.mp4", NEW)
    assert content("plainfs://clips/a.mp4") == NEW
    assert listing(plainfs / "clips") == ["a.mp4"]


@each_row("name", ["why?.mp4", "why?why", "why?/a.mp4", "a.mp4?"])
def test_a_name_that_the_path_library_cuts(name):
    """In SFTP, FTP and SMB, all files whose names begin alike would be one; in object stores, only the end is lost."""
    with pytest.raises(ViduConfigError, match="would use the name"):
        Destination(f"ftp://host/clips/{name}")
    assert Destination("ftp://host/clips/a b#1.mp4").text


@pytest.mark.fault(
    "stores and files",
    "a store that never moves over a file breaks off in between",
    outcome="clear error",
    side="a move",
    says="Nothing was published",
)
def test_a_store_that_breaks_off_between_two_moves(plainfs, monkeypatch):
    """The old file goes back: neither of the two is lost with the other."""
    put("plainfs://clips/a.mp4", OLD)
    moves = moving(monkeypatch, fail=[1])
    with pytest.raises(ViduStorageError, match=r"the line is dead.*Nothing was published"):
        put("plainfs://clips/a.mp4", NEW)
    assert len(moves) == 4
    assert content("plainfs://clips/a.mp4") == OLD


def test_a_store_that_breaks_off_for_good_between_two_moves(plainfs, monkeypatch):
    """Where the old file cannot go back, the message says where it is."""
    put("plainfs://clips/a.mp4", OLD)
    moving(monkeypatch, fail=[1, 2])
    with pytest.raises(ViduStorageError, match=r"the old file is now '.*\.old'"):
        put("plainfs://clips/a.mp4", NEW)
    (left,) = [path for path in (plainfs / "clips").iterdir() if path.name.endswith(".old")]
    assert left.read_bytes() == OLD


def moving(monkeypatch, fail: list[int]) -> list[str]:
    """Let a store never move over a file, and break off at some of the moves that it makes; return their targets."""
    move, moves = PlainFileSystem.mv, []

    def strict(self, source, target, **kwargs):
        moves.append(target)
        if self.exists(target):
            raise FileExistsError(target)
        if len(moves) - 2 in fail:
            raise OSError("the line is dead")
        move(self, source, target, **kwargs)

    monkeypatch.setattr(PlainFileSystem, "mv", strict)
    return moves


def test_an_unknown_store_is_written_by_a_move(plainfs):
    """Nothing is assumed of a store that is not known."""
    assert isinstance(Destination("plainfs://clips/a.mp4").file().writer(None, replace=True), MovedWriter)


@pytest.mark.parametrize("text", ["/", "folder"])
def test_a_folder_is_no_file(tmp_path, text):
    """A destination that is a folder wants a slash, and the error says so."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ViduConfigError, match="end it with a slash"):
        Destination(f"{tmp_path}/{text}".rstrip("/")).file().size()


@pytest.mark.fault(
    "stores and files", "a symbolic link as destination", outcome="refused", side="local", says="symbolic link to"
)
@pytest.mark.parametrize("leads_to", ["real.mp4", "nowhere.mp4"])
@pytest.mark.parametrize("folder", [True, False])
def test_a_symbolic_link_is_refused(tmp_path, leads_to, folder):
    """A link would be replaced by the file: the error names where it leads, and nothing is changed."""
    (tmp_path / "real.mp4").write_bytes(OLD)
    (tmp_path / "a.mp4").symlink_to(leads_to)
    stored = Destination(f"{tmp_path}/" if folder else f"{tmp_path}/a.mp4").file("a.mp4" if folder else None)
    for refused in (stored.check, lambda: stored.writer(None, replace=True)):
        with pytest.raises(ViduConfigError, match=f"symbolic link to '{leads_to}'"):
            refused()
    assert (tmp_path / "real.mp4").read_bytes() == OLD
    assert listing(tmp_path) == ["a.mp4", "real.mp4"]


@pytest.mark.parametrize("way", ["check", "writer", "obstacle"])
@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), OSError(errno.ESTALE, "stale")])
def test_a_link_that_disappears_during_the_look_raises_no_error_of_its_own(tmp_path, monkeypatch, way, error):
    """Another process swaps links in the folder: the task was ended by the system's error, without an advice."""
    name = "link/new.mp4" if way == "obstacle" else "link"
    (tmp_path / "link").symlink_to("share")
    place = Destination(f"{tmp_path}/{name}")
    look = {"check": place.file().check, "writer": lambda: place.file().writer(None, replace=True).discard()}

    def readlink(path, **_):
        (tmp_path / "link").unlink(missing_ok=True)
        raise error

    monkeypatch.setattr(os, "readlink", readlink)
    if error.errno == errno.ENOENT:
        assert look.get(way, place.obstacle)() is None
    else:
        with pytest.raises(ViduStorageError, match="stale"):
            look.get(way, place.obstacle)()
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["link/a.mp4", "link/new/a.mp4"])
def test_a_link_among_the_folders_that_leads_nowhere_is_named(tmp_path, name):
    """A share is not mounted: the error says so, instead of taking the link for a file."""
    (tmp_path / "link").symlink_to("share")
    with pytest.raises(ViduStorageError, match=r"'link' is a symbolic link to 'share', which does not exist") as caught:
        put(f"{tmp_path}/{name}", NEW)
    assert caught.value.retryable
    assert listing(tmp_path) == ["link"]


def test_a_linked_folder_is_followed(tmp_path):
    """Links among the folders are how mounts are named."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "clips").symlink_to("mount")
    put(f"{tmp_path}/clips/a.mp4", NEW)
    assert listing(tmp_path / "mount") == ["a.mp4"]


@pytest.mark.fault(
    "stores and files",
    "a file with a mode of its own is replaced",
    outcome="survived",
    side="local",
    seen="the mode of the old file",
)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o4755])
def test_a_replaced_file_leaves_its_mode(tmp_path, mode):
    """Who could read the old file can read the new one; rights to run as another user are not passed on."""
    (tmp_path / "a.mp4").write_bytes(OLD)
    (tmp_path / "a.mp4").chmod(mode)
    put(f"{tmp_path}/a.mp4", NEW)
    assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) == mode & 0o777


@pytest.mark.fault(
    "stores and files",
    "a mount without fsync (EINVAL, EROFS, ENOSYS, ENOTSUP)",
    outcome="survived",
    side="local",
    says="does not support fsync",
)
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS, errno.ENOSYS, errno.ENOTSUP])
def test_a_mount_without_fsync_costs_a_warning(tmp_path, monkeypatch, caplog, number):
    """The file is there; the log says what a power failure could do."""
    monkeypatch.setattr(os, "fsync", failing_with(number))
    put(f"{tmp_path}/a.mp4", NEW)
    assert (tmp_path / "a.mp4").read_bytes() == NEW
    assert "does not support fsync" in caplog.text


@pytest.mark.fault(
    "stores and files",
    "fsync fails (EIO, ENOSPC, EDQUOT)",
    outcome="clear error",
    side="local",
    says="could not be completed",
)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_fsync_that_fails_publishes_nothing(tmp_path, monkeypatch, number):
    """An error of the disk means lost bytes: the old file stays."""
    put(f"{tmp_path}/a.mp4", OLD)
    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(NEW))
    monkeypatch.setattr(os, "fsync", failing_with(number))
    with pytest.raises(ViduStorageError, match="could not be completed"):
        writer.publish()
    writer.discard()
    assert content(f"{tmp_path}/a.mp4") == OLD
    assert listing(tmp_path) == ["a.mp4"]


def failing_with(number: int):
    """Return a function that raises an error of the system."""

    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def swap(part: Path) -> None:
    """Put another file in the place of the temporary one."""
    part.unlink()
    part.write_bytes(b"evil")


@pytest.mark.fault(
    "attacks",
    "a neighbour swaps or links the temporary file",
    outcome="clear error",
    side="local",
    says="another process",
)
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(
    ("interfere", "words"),
    [
        (swap, "replaced the temporary file"),
        (lambda part: (part.unlink(), part.symlink_to("/etc/passwd")), "replaced the temporary file"),
        (lambda part: (part.parent / "again").hardlink_to(part), "a second name"),
        (lambda part: part.unlink(), "removed the temporary file"),
    ],
    ids=["swapped", "link", "hard-link", "removed"],
)
def test_a_temporary_file_of_somebody_else_is_not_published(tmp_path, replace, interfere, words):
    """Who can write to the folder cannot slip in a file of their own, or keep a second name for ours."""
    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=replace)
    writer.write(memoryview(NEW))
    (part,) = tmp_path.iterdir()
    interfere(part)
    with pytest.raises(ViduStorageError, match=words):
        writer.publish()
    writer.discard()
    assert not (tmp_path / "a.mp4").exists()


@pytest.fixture
def restless_inodes(monkeypatch):
    """Let a file have another inode number whenever it is looked up, as on some FUSE mounts and network shares."""
    look, numbers = os.stat, iter(range(10**9, 10**10))

    def restless(path, *args, **kwargs):
        found = look(path, *args, **kwargs)
        return os.stat_result((found[0], next(numbers), *found[2:10])) if kwargs.get("dir_fd") else found

    monkeypatch.setattr(os, "stat", restless)


@pytest.mark.fault(
    "stores and files",
    "a mount that gives a file another inode number at each look",
    outcome="survived",
    side="local",
    seen="the file",
)
@pytest.mark.usefixtures("restless_inodes")
@pytest.mark.parametrize("body", [b"", NEW, NEW * 20], ids=["empty", "small", "several reads"])
@pytest.mark.parametrize("replace", [True, False])
def test_restless_inodes_cost_no_file(tmp_path, replace, body):
    """Where the number proves nothing, the bytes do."""
    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=replace)
    writer.write(memoryview(body))
    writer.publish()
    assert (tmp_path / "a.mp4").read_bytes() == body
    assert listing(tmp_path) == ["a.mp4"]


@pytest.mark.usefixtures("restless_inodes")
@pytest.mark.parametrize(
    "interfere",
    [
        swap,
        lambda part: (part.unlink(), part.write_bytes(NEW[:-1] + b"x")),
        lambda part: (part.unlink(), part.symlink_to("/etc/passwd")),
        lambda part: (part.unlink(), os.mkfifo(part)),
        lambda part: (part.parent / "again").hardlink_to(part),
    ],
    ids=["swapped", "one byte", "link", "pipe", "hard-link"],
)
def test_restless_inodes_hide_no_other_file(tmp_path, interfere):
    """Other bytes, a link, a pipe or a second name are refused there, too."""
    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(NEW))
    (part,) = tmp_path.iterdir()
    interfere(part)
    with pytest.raises(ViduStorageError, match=r"another process (replaced|gave)"):
        writer.publish()
    writer.discard()
    assert not (tmp_path / "a.mp4").exists()


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Allow one folder to be written to, work in it, and return it; beside it lie a home and another folder."""
    for name in ("in/clips", "out", "home"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", f"{tmp_path}/in")
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in"


def files(folder: Path) -> list[str]:
    """Return the paths of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "text",
    [
        "~/a.mp4",
        "~/",
        "~nobody-of-this-name/a.mp4",
        " {out}/a.mp4",
        "\t{out}/\n",
        "file://localhost{out}/a.mp4",
        "file:////{out}/a.mp4",
        "file:{out}/a.mp4",
        "local://{out}/a.mp4",
        "FILE://{out}/a.mp4",
        "clips/../../out/a.mp4",
    ],
)
def test_what_is_checked_is_what_is_written(roots, text):
    """No spelling is one path to the check and another one to the writer, wherever the worker runs."""
    try:
        checked = checked_destination(text.format(out=roots.parent / "out"))
        check_destination(checked)
        put(checked, NEW, name="a.mp4" if checked.endswith("/") else None)
    except ViduConfigError:
        assert files(roots.parent) == []
    assert all(path.startswith("in/") for path in files(roots.parent))


def test_a_link_that_is_put_among_the_folders_after_the_check(roots):
    """The open folder itself is compared with the roots."""
    check_destination(f"{roots}/clips/a.mp4")
    stored = Destination(f"{roots}/clips/a.mp4").file()
    (roots / "clips").rmdir()
    (roots / "clips").symlink_to("../out")
    with pytest.raises(ViduConfigError, match="destination_roots"):
        stored.writer(None, replace=True)
    assert listing(roots.parent / "out") == []


def test_a_rehearsal_finds_what_publishing_would_meet(plainfs, monkeypatch):
    """SFTP and its likes have folders, and roles that may write but not rename. Nothing of it remains."""
    (plainfs / "clips").mkdir()
    with pytest.raises(ViduConfigError, match="is a folder: end it with a slash"):
        Destination("plainfs://clips").rehearse()
    put("plainfs://clips/a.mp4", OLD)
    Destination("plainfs://clips/a.mp4").rehearse()
    Destination("plainfs://clips/").rehearse()

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "no renaming")

    monkeypatch.setattr(PlainFileSystem, "mv", refuse)
    with pytest.raises(ViduStorageError, match="could not be written: permission denied"):
        Destination("plainfs://clips/a.mp4").rehearse()
    assert (listing(plainfs / "clips"), content("plainfs://clips/a.mp4")) == (["a.mp4"], OLD)


def test_a_role_that_may_create_no_folders(plainfs, monkeypatch):
    """Some SFTP servers refuse it also for a folder that is there, into which the role may write."""
    (plainfs / "clips").mkdir()

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "no folders")

    monkeypatch.setattr(PlainFileSystem, "makedirs", refuse)
    put("plainfs://clips/a.mp4", NEW)
    assert content("plainfs://clips/a.mp4") == NEW
    with pytest.raises(ViduStorageError, match="no folders"):
        put("plainfs://other/a.mp4", NEW)


@pytest.mark.parametrize("replace", [True, False])
def test_a_link_that_is_put_among_the_folders_while_it_is_written(roots, replace):
    """The file appears in the folder that was checked, wherever that is by then."""
    writer = Destination(f"{roots}/clips/a.mp4").file().writer(None, replace=replace)
    writer.write(memoryview(NEW))
    (roots / "clips").rename(roots / "moved")
    (roots / "clips").symlink_to("../out")
    writer.publish()
    assert files(roots.parent) == ["in/moved/a.mp4"]


@pytest.mark.parametrize("ends_by", ["publish", "discard", "refused"])
def test_no_descriptor_stays_open(roots, monkeypatch, ends_by):
    """Neither the file nor its folder, also where the folder is refused."""
    opened: list[int] = []
    really_open, really_close = os.open, os.close

    def note(*args, **kwargs):
        opened.append(really_open(*args, **kwargs))
        return opened[-1]

    def forget(descriptor):
        really_close(descriptor)
        opened.remove(descriptor)

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "close", forget)
    if ends_by == "refused":
        with pytest.raises(ViduConfigError):
            Destination(f"{roots.parent}/out/a.mp4").file().writer(None, replace=True)
    else:
        getattr(Destination(f"{roots}/a.mp4").file().writer(None, replace=True), ends_by)()
    assert opened == []


def test_a_pipe_that_is_put_in_the_place_of_a_file_holds_nobody(tmp_path):
    """What is read for its digest is a regular file, also when it was one a moment ago."""
    stored = Destination(f"{tmp_path}/a.mp4").file()
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(ViduStorageError, match="not a regular file"):
        next(iter(stored.read()))


@pytest.mark.usefixtures("restless_inodes")
def test_a_folder_in_the_place_of_a_file_costs_no_descriptor(tmp_path):
    """Another writer puts it there. A batch looks at thousands of names, and a process may open a thousand files."""
    (tmp_path / "a.mp4").mkdir()
    before = len(list(Path("/dev/fd").iterdir()))
    for number in range(40):
        with pytest.raises(ViduStorageError, match="a folder of that name exists"):
            next(Destination(f"{tmp_path}/a.mp4").file().read())
        writer = Destination(f"{tmp_path}/{number}.mp4").file().writer(None, replace=True)
        (part,) = tmp_path.glob(".*.part")
        part.unlink()
        part.mkdir()
        with pytest.raises(ViduStorageError, match="another process replaced"):
            writer.publish()
        writer.discard()
        part.rmdir()
    assert len(list(Path("/dev/fd").iterdir())) - before < 20


def test_a_file_that_is_read_lies_beneath_the_roots(roots):
    """A link that is put in its place after the check tells nothing of the file that it leads to."""
    (roots.parent / "out/secret").write_bytes(b"secret")
    stored = Destination(f"{roots}/clips/a.mp4").file()
    (roots / "clips/a.mp4").symlink_to("../../out/secret")
    with pytest.raises(ViduConfigError, match="destination_roots"):
        next(iter(stored.read()))


@pytest.mark.parametrize("prefix", ["file://localhost", "file:", "local:///", "FILE://"])
def test_every_spelling_of_a_local_address(tmp_path, monkeypatch, prefix):
    """None of them is a folder called localhost below the one that the worker runs in."""
    monkeypatch.chdir(tmp_path)
    assert put(checked_destination(f"{prefix}{tmp_path}/x/a.mp4"), NEW) == f"file://{tmp_path}/x/a.mp4"
    assert files(tmp_path) == ["x/a.mp4"]


def test_a_device_is_no_file():
    """/dev/null is not replaced by a video."""
    with pytest.raises(ViduConfigError, match="device or pipe"):
        Destination("/dev/null").file().size()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope://a/b", "no file system"),
        ("gs://bucket/a.mp4", r"airflow-provider-vidu\[gcs\]"),
        ("abfs://bucket/a.mp4", r"airflow-provider-vidu\[azure\]"),
        ("https://host.example.com/a.mp4", "cannot be written to"),
        ("C:/clips/a.mp4", "no file system"),
    ],
)
def test_a_scheme_without_a_file_system_names_what_to_install(text, words, monkeypatch):
    """The user learns which extra brings it (where none is installed: see also tests/bare)."""
    provider = PROVIDERS.get(text.partition(":")[0])
    if provider and is_installed(provider):
        pytest.skip(f"{provider} is installed here")

    def missing(protocol, **_):
        raise ImportError(f"Install a package for {protocol}")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ViduConfigError, match=words):
        Destination(text).file()


PROVIDERS = {"gs": "airflow.providers.google", "abfs": "airflow.providers.microsoft.azure"}


def is_installed(module: str) -> bool:
    """Whether a module is there; its parents may be missing as well."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.fault(
    "stores and files", "a store without credentials", outcome="clear error", says="could not be reached"
)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("Must provide either a connection_string or account_name with credentials!!"), "storage_conn_id"),
        (TypeError("__init__() missing 1 required positional argument: 'host'"), "storage_conn_id"),
        (RuntimeError("Your default credentials were not found."), "environment variables"),
    ],
)
@pytest.mark.parametrize("of_airflow", [True, False])
def test_missing_credentials_are_no_missing_package(error, words, of_airflow, monkeypatch):
    """A store that cannot be reached is reported as that, without advice to install what is there."""

    def fail(*_args, **_kwargs):
        raise error

    found = Destination("memory://clips/a.mp4")
    if of_airflow:
        monkeypatch.setattr(ObjectStoragePath, "fs", property(fail))
    else:
        monkeypatch.setattr(fsspec, "filesystem", fail)
    with pytest.raises(ViduStorageError, match=words) as caught:
        found.file()
    assert "could not be reached" in str(caught.value)
    assert "nstall" not in str(caught.value)


def test_a_connection_that_a_store_needs_and_does_not_find(monkeypatch):
    """It is named, and no retry is spent on it."""

    def fail(*_args):
        raise AirflowNotFoundException("The conn_id `no_such_store` isn't defined")

    monkeypatch.setattr(ObjectStoragePath, "fs", property(fail))
    with pytest.raises(ViduConfigError, match=r"no Airflow connection 'no_such_store'.*correct storage_conn_id"):
        Destination("memory://clips/a.mp4", "no_such_store").file()


def test_options_that_a_store_does_not_take_are_named(plainfs, monkeypatch):
    """The error names the option and not its value."""

    class Strict(PlainFileSystem):
        def __init__(self, path, fs):
            super().__init__(path=path, fs=fs)

    strict = Strict(path=str(plainfs), fs=LocalFileSystem())
    monkeypatch.setattr(fsspec, "filesystem", lambda *_args, **_kwargs: strict)
    with pytest.raises(ViduConfigError, match="does not support the options secret_option") as caught:
        Destination("plainfs://clips/a.mp4", None, {"secret_option": "hush"}).file()
    assert "hush" not in str(caught.value)


def test_a_local_destination_takes_no_options(tmp_path):
    """Options that would be ignored are refused."""
    with pytest.raises(ViduConfigError, match="takes no options"):
        Destination(f"{tmp_path}/a.mp4", None, {"auto_mkdir": True}).file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3://bucket/{{ ds }}.mp4", None),
        ("memory://a/", None),
        ("ftp://host/a.mp4", "only an Airflow connection could name the host 'host'"),
        ("ftp://{{ params['where'] }}/a.mp4", None),
        ("/data/a.mp4", None),
        ("{{ params.where }}", None),
        ("nope://a/b", "no file system"),
        ("GS://bucket/a.mp4", r"airflow-provider-vidu\[gcs\]"),
        ("abfss://bucket/a.mp4", r"airflow-provider-vidu\[azure\]"),
    ],
)
def test_a_missing_package_is_noticed_without_importing_one(text, words, monkeypatch):
    """What a scheme needs is looked up by name alone."""
    monkeypatch.setattr(schemes, "find_spec", lambda name: None if name in ("gcsfs", "adlfs") else object())
    found = destination.missing_file_system(text)
    assert (found is None) == (words is None)
    assert words is None or re.search(words, str(found))


def test_a_host_that_a_file_system_would_ignore(plainfs, monkeypatch, tmp_path):
    """HDFS in fsspec uses the worker's default cluster: a file would be stored, and read, in another one than named."""
    monkeypatch.setattr(PlainFileSystem, "_get_kwargs_from_urls", staticmethod(lambda _: {"host": "other"}))
    with pytest.raises(ViduConfigError, match="only an Airflow connection could name the host 'other'"):
        Destination("plainfs://other/a.mp4").file()
    with pytest.raises(ViduConfigError, match=r"needs arguments \(the host 'other'\)"):
        MediaFile("plainfs://other/a.png", "image", "images[0]", None).load()


@pytest.mark.parametrize("text", ["memory://a/b.mp4", "/data/a.mp4"])
def test_a_connection_where_none_is_possible_is_refused(text):
    """storage_conn_id needs a store that knows connections."""
    with pytest.raises(ViduConfigError, match=r"storage_conn_id|No filesystem registered"):
        Destination(text, "some_conn").file()


def test_what_a_killed_task_left_goes_with_a_later_download(tmp_path):
    """A part is hidden, stays while it may still be written to, and is removed when it is a day old."""
    writer = Destination(f"{tmp_path}/a.mp4").file().writer(None, replace=True)
    writer.write(memoryview(b"half"))
    (left,) = listing(tmp_path)
    assert left.startswith(".a.mp4.")
    put(f"{tmp_path}/a.mp4", NEW)
    assert listing(tmp_path) == [left, "a.mp4"]
    yesterday = time.time() - local.STALE_AFTER - 60
    os.utime(tmp_path / left, (yesterday, yesterday))
    put(f"{tmp_path}/a.mp4", NEW)
    assert listing(tmp_path) == ["a.mp4"]
    writer.discard()


def test_only_ones_own_left_overs_are_removed(tmp_path):
    """Old files of other names, and files that merely look similar, stay."""
    others = [temporary_name("b.mp4"), ".a.mp4.part", "a.mp4.0123456789abcdef.part", ".a.mp4.0123456789ABCDEF.part"]
    for name in [*others, ".a.mp4.0123456789abcdef.part"]:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    put(f"{tmp_path}/a.mp4", NEW)
    assert listing(tmp_path) == sorted([*others, "a.mp4"])


def test_without_hard_links_a_file_is_still_not_replaced(tmp_path, monkeypatch):
    """File systems without links check before they rename."""
    monkeypatch.setattr(os, "link", failing_with(errno.EPERM))
    put(f"{tmp_path}/a.mp4", NEW, replace=False)
    with pytest.raises(DestinationExistsError):
        put(f"{tmp_path}/a.mp4", OLD, replace=False)
    assert (tmp_path / "a.mp4").read_bytes() == NEW


def test_a_folder_that_keeps_every_name(tmp_path, monkeypatch, caplog):
    """An append-only folder allows links and no removal: the file is there, and the message does not deny it."""
    monkeypatch.setattr(os, "unlink", failing_with(errno.EPERM))
    put(f"{tmp_path}/a.mp4", NEW, replace=False)
    assert (tmp_path / "a.mp4").read_bytes() == NEW
    assert "its temporary name .a.mp4." in caplog.text


@pytest.mark.parametrize("there", [OLD, b""])
def test_a_store_that_tells_no_sizes(memory, monkeypatch, there):
    """What is there is not taken for an empty file, which may always be replaced."""
    put("memory://clips/a.mp4", there)
    info = type(memory).info
    monkeypatch.setattr(type(memory), "info", lambda *args, **kwargs: {**info(*args, **kwargs), "size": None})
    target = FileTarget(Destination("memory://clips/a.mp4"), "skip")
    assert (target.existing(len(OLD)) is not None) == bool(there)


def test_many_tasks_write_one_file(tmp_path):
    """Under load, a reader never sees anything but a whole file."""
    bodies = [bytes([n]) * 50_000 for n in range(4)]
    put(f"{tmp_path}/a.mp4", bodies[0])
    writers = [
        threading.Thread(target=lambda b=body: [put(f"{tmp_path}/a.mp4", b) for _ in range(5)]) for body in bodies
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert (tmp_path / "a.mp4").read_bytes() in bodies
    assert listing(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    ("text", "name", "uri"),
    [
        ("memory://a/b.mp4", None, "memory://a/b.mp4"),
        ("memory://a/", "c.mp4", "memory://a/c.mp4"),
        ("memory://conn@a/b@c.mp4", None, "memory://a/b@c.mp4"),
    ],
)
def test_the_uri_is_the_destination_without_a_connection(memory, text, name, uri, monkeypatch):
    """What other tools can read: no connection id in it."""
    monkeypatch.setattr(Destination, "_file_system", memory)
    assert Destination(text).file(name).uri == uri


def test_file_systems_without_exclusive_creation(memory, monkeypatch):
    """A store that does not know "xb" is written with "wb" and looked at before the end."""
    opened = []

    def old(path, mode, **_):
        opened.append(mode)
        if mode == "xb":
            raise NotImplementedError("File mode not supported")
        return io.BytesIO()

    monkeypatch.setattr(memory, "open", old, raising=False)
    UploadWriter(memory, "/a.mp4", "memory://a.mp4", None, replace=False)
    assert opened == ["xb", "wb"]
