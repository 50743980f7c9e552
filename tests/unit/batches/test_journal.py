"""The journal of a batch on local files: what is recorded is read again, and only one process writes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from airflow_provider_vidu.batches import journal, snapshot
from airflow_provider_vidu.batches.journal import HeldBatchError, Journal
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError, ViduStorageError
from airflow_provider_vidu.stores import small_files
from airflow_provider_vidu.stores.destination import Destination


def opened(folder: Path, owner: str = "") -> Journal:
    """Return a journal with a new leg.

    :param owner: the task instance.
    """
    made = Journal(Destination(f"{folder}/"), "b", sleep=lambda _: None, owner=owner)
    made.open()
    return made


def identified(key: str) -> dict:
    """Return the event of an id."""
    return {"e": "id", "key": key, "id": f"g-{key}", "at": 1.0}


def test_events_survive(tmp_path):
    """Whether the leg was ended or not."""
    first = opened(tmp_path)
    first.append(identified("a"))
    first.end()
    second = opened(tmp_path)
    second.append(identified("b"))
    assert set(opened(tmp_path).state.open) == {"a", "b"}


def test_a_whole_state_replaces_objects(tmp_path, monkeypatch):
    """The state holds the same, and its objects are gone; the seal against a process that may live stays."""
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 3)
    opened(tmp_path).append(identified("a"))
    second = opened(tmp_path)
    second.append(identified("b"), {"e": "line", "line": {"key": "a", "status": "stored"}})
    second.end()
    left = [str(path.relative_to(tmp_path / ".vidu" / "b")) for path in (tmp_path / ".vidu").rglob("*.*")]
    assert sorted(left) == ["leg-000001/000003.jsonl", "state-000001.json.gz"]
    third = opened(tmp_path)
    assert (set(third.state.open), set(third.state.lines)) == ({"b"}, {"a"})
    assert third.state == second.state


def test_only_the_newest_leg_writes(tmp_path):
    """The older one's record fails, and is not read by anyone."""
    first = opened(tmp_path)
    second = opened(tmp_path)
    with pytest.raises(ViduError, match="Another process has taken over"):
        first.append(identified("lost"))
    second.append(identified("kept"))
    assert set(opened(tmp_path).state.open) == {"kept"}


def test_a_live_leg_is_not_taken_over_by_another_task(tmp_path, monkeypatch):
    """A retry of the same task instance takes it over at once, another one only if it shows no sign of life."""
    first = opened(tmp_path, "run 1")
    first.append(identified("a"))
    with pytest.raises(HeldBatchError, match="run 1"):
        opened(tmp_path, "run 2")
    first.append(identified("b"))
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.0)
    first.beat()
    assert set(opened(tmp_path, "run 1").state.open) == {"a", "b"}
    with pytest.raises(HeldBatchError):
        opened(tmp_path, "run 2")
    monkeypatch.setattr(journal, "DEAD_SECONDS", 0.0)
    assert set(opened(tmp_path, "run 2").state.open) == {"a", "b"}


def test_a_leg_that_only_stores_files_is_alive(tmp_path, monkeypatch):
    """A line holds no time of its own; with one per second, no pause is long enough for a beat."""
    now = [10_000.0]
    monkeypatch.setattr(journal.time, "time", lambda: now[0])
    first = opened(tmp_path, "run 1")
    for number in range(30):
        now[0] += journal.BEAT_SECONDS / 2
        first.append({"e": "line", "line": {"key": str(number), "status": "stored"}})
    with pytest.raises(HeldBatchError):
        opened(tmp_path, "run 2")
    now[0] += journal.DEAD_SECONDS
    assert len(opened(tmp_path, "run 2").state.lines) == 30


def test_a_live_leg_of_a_worker_whose_clock_is_late(tmp_path, monkeypatch):
    """Its times are old, but it goes on writing; once it ends, the next leg begins after it."""
    monkeypatch.setattr(journal, "DEAD_SECONDS", 0.0)
    first = opened(tmp_path, "run 1")
    watched: list[float] = []

    def second(meanwhile) -> Journal:
        def sleep(seconds: float) -> None:
            watched.append(seconds)
            meanwhile()

        return Journal(Destination(f"{tmp_path}/"), "b", sleep=sleep, owner="run 2")

    with pytest.raises(HeldBatchError, match="run 1"):
        second(lambda: first.append(identified("a"))).open()
    assert set(second(first.end).open().open) == {"a"}
    assert watched == [journal.WATCH_SECONDS] * 2
    assert journal.WATCH_SECONDS > journal.BEAT_SECONDS


def test_a_sign_of_life_from_the_future_proves_nothing(tmp_path):
    """Other writers of the store could hold a batch for ever."""
    folder = tmp_path / ".vidu" / "b" / "leg-000001"
    folder.mkdir(parents=True)
    (folder / "000001.jsonl").write_text('{"e": "leg", "owner": "run 1", "at": 99999999999}\n')
    opened(tmp_path, "run 2")


