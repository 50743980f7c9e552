"""What a DAG shows of its downloads is looked at before a generation is paid for."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, TaskGroup, XComArg, task_group

from airflow_provider_vidu.exceptions import ViduConfigError, ViduStorageError
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.operators.preflight import check_downstream as check
from airflow_provider_vidu.stores import destination as destinations
from airflow_provider_vidu.stores import schemes
from tests.rows import each_row
from tests.versions import AIRFLOW

if AIRFLOW >= (3, 0):
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
else:
    from airflow.operators.empty import EmptyOperator
    from airflow.operators.python import BranchPythonOperator, PythonOperator


def check_downstream(operator: Any) -> None:
    """Check what is behind a task, as the operator does."""
    check(operator, logging.getLogger("preflight"), rehearses=False)


def order(*, between: bool = False, mapped: bool = False, here: str | None = None, **arguments):
    """Return a task with a download behind it."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate", **({"queue": here} if here else {}))
        if mapped:
            ids = arguments.pop("generation_id", ["a", "b"])
            download = ViduDownloadOperator.partial(task_id="download", **arguments).expand(generation_id=ids)
        else:
            download = ViduDownloadOperator(task_id="download", **{"generation_id": "x", **arguments})
        if between:
            first >> EmptyOperator(task_id="between") >> download
        else:
            first >> download
    return first


@pytest.fixture
def without_packages(monkeypatch):
    """Let no store's package be installed."""
    monkeypatch.setattr(schemes, "find_spec", lambda _name: None)


@pytest.mark.fault(
    "orders", "the store of the download that follows has no package", outcome="refused", says="Nothing was ordered"
)
@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize(
    "destination", ["gs://bucket/clips/", "s3://bucket/{{ ds }}/", ObjectStoragePath("gs://bucket/clips/")]
)
def test_a_missing_package_is_found(without_packages, destination, mapped, between):
    """Also behind other tasks, in mapped downloads, and in a template whose scheme shows."""
    with pytest.raises(ViduConfigError, match=r"Nothing was ordered.*'download'.*pip install"):
        check_downstream(order(destination=destination, mapped=mapped, between=between))


@pytest.mark.fault(
    "orders",
    "the connection of the store of the download that follows does not exist",
    outcome="refused",
    says="There is no Airflow connection",
)
@pytest.mark.parametrize(
    ("destination", "conn_id"),
    [
        ("gs://bucket/clips/", "slip"),
        ("gs://slip@bucket/{{ ds }}/", None),
        ("abfss://clips/a.mp4", "slip"),
        (ObjectStoragePath("gs://slip@bucket/clips/"), None),
    ],
)
def test_a_missing_connection_of_the_store_is_found(monkeypatch, destination, conn_id):
    """A slip in storage_conn_id, or in the URL, costs nothing; with the connection there is nothing to tell."""
    monkeypatch.setattr(schemes, "find_spec", lambda _name: True)
    first = order(destination=destination, storage_conn_id=conn_id)
    with pytest.raises(ViduConfigError, match=r"Nothing was ordered.*There is no Airflow connection 'slip'"):
        check_downstream(first)
    monkeypatch.setenv("AIRFLOW_CONN_SLIP", '{"conn_type": "any"}')
    check_downstream(first)


@pytest.mark.fault(
    "orders",
    "the Vidu connection of the download that follows does not exist",
    outcome="refused",
    says="Nothing was ordered",
)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_missing_connection_of_the_service_is_found(tmp_path, monkeypatch, mapped):
    """A task with a connection of its own, and a download that is left with the default one: it was paid for first."""
    first = order(destination=f"{tmp_path}/", mapped=mapped)
    first.vidu_conn_id = "own"
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT", raising=False)
    with pytest.raises(ViduConfigError, match=r"Nothing was ordered.*There is no Airflow connection 'vidu_default'"):
        check_downstream(first)
    monkeypatch.setenv(
        "AIRFLOW_CONN_VIDU_DEFAULT", '{"conn_type": "vidu", "host": "http://127.0.0.1", "password": "k"}'
    )
    check_downstream(first)


