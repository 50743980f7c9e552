"""What differs between the Airflows that the tests run on: where a name lives, and what one cannot do."""

from __future__ import annotations

import importlib
import json
import re
from typing import Any, Final

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

AIRFLOW: Final = get_base_airflow_version_tuple()

_MASKERS = (
    "airflow.sdk._shared.secrets_masker",  # since 3.1
    "airflow.sdk.execution_time.secrets_masker",  # 3.0
    "airflow.utils.log.secrets_masker",
)
_STORES = ("airflow.sdk.io.store", "airflow.io.store")


def first_of(names: tuple[str, ...]) -> Any:
    """Return the first of these modules that this Airflow has."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"This Airflow has none of {', '.join(names)}.")


def redact(value: Any) -> Any:
    """Return what Airflow's masker makes of a value."""
    return first_of(_MASKERS).redact(value)


def reset_secrets_masker() -> None:
    """Let Airflow's masker forget every secret."""
    masker = first_of(_MASKERS)
    if hasattr(masker, "reset_secrets_masker"):
        masker.reset_secrets_masker()
    else:
        known = masker._secrets_masker()
        known.patterns, known.replacer = set(), None


def object_stores() -> Any:
    """Return the module that keeps Airflow's object stores."""
    return first_of(_STORES)


def printed_json(text: str) -> Any:
    """Return the list that an ``airflow`` command has printed as JSON, behind log lines that may begin alike."""
    for found in re.finditer(r"^\[", text, flags=re.MULTILINE):
        try:
            return json.JSONDecoder().raw_decode(text, found.start())[0]
        except ValueError:
            continue
    raise AssertionError(f"no JSON in: {text[-2000:]}")
