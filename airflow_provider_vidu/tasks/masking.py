"""Signed URLs in what Airflow keeps: the return values of tasks, and their rendered fields.

A signed URL opens its file until it expires, so this is the one place that decides where one may be kept: in the XCom
that a task returns, as users pass it on, unless the deployment says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import conf, mask_secret

from airflow_provider_vidu.common.text import signatures, without_signatures
from airflow_provider_vidu.common.values import unserialized
from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.tasks.rendering import RenderedOperator

MAX_SIGNATURES: Final = 200
MAX_SIGNATURE_CHARS: Final = 100_000
"""Airflow's masker compiles all of its patterns again for each new one: hundreds of URLs would hold a worker up."""

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vidu.models import Generation


def as_result(generation: Generation, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a generation as a task returns it: with its signed URLs, or as ``[vidu] signed_urls_in_xcom`` says.

    :param generation: what the service says.
    :param parameters: further fields of the request that made it, to stand beside them.
    """
    signed = conf.getboolean("vidu", "signed_urls_in_xcom", fallback=True)
    result = generation.as_xcom(signed_urls=signed)
    if parameters is not None:
        fields = unserialized(parameters)
        result["parameters"] = fields if signed else without_signatures(fields)
    return result


class SignedURLOperator(RenderedOperator):
    """An operator whose templates may render to signed URLs: neither the UI nor a log shows their signatures.

    Airflow stores the rendered fields after rendering them, with all masked secrets struck out.
    """

    # Not render_template_fields: a mapped task calls this one of its unmapped operator.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        parts = signatures([getattr(parent, name, None) for name in template_fields])
        if len(parts) > MAX_SIGNATURES or sum(map(len, parts)) > MAX_SIGNATURE_CHARS:
            raise ViduConfigError(
                f"The rendered fields of this task hold {len(parts)} signatures of signed URLs; at most "
                f"{MAX_SIGNATURES} with {MAX_SIGNATURE_CHARS:,} characters are masked. Pass ids, unsigned addresses or "
                "paths in your storage."
            )
        for part in sorted(parts):
            mask_secret(part)
