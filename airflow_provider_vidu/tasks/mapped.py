"""What a DAG's author adds to an operator besides its arguments: defaults, and a subclass's or a hook's code."""

from __future__ import annotations

import inspect
from typing import Any, Final

_OURS: Final = ("airflow", __name__.partition(".")[0], "builtins")


def defaults_of(task: Any) -> dict[str, Any]:
    """Return the default arguments of the DAG and the group of an operator: Airflow adds them to each instance."""
    owners = (task.dag if task.has_dag() else None, getattr(task, "task_group", None))
    return {name: value for owner in owners for name, value in (getattr(owner, "default_args", None) or {}).items()}


def makes_own(task: Any, name: str | None = None) -> bool:
    """Whether a mapped operator is of a user's subclass, whose ``__init__`` may make arguments of others.

    :param name: of an argument: whether that ``__init__`` names it, so that it may fill it in or change it.
    """
    kind = getattr(task, "operator_class", None)
    kinds = kind.__mro__ if isinstance(kind, type) else ()
    own = (init for each in kinds if (init := each.__dict__.get("__init__")) is not None and _is_of_user(init))
    return any(name is None or _names(inspect.unwrap(init), name) for init in own)


def runs_own(task: Any, kind: type) -> bool:
    """Whether a user's code runs before the work of an operator of ours, which it may skip, or do elsewhere.

    :param kind: the class of the operator, also of a mapped one.
    """
    given = {**defaults_of(task), **getattr(task, "partial_kwargs", {})}
    if getattr(task, "_pre_execute_hook", given.get("pre_execute")) is not None:
        return True
    return any(_is_of_user(getattr(kind, name, None)) for name in ("pre_execute", "execute"))


def _is_of_user(function: Any) -> bool:
    module: str = getattr(inspect.unwrap(function), "__module__", None) or "builtins"
    return module.partition(".")[0] not in _OURS


def _names(init: Any, name: str) -> bool:
    """Whether a function has an argument or a variable of this name, or the name itself among its constants."""
    code = getattr(init, "__code__", None)
    return code is None or name in code.co_varnames or repr(name) in repr(code.co_consts)
