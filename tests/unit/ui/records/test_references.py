"""Values that an XCom back end keeps elsewhere: what is read, how often, and what stays unknown."""

from __future__ import annotations

import io
import json
import threading
import time
import tracemalloc
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from airflow_provider_vidu.links import has_pages
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.stores.places import Root

if not has_pages():
    pytest.skip("this Airflow cannot have the pages", allow_module_level=True)

from airflow_provider_vidu.ui.records import references
from airflow_provider_vidu.ui.records.references import UNKNOWN, Resolver


@pytest.fixture(autouse=True)
def nothing_kept():
    """Begin with an empty memory."""
    references._kept.clear()
    yield
    references._kept.clear()


class Vault:
    """A back end of a user's own: nothing in the database means anything without it."""

    reads: ClassVar[Counter[str]] = Counter()

    @classmethod
    def deserialize_value(cls, row: Any) -> Any:
        """Return what stands behind a token."""
        cls.reads[row.value] += 1
        if row.value == "broken":
            raise OSError("the vault is closed")
        return f"id-{row.value}"


@pytest.fixture
def vault(monkeypatch):
    """Configure that back end."""
    Vault.reads = Counter()
    monkeypatch.setattr(references, "_backend", lambda: Vault)
    return Vault


def test_a_silent_back_end_holds_no_look(vault, monkeypatch):
    """It held a batch's page for minutes, and with two such pages all of the DAG's: they were refused."""
    answers = threading.Event()
    monkeypatch.setattr(references, "READ_SECONDS", 0.1)
    monkeypatch.setattr(vault, "deserialize_value", lambda row: answers.wait(20) and f"id-{row.value}")
    resolver, began = Resolver("film", "r"), time.monotonic()
    try:
        assert resolver.value("a", None) is resolver.value("b", None) is UNKNOWN
        assert time.monotonic() - began < 10
    finally:
        answers.set()
    while Resolver("film", "r").value("a", None) is UNKNOWN and time.monotonic() - began < 30:
        time.sleep(0.01)
    assert Resolver("film", "r").value("a", None) == "id-a"


def test_without_a_back_end(monkeypatch):
    """Values are what they are; an address is not a value, and nothing is read for it."""
    monkeypatch.setattr(references, "_backend", lambda: None)
    resolver = Resolver("d", "r")
    assert (resolver.has_backend, resolver.reads_everything) == (False, False)
    assert [resolver.value(value, None) for value in ("g", {"a": 1}, None, '"g"')] == ["g", {"a": 1}, None, "g"]
    assert resolver.value("s3://bucket/key", None) is UNKNOWN


def test_another_back_end_reads_everything(vault):
    """Every value goes through a back end that is not Airflow's own, once; what it cannot read is unknown."""
    resolver = Resolver("d", "r")
    assert resolver.reads_everything
    assert [resolver.value("token", None) for _ in range(3)] == ["id-token"] * 3
    assert resolver.value("broken", None) is UNKNOWN
    assert vault.reads == {"token": 1, "broken": 1}
    # The same place may hold another value after another try.
    resolver.value("token", 5)
    assert vault.reads["token"] == 2


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (Generation(id="g", status=GenerationStatus.SUCCEEDED), {"id": "g", "status": "succeeded"}),
        ({"id": "g", "at": datetime(2026, 1, 2, tzinfo=UTC)}, {"id": "g", "at": "2026-01-02 00:00:00+00:00"}),
        ({"at": {1, 2}}, {"at": "{1, 2}"}),
    ],
    ids=["model", "time", "set"],
)
def test_a_back_end_that_makes_objects(vault, monkeypatch, made, shown):
    """What a task returned that is not JSON breaks no page: a back end reads it with Airflow's own serialization."""
    monkeypatch.setattr(vault, "deserialize_value", lambda row: made)
    found = Resolver("d", "r").value("token", None)
    assert {name: found[name] for name in shown} == shown


def test_what_was_unknown_is_tried_again_later(vault, monkeypatch):
    """A store that was out of reach for a moment does not make a clip unknown for ever."""
    for now in (100.0, 101.0, 200.0):
        monkeypatch.setattr(references, "time", SimpleNamespace(monotonic=lambda now=now: now))
        assert Resolver("d", "r").value("broken", None) is UNKNOWN
    assert vault.reads["broken"] == 2


def test_a_look_reads_so_many_values_and_no_more(vault, monkeypatch):
    """A run of thousands is resolved over several looks."""
    monkeypatch.setattr(references, "MAX_READS", 10)
    values = [f"t{number}" for number in range(25)]
    known = []
    for _ in range(3):
        resolver = Resolver("d", "r")
        known.append(sum(resolver.value(value, None) is not UNKNOWN for value in values))
    assert known == [10, 20, 25]


