"""Stores the result of a generate task in the task itself (``destination``)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_vidu.common.artifacts import ARTIFACTS
from airflow_provider_vidu.defaults import check_size, check_word
from airflow_provider_vidu.exceptions import ViduConfigError, ViduStorageError
from airflow_provider_vidu.stores.paths import checked_destination, is_folder, is_template, local_path, path_text

if TYPE_CHECKING:
    from airflow_provider_vidu.common.artifacts import Artifact
    from airflow_provider_vidu.downloads.transfer import Transfer
    from airflow_provider_vidu.hooks import ViduHook
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.stores.destination import Destination
    from airflow_provider_vidu.stores.targets import FileTarget


_NEEDS_FOLDER: Final = "reuse='identical' needs a destination that is a folder: end it with a slash."


def check_storing(destination: object, artifact: object, max_bytes: object, reuse: object, *, waits: bool) -> None:
    """Refuse at parse time arguments that make no sense with, or without, a destination.

    :param waits: whether the task waits for the result.
    :raises ViduConfigError: naming the argument.
    """
    if destination is None and (artifact is not None or max_bytes is not None):
        raise ViduConfigError("artifact and max_bytes need a destination: without one, nothing is stored.")
    check_word("artifact", artifact, (None, *ARTIFACTS))
    check_size("max_bytes", max_bytes)
    if destination is not None and not waits:
        raise ViduConfigError("destination needs wait_for_completion: there is no file before the end.")
    path = path_text(destination)
    is_known = path is not None and not is_template(path)
    if is_known:
        checked_destination(destination)
    check_word("reuse", reuse, ("never", "identical"))
    if reuse == "identical" and (destination is None or (is_known and not is_folder(checked_destination(destination)))):
        raise ViduConfigError(_NEEDS_FOLDER)


class ResultStore:
    """The place for the file of a task's generation.

    :param destination: as rendered: a file, or a folder in which the generation names the file.
    :param storage_conn_id: the Airflow connection of its store.
    :param artifact: which file; None for the result, whatever its medium.
    :param max_bytes: the largest accepted file; None for the deployment's limit.
    :param log: the task's.
    :raises ViduConfigError: when the destination cannot be written to, as far as that is visible without its store.
    """

    def __init__(
        self, destination: Any, storage_conn_id: str | None, artifact: Artifact | None, max_bytes: int | None, log: Any
    ) -> None:
        from airflow_provider_vidu.network.download_url import deployment_hosts, most_bytes
        from airflow_provider_vidu.stores.destination import Destination, missing_file_system, options_of
        from airflow_provider_vidu.stores.roots import check_destination

        self._text = checked_destination(destination)
        check_destination(self._text)
        if (missing := missing_file_system(self._text, storage_conn_id)) is not None:
            raise missing
        self._destination: Destination = Destination(self._text, storage_conn_id, options_of(destination))
        self._conn_id = storage_conn_id
        self._artifact = artifact
        self._most = most_bytes(max_bytes)
        deployment_hosts()  # a setting that no download can use
        self._log = log
        self._transfer: Transfer | None = None
        self._is_cancelled = False

    @property
    def folder(self) -> Destination:
        """The destination of a task whose files equal orders share; raises ViduConfigError when it is not a folder."""
        if not is_folder(self._text):
            raise ViduConfigError(_NEEDS_FOLDER)
        return self._destination

    @property
    def artifact(self) -> Artifact | None:
        """Which file of a generation is stored; None for the result, whatever its medium."""
        return self._artifact

    def check(self, operator: Any, context: Any, written: object) -> None:
        """Refuse, before the order, a place that cannot be written to, and a mapped task with one file for all.

        :param written: the destination as the DAG's author wrote it.
        :raises ViduConfigError: naming the destination.
        """
        from airflow_provider_vidu.operators.mapping.shared_names import check_own_file

        if problem := self._obstacle():
            raise ViduConfigError(f"Nothing was ordered: the file could not be stored. {problem.rstrip('.')}.")
        check_own_file(operator, context, self._text, written)

    def rehearse(self) -> None:
        """Begin the file's upload and abort it, right before the order; a local folder was checked without that.

        :raises ViduConfigError: when the name belongs to a folder.
        :raises ViduStorageError: when the store refuses it, or cannot be reached: a retry orders.
        """
        try:
            self._destination.rehearse(self._artifact)
        except (ViduConfigError, ViduStorageError) as error:
            raise type(error)(f"Nothing was ordered: {error.reason}") from error.__cause__

    def _obstacle(self) -> str | None:
        """Return why the file could not be stored, as far as that is visible without its store; None if nothing."""
        from airflow_provider_vidu.operators.preflight import unknown_connection

        if local_path(self._text) is not None:
            return self._destination.obstacle()
        with suppress(Exception):  # an outage of the secrets backend may be over by then
            return unknown_connection(self._text, self._conn_id)
        return None

    def store(self, generation: Generation, hook: ViduHook, endpoint: str | None) -> dict[str, Any]:
        """Store the file; return its record, as ``ViduDownloadOperator`` returns it.

        :param generation: just fetched, so that its URLs are valid.
        :raises ViduError: when the file could not be fetched or stored.
        """
        from airflow_provider_vidu.orders.results import count_of, log_others, store_result

        stored = asdict(
            store_result(
                generation,
                self._target(generation.id),
                hook=hook,
                endpoint=endpoint,
                artifact=self._artifact,
                most=self._most,
                log=self._log,
                on_start=self._began,
            )
        )
        del stored["existed"]
        facts = f"{stored['size']:,} bytes of {stored['content_type']}, SHA-256 {stored['sha256']}"
        self._log.info("Stored %s: %s", stored["uri"], facts)
        log_others(generation, self._artifact, self._log)
        count = count_of(generation, self._artifact)
        return {**stored, "generation_id": generation.id, **({"creations": count} if count > 1 else {})}

    def cancel(self) -> None:
        """Stop the transfer; may be called from a signal handler."""
        self._is_cancelled = True
        if self._transfer is not None:
            self._transfer.cancel()

    def _began(self, transfer: Transfer) -> None:
        self._transfer = transfer
        if self._is_cancelled:
            transfer.cancel()

    def _target(self, generation_id: str) -> FileTarget:
        from airflow_provider_vidu.stores.naming import stem_of
        from airflow_provider_vidu.stores.targets import FileTarget, FolderTarget

        if not is_folder(self._text):
            return FileTarget(self._destination, "replace")
        return FolderTarget(self._destination, "replace", stem_of(generation_id, None), self._artifact)
