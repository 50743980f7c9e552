"""Fault rules: which requests they hit, and with which action.

A rule is JSON: ``{"match": {...}, "times": N or null, "skip": N, "action": {...}}``. Rules are tried in the order in
which they were added; the first one that matches, has skipped enough requests and has uses left applies. A rule that is
only a name, such as ``"model_not_found"``, is the refusal of the next create.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from airflow_provider_vidu.sandbox.faults.actions import Action, one_of
from airflow_provider_vidu.sandbox.messages.calls import KINDS, Route


@dataclass
class Rule:
    """A rule and its state: ``skip`` requests to let through, ``times`` uses (None: no limit)."""

    match: dict[str, str]
    action: Action
    times: int | None = 1
    skip: int = 0
    used: int = 0

    @classmethod
    def from_json(cls, data: Any) -> Rule:
        """Return the rule that ``data`` describes; ValueError, naming the field, if it is invalid.

        A string is the name of a refusal for the next create; ``{"refusal": NAME}`` may add ``match``, ``times`` and
        ``skip``.
        """
        if isinstance(data, str):
            data = {"refusal": data}
        if isinstance(data, dict) and "refusal" in data:
            data = {"match": {"kind": "create"}, "action": {"refusal": data["refusal"]}} | {
                name: value for name, value in data.items() if name != "refusal"
            }
        if not isinstance(data, dict):
            raise ValueError("a rule is a JSON object with match, times, skip and action")  # noqa: TRY004 - one error type for all
        _known("rule", data, ("match", "times", "skip", "action"))
        match, action = data.get("match", {}), data.get("action")
        if not isinstance(match, dict) or not isinstance(action, dict):
            raise ValueError("match and action must be JSON objects")  # noqa: TRY004 - one error type for all
        _known("match", match, ("kind", "id", "dialect", "artifact", "method"))
        one_of("match.kind", match.get("kind"), KINDS)
        _known("action", action, tuple(item.name for item in dataclasses.fields(Action)))
        return cls(
            match, Action(**action), _count(data.get("times", 1), "times"), _count(data.get("skip"), "skip") or 0
        )

    def matches(self, route: Route, method: str) -> bool:
        """Return whether the rule matches this request."""
        seen = {
            "kind": route.kind,
            "id": route.id,
            "dialect": route.dialect,
            "artifact": route.artifact,
            "method": method,
        }
        return all(seen[name] == wanted for name, wanted in self.match.items() if wanted is not None)

    def take(self) -> bool:
        """Count one matching request and return whether the rule applies to it."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.used >= self.times:
            return False
        self.used += 1
        return True


def pick(rules: list[Rule], route: Route, method: str) -> Action | None:
    """Return the action of the first rule that applies to this request, or None; count its use."""
    for rule in rules:
        if rule.matches(route, method) and rule.take():
            return rule.action
    return None


def _known(kind: str, data: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            raise ValueError(f"unknown field {name!r} in {kind}; known fields: {', '.join(known)}")


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of 0 or more, or null, not {value!r}")
    return value