@pytest.mark.fault(
    "attacks",
    "an XCom's address leads to another run, DAG, bucket or folder",
    outcome="refused",
    seen="the value is unknown",
)
@pytest.mark.parametrize(
    ("address", "is_read"),
    [
        ("s3://bucket/xcom/d/r+1/task/a.json", True),
        ("s3://conn@bucket/xcom/d/r+1/a.json", True),
        ("s3://bucket/xcom/d/r%2B1/task/a.json", True),
        ("s3://bucket/xcom/d/r+1", False),
        ("s3://bucket/xcom/d/other/a.json", False),
        ("s3://bucket/xcom/e/r+1/a.json", False),
        ("s3://bucket/xcom2/d/r+1/a.json", False),
        ("s3://bucket/xcom/d/r+1/../../e/r/a.json", False),
        ("s3://other/xcom/d/r+1/a.json", False),
        ("file:///xcom/d/r+1/a.json", False),
    ],
)
def test_only_the_runs_own_folder(monkeypatch, address, is_read):
    """An address is followed into the folder of its own DAG run, read with the deployment's own connection."""
    from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

    monkeypatch.setattr(references, "_backend", lambda: XComObjectStorageBackend)
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", "s3://mine@bucket/xcom")
    opened = []

    def open_beneath(root: Root, spot: Any) -> Any:
        opened.append((root, spot))
        data = json.dumps("g").encode()
        return SimpleNamespace(size=len(data), read=lambda start, length: data, close=lambda: None)

    monkeypatch.setattr(references, "open_beneath", open_beneath)
    assert Resolver("d", "r+1").value(address, None) == ("g" if is_read else UNKNOWN)
    # The root is the run's folder: a link in it leads to no other run.
    assert [(root.conn_id, root.spot.parts[:-1]) for root, _ in opened] == (
        [("mine", ("xcom", "d"))] if is_read else []
    )
    assert all(spot.is_beneath(root.spot) for root, spot in opened)


@pytest.mark.fault(
    "attacks",
    "an XCom names the object of another DAG that has been read before",
    outcome="refused",
    side="pages",
    seen="what one run has read is not handed to another",
)
def test_what_is_kept_belongs_to_its_run(vault):
    """A value that was read for one run is not taken from memory for another, where it may not be read."""
    assert Resolver("d", "r").value("token", 5) == "id-token"
    for names in (("other", "r"), ("d", "other")):
        Resolver(*names).value("token", 5)
    assert vault.reads["token"] == 3


@pytest.mark.fault(
    "attacks",
    "two thousand XComs of 250 kB look like addresses, or hold thousands of empty lists",
    outcome="survived",
    side="pages",
    seen="digests and JSON are remembered",
)
def test_what_is_kept_takes_little_memory(vault, monkeypatch):
    """The address was remembered whole, and a value as objects of thirty times its size: half a gigabyte of each."""
    values = [f"1{number}" for number in range(10)] + ["x" * 50_000 + str(number) for number in range(90)]
    tracemalloc.start()
    try:
        resolver = Resolver("d", "r")
        monkeypatch.setattr(vault, "deserialize_value", lambda row: [[]] * 4_000 if row.value[0] == "1" else 1 / 0)
        assert [resolver.value(value, None) == [[]] * 4_000 for value in values] == [True] * 10 + [False] * 90
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
    assert len(references._kept) == 100


@pytest.mark.fault(
    "attacks",
    "the store of the XCom back end is silent",
    outcome="survived",
    side="pages",
    seen="four looks hang; all others show what the database knows",
)
def test_a_silent_back_end_holds_few_looks(vault, monkeypatch):
    """While some looks hang in the back end, the others go on without it, and so does the rest of a slow look."""
    gate, monotonic, asked = threading.Event(), time.monotonic, []

    class Turns(threading.BoundedSemaphore):
        def acquire(self, *known, **more) -> bool:
            asked.append(1)
            return super().acquire(*known, **more)

    monkeypatch.setattr(references, "_turns", Turns(2))
    monkeypatch.setattr(references, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(Vault, "deserialize_value", lambda row: gate.wait(30) and row.value)
    with ThreadPoolExecutor(2) as looks:
        hung = [looks.submit(Resolver("d", "r").value, f"t{number}", None) for number in range(2)]
        try:
            until = monotonic() + 10
            while references._turns._value and monotonic() < until:
                time.sleep(0.001)
            third, before = Resolver("d", "r"), len(asked)
            assert [third.value(f"x{number}", None) for number in range(100)] == [UNKNOWN] * 100
            assert len(asked) - before == 1, "only the first value has waited for a turn"
        finally:
            gate.set()
        assert [look.result(30) for look in hung] == ["t0", "t1"]
    slow, now = Resolver("d", "r"), [100.0]
    monkeypatch.setattr(references, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert slow.value("y0", None) == "y0"
    now[0] += references.LOOK_SECONDS
    assert slow.value("y1", None) is UNKNOWN
    assert Resolver("d", "r").value("y1", None) == "y1"


@pytest.mark.fault("attacks", "a value in a ZIP file whose method unpacks all at once (a kilobyte is a gigabyte)",
                   outcome="survived", side="pages", seen="unknown")  # fmt: skip
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_in_a_zip_is_not_unpacked(method):
    """Python reads these methods a few kilobytes of the file at a time, whatever they become: the server's memory."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive, archive.open("value", "w") as value:
        for _ in range(60):
            value.write(b" " * 1_000_000)
    tracemalloc.start()
    try:
        assert references._unpacked("value.json.zip", packed.getvalue()) is UNKNOWN
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_usual_zip_is_read(method):
    """As Airflow's back end writes it, if it is configured so."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("file", '{"id": "g1"}')
    assert references._unpacked("value.json.zip", packed.getvalue()) == {"id": "g1"}
