"""Stores the file of a generation: the fresh URL of an artifact, and its way into a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.common.artifacts import BESIDE_THE_RESULT, Artifact
from airflow_provider_vidu.common.urls import unusable_note
from airflow_provider_vidu.exceptions import ViduBusyError, ViduConfigError, ViduError, ViduMissingVideoError
from airflow_provider_vidu.polling.failures import failure

if TYPE_CHECKING:
    from airflow_provider_vidu.downloads.transfer import Transfer
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.stores.base import StoredRecord
    from airflow_provider_vidu.stores.targets import FileTarget


def url_in(generation: Generation, artifact: Artifact | None, creation: int, conn_id: str) -> str:
    """Return the URL of an artifact of a generation that was just fetched.

    :raises ViduGenerationFailedError: when the generation has failed.
    :raises ViduBusyError: when it is not finished.
    :raises ViduError: when it has no such artifact.
    """
    if generation.failed:
        raise failure(generation).with_context(conn_id=conn_id)
    if (url := generation.url_of(artifact, creation)) is not None:
        return url
    if not generation.is_done:
        raise ViduBusyError(
            f"The generation is not finished: its state is {generation.describe()}. Put a ViduGenerationSensor "
            "before this task.",
            generation_id=generation.id,
            conn_id=conn_id,
        )
    raise missing(generation, artifact, creation).with_context(generation_id=generation.id, conn_id=conn_id)


def count_of(generation: Generation, artifact: Artifact | None) -> int:
    """Return how many creations of a generation have a file; without an argument ``creation``, the first one is kept.

    :param artifact: which file; None for the result.
    """
    return sum(generation.url_of(artifact, index) is not None for index in range(len(generation.creations)))


def log_others(generation: Generation, artifact: Artifact | None, log: Any) -> None:
    """Log that a generation has more files than the one that is kept, and how to keep those, too."""
    if (count := count_of(generation, artifact)) > 1:
        log.warning(
            "Generation %s has %d creations, and only number 0 is stored here. The service keeps the others for a day: "
            "store each with ViduDownloadOperator(generation_id='%s', creation=1), and so on.",
            *(generation.id, count, generation.id),
        )


def missing(generation: Generation, artifact: Artifact | None, creation: int) -> ViduError:
    """Return the error for a succeeded generation without a URL of an artifact; it lists the available ones.

    :param generation: a generation whose ``url_of(artifact, creation)`` is None.
    """
    count = len(generation.creations)
    if creation >= count:
        available = "one creation, number 0" if count == 1 else f"{count} creations, numbers 0 to {count - 1}"
        return ViduConfigError(f"There is no creation {creation}: the generation has {available}.")
    wanted = f"{artifact} URL" if artifact in BESIDE_THE_RESULT else "URL of a result"
    others = [name for name in ("result", *BESIDE_THE_RESULT) if generation.url_of(name, creation)]
    unusable = unusable_note(generation.raw)
    nothing = "It has no usable URL." if unusable else "It has no URLs at all."
    has = (f"It has: {', '.join(others)}." if others else nothing) + unusable
    subject = f"creation {creation} of the generation" if creation else "the generation"
    return ViduMissingVideoError(f"The generation succeeded, but {subject} has no {wanted}. {has}")


def store_result(
    generation: Generation,
    target: FileTarget,
    *,
    hook: ViduHook,
    endpoint: str | None,
    artifact: Artifact | None,
    most: int,
    log: Any,
    on_start: Callable[[Transfer], None] = lambda _: None,
) -> StoredRecord:
    """Store a file of a succeeded generation; an expired URL is replaced by a fresh one.

    :param generation: just fetched, so that its URLs are valid.
    :param target: where the file goes.
    :param artifact: which file; None for the result, whatever its medium.
    :param most: the largest accepted file, in bytes.
    :param on_start: gets the transfer before it begins, to cancel it.
    :raises ViduError: when it has no such file, or the file could not be fetched or stored.
    """
    from airflow_provider_vidu.downloads.transfer import Rules, Transfer

    def fresh_url() -> str:
        fetched = hook.get_generation(generation.id, endpoint=endpoint)
        return url_in(fetched, artifact, 0, hook.vidu_conn_id)

    url = url_in(generation, artifact, 0, hook.vidu_conn_id)
    target.check()
    transfer = Transfer(
        url,
        target.writer,
        access=hook.config.access(),
        rules=Rules(artifact=artifact, max_bytes=most),
        fresh_url=fresh_url,
        log=log,
    )
    on_start(transfer)
    return transfer.run()
