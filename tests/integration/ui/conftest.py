"""A real API server with the plugin in it, under a path of its own, and a metadata database that tests fill."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
import requests

from airflow_provider_vidu.sandbox import Sandbox
from services import Postgres
from tests.integration.servers import s3_client, s3_server
from tests.versions import AIRFLOW

HERE = Path(__file__).parent
PATH = "/tools/airflow"
KEY = "sk-clip-pages-7d21"
RUN = "manual__2026-01-01T00:00:00+00:00"
FERNET_KEY = base64.urlsafe_b64encode(b"made up for the tests of pages..").decode()
"""With it, Airflow encrypts the arguments of triggers."""
PASSWORDS = {"admin": "a-word", "vera": "another", "nobody": "a third"}


@dataclass
class Pages:
    """The API server and its database.

    :param url: its address, with the path that it is deployed under.
    :param home: its AIRFLOW_HOME.
    :param root: the folder that clips may be played from.
    :param pid: its process.
    """

    url: str
    home: Path
    root: Path
    sandbox: Sandbox
    engine: Any
    pid: int = 0
    run: str = RUN
    sessions: dict[str | None, requests.Session] = field(default_factory=dict)
    regions: dict[tuple[str, int | None], Any] = field(default_factory=dict)

    def get(self, path: str, user: str | None = "vera", method: str = "GET", **more: Any) -> requests.Response:
        """Ask as a user (None: anonymous); redirects are not followed."""
        if user not in self.sessions:
            session = self.sessions[user] = requests.Session()
            session.trust_env = False
            # The server closes a connection after five idle seconds, perhaps just as the next request takes it.
            session.headers["Connection"] = "close"
            if user is not None:
                login = {"username": user, "password": PASSWORDS[user]}
                answer = requests.post(f"{self.url}/auth/token", json=login, timeout=60)
                answer.raise_for_status()
                # The UI's way: a cookie, not a header.
                session.cookies.set("_token", answer.json()["access_token"])
        headers = {"Accept-Encoding": "identity", **more.pop("headers", {})}
        return self.sessions[user].request(
            method, self.url + path, headers=headers, allow_redirects=False, timeout=60, **more
        )

    @property
    def keeps_any_text(self) -> bool:
        """Whether the database keeps XComs that are not JSON, or JSON that only Python reads; PostgreSQL does not."""
        return self.engine.dialect.name == "sqlite"

    def at(self, task: str, *, dag: str = "film", index: int = -1, region: Any = None, then: str = "") -> str:
        """Return the path of a clip's page, or of something below it."""
        place = f"/mapped/{index}" if index >= 0 else ""
        if region is not None:
            place = f"/regions/{quote(str(region))}/{index}"
        return f"/vidu/dags/{dag}/runs/{quote(RUN, safe='')}/tasks/{task}{place}{then}"

    def clip(self, task: str, user: str = "vera", **where: Any) -> Any:
        """Return what the page of a clip gets as JSON."""
        answer = self.get(self.at(task, then="/clip.json", **where), user)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def add(
        self,
        task: str,
        generation_id: Any,
        *,
        dag: str = "film",
        index: int = -1,
        state: str = "success",
        at: datetime | None = None,
        watch: Any = None,
        result: Any = None,
        fields: Any = None,
        label: str | None = None,
        more: Sequence[tuple[Any, Any]] = (),
        ended: datetime | None = None,
        deferred: datetime | None = None,
        triggerer: int | None = None,
        heard: datetime | None = None,
        region: Any = None,
        archived: str | None = None,
        waits: str | None = None,
        spent: float | None = None,
        trigger: tuple[str, str] | None = None,
        batch: Any = None,
        tried: int = 1,
        max_tries: int | None = None,
        resumes: bool = False,
        operator: str | None = None,
        worker: str = "worker",
    ) -> UUID:
        """Add a task instance with its XComs, as a worker would have left them.

        :param label: Airflow's rendered map index.
        :param more: further ids and notes, as a task leaves them that publishes several generations.
        :param at: when it began and published.
        :param ended: when it ended; right then if omitted, unless its state says that it has not.
        :param deferred: when its trigger was made; it is deferred then.
        :param triggerer: the triggerer that has taken the trigger up.
        :param heard: when that triggerer was last heard of; it runs on if omitted.
        :param region: its region, in which ``index`` counts; for Airflow 3.4.
        :param archived: why Airflow 3.4 has archived it, as ``retry``; None for the latest try.
        :param spent: the credits of all of its orders.
        :param batch: where its batch is.
        :param waits: the stored arguments of a trigger that waits for a free slot.
        :param trigger: class and stored arguments of another trigger.
        :param tried: its latest try.
        :param max_tries: Airflow's counter of tries, which a clear raises.
        :param resumes: whether it left its worker by a deferral that Airflow would resume.
        :param operator: the name of its operator's class.
        :param worker: the host that has begun it; empty if none has.
        :return: the id of the task instance.
        """
        from airflow.models.renderedtifields import RenderedTaskInstanceFields
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import Trigger

        if AIRFLOW >= (3, 4):
            from airflow.models.xcom import XComModelV2 as XComModel
        else:
            from airflow.models.xcom import XComModel

        names = {"dag_id": dag, "run_id": RUN, "task_id": task, "map_index": index}
        at = at or datetime.now(UTC)
        xcoms = {"generation_id": generation_id, "vidu_watch": watch, "return_value": result, "vidu_spent": spent}
        xcoms |= {"vidu_batch_place": batch}
        for number, (another_id, note) in enumerate(more, 2):
            xcoms |= {f"generation_id.{number:02}": another_id, f"vidu_watch.{number:02}": note}
        with self.engine.begin() as database:
            run_id = self._run(database, dag)
            own = {**names, "state": state, "try_number": tried, "operator": operator, "hostname": worker}
            own |= {"pool": "default_pool", "start_date": at, "next_method": "execute_complete" if resumes else None}
            own |= {} if max_tries is None else {"max_tries": max_tries}
            own["end_date"] = None if state in ("running", "deferred") else ended or at
            if deferred is not None:
                path = "x" if waits is None else "airflow_provider_vidu.triggers.ViduSlotTrigger"
                path, arguments = trigger or (path, waits or "{}")
                row = {"classpath": path, "encrypted_kwargs": arguments, "created_date": deferred}
                row["triggerer_id"] = None if triggerer is None else self._triggerer(database, triggerer, heard)
                own["trigger_id"] = database.execute(_insert(Trigger, row)).inserted_primary_key[0]
            own["rendered_map_index"] = label
            owner = {**names, "dag_run_id": run_id}
            if AIRFLOW >= (3, 4):  # one row for each try, and what belongs to the try hangs on its id
                own["region_index"] = own.pop("map_index")
                own |= {} if region is None else {"region_id": region}
                own |= {} if archived is None else {"working_set": None, "archived_reason": archived}
            made = database.execute(TaskInstance.__table__.insert().values(**own)).inserted_primary_key[0]
            if AIRFLOW >= (3, 4):
                owner = names = {"task_instance_id": made}
            for key, value in xcoms.items():
                if value is not None:
                    row = {**owner, "key": key, "value": value, "timestamp": at}
                    database.execute(XComModel.__table__.insert().values(**row))
            if fields is not None:
                database.execute(RenderedTaskInstanceFields.__table__.insert().values(**names, rendered_fields=fields))
        return UUID(str(made))

    def add_dag(self, dag: Any) -> None:
        """Store a DAG as the DAG processor does."""
        from airflow.models.dag import DagModel
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.serialization.serialized_objects import LazyDeserializedDAG
        from sqlalchemy.orm import Session

        with Session(self.engine) as session, session.begin():
            session.add(DagModel(dag_id=dag.dag_id, bundle_name="dags-folder"))
            session.flush()
            SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name="dags-folder", session=session)

    def act(
        self, event: str, extra: dict[str, Any], *, dag: str = "film", at: datetime, task: str | None = None
    ) -> None:
        """Add a line of the audit log, as a route of Airflow leaves it."""
        from airflow.models.log import Log

        row = {"dag_id": dag, "run_id": RUN, "task_id": task, "event": event, "dttm": at, "extra": json.dumps(extra)}
        with self.engine.begin() as database:
            database.execute(Log.__table__.insert().values(**row))

    def add_region(
        self, dag: str, node: str, *, parent: Any = None, forked_from: Any = None, resumes_from: int = 0
    ) -> Any:
        """Add a region of Airflow 3.4: an execution of a loop, or the mapping of a task; return its id."""
        from airflow.models.dynamic_region import DynamicRegion
        from sqlalchemy.orm import Session

        with self.engine.begin() as database:
            self._run(database, dag)
        region_id, index = parent or (None, None)
        with Session(self.engine) as session, session.begin():
            region = DynamicRegion(
                dag_id=dag, run_id=RUN, node_id=node, parent_region_id=region_id, parent_region_index=index,
                forked_from_region_id=forked_from, resumes_from_index=resumes_from,
            )  # fmt: skip
            session.add(region)
            session.flush()
            self.regions[node, index] = region.id
            return region.id

    def spoil(self, task: str, key: str | None, text: str, *, dag: str, index: int = -1) -> None:
        """Write a text over the JSON of an XCom, or over the rendered fields (None)."""
        from airflow.models.renderedtifields import RenderedTaskInstanceFields
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import String, literal, select

        if AIRFLOW >= (3, 4):
            from airflow.models.xcom import XComModelV2 as XComModel
        else:
            from airflow.models.xcom import XComModel

        model, column = (RenderedTaskInstanceFields, "rendered_fields") if key is None else (XComModel, "value")
        table, tasks = model.__table__, TaskInstance.__table__
        if AIRFLOW >= (3, 4):
            own = select(tasks.c.id).where(tasks.c.dag_id == dag, tasks.c.task_id == task)
            own = own.where(tasks.c.region_index == index)
            change = table.update().where(table.c.task_instance_id.in_(own))
        else:
            change = table.update().where(table.c.dag_id == dag, table.c.task_id == task, table.c.map_index == index)
        if key is not None:
            change = change.where(table.c.key == key)
        with self.engine.begin() as database:
            assert database.execute(change.values({column: literal(text, String())})).rowcount == 1

    @staticmethod
    def _triggerer(database: Any, triggerer: int, heard: datetime | None) -> int:
        from airflow.jobs.job import Job

        known = database.execute(Job.__table__.select().where(Job.__table__.c.id == triggerer)).first()
        if known is None:
            seen = heard or datetime.now(UTC) + timedelta(days=1)
            row = {"id": triggerer, "job_type": "TriggererJob", "state": "running", "latest_heartbeat": seen}
            database.execute(_insert(Job, row))
        return triggerer

    def _run(self, database: Any, dag: str) -> int:
        from airflow.models.dagrun import DagRun

        table = DagRun.__table__
        found = database.execute(table.select().with_only_columns(table.c.id).where(table.c.dag_id == dag)).scalar()
        if found is None:
            now = datetime.now(UTC)
            row = {"dag_id": dag, "run_id": RUN, "run_type": "manual", "state": "success", "run_after": now}
            found = database.execute(table.insert().values(**row)).inserted_primary_key[0]
        return found


