"""``ViduDownloadOperator``: stores a generation's files in your own storage.

Importing this module does no I/O and loads no HTTP client; the download engine is imported when a task runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_vidu.common.artifacts import ARTIFACTS, MAX_CREATION, Artifact
from airflow_provider_vidu.common.text import sanitized, without_query
from airflow_provider_vidu.common.values import strict_int, trimmed, web_url
from airflow_provider_vidu.defaults import DEFAULT_CONN_ID, check_size, check_word
from airflow_provider_vidu.exceptions import ViduConfigError, ViduError
from airflow_provider_vidu.links import ViduWatchLink, publish, result_of
from airflow_provider_vidu.orders.upstream import (
    check_source,
    continued,
    given_id,
    handed_over,
    id_of,
    stripped,
    url_of,
)
from airflow_provider_vidu.stores.paths import OVERWRITES, Overwrite, checked_destination, is_folder, is_template
from airflow_provider_vidu.tasks.endings import without_known_causes
from airflow_provider_vidu.tasks.masking import SignedURLOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_vidu.downloads.incoming_file import OpenWriter
    from airflow_provider_vidu.downloads.transfer import Transfer
    from airflow_provider_vidu.models import Generation
    from airflow_provider_vidu.network.download_url import DownloadAccess
    from airflow_provider_vidu.stores.base import AtomicWriter, StoredRecord
    from airflow_provider_vidu.stores.targets import FileTarget


class ViduDownloadOperator(SignedURLOperator):
    """Downloads a file of a generation to any location that Airflow's object storage supports.

    By default it stores the result, whatever its medium: video, image or audio. The file's first bytes decide its
    type, its extension and the content type of the stored object; pages, JSON, text, SVG and unrecognized bytes are
    refused. The file is streamed in constant memory, hashed on the way, and appears under its final name only when it
    is complete. A broken transfer resumes; an expired URL is replaced by a fresh one if the id is known.

    Give ``generation_id``, ``video_url``, or both: then the URL is tried first, and the id names the file and replaces
    an expired URL. With only a ``video_url``, no Vidu connection needs to exist.

    The return value is ``{"uri", "size", "sha256", "content_type", "generation_id", "source"}``: size in bytes, the
    digest in hex, ``source`` the URL without its query (None if ``overwrite="skip"`` fetched nothing and only the id
    was known).

    ``outlets`` may hold assets and asset aliases: their events carry the record, the model and the prompt (if the
    service reports them) as ``extra``, and an alias resolves to the stored object.

    :param destination: a path or URL for ``ObjectStoragePath``: ``/data/clips/a.mp4``, ``s3://bucket/clips/``. A
        trailing slash makes it a folder, and the file is named after the id (or the URL) and its type. An
        ``ObjectStoragePath`` loses that slash: such an object is a folder unless its name has the extension of a
        medium, and its storage options are used. In a mapped task it must be a folder, or differ between the
        instances. A replaced local file keeps its mode, and a local symbolic link is refused. Templated.
    :param video_url: the file's URL; sent verbatim, except for surrounding whitespace. Templated.
    :param generation_id: the id at Vidu (``task_id`` in its API). Templated.
    :param generation: the return value of a task (``generate.output``), instead of ``generation_id`` and
        ``video_url``: both are taken from it. Mapped over the output of a mapped task, each file belongs to its row,
        and templates of the other arguments may use ``{{ task.generation.model }}``. Templated.
    :param vidu_conn_id: the Airflow connection of type ``vidu``. Templated.
    :param storage_conn_id: the Airflow connection of the destination's store; overrides a connection in
        ``destination``. If omitted, or if it holds no credentials (or does not exist, with a warning), the store's
        client uses its own: environment variables, files, the machine's role. Templated.
    :param overwrite: if the destination exists, ``replace`` it, ``skip`` the download and return the record of the
        existing file (read once for its digest, up to ``max_bytes``; an empty file counts as missing), or fail with an
        ``error``. ``replace`` needs no permission to read or list.
    :param artifact: the result, whatever its medium, if omitted; ``video``, ``image`` or ``audio`` require that medium.
        ``cover``, ``watermarked``, ``speech`` and ``sound`` are files beside the result.
    :param creation: which creation of the generation, counted from 0; needs ``generation_id``. In a folder, the files
        of further ones get ``-2``, ``-3``, …
    :param max_bytes: the largest accepted file, in bytes; ``[vidu] max_bytes`` (20 GiB) if omitted.
    :param endpoint: where it was submitted; only products with a query of their own (``one-click/mv``) need it.
        Templated.
    :raises ViduConfigError: when an argument is wrong; at parse time if it is visible there.
    """

    # "generation" is first, so that the others may refer to it; "destination" is last, because it refers to them.
    template_fields: Sequence[str] = (
        "generation", "video_url", "generation_id", "storage_conn_id", "vidu_conn_id", "endpoint", "destination"
    )  # fmt: skip
    operator_extra_links = (ViduWatchLink(),)
    ui_color: str = "#d9f2e6"

    def __init__(
        self,
        *,
        destination: str | ObjectStoragePath,
        video_url: str | None = None,
        generation_id: str | None = None,
        generation: Mapping[str, Any] | None = None,
        vidu_conn_id: str = DEFAULT_CONN_ID,
        storage_conn_id: str | None = None,
        overwrite: Overwrite = "replace",
        artifact: Artifact | None = None,
        creation: int = 0,
        max_bytes: int | None = None,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination = destination
        self.video_url = video_url
        self.generation_id = generation_id
        self.generation = generation
        self.vidu_conn_id = vidu_conn_id
        self.storage_conn_id = storage_conn_id
        self.overwrite = overwrite
        self.artifact = artifact
        self.creation = creation
        self.max_bytes = max_bytes
        self.endpoint = endpoint
        self._written_destination: Any = destination  # before templates are rendered
        self._transfer: Transfer | None = None
        self._killed = False
        self._generation: Generation | None = None
        self._record: dict[str, Any] | None = None
        self._check_arguments()

    @without_known_causes
    def execute(self, context: Any) -> dict[str, Any]:
        """Download and store the file, fill the outlets' events, and return the record of the file."""
        from airflow_provider_vidu.operators.mapping.shared_names import check_own_file
        from airflow_provider_vidu.orders.dry_run import skip_after_dry_run
        from airflow_provider_vidu.orders.results import log_others
        from airflow_provider_vidu.tasks.outlets import report_stored

        context = {} if context is None else context  # in a user's unit test
        self._check_settings()
        url, generation_id = self._rendered()
        skip_after_dry_run(url, generation_id)
        check_own_file(self, context, self.destination, self._written_destination)
        facts: dict[str, Any] = {"conn_id": self.vidu_conn_id, "artifact": self.artifact, "endpoint": self.endpoint}
        if generation_id is not None:
            publish(context, generation_id, role="download", result=result_of(self), **facts)
        stored = asdict(self._stored(url, generation_id, is_retry=_is_retry(context)))
        is_kept = stored.pop("existed") and self.overwrite == "skip"
        # A file of a fixed name may be any clip's; one in a folder has the name of its generation.
        if is_kept and generation_id is not None and not is_folder(checked_destination(self.destination)):
            publish(
                context, generation_id, role="download", result=result_of(self), announce=False, existed=True, **facts
            )
        self._record = {**stored, "generation_id": generation_id}
        known = self._generation or handed_over(self.generation)
        if known is not None and self.creation == 0:
            log_others(known, self.artifact, self.log)
        report_stored(self, context, self._record, lambda: self._known_generation(generation_id))
        return self._record

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the file's source and destination; only the OpenLineage provider calls this."""
        from airflow_provider_vidu.tasks.outlets import openlineage_facets

        return openlineage_facets(self._record, self._generation or handed_over(self.generation))

    def _stored(self, url: str | None, generation_id: str | None, *, is_retry: bool) -> StoredRecord:
        """Return the record of an existing file that is kept, or else of the downloaded one.

        With ``overwrite="error"``, a retry may meet the file of a try that was killed right after it was published.
        Nothing but its bytes shows whose it is.
        """
        from airflow_provider_vidu.network.download_url import most_bytes
        from airflow_provider_vidu.stores.base import DestinationExistsError

        target, most = self._target(url, generation_id), most_bytes(self.max_bytes)
        source = without_query(url) if url else None
        try:
            try:
                record = target.existing(most, source) or self._downloaded(target, most, url, generation_id)
            except DestinationExistsError:
                if self.overwrite == "error":
                    existing = self._own(target, most, url, generation_id) if is_retry else None
                else:  # another task was faster than this one
                    existing = target.existing(most, source)
                if existing is None:
                    raise
                record = existing
        except ViduError as error:
            raise error.with_context(generation_id=generation_id) from error.__cause__
        if record.existed:
            self.log.info("%s exists already (%s bytes); nothing was stored.", record.uri, f"{record.size:,}")
        else:
            facts = f"{record.size:,} bytes of {record.content_type}, SHA-256 {record.sha256}"
            self.log.info("Stored %s: %s", record.uri, facts)
        return record

    def _target(self, url: str | None, generation_id: str | None) -> FileTarget:
        from airflow_provider_vidu.stores.destination import Destination, options_of
        from airflow_provider_vidu.stores.naming import stem_of
        from airflow_provider_vidu.stores.roots import check_destination
        from airflow_provider_vidu.stores.targets import FileTarget, FolderTarget

        checked = checked_destination(self.destination)
        check_destination(checked)
        conn_id: str | None = stripped(_absent_as_none(self.storage_conn_id))
        destination = Destination(checked, conn_id, options_of(self.destination))
        if not is_folder(checked):
            return FileTarget(destination, self.overwrite)
        return FolderTarget(destination, self.overwrite, stem_of(generation_id, url), self.artifact, self.creation)

    def on_kill(self) -> None:
        """Stop the transfer, also one that is still to begin, and discard what was written."""
        self._killed = True
        if self._transfer is not None:
            self._transfer.cancel()

    def _known_generation(self, generation_id: str | None) -> Generation | None:
        """Return the generation as reported by the service and the upstream task.

        The query of ``ent-v2`` returns neither prompt nor model: only the order has them.
        """
        from airflow_provider_vidu.hooks import ViduHook

        if generation_id is None:
            return None
        known = self._generation or handed_over(self.generation)
        if known is None:
            try:
                known = ViduHook(self.vidu_conn_id).get_generation(generation_id, endpoint=self.endpoint, retries=1)
            except ViduError as error:  # the file is stored; only prompt and model stay unknown
                self.log.warning("The asset event will lack prompt and model: %s", error)
                return None
        self._generation = continued(known, self.generation)[0]
        return self._generation

    def _check_arguments(self) -> None:
        """Refuse at parse time what is wrong in every run; templates and XComs are checked later."""
        check_source(
            "ViduDownloadOperator", self.generation, generation_id=self.generation_id, video_url=self.video_url
        )
        self._check_settings()
        if _is_final(self.destination) or (hasattr(self.destination, "parts") and _is_final(str(self.destination))):
            checked_destination(self.destination)
        if _is_final(self.video_url):
            _checked_url(self.video_url)

    def _check_settings(self) -> None:
        """Refuse what is wrong in the arguments that are not rendered, also those that were set since."""
        for name, value, words in (
            ("overwrite", self.overwrite, OVERWRITES),
            ("artifact", self.artifact, (None, *ARTIFACTS)),
        ):
            check_word(name, value, words)
        if strict_int(self.creation) is None or not 0 <= self.creation <= MAX_CREATION:
            raise ViduConfigError(
                f"creation must be a whole number from 0 to {MAX_CREATION}, not {sanitized(self.creation, 40)!r}."
            )
        if self.creation and self.generation_id is None and self.generation is None:
            raise ViduConfigError("creation needs generation_id or generation: a video_url alone is one file.")
        check_size("max_bytes", self.max_bytes)

    def _rendered(self) -> tuple[str | None, str | None]:
        """Return URL and id after templates are rendered; at least one of them is not None."""
        if self.generation is not None:
            return url_of(self.generation, self.artifact, self.creation), id_of(self.generation)
        url, generation_id = _absent_as_none(self.video_url), stripped(self.generation_id)
        if generation_id is not None and (url is None or _absent_as_none(generation_id) is not None):
            return (None if url is None else _checked_url(url)), given_id(generation_id)
        if url is None:
            raise ViduConfigError(
                "Neither video_url nor generation_id has a value: the upstream task returned nothing. Check its XCom."
            )
        return _checked_url(url), None

    def _own(self, target: FileTarget, most: int, url: str | None, generation_id: str | None) -> StoredRecord | None:
        """Return the record of an existing file if it has the bytes of the result, which are fetched to compare."""
        from airflow_provider_vidu.stores.targets import Unkept

        self.log.info("The destination exists: comparing it with the result, because it may be an earlier try's.")
        return target.identical(self._fetched(lambda *_: Unkept(), most, url, generation_id), most)

    def _downloaded(self, target: FileTarget, most: int, url: str | None, generation_id: str | None) -> StoredRecord:
        target.check()  # a folder or a missing file system is reported before anything is fetched

        def open_writer(content_type: str, total: int | None) -> AtomicWriter:
            writer = target.writer(content_type, total)
            self.log.info("Storing it as %s", writer.uri)
            return writer

        return self._fetched(open_writer, most, url, generation_id)

    def _fetched(self, open_writer: OpenWriter, most: int, url: str | None, generation_id: str | None) -> StoredRecord:
        from airflow_provider_vidu.downloads.transfer import Rules, Transfer

        self._transfer = Transfer(
            url,
            open_writer,
            access=self._access(needed=generation_id is not None),
            rules=Rules(artifact=self.artifact, max_bytes=most),
            fresh_url=(lambda: self._fresh_url(generation_id)) if generation_id is not None else None,
            log=self.log,
        )
        if self._killed:  # Airflow 3 lets the task continue after the signal
            self._transfer.cancel()
        return self._transfer.run()

    def _access(self, *, needed: bool) -> DownloadAccess:
        """Return the connection's access rules; without a connection, the defaults."""
        from airflow_provider_vidu.exceptions import ViduConnectionNotFoundError
        from airflow_provider_vidu.hooks import ViduHook
        from airflow_provider_vidu.network.download_url import DownloadAccess

        if not needed and _absent_as_none(self.vidu_conn_id) is None:
            return DownloadAccess()
        try:
            return ViduHook(self.vidu_conn_id).config.access()
        except ViduConfigError as error:
            if needed:
                raise
            if not isinstance(error, ViduConnectionNotFoundError):
                self.log.warning("The Vidu connection is not used for this download: %s", error)
        return DownloadAccess()

    def _fresh_url(self, generation_id: str) -> str:
        """Return the file's current URL from the service."""
        from airflow_provider_vidu.hooks import ViduHook
        from airflow_provider_vidu.orders.results import url_in

        generation = ViduHook(self.vidu_conn_id).get_generation(generation_id, endpoint=self.endpoint)
        self._generation = generation
        return url_in(generation, self.artifact, self.creation, self.vidu_conn_id)


def _is_retry(context: Any) -> bool:
    """Whether an earlier try of the task may have stored the file."""
    return (strict_int(getattr(context.get("ti"), "try_number", None)) or 1) > 1


def _is_final(value: object) -> bool:
    """Whether a value is text without a template."""
    return isinstance(value, str) and not is_template(value)


def _absent_as_none(value: str | None) -> str | None:
    """Return None for the text that a template renders from a missing XCom."""
    return None if isinstance(value, str) and value.strip() in ("", "None") else value


def _checked_url(url: object) -> str:
    """Return a URL without the surrounding whitespace that templates and files leave."""
    text = trimmed(url) if isinstance(url, str) else url
    if (checked := web_url(text)) is not None:
        return checked
    if not isinstance(text, str):
        raise ViduConfigError(f"video_url must be an http(s) URL as text, not {type(text).__name__}.")
    from airflow_provider_vidu.common.urls import shown_url, url_problem

    raise ViduConfigError(f"video_url must be an http(s) URL, not {shown_url(text)!r}: it {url_problem(text)}.")