@pytest.mark.parametrize(
    "arguments",
    [
        {"generation_id": None, "video_url": "https://example.com/a.mp4"},
        {"overwrite": "skip"},
        {"vidu_conn_id": "{{ params.conn }}"},
        {"mapped": True, "vidu_conn_id": "{{ params.conn }}"},
        {"mapped": True, "vidu_conn_id": "own"},
    ],
)
def test_a_connection_of_the_service_that_may_not_matter_stops_nothing(tmp_path, monkeypatch, arguments):
    """A URL alone needs no connection, and a file that stays is not fetched."""
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT", raising=False)
    first = order(destination=f"{tmp_path}/", **arguments)
    first.vidu_conn_id = "own"
    check_downstream(first)


def test_a_connection_of_the_service_that_is_mapped_over_stops_nothing(tmp_path, monkeypatch):
    """The instances may have others than the default one."""
    monkeypatch.delenv("AIRFLOW_CONN_VIDU_DEFAULT", raising=False)
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate")
        first.vidu_conn_id = "own"
        kept = ViduDownloadOperator.partial(task_id="keep", generation_id="x", destination=f"{tmp_path}/")
        first >> kept.expand(vidu_conn_id=["own", "other"])
        with_url = ViduDownloadOperator.partial(task_id="url", destination=f"{tmp_path}/")
        first >> with_url.expand(video_url=["https://example.com/a.mp4"])
    check_downstream(first)


@pytest.mark.parametrize(
    ("destination", "conn_id"), [("s3://bucket/clips/", "slip"), ("gs://bucket/clips/", "{{ params.conn }}")]
)
def test_a_connection_that_may_not_matter_stops_nothing(monkeypatch, destination, conn_id):
    """Amazon's file system does without, and a template shows no connection yet."""
    monkeypatch.setattr(schemes, "find_spec", lambda _name: True)
    check_downstream(order(destination=destination, storage_conn_id=conn_id))


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize(
    "destination",
    [
        "{{ var.value.get('clips', 's3://films/clips/') }}",
        "{{ 's3://films/clips/' if params.is_public else 'file:///data/clips/' }}",
        "{% if params.is_public %}gs://my_gcs@films/{% else %}/data/clips/{% endif %}",
        "{{ var.value.store }}://films/clips/",
        "{{ var.value.get('clips', 'gs://my_gcs@films/') }}",
    ],
)
def test_a_template_in_which_a_scheme_stands_passes(without_packages, destination, mapped):
    """What it renders to is not known: a DAG that works would never order."""
    check_downstream(order(destination=destination, mapped=mapped))


def test_an_unknown_scheme_is_found():
    """A slip in the scheme costs nothing."""
    with pytest.raises(ViduConfigError, match=r"no file system for destination 's4://bucket/a\.mp4'"):
        check_downstream(order(destination="s4://bucket/a.mp4"))


