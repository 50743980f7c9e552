"""Renders the templates of an operator's arguments: text stays text, even if the DAG renders natively."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import MAX_DEPTH, given
from airflow_provider_vidu.tasks.deserializing import allow_models

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_ARGUMENTS: Final = frozenset(
    {
        "prompt",
        "model",
        "endpoint",
        "generation_id",
        "video_url",
        "destination",
        "vidu_conn_id",
        "storage_conn_id",
        "batch",
    }
)
_NUMBERS_INSIDE: Final = frozenset({"from", "to"})
"""Numbers in the objects of ``timing_prompts``."""
_LISTS: Final = frozenset({"images", "videos", "sounds", "subjects", "image_settings", "timing_prompts", "type"})
"""Documented as lists: a template may render to the JSON text of one."""
_STRUCTURE: Final = re.compile(r"\[|\{(?![{%#])")
"""The beginning of a template in which the author wrote a list or an object."""
_TEMPLATE: Final = re.compile(r"\{[{%#]")
_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


# What a task is mapped over is read before the task itself exists. A process that reads XComs has loaded serde by then.
allow_models()


class RenderedOperator(BaseOperator):
    """An operator whose text arguments render to text, even with ``render_template_as_native_obj``.

    With that option, Jinja reads every rendered text as a Python literal: a prompt in quotation marks loses them,
    ``1_000`` becomes 1000, ``3.10`` becomes 3.1, and ids of digits become numbers. Here a text argument stays text, and
    so does every field of a request, at any depth, that is not documented as a number or a flag, because an unknown
    field may be text. An object that a template passes through whole (``{{ ti.xcom_pull(…) }}``) stays that object, and
    a list or an object that the author wrote (``[{{ a }}, {{ b }}]``) becomes one.
    """

    _is_text: bool = False
    _is_number: bool = False
    _is_argument: bool = False
    """Whether the rendered argument is text as a whole, such as a prompt in brackets."""

    # Not render_template_fields: a mapped task calls this method of its unmapped operator.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        allow_models()
        if parent is self:
            seen_oids |= {id(getattr(self, name)) for name in _data_of_row(self, template_fields, context)}
        for name in template_fields:
            self._is_text = self._is_argument = parent is self and name in _ARGUMENTS
            try:
                super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
            finally:
                self._is_text = self._is_argument = False

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render an argument or a part of it; the keys of a request decide which of its fields are text."""
        from airflow_provider_vidu.api.endpoints import FLAGS, NUMBERS

        if seen_oids is not None and id(content) in seen_oids:
            # What a mapped task was given by an XCom is data: rendered, its author could read every connection.
            return content
        if isinstance(content, str):
            content = str.__str__(content)  # of the member of an enum, Jinja would render the name: Prompt.KITE
        outer = self._is_text, self._is_number
        try:
            if type(content) is dict:
                rendered = {}
                for name, value in content.items():
                    self._is_number = name in NUMBERS or name in FLAGS or name in _NUMBERS_INSIDE
                    self._is_text = not self._is_number and name not in _LISTS
                    rendered[name] = self.render_template(value, context, jinja_env, seen_oids)
                return rendered
            if type(content) in (list, tuple) and not self._is_number:
                self._is_text = True
            elif type(content) is str and _STRUCTURE.match(content):
                self._is_text = self._is_text and self._is_argument
            elif isinstance(content, PurePath) and not hasattr(content, "protocol"):  # Airflow renders its own paths
                self._is_text = True
                text = super().render_template(str(content), context, jinja_env, seen_oids)
                return type(content)(text) if given(text) else text  # refused as empty text is
            return super().render_template(content, context, jinja_env, seen_oids)
        finally:
            self._is_text, self._is_number = outer

    def _render(self, template: Any, context: Context, dag: Any = None) -> Any:
        if not self._is_text:
            return _paired(super()._render(template, context, dag))
        # Like Airflow's own render_template, except for joining the nodes.
        variables: Any = copy.copy(context)
        variables.update((name, value) for name, value in template.globals.items() if name not in variables)
        env = template.environment
        try:
            nodes = list(template.root_render_func(env.context_class(env, variables, template.name, template.blocks)))
        except Exception:  # noqa: BLE001 - re-raised with the template's lines
            env.handle_exception()
        return nodes[0] if len(nodes) == 1 else "".join(map(str, nodes))


def _data_of_row(operator: Any, fields: Iterable[str], context: Context) -> Collection[str]:
    """Return the arguments of a mapped task's instance that look like templates and are from a row of an upstream task.

    Airflow names what ``expand()`` takes from XComs as data, but renders such rows of ``expand_kwargs()``: the
    author of a line in the file that ``load_prompts`` reads could read every connection.
    """
    task = (getattr(context.get("dag"), "task_dict", None) or {}).get(operator.task_id)
    expanded: Any = getattr(getattr(task, "expand_input", None), "value", None)
    index = getattr(context.get("ti"), "map_index", None)
    is_listed = isinstance(expanded, (list, tuple))
    if is_listed and isinstance(index, int) and 0 <= index < len(expanded):
        expanded = expanded[index]
    if task is None or expanded is None or isinstance(expanded, (Mapping, list, tuple)):
        return ()  # as the author has written it, or of expand()
    own = set(getattr(operator, "_BaseOperator__init_kwargs", ())) - set(task.partial_kwargs)
    found = [name for name in fields if name in own and _TEMPLATE.search(repr(getattr(operator, name, None)))]
    if not found:
        return ()
    try:
        row = expanded.resolve(context) if is_listed else expanded.resolve(context)[index]
        found = [name for name in found if name in row]  # the others are those of a subclass
    except Exception as error:  # noqa: BLE001 - the deployment's own XCom back end reads it, and may raise anything
        operator.log.debug("Could not read the row of expand_kwargs again: %s", redacted(error))
    if found:
        operator.log.warning(
            "%s: from an upstream task's row of expand_kwargs, so what looks like a template there is not rendered. "
            "Render it in that task, or put the template into partial().",
            ", ".join(found),
        )
    return found


def _paired(value: Any, depth: int = 0) -> Any:
    """Return a rendered value in which the two halves of a character are one again.

    The filter ``tojson`` writes an emoji as two escapes. JSON joins them, but native rendering reads Python literals,
    which do not, and Airflow cannot store halves.
    """
    if type(value) is str:
        return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), value)
    if depth < MAX_DEPTH and type(value) is list:
        return [_paired(item, depth + 1) for item in value]
    if depth < MAX_DEPTH and type(value) is dict:
        return {_paired(name, depth + 1): _paired(item, depth + 1) for name, item in value.items()}
    return value
