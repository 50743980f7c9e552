"""The connection in a URI is checked under the name that Airflow opens."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.stores.places import split_connection
from airflow_provider_vidu.stores.roots import check_input
from fault_table import REFUSED


@pytest.mark.fault("attacks", "a URI names a connection that differs from an allowed one behind a colon",
                   outcome=REFUSED, says="not beneath one of the folders")  # fmt: skip
def test_a_connection_with_a_colon(monkeypatch):
    """``my_aws:x`` is another connection than ``my_aws``, for Airflow opens it under its whole name."""
    monkeypatch.setenv("AIRFLOW__VIDU__INPUT_ROOTS", "s3://my_aws@shared/in")
    check_input("s3://my_aws@shared/in/a.png")
    with pytest.raises(ViduConfigError, match="not beneath"):
        check_input("s3://my_aws:x@shared/in/a.png")


@pytest.mark.parametrize("name", ["my_aws", "my_aws:x", "my%5faws", ":x"])
def test_the_name_is_the_one_that_is_opened(name):
    """Nothing is cut off and nothing is unquoted."""
    uri = f"s3://{name}@shared/in/a.png"
    path = ObjectStoragePath(uri)
    opened = path.conn_id if hasattr(path, "conn_id") else path.storage_options["conn_id"]
    assert split_connection(uri)[0] == opened