@pytest.mark.fault(
    "orders", "the folder of the download that follows is not writable", outcome="refused", says="cannot be written to"
)
@pytest.mark.parametrize("prefix", ["", "file://", "file://localhost"])
def test_a_folder_without_permission_is_found(tmp_path, monkeypatch, prefix):
    """The nearest folder that exists decides, for every user that may run the tests."""
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((str(path), mode)) is not None)
    with pytest.raises(ViduConfigError, match="cannot be written to"):
        check_downstream(order(destination=f"{prefix}{tmp_path}/new/clips/"))
    assert asked == [(str(tmp_path), os.W_OK | os.X_OK)]


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (lambda path: (path / "a.mp4").mkdir(), "a.mp4", "end it with a slash"),
        (lambda path: (path / "file").write_bytes(b""), "file/", "is not a folder"),
        (lambda path: (path / "a.mp4").symlink_to("b.mp4"), "a.mp4", "symbolic link"),
    ],
)
def test_what_is_in_the_way_is_found(tmp_path, make, name, words):
    """A folder of the file's name, a file of the folder's, a link."""
    make(tmp_path)
    with pytest.raises(ViduConfigError, match=words):
        check_downstream(order(destination=f"{tmp_path}/{name}"))


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_that_is_there(tmp_path, is_link):
    """With "error" the download would fail, with "skip" it keeps the file, also one that it could not replace."""
    (tmp_path / "old.mp4").write_bytes(b"the old file")
    (tmp_path / "a.mp4").symlink_to("old.mp4") if is_link else (tmp_path / "old.mp4").rename(tmp_path / "a.mp4")
    with pytest.raises(ViduConfigError, match=r"Nothing was ordered: .*a\.mp4' exists already"):
        check_downstream(order(destination=f"{tmp_path}/a.mp4", overwrite="error"))
    check_downstream(order(destination=f"{tmp_path}/a.mp4", overwrite="skip"))
    check_downstream(order(destination=f"{tmp_path}/", overwrite="error"))
    (tmp_path / "a.mp4").unlink()
    (tmp_path / "a.mp4").touch()  # an empty file counts as missing
    check_downstream(order(destination=f"{tmp_path}/a.mp4", overwrite="error"))


def test_a_share_that_is_not_mounted_is_found(tmp_path):
    """It may be back at the next try of the order, which Airflow retries."""
    (tmp_path / "clips").symlink_to("share")
    with pytest.raises(ViduStorageError, match=r"Nothing was ordered: .* is a symbolic link to 'share'") as caught:
        check_downstream(order(destination=f"{tmp_path}/clips/"))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("mode", "user", "name", "is_refused"),
    [
        (0o1777, 1, "a.mp4", True),
        (0o1777, 0, "a.mp4", False),
        (0o1777, 1, "b.mp4", False),
        (0o1777, 1, "", False),
        (0o777, 1, "a.mp4", False),
    ],
)
def test_a_file_that_only_its_owner_may_replace_is_found(tmp_path, monkeypatch, mode, user, name, is_refused):
    """In /tmp: root had tried the DAG with `airflow tasks test`, and each run of another user paid before it failed."""
    (tmp_path / "a.mp4").write_bytes(b"")
    tmp_path.chmod(mode)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + user)
    with pytest.raises(ViduConfigError, match="sticky bit") if is_refused else contextlib.nullcontext():
        check_downstream(order(destination=f"{tmp_path}/{name}"))


@pytest.mark.parametrize("destination", ["{}/out/clips/", "s3://other/clips/", "s3://theirs@studio/clips/"])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_destination_outside_of_the_roots_is_found(tmp_path, monkeypatch, destination, mapped):
    """What the deployment does not allow to be written is not paid for."""
    monkeypatch.setenv("AIRFLOW__VIDU__DESTINATION_ROOTS", f"{tmp_path}/in, s3://studio")
    with pytest.raises(ViduConfigError, match=r"Nothing was ordered.*destination_roots"):
        check_downstream(order(destination=destination.format(tmp_path), mapped=mapped))
    check_downstream(order(destination=f"{tmp_path}/in/clips/", mapped=mapped))
    check_downstream(order(destination="s3://studio/clips/{{ ds }}/", mapped=mapped))


@pytest.mark.parametrize(
    ("setting", "value"), [("destination_roots", "films"), ("max_bytes", "20 GiB"), ("allowed_hosts", "10.0.0.0/99")]
)
def test_a_broken_setting_is_found(tmp_path, monkeypatch, setting, value):
    """Every download would fail, so nothing is paid for."""
    monkeypatch.setenv(f"AIRFLOW__VIDU__{setting.upper()}", value)
    with pytest.raises(ViduConfigError, match=rf"Nothing was ordered.*\[vidu\] {setting}.*'{value}'"):
        check_downstream(order(destination=f"{tmp_path}/clips/"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"destination": "https://store.example.com/a.mp4?sig=hush"}, "a web address cannot be written to"),
        ({"destination": "/tmp/clips/", "storage_conn_id": "my_aws"}, "does not apply to a local destination"),
        ({"destination": ObjectStoragePath("file:///tmp/clips/", auto_mkdir=True)}, "takes no options"),
    ],
)
def test_what_no_store_takes_is_found(arguments, words):
    """A destination that is wrong in every run is found before the order, too."""
    with pytest.raises(ViduConfigError, match=words) as caught:
        check_downstream(order(**arguments))
    assert "hush" not in str(caught.value)


