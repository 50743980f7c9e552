"""How a sandbox behaves: the settings that :class:`Sandbox` and the command line share.

Where the vendor's pages disagree or are silent, a setting chooses between the behaviours that clients must
cope with; ``docs/sandbox.md`` says for each one what is documented, likely or unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "when_full": ("queue", "refuse"),
    "surplus_fields": ("refuse", "allow-payload", "ignore"),
    "task_ids": ("repeated", "comma", "ignored"),
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
    """How a sandbox behaves; ValueError for a value that makes no sense. Any iterable does for several names.

    - ``keys``: accepted API keys.
    - ``speed``: sandbox seconds per real second.
    - ``queue`` and ``duration``: sandbox seconds that a generation waits and then runs.
    - ``clip_seconds``: playing time of videos and sounds.
    - ``url_lifetime`` and ``cover_lifetime``: sandbox seconds that the URL of a result and of a cover is valid.
    - ``balance``: credits at the start, of which a create takes ``price`` (half of it with ``off_peak``).
    - ``seed``: makes ids and secrets the same at every start (None: they differ).
    - ``concurrency``: generations of the official API that run at once (None: no limit); ``when_full``: a
      create beyond it waits (``queue``) or gets 429 ``QuotaExceeded`` (``refuse``).
    - ``gateway_concurrency``: unfinished generations that the gateway takes (None: no limit); a create beyond
      it gets ``gateway_refusal``, a name of :data:`refusals.REFUSALS`.
    - ``gateway_prompt_limit``: longest prompt in characters that the gateway's upstream takes (None: no limit).
    - ``models``: ``documented`` (the official API's lists), ``any``, or the names that both dialects take.
    - ``surplus_fields``: fields outside an endpoint's table are refused, all but ``payload`` are refused
      (``allow-payload``), or they are ignored.
    - ``list_payload``: entries of the list of tasks carry ``payload`` and ``err_code``.
    - ``task_ids``: how the list's filter of that name is read: ``repeated``, ``comma`` or not at all.
    - ``times``: ``created_at`` as an ISO text or as whole epoch seconds.
    - ``state_field``: the name of the state in official answers.
    - ``balance_field``: the name of the balance's list.
    - ``balance_check``: an exhausted balance is reported before or after everything else that is wrong.
    - ``uploads``: where an ``ssupload:`` address is accepted: in every media field, in those of images, nowhere.
    - ``bare_keys``: a key without an authorization scheme is accepted on every path, not only under ``/v1/``.
    - ``native_shape``: the body of queries under ``/vidu-native/``.
    - ``new_api_url``: where ``/v1/video/generations`` puts the URL of a success (older gateways: ``fail_reason``).
    - ``openai_url``: ``metadata.url`` under ``/v1/videos`` is a signed URL or the ``content`` endpoint.
    - ``allowed_hosts``: further names that the ``Host`` header may hold, beside those of loopback.
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
                raise ValueError(f"{name} must be a list of texts, not one text")
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

    def takes_any_model(self) -> bool:
        """Return whether no model's name is checked."""
        return self.models == ANY_MODEL

    def named_models(self) -> tuple[str, ...] | None:
        """Return the models that were named, or None when none were."""
        return None if isinstance(self.models, str) else self.models

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all settings."""
        return [one.name for one in fields(cls)]