@pytest.mark.fault("attacks", "a forged journal holds thousands of legs that were never ended", outcome="survived",
                   seen="one is watched, and the batch goes on")  # fmt: skip
@pytest.mark.parametrize("comes", ["before", "while the last is watched"])
def test_legs_that_never_end_do_not_hold_a_task(tmp_path, comes):
    """Each was watched for 90 seconds, before the task looked at its timeout: 80 kB held a worker for 50 hours."""
    watched: list[float] = []

    def forge(number: int) -> None:
        folder = tmp_path / ".vidu" / "b" / f"leg-{number:06d}"
        folder.mkdir(parents=True)
        (folder / "000001.jsonl").write_text('{"e": "leg", "owner": "run 1", "at": 1}\n')

    def sleep(seconds: float) -> None:
        watched.append(seconds)
        assert len(watched) < 50
        if comes != "before":
            forge(len(watched) + 1)

    for number in range(1, 100 if comes == "before" else 2):
        forge(number)
    task = Journal(Destination(f"{tmp_path}/"), "b", sleep=sleep, owner="run 2")
    if comes == "before":
        task.open()
        assert len(watched) == 1
    else:
        with pytest.raises(HeldBatchError, match="run 1"):
            task.open()
        assert len(watched) == journal.MOST_WATCHED


def test_a_task_that_waited_reads_what_the_other_has_written(tmp_path):
    """The same journal may be opened again and again."""
    first, second = opened(tmp_path, "run 1"), Journal(Destination(f"{tmp_path}/"), "b", owner="run 2")
    with pytest.raises(HeldBatchError):
        second.open()
    first.append(identified("a"))
    first.end()
    assert set(second.open().open) == {"a"}


def test_a_late_whole_state_replaces_no_newer_one(tmp_path, monkeypatch):
    """While it is written, the leg has not ended, so no other task begins one whose objects it would make unread."""
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 1)
    first = opened(tmp_path, "run 1")
    first.append(identified("a"))
    original, held = journal.write_file, []

    def write_file(*arguments):
        with pytest.raises(HeldBatchError) as error:
            opened(tmp_path, "run 2")
        held.append(error.value)
        original(*arguments)

    with monkeypatch.context() as slow:
        slow.setattr(journal, "write_file", write_file)
        first.end()
    assert held
    second = opened(tmp_path, "run 2")
    second.append(identified("b"))
    second.end()
    assert set(opened(tmp_path, "run 3").state.open) == {"a", "b"}


@pytest.mark.parametrize("kind", ["held up", "answer lost"])
def test_a_state_that_arrives_after_a_newer_one(tmp_path, monkeypatch, kind):
    """Its process was taken over, or has given the write up: another one has removed the objects after that state."""
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 1)
    first = opened(tmp_path, "run 1")
    first.append(identified("a"))
    original, late = journal.write_file, []

    def write_file(*arguments):
        monkeypatch.setattr(journal, "write_file", original)
        late.append(arguments)
        if kind == "answer lost":
            raise ViduStorageError("no answer")
        record("b")
        original(*late.pop())

    def record(key):
        leg = opened(tmp_path, "run 1")
        leg.append(identified(key))
        leg.end()

    monkeypatch.setattr(journal, "write_file", write_file)
    if kind == "answer lost":
        first.end()
        record("b")
        original(*late.pop())
    else:
        with pytest.raises(ViduError, match="Another process has taken over"):
            first.end()
    assert not late
    record("c")
    assert set(opened(tmp_path).state.open) == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["state.json.gz", "leg-000002/000001.jsonl", "state-000001.json.gz"])
def test_a_leg_that_begins_and_ends_while_another_one_begins(tmp_path, monkeypatch, name):
    """Its objects are removed before the other one has read them, and their names are free again."""
    monkeypatch.setattr(journal, "SNAPSHOT_EVENTS", 1)
    first = opened(tmp_path, "run 1")
    first.append(identified("a"))
    if not name.startswith("state-"):
        first.end()
    original = {step: getattr(journal, step) for step in ("content_of", "create_file")}
    ended: list[str] = []

    def meanwhile(file) -> None:
        if file.uri.endswith(name) and not ended:
            ended.append(name)
            other = opened(tmp_path, "run 1")
            other.append(identified("b"))
            other.end()

    def content_of(file):
        found = original["content_of"](file)
        if name == "state.json.gz":
            meanwhile(file)
        return found

    def create_file(file, *arguments):
        meanwhile(file)
        original["create_file"](file, *arguments)

    with monkeypatch.context() as slow:
        slow.setattr(journal, "content_of", content_of)
        slow.setattr(journal, "create_file", create_file)
        slower = opened(tmp_path, "run 1")
    assert ended
    assert set(slower.state.open) == {"a", "b"}
    slower.append(identified("c"))
    assert set(opened(tmp_path, "run 1").state.open) == {"a", "b", "c"}


