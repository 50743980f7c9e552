"""Signed URLs in Airflow's storage: the return values of tasks, and their rendered fields.

A signed URL opens its file until it expires. This module alone decides where one may be stored: in the XCom that a task
returns, because users pass it on, unless the deployment disables that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import conf, mask_secret

from airflow_provider_vidu.common.redaction import is_secret_name
from airflow_provider_vidu.common.text import passwords, redacted, signatures, without_signatures
from airflow_provider_vidu.common.values import unserialized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.tasks.rendering import RenderedOperator

MAX_SIGNATURES: Final = 200
MAX_SIGNATURE_CHARS: Final = 100_000
"""Airflow's masker recompiles all of its patterns for each new one: hundreds of URLs would delay a worker."""

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.models import Generation


def as_result(generation: Generation, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a generation, and its request's parameters, as a task's return value.

    It holds signed URLs unless ``[vidu] signed_urls_in_xcom`` is false.
    """
    signed = _may_be_signed()
    result = generation.as_xcom(signed_urls=signed)
    if parameters is not None:
        fields = unserialized(parameters)
        result["parameters"] = fields if signed else without_signatures(fields)
    return result


def check_result_setting() -> None:
    """Refuse, before an order, a setting with which no result can be returned.

    :raises ViduConfigError: when ``[vidu] signed_urls_in_xcom`` is neither true nor false.
    """
    try:
        _may_be_signed()
    except Exception as error:  # noqa: BLE001 - its class differs between the versions of Airflow
        raise ViduConfigError(f"[vidu] signed_urls_in_xcom in Airflow's configuration: {redacted(error)}") from None


def _may_be_signed() -> bool:
    signed: bool = conf.getboolean("vidu", "signed_urls_in_xcom", fallback=True)
    return signed


class SignedURLOperator(RenderedOperator):
    """An operator whose rendered fields may hold signed URLs: their signatures are masked in the UI and in logs.

    Airflow stores the rendered fields after rendering, with all masked secrets redacted.
    """

    # Not render_template_fields: a mapped task calls this method of its unmapped operator.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        fields = [getattr(parent, name, None) for name in template_fields]
        parts = signatures(fields) | passwords(fields)
        if len(parts) > MAX_SIGNATURES or sum(map(len, parts)) > MAX_SIGNATURE_CHARS:
            raise ViduConfigError(
                f"The rendered fields of this task hold {len(parts)} signatures of signed URLs and passwords; at most "
                f"{MAX_SIGNATURES} with {MAX_SIGNATURE_CHARS:,} characters are masked. Pass ids, unsigned addresses or "
                "paths in your storage."
            )
        for part in sorted(parts) + list(_secret_options(fields)):
            mask_secret(part)


def _secret_options(value: Any) -> Iterator[str]:
    """Yield the secrets of storage paths, such as an option with a key of encryption: rendered fields show all of them.

    :param value: a path, or lists and dictionaries of paths to any depth.
    """
    # No recursion: a template may render to JSON that is nested deeper than Python's stack, or in itself.
    left, seen = [value], set[int]()
    while left:
        item = left.pop()
        if isinstance(item, str) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (list, tuple)):
            left.extend(item)
        elif isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(options := getattr(item, "storage_options", None), Mapping):
            yield from passwords(str(item))
            yield from _secrets_in(options)


def _secrets_in(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        yield from _secrets_of(name, value)


def _secrets_of(name: object, value: Any) -> Iterator[str]:
    """Yield what is secret in an option: texts, bytes as rendered fields show them, and pairs of a name and a value."""
    if isinstance(value, Mapping):
        yield from _secrets_in(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            is_pair = isinstance(item, (list, tuple)) and len(item) == 2
            yield from _secrets_of(item[0], item[1]) if is_pair else _secrets_of(name, item)
    elif isinstance(value, (str, bytes)) and (name == "connection_string" or is_secret_name(str(name))):
        yield value if isinstance(value, str) else repr(value)[2:-1]
