"""The public names and signatures are pinned: a change of them is a decision, not an accident."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from tests.versions import AIRFLOW

PINNED = Path(__file__).parent.parent / "fixtures" / "public_api.txt"

PUBLIC = {
    "airflow_provider_vidu.hooks": ["ViduHook"],
    "airflow_provider_vidu.sensors": ["ViduGenerationSensor"],
    "airflow_provider_vidu.operators": [
        "ViduGenerateOperator",
        "ViduDownloadOperator",
        "ViduBatchOperator",
        "ViduBudget",
    ],
    "airflow_provider_vidu.triggers": ["ViduGenerationTrigger", "ViduSlotTrigger", "ViduBatchTrigger"],
    "airflow_provider_vidu.event_triggers": ["ViduGenerationFinishedTrigger"],
    "airflow_provider_vidu.events": ["read_event"],
    "airflow_provider_vidu.links": ["ViduWatchLink", "ViduBatchLink"],
    "airflow_provider_vidu.retry_policy": ["vidu_retry_policy"],
    "airflow_provider_vidu.models": ["Artifact", "Cancellation", "Credits", "Generation", "GenerationStatus"],
    "airflow_provider_vidu.prompts": ["load_prompts"],
    "airflow_provider_vidu.sandbox": ["Sandbox"],
}
"""What the policy in CONTRIBUTING calls public; the exceptions are added below."""

SINCE = {"airflow_provider_vidu.event_triggers": (3, 0)}
"""What an older Airflow cannot have."""


def described() -> list[str]:
    """Return a line for every public name: what it takes, and for models and words what they hold."""
    lines = []
    for module_name, names in PUBLIC.items():
        if SINCE.get(module_name, (0,)) > AIRFLOW:
            continue
        module = importlib.import_module(module_name)
        for name in names:
            lines += _lines(f"{module_name}.{name}", getattr(module, name))
    errors = importlib.import_module("airflow_provider_vidu.exceptions")
    for name, kind in sorted(vars(errors).items()):
        if inspect.isclass(kind) and kind.__module__ == errors.__name__ and not name.startswith("_"):
            parents = ", ".join(sorted(base.__name__ for base in kind.__mro__[1:] if base.__name__.startswith("Vidu")))
            lines.append(f"{errors.__name__}.{name}({parents})")
    return lines


def _lines(path: str, thing: Any) -> list[str]:
    if not inspect.isclass(thing):
        return [path + _signature(thing)]
    fields = getattr(thing, "model_fields", None)
    if fields is not None:
        return [f"{path}: {', '.join(sorted(fields))}"]
    if hasattr(thing, "__members__"):
        return [f"{path}: {', '.join(sorted(thing.__members__))}"]
    lines = [path + _signature(thing.__init__)]
    for name, member in sorted(vars(thing).items()):
        if not name.startswith("_") and inspect.isfunction(inspect.unwrap(member) if callable(member) else None):
            lines.append(f"{path}.{name}{_signature(member)}")
    return lines


def _signature(function: Any) -> str:
    """Return names, kinds and defaults; annotations are prose to a caller."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(inspect.unwrap(function)).parameters.values()
        if parameter.name != "self"
    ]
    return str(inspect.Signature(parameters))


def test_the_public_names_are_as_pinned() -> None:
    """Nothing that users write against changes without a change of the pinned list (and of the change log)."""
    absent = tuple(module for module, since in SINCE.items() if since > AIRFLOW)
    pinned = [line for line in PINNED.read_text("utf-8").splitlines() if not line.startswith(absent or "-")]
    assert described() == pinned, "\n".join(described())


AIRFLOWS_OWN = frozenset({"resume_execution", "post_execute", "get_openlineage_facets_on_complete", "get_link"})
"""Methods that Airflow calls, with the arguments that Airflow chose."""


def undescribed() -> list[str]:
    """Return every parameter of a public class or function that its docstring does not describe."""
    found = []
    for module_name, names in PUBLIC.items():
        if SINCE.get(module_name, (0,)) > AIRFLOW:
            continue
        for name in names:
            thing = getattr(importlib.import_module(module_name), name)
            found += [f"{name}.{missing}" for missing in _undescribed(thing)]
    return found


def _undescribed(thing: Any) -> list[str]:
    if not inspect.isclass(thing):
        return _not_in(thing, inspect.getdoc(thing))
    if hasattr(thing, "model_fields") or hasattr(thing, "__members__"):
        return []
    missing = _not_in(thing.__init__, inspect.getdoc(thing)) if "__init__" in vars(thing) else []
    for name, member in vars(thing).items():
        function = inspect.unwrap(getattr(member, "__func__", member))
        if not name.startswith("_") and inspect.isfunction(function) and name not in AIRFLOWS_OWN:
            missing += [f"{name}: {parameter}" for parameter in _not_in(function, inspect.getdoc(member))]
    return missing


def _not_in(function: Any, doc: str | None) -> list[str]:
    """Return the parameters of a function that ``doc`` says nothing of; Airflow's own are documented there."""
    names = set(inspect.signature(inspect.unwrap(function)).parameters)
    return sorted(
        name for name in names - {"self", "cls", "kwargs", "context", "event"} if f":param {name}:" not in (doc or "")
    )


def test_every_parameter_is_described() -> None:
    """The reference is made of the docstrings: each parameter of what is public has its sentence."""
    assert undescribed() == []