@pytest.mark.parametrize("is_written", [True, False], ids=["answer lost", "not written"])
def test_a_write_that_fails_is_tried_again(tmp_path, monkeypatch, is_written):
    """Whether the object was published is unknown; the second attempt recognizes its own content."""
    first = opened(tmp_path)
    original, failures = small_files._write, []

    def write(*arguments, **known):
        if failures:
            return original(*arguments, **known)
        failures.append(1)
        if is_written:
            original(*arguments, **known)
        raise ViduStorageError("the store is away")

    monkeypatch.setattr(small_files, "_write", write)
    first.append(identified("a"))
    first.append(identified("b"))
    assert set(opened(tmp_path).state.open) == {"a", "b"}


def test_a_store_that_stays_away_ends_the_leg(tmp_path, monkeypatch):
    """With its own error."""
    first = opened(tmp_path)

    def write(*_, **__):
        raise ViduStorageError("the store is away")

    monkeypatch.setattr(small_files, "_write", write)
    with pytest.raises(ViduStorageError, match="is away"):
        first.append(identified("a"))


STATE = {"leg": 1, "state": {"orders": 1, "since": 1, "deadline": 2, "lines": [], "open": [], "intents": []}}


def with_state(**known: object) -> bytes:
    """Return a snapshot with other parts than an empty one."""
    return json.dumps({**STATE, "state": {**STATE["state"], **known}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"[" * 100_000,
        b"{}",
        b'{"leg": 1e999, "state": {}}',
        with_state(since="x"),
        with_state(lines=[{"status": "stored"}]),
        with_state(lines=[{"key": "a", "status": "failed", "error": None}]),
        with_state(open=[{"key": "a", "id": {"x": 1}}]),
        with_state(open=[{"key": "a", "id": "g\n2026 ERROR forged"}]),
        with_state(lines=["[" * 99] * 3),
        with_state(orders="9" * 4300),
        *(with_state(**{name: "ab"}) for name in ("dags", "owners", "lines", "open", "intents")),
        *(json.dumps({**STATE, "leg": leg}).encode() for leg in ("9" * 4300, -1, 1.5, 2**31, None)),
        b" " * 2_000_001,
    ],
)
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_damaged_state_orders_nothing(tmp_path, monkeypatch, content, is_packed):
    """Others may write to the store: the error names the object, and takes neither memory nor a retry."""
    monkeypatch.setattr(snapshot, "MOST_BYTES", 2_000_000)
    folder = tmp_path / ".vidu" / "b"
    folder.mkdir(parents=True)
    (folder / "state.json.gz").write_bytes(gzip.compress(content) if is_packed else content)
    with pytest.raises(ViduConfigError, match=r"state\.json\.gz"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "event",
    ["{", "[]", "1", '{"e": "id"}', '{"e": "id", "key": [1], "id": "g"}', '{"e": "order"}', '{"e": "line", "line": 1}',
     '{"e": "intent", "key": "a", "record": null}', '{"e": "back", "keys": 1}', '{"e": "back", "keys": "ab"}',
     '{"e": "order", "anew": true, "keys": "ab", "order": {"order": 1}, "since": 1, "deadline": 2}'],
)  # fmt: skip
def test_a_damaged_event_orders_nothing(tmp_path, event):
    """What is paid for would be unknown."""
    folder = tmp_path / ".vidu" / "b" / "leg-000001"
    folder.mkdir(parents=True)
    (folder / "000001.jsonl").write_text(f'{{"e": "leg"}}\n{event}\n')
    with pytest.raises(ViduConfigError, match=r"leg-000001/000001\.jsonl"):
        opened(tmp_path)


def test_an_object_of_line_ends_takes_no_memory(tmp_path, monkeypatch):
    """A list of 256 million empty lines would take two gigabytes."""
    monkeypatch.setattr(snapshot, "MOST_VALUES", 1_000)
    folder = tmp_path / ".vidu" / "b" / "leg-000001"
    folder.mkdir(parents=True)
    (folder / "000001.jsonl").write_bytes(b"\n\r" * 600)
    with pytest.raises(ViduConfigError, match=r"000001\.jsonl.*too many lines"):
        opened(tmp_path)


def test_a_store_with_an_answer_for_any_name_holds_no_worker(tmp_path, monkeypatch):
    """A web page at the address of a store has every state that is asked for: no search found the last one."""
    monkeypatch.setattr(snapshot, "_MOST_GENERATIONS", 50)
    folder = tmp_path / ".vidu" / "b"
    folder.mkdir(parents=True)
    for generation in range(1, 60):
        (folder / snapshot.state_name(generation)).touch()
    with pytest.raises(ViduConfigError, match="more than 50 states"):
        opened(tmp_path)
