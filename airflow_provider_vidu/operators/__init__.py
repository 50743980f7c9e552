"""The operators for DAGs."""

from __future__ import annotations

from airflow_provider_vidu.operators.batch import ViduBatchOperator
from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.operators.generate import ViduGenerateOperator

__all__ = ["ViduBatchOperator", "ViduDownloadOperator", "ViduGenerateOperator"]
