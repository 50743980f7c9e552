"""The operators that a DAG names, and what they check before anything is paid for."""

from __future__ import annotations

from airflow_provider_vidu.operators.download import ViduDownloadOperator
from airflow_provider_vidu.operators.generate import ViduGenerateOperator

__all__ = ["ViduDownloadOperator", "ViduGenerateOperator"]