@pytest.mark.fault(
    "orders", "a mapped download that follows has one file name", outcome="refused", says="would write the same file"
)
def test_one_file_for_a_mapped_download_is_found(tmp_path):
    """The clips would be paid for, and all but one be lost."""
    with pytest.raises(ViduConfigError, match="would write the same file"):
        check_downstream(order(destination=f"{tmp_path}/a.mp4", mapped=True))
    with pytest.raises(ViduConfigError, match="would write the same file"):
        check_downstream(order(destination="/tmp/{{ params.name }}.mp4", mapped=True))


@pytest.mark.parametrize("equal", [True, False])
def test_one_file_for_mapped_destinations_is_found(tmp_path, equal):
    """Also where the destination itself is mapped over."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate")
        rows = [{"destination": f"{tmp_path}/{'a' if equal else name}.mp4", "creation": at}
                for at, name in enumerate("ab")]  # fmt: skip
        first >> ViduDownloadOperator.partial(task_id="keep", generation_id="g").expand_kwargs(rows)
    expected = pytest.raises(ViduConfigError, match="would write the same file") if equal else contextlib.nullcontext()
    with expected:
        check_downstream(first)


@each_row(
    "arguments",
    [
        {"destination": "{{ params.where }}"},
        {"destination": "s3://bucket/clips/"},
        {"destination": "memory://clips/"},
        {"destination": "gs://bucket/clips/", "queue": "elsewhere"},
        {"destination": "/nobody/may/write/here.mp4", "queue": "elsewhere"},
        {"destination": "/{{ ds }}/a.mp4"},
        {"destination": "/tmp/clips/", "storage_conn_id": "{{ params.conn }}"},
        {"destination": "{{ params.folder }}", "mapped": True},
        {"destination": "/tmp/{% if params.late %}late/{% else %}clips/{% endif %}", "mapped": True},
    ],
)
def test_what_cannot_be_known_here_passes(arguments):
    """Templates, stores that are there, and downloads that run elsewhere are left to the download."""
    check_downstream(order(**arguments))


def test_a_destination_that_is_mapped_over_is_looked_at():
    """Each of those that the DAG shows."""
    destinations = ["/tmp/clips/", "https://cdn.example.com/b.mp4"]
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate")
        first >> ViduDownloadOperator.partial(task_id="keep", generation_id="g").expand(destination=destinations)
    with pytest.raises(ViduConfigError, match="a web address cannot be written to"):
        check_downstream(first)


def test_nothing_is_made(tmp_path):
    """A folder that is still missing is not made by looking."""
    check_downstream(order(destination=f"{tmp_path}/new/clips/"))
    assert list(tmp_path.iterdir()) == []


def test_a_task_without_a_dag_passes():
    """In a unit test of a user there is nothing behind the task."""
    check_downstream(EmptyOperator(task_id="alone"))
    check_downstream(object())


def test_other_tasks_do_not_matter():
    """Only downloads are looked at, whatever attributes others have."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first, second = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
        second.destination = "s4://x/y"
        first >> second
    check_downstream(first)


def chain(*tasks: str, rule: str = "all_success", beside: str | None = None) -> EmptyOperator:
    """Return a task with others behind it, at the end a download that would fail.

    :param tasks: what is between them: ``empty``, ``python`` or ``branch``.
    :param rule: the download's trigger rule.
    :param beside: what else is upstream of the download: ``above`` it stands above all of them.
    """
    kinds = {
        "empty": EmptyOperator,
        "python": lambda task_id: PythonOperator(task_id=task_id, python_callable=print),
        "branch": lambda task_id: BranchPythonOperator(task_id=task_id, python_callable=print),
    }
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        last = first = EmptyOperator(task_id="generate")
        for number, name in enumerate(tasks):
            following = kinds[name](task_id=f"{name}{number}")
            last >> following
            last = following
        download = ViduDownloadOperator(task_id="download", destination="s4://x/", generation_id="x", trigger_rule=rule)
        last >> download
        if beside is not None:
            where, _, name = beside.rpartition(" ")
            other = kinds[name](task_id="beside")
            other >> ([first, download] if where else download)
    return first


