"""Whether a stored file is still there: what is known of it, for how long, and when nothing is claimed."""

from __future__ import annotations

import pytest

from airflow_provider_vidu.links import has_pages

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.playing import shelf

MP4 = b"\0\0\0\x20ftypisom" + b"a clip" * 10
SIZE = len(MP4)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Return the only folder that clips may be played from; nothing is known of its files."""
    folder = tmp_path / "clips"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", str(folder))
    monkeypatch.setattr(shelf, "_known", type(shelf._known)())
    return folder


def lost(path, size=SIZE, most_age=0.0):
    """Return what has become of a file that was stored with a size."""
    return shelf.look([(f"file://{path}", size, False)], most_age)[f"file://{path}"].lost(size)


def test_what_has_become_of_a_file(root):
    """It is there, another one is there, or none; what is young enough is not looked at again."""
    path = root / "a.mp4"
    assert lost(path) == "missing"
    path.write_bytes(MP4)
    assert (lost(path), lost(path, len(MP4) + 1)) == (None, "replaced")
    path.unlink()
    assert lost(path, most_age=600) is None
    assert lost(path) == "missing"
    path.write_bytes(MP4)
    assert lost(path, most_age=600) == "missing"  # for half a minute


def test_a_file_that_was_stored_anew(root):
    """A look from before says nothing of a later record: a cleared task may store another file under the same name."""
    path = root / "a.mp4"
    path.write_bytes(MP4)
    assert lost(path) is None
    path.write_bytes(MP4 + b"!")
    assert lost(path, SIZE + 1, most_age=600) is None
    assert (lost(path, most_age=600), lost(path, SIZE + 1, most_age=600)) == ("replaced", None)
    path.write_bytes(MP4)
    assert lost(path, most_age=600) == "replaced"  # it was looked at for this record, and not long ago


def test_what_sending_a_file_shows_is_remembered(root):
    """A player that finds no file, or another one, tells the sheets, which look seldom."""
    path = root / "a.mp4"
    path.write_bytes(MP4)
    assert lost(path) is None
    shelf.note(f"file://{path}", size=None)
    assert lost(path, most_age=600) == "missing"
    shelf.note(f"file://{path}", size=len(MP4))
    assert lost(path, most_age=600) is None


def test_nothing_is_claimed_of_what_cannot_be_looked_at(root, tmp_path, monkeypatch):
    """A file outside of the roots, a folder of its name, or a root that this machine does not have prove nothing."""
    (root / "folder.mp4").mkdir()
    assert lost(root / "folder.mp4") is None
    assert lost(tmp_path / "elsewhere.mp4") is None
    monkeypatch.setenv("AIRFLOW__VIDU__PREVIEW_ROOTS", str(tmp_path / "not-mounted"))
    assert lost(tmp_path / "not-mounted" / "a.mp4") is None


def test_a_content_type_is_read_once(root, monkeypatch):
    """What the bytes prove is kept while the file has its size."""
    path = root / "a.bin"
    path.write_bytes(MP4)
    uri, reads = f"file://{path}", []
    monkeypatch.setattr(shelf, "_kind_of", lambda preview: reads.append(1) or "video/mp4")
    for _ in range(3):
        assert shelf.look([(uri, SIZE, True)], 0.0)[uri].kind == "video/mp4"
    assert len(reads) == 1
    path.write_bytes(MP4 + MP4)
    shelf.look([(uri, SIZE, True)], 0.0)
    assert len(reads) == 2
