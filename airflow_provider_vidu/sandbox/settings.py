"""The settings that :class:`Sandbox` and the command line share.

Where the vendor's pages disagree or are silent, a setting chooses between the behaviours that clients must handle;
``docs/sandbox.md`` says for each which are documented, likely or unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "when_full": ("queue", "refuse"),
    "surplus_fields": ("refuse", "allow-payload", "ignore"),
    "task_ids": ("repeated", "comma", "json", "ignored"),
    "times": ("iso", "epoch"),
    "state_field": ("state", "status"),
    "balance_field": ("remains", "remaining_credits"),
    "balance_check": ("first", "last"),
    "uploads": ("any", "images", "off"),
    "native_shape": ("flat", "wrapped", "official"),
    "new_api_url": ("result_url", "fail_reason"),
    "openai_url": ("signed", "content"),
}
"""The settings that choose between named behaviours; the first name is the default."""

ANY_MODEL: Final = "any"
DOCUMENTED_MODELS: Final = "documented"


@dataclass(frozen=True)
class Settings:
    """How a sandbox behaves; :class:`~airflow_provider_vidu.sandbox.Sandbox` describes each field.

    Fields that hold several names accept any iterable. ValueError for an invalid value.
    """

    keys: tuple[str, ...] = ("sandbox-key",)
    speed: float = 1.0
    queue: float = 4.0
    duration: float = 20.0
    clip_seconds: float = 2.0
    url_lifetime: float = 86_400.0
    balance: int = 100_000
    price: int = 80
    seed: int | None = None
    cover_lifetime: float = 3_600.0
    concurrency: int | None = 5
    when_full: str = "queue"
    gateway_concurrency: int | None = None
    gateway_refusal: str = "video_queue_full"
    gateway_prompt_limit: int | None = 5_000
    models: str | tuple[str, ...] = DOCUMENTED_MODELS
    surplus_fields: str = "refuse"
    list_payload: bool = False
    task_ids: str = "repeated"
    times: str = "iso"
    state_field: str = "state"
    balance_field: str = "remains"
    balance_check: str = "first"
    uploads: str = "any"
    bare_keys: bool = False
    native_shape: str = "flat"
    new_api_url: str = "result_url"
    openai_url: str = "signed"
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("keys", "models", "allowed_hosts"):
            value = getattr(self, name)
            if not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
            elif name != "models":
                raise ValueError(f"{name} must be a list of strings, not a string")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        for name in ("concurrency", "gateway_concurrency", "gateway_prompt_limit"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of 1 or more, or None, not {value!r}")
        if isinstance(self.models, str) and self.models not in (DOCUMENTED_MODELS, ANY_MODEL):
            raise ValueError(
                f"models must be {DOCUMENTED_MODELS!r}, {ANY_MODEL!r} or a sequence of names, not {self.models!r}"
            )

    def named_models(self) -> tuple[str, ...] | None:
        """Return the accepted models, or None for ``documented`` and ``any``."""
        return None if isinstance(self.models, str) else self.models

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all settings."""
        return [item.name for item in fields(cls)]