@pytest.mark.parametrize(
    ("made", "is_sure"),
    [
        (lambda: chain("empty", "empty"), True),
        (lambda: chain(rule="all_done"), True),
        (lambda: chain(beside="above empty"), True),
        (lambda: chain(beside="above python"), True),
        (lambda: chain("branch"), False),
        (lambda: chain("branch", "empty"), False),
        (lambda: chain("python"), False),
        (lambda: chain(rule="one_failed"), False),
        (lambda: chain(beside="branch"), False),
        (lambda: chain(beside="python"), False),
        (lambda: chain(beside="above branch"), False),
    ],
)
def test_a_download_that_may_be_skipped_stops_no_order(made, is_sure, caplog):
    """Behind a branch, a failure or a task that may skip itself, the download is warned of instead."""
    if is_sure:
        with pytest.raises(ViduConfigError, match="Nothing was ordered"):
            check_downstream(made())
    else:
        check_downstream(made())
        assert "The download 'download' downstream of this task will fail if it runs" in caplog.text


@pytest.mark.parametrize("longer", [True, False])
def test_a_download_at_the_end_of_two_ways(longer):
    """It is bound to run if both ways are, whichever is walked first."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first, a, b, c = (EmptyOperator(task_id=name) for name in ("generate", "a", "b", "c"))
        download = ViduDownloadOperator(task_id="download", destination="s4://x/", generation_id="x")
        first >> [a, b]
        (b if longer else a) >> c
        [c, a, b] >> download
    with pytest.raises(ViduConfigError):
        check_downstream(first)


def test_one_file_within_a_mapped_group_is_found():
    """A download in a mapped task group runs as often as a mapped one."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task_group
        def film(prompt: str) -> None:
            first = PythonOperator(task_id="generate", python_callable=print, op_args=[prompt])
            first >> ViduDownloadOperator(task_id="download", destination="/tmp/a.mp4", generation_id="x")

        film.expand(prompt=["a", "b"])
    with pytest.raises(ViduConfigError, match="would write the same file"):
        check_downstream(dag.get_task("film.generate"))


@each_row(("index", "is_refused"), [(0, True), (1, False), (-1, False)])
@pytest.mark.parametrize("has_rows", [True, False])
def test_a_file_that_another_instance_of_a_mapped_group_has_stored(tmp_path, index, is_refused, has_rows):
    """Instances that wait for a slot, or are repeated, begin when others have ended."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task_group
        def film(file: str) -> None:
            first = EmptyOperator(task_id="generate")
            first >> ViduDownloadOperator(task_id="download", destination=file, overwrite="error", generation_id="x")

        files = [str(tmp_path / f"{name}.mp4") for name in "ab"]
        (tmp_path / "a.mp4").write_bytes(b"stored")
        film.expand_kwargs([{"file": file} for file in files]) if has_rows else film.expand(file=files)
    with pytest.raises(ViduConfigError, match="exists already") if is_refused else contextlib.nullcontext():
        check(dag.get_task("film.generate"), logging.getLogger("preflight"), rehearses=False, index=index)


@each_row(("handed", "is_refused"), [("/tmp/{{ ds }}/", True), ("/tmp/{{ ti.map_index }}.mp4", True), ("/tmp/", False)])
def test_a_template_that_a_mapped_group_hands_in(handed, is_refused):
    """Airflow does not render it; the download would refuse what is paid for by then."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task_group
        def film(folder: str) -> None:
            first = PythonOperator(task_id="generate", python_callable=print)
            first >> ViduDownloadOperator(task_id="download", destination=folder, generation_id="x")

        film.expand(folder=[handed])
    if is_refused:
        with pytest.raises(ViduConfigError, match="holds a template that was not rendered"):
            check_downstream(dag.get_task("film.generate"))
    else:
        check_downstream(dag.get_task("film.generate"))


