"""The routes of the spending: everyone who is logged in gets the sums of the DAGs whose clips they may see."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.models.dag import DagModel
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.responses import Response

from airflow_provider_vidu.ui.pages import page
from airflow_provider_vidu.ui.shared import Shared
from airflow_provider_vidu.ui.spending import views
from airflow_provider_vidu.ui.spending.account import Account
from airflow_provider_vidu.ui.spending.sums import read_account
from airflow_provider_vidu.ui.threads import Threads

SPENDING: Final = "/spending"
THREADS: Final = 4
"""Threads that read the database, check permissions and add up."""
ENTITIES: Final = (DagAccessEntity.XCOM, DagAccessEntity.TASK_INSTANCE)
"""What the clip pages of a DAG require: the sums are made of the same."""

Days = Annotated[str, Query(pattern=f"^({'|'.join(map(str, views.PERIODS))})$")]
_DEFAULT_DAYS: Final = "30"

router = APIRouter(dependencies=[Depends(get_user)])


def prepare(state: Any) -> None:
    """Put into the application's state what the requests share."""
    state.spending_threads = Threads(THREADS)
    state.spending = Shared[Account](state.spending_threads, lambda found: 200 * len(found.rows))


@router.get(SPENDING, response_class=HTMLResponse)
def spending_page(request: Request) -> HTMLResponse:
    """Return the page of the spending."""
    return page(request, "spending", "Vidu credits")


@router.get(SPENDING + ".json")
async def spending_data(request: Request, user: GetUserDep, days: Days = _DEFAULT_DAYS) -> JSONResponse:
    """Return the sums of a period, of the DAGs that the user may see."""
    account, since = await _account(request, int(days))

    def answer() -> JSONResponse:
        return JSONResponse(views.summary(account, _readable(user, account), since=since.date(), days=int(days)))

    threads: Threads = request.app.state.spending_threads
    return await threads.run(answer)


@router.get(SPENDING + ".csv")
async def spending_csv(request: Request, user: GetUserDep, days: Days = _DEFAULT_DAYS) -> Response:
    """Return the same as CSV."""
    account, _ = await _account(request, int(days))
    text: str = await request.app.state.spending_threads.run(lambda: views.as_csv(account, _readable(user, account)))
    name = f"vidu-credits-{days}-days.csv"
    return Response(text, media_type="text/csv", headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def _account(request: Request, days: int) -> tuple[Account, datetime]:
    """Return what all DAGs have spent, read once for all users, and since when."""
    since = views.first_day(days, datetime.now(UTC))
    shared: Shared[Account] = request.app.state.spending
    # The first part of the key is a DAG elsewhere; these share one lane.
    account, _ = await shared.get(("", since), lambda: read_account(since))
    return account, since


def _readable(user: Any, account: Account) -> Collection[str]:
    """Return the DAGs whose clips a user may see: by Airflow's own check, each with both of its entities."""
    dag_ids = sorted({row.dag_id for row in account.rows} | set(account.begun_again))
    if not dag_ids:
        return frozenset()
    manager = get_auth_manager()
    teams = _teams(dag_ids)
    # Versions before teams know no such argument.
    details = {each: DagDetails(id=each, **({"team_name": teams[each]} if each in teams else {})) for each in dag_ids}
    requests: list[Any] = [
        {"method": "GET", "access_entity": entity, "details": detail}
        for detail in details.values()
        for entity in ENTITIES
    ]
    if manager.batch_is_authorized_dag(requests, user=user):  # one request, where the manager is a server
        return frozenset(dag_ids)
    return frozenset(
        dag_id
        for dag_id, detail in details.items()
        if all(
            manager.is_authorized_dag(method="GET", access_entity=entity, details=detail, user=user)
            for entity in ENTITIES
        )
    )


def _teams(dag_ids: list[str]) -> dict[str, str | None]:
    """Return the teams of DAGs that have one; none on a version without teams."""
    find = getattr(DagModel, "get_dag_id_to_team_name_mapping", None)
    return {} if find is None else {name: team for name, team in find(dag_ids).items() if team is not None}
