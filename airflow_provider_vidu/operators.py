"""The operators."""

from __future__ import annotations

from airflow_provider_vidu.download_operator import ViduDownloadOperator
from airflow_provider_vidu.generate_operator import ViduGenerateOperator

__all__ = ["ViduDownloadOperator", "ViduGenerateOperator"]