def _insert(model: Any, row: dict[str, Any]) -> Any:
    """Return the statement that adds a row, by the names of the model's attributes."""
    columns = model.__mapper__.columns
    return model.__table__.insert().values({columns[name].name: value for name, value in row.items()})


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Run an S3 with one bucket; return its address."""
    with s3_server("clips") as endpoint:
        yield endpoint


@pytest.fixture
def put(s3) -> Callable[[str, bytes], None]:
    """Return a function that puts an object into the bucket."""
    return lambda key, body: s3_client(s3).put_object(Bucket="clips", Key=key, Body=body)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--on-postgres``, for ``make faults``."""
    parser.addoption("--on-postgres", action="store_true", help="the pages read a PostgreSQL instead of SQLite")


@pytest.fixture(scope="session")
def pages(request, tmp_path_factory, s3) -> Iterator[Pages]:
    """Run the API server for all tests of the clip pages."""
    folder = tmp_path_factory.mktemp("pages")
    if request.config.getoption("--on-postgres", default=False):
        with Postgres(folder / "database") as database:
            yield from _pages(folder, s3, database.url)
    else:
        yield from _pages(folder, s3, f"sqlite:///{folder / 'airflow.db'}")


def _pages(folder: Path, s3: str, database: str) -> Iterator[Pages]:
    from sqlalchemy import create_engine

    home, root = folder / "home", folder / "clips"
    for path in (home, root):
        path.mkdir()
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    # Bound here: a port that is only known to be free may be taken while Airflow starts.
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as silent,
        Sandbox(keys=[KEY], speed=50, queue=5, duration=20) as sandbox,
    ):
        port = listener.getsockname()[1]
        quiet = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = _start(home, root, listener, sandbox, s3, quiet, database)
        engine = create_engine(database)
        try:
            _await_ready(process, home)
            yield Pages(f"http://localhost:{port}{PATH}", home, root, sandbox, engine, process.pid)
        finally:
            engine.dispose()
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()
            process.wait()


