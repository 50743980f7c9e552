"""The provider's metadata, which Airflow reads through the ``apache_airflow_provider`` entry point."""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu import __version__
from airflow_provider_vidu.api.settings.form import CONN_FIELDS, CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR

_INTEGRATION = "Vidu"


def _option(kind: str, default: str, example: str | None, description: str) -> dict[str, Any]:
    """Return one option of the section, in Airflow's schema."""
    return {"description": description, "version_added": "0.1.0", "type": kind, "example": example, "default": default}


_OPTIONS = {
    "max_connections": _option(
        "integer",
        "32",
        "64",
        "The most HTTP connections that a triggerer opens to one Vidu connection; all its triggers share them.",
    ),
    "signed_urls_in_xcom": _option(
        "boolean",
        "True",
        "False",
        "Whether the generation that a task returns as its XCom holds the signed URLs of its files. Until they expire, "
        "anyone can open the files with them. With False, all URLs lose their query: give ViduDownloadOperator the "
        "generation_id, and it requests a new URL.",
    ),
    "input_roots": _option(
        "string",
        "",
        "/data/inputs, s3://my_aws@bucket/inputs",
        "Comma-separated folders and buckets that the generate operator may read images, videos and audio from: local "
        "paths, or object storage such as s3://bucket/inputs or, to allow a connection named inside the URL, "
        "s3://my_aws@bucket/inputs. Links and .. are resolved before paths are compared. Empty: everything that the "
        "worker and its connections may read. Set it if a path comes from a template, an XCom or dag_run.conf: anyone "
        "who controls that text could otherwise send a worker's private files to the service. Takes effect on the "
        "workers.",
    ),
    "destination_roots": _option(
        "string",
        "",
        "/data/clips, s3://my_aws@bucket/clips",
        "Comma-separated folders and buckets that ViduDownloadOperator may write to, in the same form as input_roots. "
        "Empty: everything that the worker and its connections may write. Set it if a destination comes from a "
        "template, an XCom or dag_run.conf: anyone who controls that text could otherwise replace any file of the "
        "worker, including DAG files. Takes effect on the workers.",
    ),
    "max_bytes": _option(
        "integer",
        "21474836480",
        "1000000000",
        "The largest file that a download accepts, in bytes, unless its task sets max_bytes. A server that announces "
        "or sends more is refused.",
    ),
    "preview_roots": _option(
        "string",
        "",
        "/data/clips, s3://my_aws@bucket/clips",
        "Comma-separated folders and buckets whose files the clip pages may play: local paths, or object storage such "
        "as s3://bucket/clips or, with the connection to read it with, s3://my_aws@bucket/clips. Anyone who may see a "
        "DAG's XComs can then see the videos and images in them that the DAG names. Empty: clips play from the "
        "service's own links while these are valid.",
    ),
    "allowed_hosts": _option(
        "string",
        "",
        "minio.internal, 198.18.0.0/15",
        "Comma-separated hosts and networks that files may be downloaded from although their address is not public, "
        "with or without a Vidu connection: minio.internal, or 198.18.0.0/15 if a local DNS proxy answers with such "
        "addresses.",
    ),
    "callback_base_url": _option(
        "string",
        "",
        "https://airflow.example.com",
        "The address of Airflow's API server as the service reaches it, with the path that Airflow is deployed under. "
        "If set, generations of ent-v2 that tasks wait for in the triggerer are submitted with a callback address "
        "below it, and polled seldom. Needs Airflow 3.1.1. From Airflow 3.3, so are those of tasks that do not wait, "
        "and event triggers poll as soon as one has ended. Set it for the workers, the triggerers and the API server "
        "alike. Empty: no callbacks.",
    ),
    "dry_run": _option(
        "boolean",
        "False",
        "True",
        "Whether generate tasks send nothing: they render, read and check everything, log the request, and return what "
        "would have been submitted. Sensors and downloads of these generations are skipped. Takes effect on the "
        "workers.",
    ),
    "run_tab": _option("boolean", "True", None, "Whether every DAG run has the tab 'Vidu clips'."),
    "spending_page": _option(
        "boolean",
        "True",
        None,
        "Whether the navigation has the page 'Vidu', which shows the credits that were spent. Its address works in any "
        "case, with the same permissions.",
    ),
}
"""Section ``[vidu]`` of the Airflow configuration: each option with its type, default, example and meaning."""


def get_provider_info() -> dict[str, Any]:
    """Return the metadata; Airflow validates it against ``provider_info.schema.json``."""

    def modules(*names: str) -> list[dict[str, Any]]:
        listed = [f"airflow_provider_vidu.{name}" for name in names]
        return [{"integration-name": _INTEGRATION, "python-modules": listed}]

    return {
        "package-name": "airflow-provider-vidu",
        "name": _INTEGRATION,
        "description": "Submit AI-video generations to Vidu, wait for them without a worker, and keep the files.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.platform.vidu.com/",
                "tags": ["service"],
            }
        ],
        "hooks": modules("hooks"),
        "operators": modules("operators"),
        "sensors": modules("sensors"),
        "triggers": modules("triggers", "event_triggers"),
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_provider_vidu.hooks.ViduHook",
                "hook-name": HOOK_NAME,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONN_FIELDS,
            }
        ],
        "extra-links": [f"airflow_provider_vidu.links.{name}" for name in ("ViduWatchLink", "ViduBatchLink")],
        "config": {
            "vidu": {
                "description": "Settings of the Vidu provider that hold for the whole deployment.",
                "options": _OPTIONS,
            }
        },
    }
