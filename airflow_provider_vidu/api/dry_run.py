"""Whether anything that costs credits may be sent: ``dry_run`` of a task, or ``[vidu] dry_run`` of the deployment."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowSkipException, conf


def is_dry(flag: bool = False) -> bool:
    """Whether nothing is to be submitted: a task's own ``dry_run``, or ``[vidu] dry_run`` of the deployment."""
    return flag or conf.getboolean("vidu", "dry_run", fallback=False)


def skip_if_dry(what: str) -> None:
    """Skip the task that calls the hook if the deployment runs dry. Operators have ended their dry run before.

    :param what: would be sent.
    :raises AirflowSkipException: if it does; in a script, that ends the script.
    """
    if is_dry():
        raise AirflowSkipException(f"Dry run ([vidu] dry_run): nothing was submitted. {what} would be sent.")
