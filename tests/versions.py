"""What differs between the Airflows that the tests run on: where a name lives, and what one cannot do."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from pathlib import Path
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


def secrets_masker() -> Any:
    """Return Airflow's masker itself."""
    return first_of(_MASKERS)._secrets_masker()


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


LISTS: Final = ("list", "hooks", "links", "triggers", *(("widgets", "behaviours") if AIRFLOW < (3, 0) else ()))
"""What ``airflow providers`` is asked for; Airflow 2 lists the connection form as well."""
LISTED: Final = [
    ("list", "package_name", "airflow-provider-vidu"),
    ("hooks", "connection_type", "vidu"),
    ("hooks", "class", "airflow_provider_vidu.hooks.ViduHook"),
    ("links", "extra_link_class_name", "airflow_provider_vidu.links.ViduWatchLink"),
    ("triggers", "class", "airflow_provider_vidu.triggers"),
]
"""What ``airflow providers …`` lists of this one: command, column, entry."""


def run_python(python: Path | str, home: Path, *arguments: str) -> str:
    """Run an interpreter in an Airflow home of its own; return what it prints."""
    env = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [str(python), *arguments], env=env, cwd=home, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


_CUT = "--- the next command ---"
_COMMANDS = f"""
import sys
from airflow.__main__ import main
for command in sys.argv[1:]:
    print("\\n{_CUT}", flush=True)
    sys.argv = ["airflow", "providers", command, "--output", "json"]
    main()
"""


def ask_airflow(python: Path | str, home: Path, *commands: str) -> dict[str, Any]:
    """Run ``airflow providers`` with each of these words, in one process: each would import Airflow for ten seconds.

    :return: what each has printed as JSON.
    """
    printed = run_python(python, home, "-c", _COMMANDS, *commands).split(_CUT)[1:]
    return {command: printed_json(text) for command, text in zip(commands, printed, strict=True)}
