"""The provider's metadata: what Airflow reads through the ``apache_airflow_provider`` entry point."""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu import __version__
from airflow_provider_vidu.api.connection_form import CONN_FIELDS, CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR

_INTEGRATION = "Vidu"


def _option(kind: str, default: str, example: str | None, description: str) -> dict[str, Any]:
    """Return one entry of a section, as Airflow's schema wants it."""
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }


_OPTIONS = {
    "max_connections": _option(
        "integer",
        "32",
        "64",
        "How many HTTP connections a triggerer opens to one Vidu connection at the most; all its triggers share them.",
    ),
    "signed_urls_in_xcom": _option(
        "boolean",
        "True",
        "False",
        "Whether the generation that a task returns as its XCom holds the signed URLs "
        "of its files, which open them for anybody until they expire. With False every URL in it "
        "lacks its query: give ViduDownloadOperator the generation_id, and it asks for a fresh one.",
    ),
    "input_roots": _option(
        "string",
        "",
        "/data/inputs, s3://my_aws@bucket/inputs",
        "Folders and buckets that the generate operator may read pictures, videos and "
        "sounds from, separated by commas: local paths, or object storage such as s3://bucket/inputs "
        "or, to allow a connection named inside the URL, s3://my_aws@bucket/inputs. Links and .. are "
        "resolved before paths are compared. Empty: whatever the worker and its connections may read. "
        "Set it wherever a path comes from a template, an XCom or dag_run.conf: whoever controls that "
        "text could otherwise have a worker's private files sent to the service. It counts on the "
        "workers.",
    ),
    "destination_roots": _option(
        "string",
        "",
        "/data/clips, s3://my_aws@bucket/clips",
        "Folders and buckets that ViduDownloadOperator may write to, separated by "
        "commas, in the same form as input_roots. Empty: wherever the worker and its connections may "
        "write. Set it wherever a destination comes from a template, an XCom or dag_run.conf: whoever "
        "controls that text could otherwise replace any file of the worker, DAG files among them. It "
        "counts on the workers.",
    ),
    "max_bytes": _option(
        "integer",
        "21474836480",
        "1000000000",
        "The largest file that a download accepts, in bytes, unless its task says "
        "otherwise with max_bytes. A server that announces or sends more is refused.",
    ),
    "preview_roots": _option(
        "string",
        "",
        "/data/clips, s3://my_aws@bucket/clips",
        "Folders and buckets whose files the clip pages may play, separated by commas: "
        "local paths, or object storage such as s3://bucket/clips or, with the connection to read "
        "it with, s3://my_aws@bucket/clips. Whoever may see a DAG's XComs can then see the videos "
        "and pictures beneath them that the DAG names. Empty: clips play from the service's own "
        "links, as long as these are valid.",
    ),
    "allowed_hosts": _option(
        "string",
        "",
        "minio.internal, 198.18.0.0/15",
        "Hosts and networks that files may be downloaded from although their address "
        "is not public, separated by commas, for every download, with or without a Vidu connection: "
        "minio.internal, or 198.18.0.0/15 where a local DNS proxy answers with such addresses.",
    ),
    "run_tab": _option(
        "boolean",
        "True",
        None,
        "Whether every DAG run has the tab 'Vidu clips'.",
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
        "extra-links": ["airflow_provider_vidu.links.ViduWatchLink"],
        "config": {
            "vidu": {
                "description": "Settings of the Vidu provider that hold for the whole deployment.",
                "options": _OPTIONS,
            }
        },
    }
