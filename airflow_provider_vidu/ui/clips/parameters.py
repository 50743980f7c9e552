"""What a request was made of, as the pages show it: the beginning of its prompt, and its plain parameters. Pure."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import mapping, whole

MAX_PROMPT_CHARS: Final = 2_000
MAX_PARAMETERS: Final = 12
MAX_PARAMETER_CHARS: Final = 60
_NOT_PARAMETERS: Final = frozenset({"prompt", "model", "payload", "callback_url", "images", "videos", "text"})
# What Airflow's [core] max_templated_field_length leaves of a longer prompt.
_CUT: Final = "Truncated. You can change this behaviour in [core]max_templated_field_length. "
_CUT_END: Final = "..."


def rendered_prompt(prompt: str) -> str:
    """Return a prompt as Airflow rendered it; where it kept only the beginning, that beginning and an ellipsis.

    Airflow puts the beginning of a long field into a sentence about its setting: the sentence is not the prompt.
    """
    if not prompt.startswith(_CUT):
        return prompt
    return prompt.removeprefix(_CUT).removesuffix(_CUT_END).strip("'\"") + "…"


def prompt_start(prompt: str | None) -> str | None:
    """Return a prompt as one redacted line; if it is not the whole prompt, it ends with an ellipsis."""
    return redacted(prompt, MAX_PROMPT_CHARS) or None if prompt else None


def parameters_in(*holders: Any) -> dict[str, Any]:
    """Return the plain parameters of a request: short values, without media, markers and addresses.

    :param holders: JSON objects that may hold them; the first one that has a name decides.
    """
    found: dict[str, Any] = {}
    for holder in holders:
        for name, value in mapping(holder).items():
            if len(found) >= MAX_PARAMETERS:
                return found
            if name not in found and _is_parameter(name, value):
                found[name] = value
    return found


def _is_parameter(name: str, value: Any) -> bool:
    if name in _NOT_PARAMETERS or len(name) > MAX_PARAMETER_CHARS:
        return False
    if isinstance(value, str):
        return 0 < len(value) <= MAX_PARAMETER_CHARS and "://" not in value and not value.startswith("data:")
    return isinstance(value, bool) or (isinstance(value, int | float) and whole(value) is not None)
