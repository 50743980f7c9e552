"""Lets a process of Airflow read XComs that hold what the hook returns. It imports nothing: each process loads it."""

from __future__ import annotations

import sys
from typing import Final

MODELS: Final = ("Generation", "Artifact", "Credits", "Cancellation", "SearchResult")
"""What the hook returns: models of plain values."""


def allow_models() -> None:
    """Let this process read XComs that hold one of our models, as a ``@task`` that returns it from the hook leaves it.

    Airflow writes every pydantic model, and reads none that is not allowed: the task behind the one that has paid would
    fail. Only these classes are allowed.
    """
    for name in ("airflow.sdk.serde", "airflow.serialization.serde"):  # the second before 3.2
        # allow_class (since 3.3) does the same, but imports the class.
        allowed = getattr(sys.modules.get(name), "_extra_allowed", None)
        if isinstance(allowed, set):
            allowed.update(f"airflow_provider_vidu.models.{model}" for model in MODELS)
            return
