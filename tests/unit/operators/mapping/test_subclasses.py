"""A mapped operator of a user's subclass, whose constructor makes arguments of others."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.operators import ViduBatchOperator, ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.operators.mapping.instances import mapped_to_nothing
from airflow_provider_vidu.operators.mapping.shared_names import batch_name, check_own_file
from airflow_provider_vidu.tasks.mapped import makes_own
from tests.rows import each_row
from tests.versions import AIRFLOW

if AIRFLOW >= (3, 0):
    from airflow.providers.standard.operators.empty import EmptyOperator
else:
    from airflow.operators.empty import EmptyOperator


class Film(ViduGenerateOperator):
    """Names its file."""

    def __init__(self, *, title: str, **kwargs: Any) -> None:
        super().__init__(prompt=title, destination=f"/clips/{title}.mp4", **kwargs)


class Kept(ViduDownloadOperator):
    """Names its file."""

    def __init__(self, *, title: str = "", destination: str = "/clips/kept.mp4", **kwargs: Any) -> None:
        super().__init__(destination=f"/clips/{title}.mp4" if title else destination, **kwargs)


class Films(ViduBatchOperator):
    """Names its batch."""

    def __init__(self, *, title: str, **kwargs: Any) -> None:
        super().__init__(batch=title, destination="/clips/", **kwargs)


class Plain(Kept):
    """Inherits its constructor."""

    ui_color = "#fff"


class Renamed(ViduDownloadOperator):
    """Has no constructor of its own."""

    ui_color = "#000"


def instance(kind: type, partial: dict[str, Any], mapped: dict[str, Any], **own: Any) -> tuple[Any, Any]:
    """Return an instance of a mapped operator, and its context."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        kind.partial(task_id="t", **partial).expand(**mapped)
    operator = kind(task_id="t", **partial, **own)
    return operator, {"dag": dag, "ti": SimpleNamespace(map_index=0, task_id="t")}


TITLES = {"title": ["a", "b"]}


@each_row(("kind", "partial"), [(Film, {}), (Kept, {"generation_id": "1"}), (Plain, {"generation_id": "1"})])
def test_a_file_that_a_subclass_names_for_each_instance(kind, partial, caplog, capsys):
    """All were refused as if they wrote one file: a download after its generation was paid for."""
    operator, context = instance(kind, partial, TITLES, title="a")
    check_own_file(operator, context, operator.destination, operator._written_destination)
    assert "may have the same destination" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize("partial", [{}, {"destination": "/clips/one.mp4"}])
def test_a_file_of_all_instances_of_a_subclass_is_refused(partial):
    """Its own default, or what the DAG gives to all."""
    operator, context = instance(Kept, partial, {"generation_id": ["1", "2"]}, generation_id="1")
    with pytest.raises(ViduConfigError, match="would write the same file"):
        check_own_file(operator, context, operator.destination, operator._written_destination)


def test_a_batch_that_a_subclass_names_for_each_instance():
    """Both were refused as if they were one batch."""
    operator, context = instance(Films, {"rows": ["a kite"]}, TITLES, title="a")
    assert batch_name(operator, context) == "a"


@each_row(
    ("kind", "name", "makes"),
    [
        (ViduDownloadOperator, None, False),
        (Renamed, None, False),
        (Plain, None, True),
        (Kept, "destination", True),
        (Film, "destination", True),
        (Film, "storage_conn_id", False),
    ],
)
def test_a_constructor_of_a_subclass_is_found(kind, name, makes):
    """Airflow wraps the constructor of every class, also of one that has none."""
    assert makes_own(SimpleNamespace(operator_class=kind), name) is makes


class Limited(ViduGenerateOperator):
    """Names some arguments, and passes them on."""

    def __init__(self, *, cap: float | None = None, budget: Any = None, destination: Any = None, **kwargs: Any) -> None:
        kwargs.setdefault("max_credits", cap)
        super().__init__(budget=budget, destination=destination, **kwargs)


@each_row(
    ("row", "lost"),
    [
        ({"prompt": "a"}, set()),
        ({"prompt": "a", "images": None}, set()),
        ({"prompt": "a", "budget": None}, {"budget"}),
        ({"prompt": "a", "cap": None}, {"budget", "destination", "max_credits"}),
        (None, {"budget", "destination", "max_credits"}),
    ],
)
def test_a_none_that_a_subclass_passes_on_is_not_the_rows(row, lost):
    """Each row of an upstream task was refused, as if it held that None; one that cannot be read is."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        above = EmptyOperator(task_id="rows").output
        Limited.partial(task_id="t", model="m").expand_kwargs(above)
    above.resolve = lambda *_, **__: [row]
    dag.task_dict["t"].expand_input.value.resolve = above.resolve
    operator = Limited(task_id="t", model="m", **(row or {"prompt": "a"}))
    assert mapped_to_nothing(operator, {"dag": dag, "ti": SimpleNamespace(map_index=0, task_id="t")}) == lost


def test_a_none_of_the_author_in_a_mapped_group_is_meant():
    """The rows of the group do not hold it."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task_group
        def films(p, m):
            ViduGenerateOperator(task_id="t", prompt=p, model="m", budget=None, max_credits=m)

        films.expand_kwargs(EmptyOperator(task_id="rows").output)
    operator = dag.task_dict["films.t"].prepare_for_execution()
    operator.max_credits = None  # as it was rendered
    context = {"dag": dag, "ti": SimpleNamespace(map_index=0, task_id="films.t")}
    assert mapped_to_nothing(operator, context) == {"max_credits"}