def test_a_look_that_fails_stops_no_order(monkeypatch, caplog):
    """Whatever an unusual DAG makes it stumble over, it is warned of."""
    monkeypatch.setattr(destinations, "missing_file_system", lambda *_: 1 / 0)
    check_downstream(order(destination="s3://bucket/clips/"))
    assert "Could not check the destination of the download 'download': division by zero" in caplog.text


def test_a_large_dag_costs_little():
    """A thousand tasks, each of a row behind all of the row before it, are walked in well under a second."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate")
        above = [first]
        for row in range(100):
            tasks = [EmptyOperator(task_id=f"t{row}-{number}") for number in range(10)]
            for task in above:
                task >> tasks
            above = tasks
        above >> ViduDownloadOperator(task_id="download", destination="memory://clips/", generation_id="x")
    began = time.process_time()
    check_downstream(first)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("password", ["S3cretPassw0rd", "S3cret@Passw0rd", "S3cret'Passw0rd", "S3cretPass" * 20])
@pytest.mark.parametrize("scheme", ["nope", "sftp", "abfs"])
def test_the_password_of_a_destination_is_not_shown(password, scheme, caplog):
    """Only the download itself has it masked; here it would stand in the log of another task, or be cut off there."""
    with pytest.raises(ViduConfigError) as caught, caplog.at_level(logging.DEBUG):
        check_downstream(order(destination=f"{scheme}://user:{password}@h/clips/"))
    assert not re.search("cret|Passw", f"{caught.value}{caplog.text}")
    assert "user:***" in str(caught.value)


class Recorded(destinations.Destination):
    """A destination whose store is not asked, but noted."""

    seen: list[tuple[str | None, str | None]]

    def __init__(self, text, conn_id=None, options=None):
        self._noted = [conn_id, None]

    def keeps(self, overwrite, artifact=None):
        """Note how an existing file is treated."""
        self._noted[1] = overwrite
        return False

    def rehearse(self, artifact=None):
        """Note the store."""
        self.seen.append(tuple(self._noted))


ROWS = {
    "defaults": ({}, {"generation_id": ["a", "b"]}, [("ours", "skip")]),
    "defaults, rows": ({}, [{"generation_id": "a"}], [("ours", "skip")]),
    "its own": ({"storage_conn_id": "own", "overwrite": "replace"}, {"generation_id": ["a"]}, [("own", "replace")]),
    "each its own": ({}, {"generation_id": ["a"], "storage_conn_id": ["b", "c"]}, []),
    "rows with their own": ({}, [{"generation_id": "a", "storage_conn_id": "b"}, {"generation_id": "c"}], []),
    "rows with their own file": ({}, [{"generation_id": "a", "overwrite": "error"}], [("ours", "replace")]),
    "rows of a task": ({}, None, []),
    "rows of a task, its own": ({"storage_conn_id": "own"}, None, [("own", "replace")]),
}


@each_row("kind", ROWS)
@each_row("is_group", [False, True])
def test_the_store_of_a_mapped_download_is_the_one_that_it_will_use(kind, is_group, monkeypatch):
    """Airflow adds the defaults when it makes an instance: another store was tried, which refused, and all orders."""
    partial, mapped, seen = ROWS[kind]
    defaults = {"storage_conn_id": "ours", "overwrite": "skip"}
    Recorded.seen = []
    monkeypatch.setattr(destinations, "Destination", Recorded)
    monkeypatch.setattr(destinations, "missing_file_system", lambda *_: None)
    of_dag = {"storage_conn_id": "not this"} if is_group else defaults
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with DAG("d", schedule=None, start_date=start, default_args=of_dag):
        first, rows = EmptyOperator(task_id="generate"), EmptyOperator(task_id="rows")
        with TaskGroup("g", default_args=defaults) if is_group else contextlib.nullcontext():
            kept = ViduDownloadOperator.partial(task_id="keep", destination="s3://bucket/clips/", **partial)
            given = XComArg(rows) if mapped is None else mapped
            rows >> first >> (kept.expand(**given) if isinstance(given, dict) else kept.expand_kwargs(given))
    check(first, logging.getLogger("preflight"), rehearses=True)
    assert Recorded.seen == seen


def test_a_default_destination_of_a_mapped_download_is_looked_at(tmp_path):
    """The download would take it."""
    (tmp_path / "a file").touch()
    defaults = {"destination": f"{tmp_path}/a file/clips/"}
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), default_args=defaults):
        first = EmptyOperator(task_id="generate")
        first >> ViduDownloadOperator.partial(task_id="keep").expand(generation_id=["a", "b"])
    with pytest.raises(ViduConfigError, match="Nothing was ordered"):
        check_downstream(first)


class Studio(ViduDownloadOperator):
    """Has a connection of its own."""

    def __init__(self, *, storage_conn_id="studio", **kwargs):
        super().__init__(storage_conn_id=storage_conn_id, **kwargs)


class Folder(ViduDownloadOperator):
    """Makes a destination of a folder's name."""

    def __init__(self, *, destination, **kwargs):
        super().__init__(destination=f"s3://bucket/{destination}/", **kwargs)


