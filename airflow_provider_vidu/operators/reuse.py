"""The single task with ``reuse="identical"``: an order that equals an earlier one is served by its file."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.common.text import sentence
from airflow_provider_vidu.exceptions import (
    ViduError,
    ViduGenerationFailedError,
    ViduGenerationInterruptedError,
    ViduStorageError,
)

if TYPE_CHECKING:
    from airflow_provider_vidu.batches.catalogue import Catalogue
    from airflow_provider_vidu.common.artifacts import Artifact
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.orders.arguments import OnClear
    from airflow_provider_vidu.orders.claims import Claim
    from airflow_provider_vidu.orders.order import Order
    from airflow_provider_vidu.stores.destination import Destination

REQUEST_NOTE: Final = "request"
"""The field of a task's note with the digest of its order, from which a resumed task keeps its file."""
SHARED_NOTE: Final = "shared"
"""The field of a task's note that says that its generation is another task's."""
_FILE: Final = ("uri", "size", "sha256", "content_type", "source")


class ReusedOrderError(Exception):
    """The catalogue has the file of an equal order.

    :param line: its line.
    """

    def __init__(self, line: Mapping[str, Any]) -> None:
        super().__init__(line.get("generation_id"))
        self.line = line


class SharedResults:
    """The files of a folder that equal orders share.

    :param destination: the folder.
    :param hook: of the connection.
    :param artifact: which file of a generation is stored.
    :param request: the digest of the task's request.
    :param log: the task's.
    """

    def __init__(
        self, destination: Destination, hook: ViduHook, artifact: Artifact | None, request: str, log: Any
    ) -> None:
        from airflow_provider_vidu.batches.catalogue import Catalogue

        self._catalogue: Catalogue = Catalogue.of(destination, hook.config, artifact, log)
        self._hook = hook
        self._request = request

    def claim(
        self, context: Mapping[str, Any], order: Order, endpoint: str | None, *, on_clear: OnClear
    ) -> Claim | None:
        """Return the claim on the task's order; None if it is to be generated again.

        A clear, unless it resumes, and an iteration of a loop ask for another generation of the same request.

        :param order: which order of the task instance this try belongs to.
        """
        from airflow_provider_vidu.orders.records import owner_of

        # Outside of a task, each execute() is an owner: an earlier one that was killed may have submitted.
        owner = owner_of(context) or f"no task ({secrets.token_hex(8)})"
        # Not of a run that was created before retries was lowered.
        was_cleared = on_clear == "new" and order.may_follow_a_clear_after(1)
        return None if was_cleared or order.region else self._claim(owner, endpoint)

    def stored(self, generation: Generation, store: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the record of a generation's file: from the catalogue, or else of the file that ``store`` stores.

        :param store: stores the file and returns its record, as :class:`.ResultStore` does.
        """
        line = None
        with suppress(ViduStorageError):  # it is paid for, so its file is stored in any case
            line = self._catalogue.find(self._request)
        if line is not None and line.get("generation_id") == generation.id:
            return file_in(line)
        record = store()
        self._keep(generation, record)
        return record

    def _keep(self, generation: Generation, record: Mapping[str, Any]) -> None:
        """Add a stored file to the catalogue, and give the claim on its order back."""
        file = {name: record[name] for name in _FILE if name in record}
        known = {"generation_id": generation.id, "credits": generation.credits, "request": self._request, "error": None}
        self._catalogue.keep({"status": "stored", **known, **file})
        self._claim("", None).ended(generation.id)

    def _claim(self, owner: str, endpoint: str | None) -> Claim:
        return self._catalogue.claim(self._request, owner, self._hook, endpoint, self._look_up)

    def _look_up(self) -> None:
        if (line := self._catalogue.find(self._request)) is not None:
            raise ReusedOrderError(line)


def file_in(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a file, as a download returns it, from its line."""
    return {**{name: line.get(name) for name in _FILE}, "generation_id": line.get("generation_id")}


def claim_lost(conn_id: str) -> ViduError:
    """Return the error of a task whose claim another task has taken over before the create was sent."""
    return ViduError(
        "Another task has taken over the equal order while this one waited to send its create, so nothing was "
        "submitted. A retry shares its result.",
        conn_id=conn_id,
    )


def reused_result(arguments: Mapping[str, Any], line: Mapping[str, Any]) -> tuple[dict[str, Any], Generation]:
    """Return the result of a task whose order is served by an earlier file, and the generation of that.

    It has no price, since nothing was paid.

    :param arguments: of the task's request.
    :param line: of the earlier file.
    """
    from airflow_provider_vidu.models import Generation, GenerationStatus
    from airflow_provider_vidu.orders.request import completed
    from airflow_provider_vidu.tasks.masking import as_result

    generation_id = str(line.get("generation_id"))
    generation = Generation(id=generation_id, status=GenerationStatus.SUCCEEDED, raw={})
    whole, parameters = completed(generation, arguments, {})
    return {**as_result(whole, parameters), "file": file_in(line), "reused_from": generation_id}, whole


@contextmanager
def another_may_follow(hook: ViduHook, generation_id: str, endpoint: str | None, *, is_shared: bool) -> Iterator[None]:
    """Make the failure of another task's generation retryable if the service may succeed next time.

    That task was killed, for example; a retry of this one submits a generation of its own.

    :param is_shared: whether the generation is another task's.
    :raises ViduGenerationInterruptedError: in that case.
    """
    try:
        yield
    except ViduGenerationFailedError as error:
        if not is_shared:
            raise
        try:
            generation = hook.get_generation(generation_id, endpoint=endpoint)
        except ViduError:
            raise error from None
        if not (generation.was_cancelled or generation.is_transient):
            raise
        message = f"{sentence(error.reason)} It was submitted by another task with an equal order. A retry submits one."
        raise error.restated(ViduGenerationInterruptedError, message) from error
