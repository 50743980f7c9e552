"""How a generate task waits for its generation, or for that of an equal order: in the triggerer, or in its worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.exceptions import ViduTimeoutError
from airflow_provider_vidu.operators.reuse import another_may_follow
from airflow_provider_vidu.orders.explained import explained_failure
from airflow_provider_vidu.tasks.deferral import DeferredWait
from airflow_provider_vidu.tasks.endings import Observed

if TYPE_CHECKING:
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.operators.generate import ViduGenerateOperator


@dataclass(frozen=True, kw_only=True)
class GenerationWait:
    """The wait of a generate task for one generation.

    :param task: the operator, rendered.
    :param hook: of the generation's connection.
    :param generation_id: the id at Vidu.
    :param endpoint: where it was submitted; None if the fields decided.
    :param timeout: seconds that the whole wait may last.
    :param is_own: whether the task has submitted the generation. Otherwise it neither pays for it nor cancels it.
    :param on_timeout: called before a timeout is raised; returns whether it has cancelled the generation.
    """

    task: ViduGenerateOperator
    hook: ViduHook
    generation_id: str
    endpoint: str | None
    timeout: float
    is_own: bool
    on_timeout: Callable[[], bool]

    def deferred(self, callback: str | None = None) -> DeferredWait:
        """Return the wait in the triggerer.

        :param callback: the digest of the order's callback token; None if the service reports no end.
        """
        from airflow_provider_vidu.triggers import ViduGenerationTrigger

        return DeferredWait(
            operator=self.task,
            hook=self.hook,
            trigger=partial(ViduGenerationTrigger, cancel_on_kill=self.task.cancel_on_kill and self.is_own),
            generation_id=self.generation_id,
            poll_interval=self.task.poll_interval,
            timeout=self.timeout,
            max_failures=self.task.max_failures,
            endpoint=self.endpoint,
            is_own=True,  # another task's generation is paid for, too, so no refusal of its query is final
            on_timeout=self.on_timeout,
            callback=callback,
        )

    def in_worker(self, seconds: float) -> tuple[Generation, Mapping[str, Any]]:
        """Wait in this process; return the generation, and what was seen of its times.

        :param seconds: how long to wait at most.
        :raises ViduTimeoutError: after that.
        :raises ViduError: when the generation, or the wait for it, has failed.
        """
        observed = Observed()
        try:
            generation = self.hook.wait(
                self.generation_id,
                timeout=seconds,
                poll_interval=self.task.poll_interval,
                max_failures=self.task.max_failures,
                on_change=observed,
                endpoint=self.endpoint,
                known=True,
            )
        except ViduTimeoutError as error:
            raise (error.after_cancel() if self.on_timeout() else error) from None
        return generation, observed.times()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Explain what ends the wait; the end of another task's generation may be retried."""
        with (
            another_may_follow(self.hook, self.generation_id, self.endpoint, is_shared=not self.is_own),
            explained_failure(self.hook, self.generation_id, self.endpoint, self.task.log),
        ):
            yield