def _start(
    home: Path, root: Path, listener: socket.socket, sandbox: Sandbox, s3: str, silent: str, database: str
) -> subprocess.Popen[bytes]:
    settings = {
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__UNIT_TEST_MODE": "False",
        "CORE__FERNET_KEY": FERNET_KEY,
        "CORE__DAGS_FOLDER": str(home),
        "CORE__AUTH_MANAGER": "vidu_test_auth.PerDagAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,vera:viewer,nobody:",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "DATABASE__SQL_ALCHEMY_CONN": database,
        # Another host than the service's: no player is sent to a port of this one.
        "API__BASE_URL": f"http://localhost:{listener.getsockname()[1]}{PATH}",
        "API__SECRET_KEY": "made-up-for-the-tests-of-the-pages",
        "API_AUTH__JWT_SECRET": "made-up-for-the-tests-of-the-pages-too",
        "VIDU__CALLBACK_BASE_URL": f"http://localhost:{listener.getsockname()[1]}{PATH}/",
        # A neighbour whose name begins alike is not beneath the root.
        "VIDU__PREVIEW_ROOTS": f"{root}, relative/nonsense, s3://studio@clips/shown",
        "CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{home}/xcom",
        "COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
    }
    extra = {"endpoint_url": s3, "region_name": "us-east-1"}
    connections = {
        "STUDIO": json.dumps({"conn_type": "aws", "login": "made-up", "password": "made-up", "extra": extra}),
        # A silent gateway: it takes connections and says nothing.
        "SILENT": json.dumps({"conn_type": "vidu", "host": silent, "password": KEY, "extra": {"max_retries": 0}}),
        "VIDU_DEFAULT": sandbox.connection_json("ent-v2", max_retries=0, timeout=5),
        "NOT_VIDU": json.dumps({"conn_type": "http", "host": sandbox.url, "password": KEY}),
        "WRONG_KEY": json.dumps({"conn_type": "vidu", "host": sandbox.url, "password": "sk-wrong-9e3b"}),
    }
    environment = {
        **os.environ,
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        **{f"AIRFLOW_CONN_{name}": value for name, value in connections.items()},
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": os.pathsep.join((str(HERE / "server"), *filter(None, sys.path))),
    }
    with (home / "output.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / "server" / "run_api_server.py"), str(listener.fileno())],
            env=environment, cwd=home, pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip


def _await_ready(process: subprocess.Popen[bytes], home: Path) -> None:
    """Read the output until the ready line; Airflow prints before it."""
    seen = b""
    while b"ready\n" not in seen:
        readable, _, _ = select.select([process.stdout], [], [], 240)
        more = os.read(process.stdout.fileno(), 65536) if readable else b""
        assert more, f"the API server did not start: {(home / 'output.log').read_text()[-3000:]}"
        seen += more


_numbers = itertools.count(911088422699962368)


@pytest.fixture
def generation(pages, monkeypatch) -> Callable[..., tuple[str, dict[str, Any]]]:
    """Return a function that makes a generation at the service and returns its id and its XCom."""
    from airflow_provider_vidu.hooks import ViduHook

    monkeypatch.setenv("AIRFLOW_CONN_CLIP_PAGES", pages.sandbox.connection_json("ent-v2"))

    def make(**known: Any) -> tuple[str, dict[str, Any]]:
        known = {"dialect": "ent-v2", "states": [["success", 0]], **known}
        generation_id = pages.sandbox.add_generation(str(next(_numbers)), **known)
        return generation_id, ViduHook("clip_pages").get_generation(generation_id).as_xcom()

    return make
