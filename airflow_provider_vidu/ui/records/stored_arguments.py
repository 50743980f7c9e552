"""What triggers, and tasks that wait for them, keep in Airflow's database: read as plain JSON.

Airflow reads it with ``serde``, which imports and makes every class that it names, if Airflow allows it: 15 kB made a
table of pandas of 750 MB. A worker sends it, so the author of a DAG may have written any.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from airflow.models.crypto import get_fernet

from airflow_provider_vidu.common.json_size import value_count
from airflow_provider_vidu.common.parsing import bounded_json

log = logging.getLogger(__name__)

MAX_VALUES: Final = 1_000
"""The most JSON values of a task's that are parsed; ours have about twenty. A page looks at up to two thousand tasks,
and 8,000 characters may be as many lists."""
_CLASS: Final = "__classname__"
_TYPE: Final = "__type"
_CONTENT: Final = "__var"
_OBJECT: Final = "dict"
"""How Airflow before 3.2 wraps an object of JSON; any other type stands for a class."""


def arguments_of(trigger: Any, most_values: int = MAX_VALUES) -> Mapping[str, Any] | None:
    """Return the stored arguments of a trigger; None if they cannot be read, or hold too many values."""
    try:
        arguments = bounded_json(_text_of(trigger), most_values)
        if isinstance(arguments, Mapping) and arguments.get(_TYPE) == _OBJECT:
            arguments = arguments.get(_CONTENT)
    except Exception as error:  # noqa: BLE001 - a key that was replaced, or what another version has written
        log.warning("The arguments of trigger %s cannot be read (%s).", trigger.id, type(error).__name__)
        return None
    return arguments if isinstance(arguments, Mapping) else None


def value_count_of(trigger: Any) -> int:
    """Return approximately how many values the stored arguments of a trigger hold; 0 if they cannot be read."""
    try:
        return value_count(_text_of(trigger).encode("utf-8", "replace"), 0)
    except Exception:  # noqa: BLE001 - as in arguments_of, which reports it
        return 0


def _text_of(trigger: Any) -> str:
    stored: str = trigger.encrypted_kwargs
    # Those of a task are not encrypted; those of an asset are.
    return stored if stored.startswith("{") else get_fernet().decrypt(stored.encode()).decode()


def names_classes(stored: str | None) -> bool:
    """Whether Airflow makes an object of a class when it reads stored JSON; also if that cannot be parsed here."""
    try:
        left = [bounded_json(stored or "null", MAX_VALUES)]
    except (ValueError, RecursionError):
        return True
    while left:
        item = left.pop()
        if isinstance(item, Mapping):
            if _CLASS in item or item.get(_TYPE, _OBJECT) != _OBJECT:
                return True
            left += item.values()
        elif isinstance(item, list):
            left += item
    return False
