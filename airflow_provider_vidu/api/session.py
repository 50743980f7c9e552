"""Decides what follows a failed call: retry with the renewed connection, retry after a delay, or give up.

Both clients use it, so retries and rotated keys work the same in both. No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from airflow_provider_vidu.api.calls import Call
from airflow_provider_vidu.api.dialects import Dialect
from airflow_provider_vidu.api.messages import TOO_LARGE, ApiRequest
from airflow_provider_vidu.api.settings.config import ViduConfig
from airflow_provider_vidu.exceptions import ViduAuthError, ViduError
from airflow_provider_vidu.polling.retries import Attempts

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Session(Generic[T]):
    """The state of one call over all its attempts.

    A client looks the connection up (again if it was :attr:`refused`), sends what :meth:`call` returns, and passes each
    error of these steps to :meth:`after`, which returns how long to wait before the next attempt.

    :param make: makes the call for a dialect; called for each attempt, because a renewed connection may have another.
    :param retries: how often a failed call is retried; None for the connection's ``max_retries``.
    :param generation_id: the generation that the call is about; errors name it.
    :param queues: whether the caller waits for a free slot itself, so that "too many" is not retried here.
    :param patience: seconds that are left for the next waits, whatever ``Retry-After`` says; None for no limit.
    """

    make: Callable[[Dialect], Call[T]]
    retries: int | None
    generation_id: str | None
    conn_id: str
    queues: bool = False
    patience: float | None = None
    _request: ApiRequest | None = None
    _attempts: Attempts | None = None
    _seen: ViduConfig | None = None
    _refusal: ViduAuthError | None = None
    _is_renewed: bool = False

    @property
    def refused(self) -> ViduConfig | None:
        """The connection whose key was refused: it must be looked up again before the next attempt."""
        return None if self._refusal is None else self._seen

    def call(self, config: ViduConfig) -> Call[T]:
        """Return what to send with this connection.

        :raises ViduAuthError: the refusal of the key, if the connection has not changed since.
        :raises ViduConfigError: when the connection's dialect lacks this call.
        """
        refusal, self._refusal = self._refusal, None
        if refusal is not None and config == self._seen:
            raise refusal
        self._seen = config
        if self.retries is None:
            self.retries = config.max_retries
        call = self.make(config.dialect)
        self._request = call.request
        return call

    def after(self, error: ViduError) -> float:
        """Return the seconds to wait before the next attempt; 0 after a refused key, once for each attempt.

        :raises ViduError: ``error`` itself, with its generation and connection, when the call must not be repeated or a
            retry cannot help (a page that is too large).
        """
        error.with_context(generation_id=self.generation_id, conn_id=self.conn_id)
        # Its frames hold it, and the answer: a cycle, which may stay for hours in a large process.
        error.__traceback__ = None
        if isinstance(error, ViduAuthError) and not self._is_renewed:
            self._refusal, self._is_renewed = error, True
            return 0.0
        self._refusal, self._is_renewed = None, False
        if error.code == TOO_LARGE and self._request is not None and self._request.lists:
            raise error
        if self._attempts is None:
            bills = self._request is not None and self._request.bills
            self._attempts = Attempts(self.retries or 0, bills=bills, queues=self.queues)
        delay = self._attempts.after(error)
        if self.patience is not None:
            self.patience -= delay
            if self.patience < 0:
                raise error
        return delay