@each_row(("kind", "destination"), [(Studio, "s3://bucket/clips/"), (Folder, "nope://films/a.mp4")])
def test_what_the_subclass_of_a_mapped_download_makes_is_not_known(kind, destination, monkeypatch, caplog):
    """Another store was tried, with the worker's own credentials; it refused, and a DAG that works ordered nothing."""
    Recorded.seen = []
    monkeypatch.setattr(destinations, "Destination", Recorded)
    if kind is Studio:
        monkeypatch.setattr(destinations, "missing_file_system", lambda *_: None)
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate")
        first >> kind.partial(task_id="keep", destination=destination).expand(generation_id=["a", "b"])
    check(first, logging.getLogger("preflight"), rehearses=True)
    assert Recorded.seen == []
    assert ("will fail if it runs" in caplog.text) is (kind is Folder)


class Dated(ViduDownloadOperator):
    """Finds its destination when it runs."""

    def execute(self, context):
        """Store the file elsewhere."""
        self.destination = "/clips/"
        return super().execute(context)


class Guarded(ViduDownloadOperator):
    """May skip itself."""

    def pre_execute(self, context):
        """Decide it."""


@each_row(
    ("kind", "arguments", "defaults", "is_refused"),
    [
        (ViduDownloadOperator, {}, {}, True),
        (ViduDownloadOperator, {"pre_execute": print}, {}, False),
        (ViduDownloadOperator, {}, {"pre_execute": print}, False),
        (Dated, {}, {}, False),
        (Guarded, {}, {}, False),
    ],
)
@each_row("mapped", [False, True])
@each_row("between", [False, True])
def test_a_download_that_a_users_code_may_skip_or_change(
    kind, arguments, defaults, is_refused, mapped, between, tmp_path, caplog
):
    """It would not have failed, and nothing was ordered, in every run."""
    caplog.clear()
    (tmp_path / "a file").touch()
    arguments = {"task_id": "own", "destination": f"{tmp_path}/a file/clips/", **arguments}
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        first = EmptyOperator(task_id="generate")
        with TaskGroup("g", default_args=defaults):
            if mapped:
                own = kind.partial(**arguments).expand(generation_id=["a", "b"])
            else:
                own = kind(generation_id="a", **arguments)
        first >> own
        if between:
            own >> ViduDownloadOperator(task_id="last", generation_id="a", destination=f"{tmp_path}/a file/last/")
    if is_refused:
        with pytest.raises(ViduConfigError, match="Nothing was ordered"):
            check_downstream(first)
    else:
        check_downstream(first)
        assert caplog.text.count("will fail if it runs") == 1 + between
