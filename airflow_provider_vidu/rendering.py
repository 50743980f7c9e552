"""What templates make of an operator's arguments: text stays text, also where the DAG renders natively."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_ARGUMENTS: Final = frozenset(
    {"prompt", "model", "endpoint", "generation_id", "video_url", "vidu_conn_id", "storage_conn_id"}
)
_FIELDS: Final = frozenset(
    {"aspect_ratio", "callback_url", "creative", "emotion", "id", "language", "meta_data", "model",
     "movement_amplitude", "name", "negative_prompt", "payload", "prompt", "resolution", "server_id", "story", "style",
     "template", "text", "upscale_resolution", "video_creation_id", "voice_id", "voice_setting_emotion",
     "voice_setting_voice_id"}
)  # fmt: skip
"""Documented as text, at whatever depth of a request."""


class RenderedOperator(BaseOperator):
    """An operator whose text arguments are rendered to text also with ``render_template_as_native_obj``.

    There, Jinja reads every rendered text as a Python literal: a prompt in quotation marks loses them, ``1_000``
    becomes 1000, ``3.10`` becomes 3.1, and ids of digits become numbers. Here an argument or field that is documented
    as text keeps it; what a template hands through whole (``{{ ti.xcom_pull(…) }}``) stays the object that it is.
    """

    _is_text: bool = False

    # Not render_template_fields: a mapped task calls this one of its unmapped operator.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        for name in template_fields:
            self._is_text = parent is self and name in _ARGUMENTS
            try:
                super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
            finally:
                self._is_text = False

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render an argument, or a part of it; the keys of a request tell which of its fields are text."""
        if type(content) is not dict:
            return super().render_template(content, context, jinja_env, seen_oids)
        outer, rendered = self._is_text, {}
        try:
            for name, value in content.items():
                self._is_text = name in _FIELDS
                rendered[name] = self.render_template(value, context, jinja_env, seen_oids)
        finally:
            self._is_text = outer
        return rendered

    def _render(self, template: Any, context: Context, dag: Any = None) -> Any:
        if not self._is_text:
            return super()._render(template, context, dag)
        # As Airflow's own render_template does it, up to what becomes of the nodes.
        variables: Any = copy.copy(context)
        variables.update((name, value) for name, value in template.globals.items() if name not in variables)
        env = template.environment
        try:
            nodes = list(
                template.root_render_func(env.context_class(env, variables, template.name, template.blocks))
            )
        except Exception:  # noqa: BLE001 - raised again, with the template's lines
            env.handle_exception()
        return nodes[0] if len(nodes) == 1 else "".join(map(str, nodes))
