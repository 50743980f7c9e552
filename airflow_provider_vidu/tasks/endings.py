"""What a task's log says at its end: what the generation cost and how long it took, and errors in one traceback."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowException, conf

from airflow_provider_vidu.common.values import mapping, number
from airflow_provider_vidu.exceptions import ViduError
from airflow_provider_vidu.links import is_task_instance, watch_page

if TYPE_CHECKING:
    from airflow_provider_vidu.models import Generation, GenerationStatus

P = ParamSpec("P")
R = TypeVar("R")


def page_of(context: Mapping[str, Any] | None) -> str:
    """Return the address of a task's clip page for its log; empty outside of a task.

    It is absolute if the deployment has set ``[api] base_url``: a log is also read outside of Airflow's UI.
    """
    ti = (context or {}).get("ti")
    if not is_task_instance(ti):
        return ""
    page, base = watch_page(ti), urlsplit(conf.get("api", "base_url", fallback="") or "")
    return f"{base.scheme}://{base.netloc}{page}" if base.netloc and page.startswith("/") else page


class Observed:
    """What a wait in this process sees of a generation's times, as its ``on_change``."""

    def __init__(self) -> None:
        self._since = time.time()
        self._last: GenerationStatus | None = None
        self._queued: float | None = None
        self._saw_it_unfinished = False

    def __call__(self, generation: Generation) -> None:
        """Record a change of the state."""
        from airflow_provider_vidu.models import GenerationStatus

        if self._last is GenerationStatus.WAITING and generation.status is GenerationStatus.RUNNING:
            self._queued = time.time() - self._since
        self._last = generation.status
        self._saw_it_unfinished |= not generation.is_done

    def times(self) -> dict[str, Any]:
        """Return, right after the end, what a trigger's event holds of it."""
        # An end that came before the first poll may be hours old.
        return {"seen_at": time.time() if self._saw_it_unfinished else None, "queued": self._queued}


def log_end(
    log: Any, generation: Generation, context: Mapping[str, Any] | None, times: Mapping[str, Any] | None = None
) -> None:
    """Log what a generation took, such as ``Generation 9: 80 credits, 1 min 5 s (about 15 s queued)``, if it is known.

    :param generation: with the facts of its order, as far as they are known.
    :param context: the task's context, which leads to the clip's page.
    :param times: a trigger's event, or :meth:`Observed.times`: when the end was seen, and the time in the queue.
    """
    spent = generation.credits
    cost = "" if spent is None else f"{spent:g} credit{'' if spent == 1 else 's'}"
    facts = ", ".join(filter(None, (cost, _time_taken(generation, mapping(times)))))
    if facts:
        page = page_of(context)
        log.info("Generation %s: %s%s", generation.id, facts, f". Watch it: {page}" if page else "")


def _time_taken(generation: Generation, times: Mapping[str, Any]) -> str:
    """Return how long a generation took, as far as its times are known; empty otherwise."""
    from airflow_provider_vidu.common.progress import duration

    begun = generation.created_at
    end = generation.completed_at.timestamp() if generation.completed_at else number(times.get("seen_at"))
    if begun is None or end is None or end <= begun.timestamp():
        return ""
    queued = number(times.get("queued"))
    return duration(end - begun.timestamp()) + (f" (about {duration(queued)} queued)" if queued else "")


def without_known_causes(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate a method that Airflow calls: its own errors end the log with one traceback.

    The text of such an error already says what its causes say. A cause that this package did not expect stays.
    """

    @functools.wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except ViduError as error:
            if _is_expected(_cause(error)):
                error.__cause__ = None  # this hides the context, too
            raise

    return run


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_expected(cause: BaseException | None) -> bool:
    """Whether an error follows from this package's own errors, or from a failed request or file alone."""
    while isinstance(cause, ViduError):
        cause = _cause(cause)
    return cause is None or isinstance(cause, (OSError, AirflowException))
