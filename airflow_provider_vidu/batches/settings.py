"""The arguments of a batch's task, after its templates are rendered."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_vidu.batches.arguments import OnFailure, Reuse
from airflow_provider_vidu.common.artifacts import Artifact
from airflow_provider_vidu.orders.arguments import OnClear


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of a batch; each has the meaning of the operator's argument of that name.

    ``is_dry`` is whether that, or ``[vidu] dry_run``, makes it a dry run.
    """

    vidu_conn_id: str
    storage_conn_id: str | None
    max_in_flight: int
    max_credits: float | None
    min_success: float | int
    on_failure: OnFailure
    on_clear: OnClear
    naming: str
    timeout: float
    poll_interval: float | None
    max_failures: int
    artifact: Artifact | None
    most: int
    deferrable: bool
    cancel_on_kill: bool
    reuse: Reuse
    is_dry: bool = False
