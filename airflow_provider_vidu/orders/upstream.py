"""The id and the URL in the generation that an upstream task returned.

``generation=generate.output`` takes the whole return value of a task, also of a mapped one, so that id and URL are
mapped together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.common.parsing import MOST_VALUES, TooManyValuesError, bounded_json
from airflow_provider_vidu.common.text import redacted
from airflow_provider_vidu.common.values import moment, text, web_url, whole
from airflow_provider_vidu.exceptions import ViduConfigError

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation

_ENDED: Final = ("success", "skipped", "failed", "upstream_failed")
"""The states in which a task instance ends; "removed" is not one: it has no place in the output."""


def check_source(name: str, generation: object, **instead: object) -> None:
    """Refuse at parse time arguments of an operator (``name``) that name no generation, or name it twice.

    :param instead: the arguments that ``generation`` replaces.
    :raises ViduConfigError: naming the arguments.
    """
    words = " or ".join(instead)
    is_named = any(value is not None for value in instead.values())
    if generation is not None and is_named:
        raise ViduConfigError(f"generation replaces {words}: give one or the other.")
    if generation is None and not is_named:
        raise ViduConfigError(f"{name} needs {words}, or generation.")


def without_gaps(value: Any, context: Mapping[str, Any]) -> tuple[Any, int]:
    """Return an argument as if each instance of a mapped task had returned a value, and how many have not.

    Airflow leaves out instances that were skipped, or that returned nothing.

    :param value: as rendered.
    """
    if isinstance(value, Mapping):
        filled = {name: without_gaps(value[name], context) for name in value}
        return {name: item for name, (item, _) in filled.items()}, sum(gaps for _, gaps in filled.values())
    if isinstance(value, (list, tuple)):
        items = [without_gaps(item, context) for item in value]
        return [item for item, _ in items], sum(gaps for _, gaps in items)
    upstream = getattr(getattr(value, "_xcom_arg", None), "operator", None)
    if upstream is None or not isinstance(value, Sequence):
        return value, 0
    known = list(value)
    gaps = max(_instances(upstream, context) - len(known), 0) if known else 0
    return [*known, *known[-1:] * gaps], gaps


def _instances(upstream: Any, context: Mapping[str, Any]) -> int:
    """Return how many instances of a mapped task have ended in this run; 0 if Airflow does not say (before 3.0)."""
    ti: Any = context.get("ti")
    count = getattr(ti, "get_ti_count", None)
    if count is None:
        return 0
    found: int = count(dag_id=ti.dag_id, task_ids=[upstream.task_id], run_ids=[ti.run_id], states=[*_ENDED])
    return found


def stripped(value: Any) -> Any:
    """Return a text without the surrounding whitespace that templates and files leave."""
    return value.strip() if isinstance(value, str) else value


def given_id(generation_id: object) -> str:
    """Return an id that a template, a file or a task gave; raises ViduConfigError when it is not valid."""
    from airflow_provider_vidu.api.ids import checked_id

    given = stripped(generation_id)
    if isinstance(given, str) and "://" in given:  # nor may the service see where Airflow keeps its data
        raise ViduConfigError(
            f"generation_id is an address instead of an id: {redacted(given, 120)!r}. If it is where the upstream "
            "task's XCom is kept, this worker lacks that task's [core] xcom_backend. The URL of a file is a video_url."
        )
    return checked_id(given)


def id_of(generation: object) -> str:
    """Return the id in a task's return value.

    :param generation: a generation as JSON, as its text, or as an object; the record of a download; or an id.
    :raises ViduConfigError: when it holds none, or an invalid one.
    """
    from airflow_provider_vidu.models import Generation

    generation = _read(generation)
    if isinstance(generation, Generation):
        return given_id(generation.id)
    if isinstance(generation, Sequence) and not isinstance(generation, (str, bytes)):
        raise ViduConfigError(
            "generation is a list, the output of a mapped task. Map over it: .expand(generation=generate.output)."
        )
    if isinstance(generation, str) and generation.lstrip().startswith(("{", "[")):
        raise ViduConfigError(
            "generation is the text of an object, but not JSON: a template converted it. Pass "
            "generation=generate.output without a template, or render it with the filter tojson."
        )
    if not isinstance(generation, Mapping):
        return given_id(generation)  # an id, or a value that is refused as one
    if (generation_id := generation.get("id") or generation.get("generation_id")) is None:
        raise ViduConfigError(
            "generation has no id. Pass what ViduGenerateOperator or ViduGenerationSensor returned: "
            "generation=generate.output."
        )
    return given_id(generation_id)


def url_of(generation: object, artifact: str | None, creation: int = 0) -> str | None:
    """Return the URL of an artifact (see :meth:`Generation.url_of`) in a task's return value; None if there is none."""
    known = handed_over(generation)
    return None if known is None else web_url((known.url_of(artifact, creation) or "").strip())


def handed_over(generation: object) -> Generation | None:
    """Return the generation in a task's return value; None if it is something else, or another version's."""
    from airflow_provider_vidu.models import Generation

    generation = _read(generation)
    if isinstance(generation, Mapping) and "status" in generation:
        try:
            return Generation.model_validate(generation)
        except ValueError:  # another version's, or handwritten: the id is enough
            return None
    return generation if isinstance(generation, Generation) else None


def _read(generation: object) -> object:
    """Return the object or the text whose JSON a template rendered; everything else unchanged.

    :raises ViduConfigError: when the text holds too many values: who fills the template may be anyone.
    """
    if isinstance(generation, str) and generation.lstrip().startswith(("{", '"')):
        try:
            return bounded_json(generation, MOST_VALUES)
        except TooManyValuesError:
            problem = f"generation holds more than {MOST_VALUES:,} JSON values, so it is not a task's return value."
            raise ViduConfigError(problem) from None
        except (ValueError, RecursionError):
            return generation
    return generation


def filled(generation: Generation, known: Mapping[str, Any]) -> Generation:
    """Return a generation with prompt, model, credits and time of creation filled in where the service omits them.

    The query of ``ent-v2`` returns none of them.

    :param known: plain JSON with ``prompt``, ``model``, ``created_at`` and ``credits``, as far as they are known.
    """
    values = {
        "prompt": text(known.get("prompt")),
        "model": text(known.get("model")),
        "created_at": moment(known.get("created_at")),
        "credits": whole(known.get("credits")),
    }
    missing = {name: value for name, value in values.items() if value and getattr(generation, name) is None}
    return generation.model_copy(update=missing)


def continued(generation: Generation, handed: object) -> tuple[Generation, Mapping[str, Any] | None]:
    """Return a generation and its request's parameters, completed from the upstream task's return value (or None)."""
    from airflow_provider_vidu.models import Generation

    handed = _read(handed)
    if isinstance(handed, Generation):  # what a @task returned that submitted with the hook
        handed = handed.as_xcom()
    if not isinstance(handed, Mapping):
        return generation, None
    parameters = handed.get("parameters")
    return filled(generation, handed), parameters if isinstance(parameters, Mapping) else None
