"""An auth manager with a permission per DAG, as FAB and Keycloak have; Airflow's simple one knows roles only."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

OPEN_DAG = "film"


class PerDagAuthManager(SimpleAuthManager):
    """Lets everybody but the admin see one DAG alone."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **more: Any) -> bool:
        if user.username != "admin" and (details is None or details.id != OPEN_DAG):
            return False
        return super().is_authorized_dag(user=user, details=details, **more)
