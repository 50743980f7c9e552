"""The operators for DAGs."""

from __future__ import annotations

from airflow_provider_vidu.operators.batch import ViduBatchOperator
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.operators.generate import ViduGenerateOperator
from airflow_provider_vidu.orders.money.budget import ViduBudget

__all__ = ["ViduBatchOperator", "ViduBudget", "ViduDownloadOperator", "ViduGenerateOperator"]
