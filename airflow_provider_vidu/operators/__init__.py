"""The operators for DAGs. Each is imported at its first use: a DAG file without batches does not pay for them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_vidu.operators.batch import ViduBatchOperator
    from airflow_provider_vidu.operators.download import ViduDownloadOperator
    from airflow_provider_vidu.operators.generate import ViduGenerateOperator
    from airflow_provider_vidu.orders.money.budget import ViduBudget

__all__ = ["ViduBatchOperator", "ViduBudget", "ViduDownloadOperator", "ViduGenerateOperator"]

_MODULES: Final = {
    "ViduBatchOperator": "operators.batch",
    "ViduBudget": "orders.money.budget",
    "ViduDownloadOperator": "operators.download",
    "ViduGenerateOperator": "operators.generate",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"airflow_provider_vidu.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
