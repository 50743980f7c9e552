"""The provider's metadata: what Airflow reads through the ``apache_airflow_provider`` entry point."""

from __future__ import annotations

from typing import Any

from airflow_provider_vidu import __version__
from airflow_provider_vidu.connection_form import CONN_FIELDS, CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR

_INTEGRATION = "Vidu"


def get_provider_info() -> dict[str, Any]:
    """Return the metadata; Airflow validates it against ``provider_info.schema.json``."""

    def modules(name: str) -> list[dict[str, Any]]:
        return [{"integration-name": _INTEGRATION, "python-modules": [f"airflow_provider_vidu.{name}"]}]

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
        "triggers": modules("triggers"),
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "airflow_provider_vidu.hooks.ViduHook",
                "hook-name": HOOK_NAME,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONN_FIELDS,
            }
        ],
        "extra-links": ["airflow_provider_vidu.links.ViduGenerationLink"],
        "config": {
            "vidu": {
                "description": "Settings of the Vidu provider that hold for the whole deployment.",
                "options": {
                    "max_connections": {
                        "description": "How many HTTP connections a triggerer opens to one Vidu connection at the "
                        "most; all its triggers share them.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "64",
                        "default": "32",
                    },
                },
            }
        },
    }
