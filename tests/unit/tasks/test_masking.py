"""Where signed URLs may stand: in return values, unless switched off, and never in rendered fields."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath

from airflow_provider_vidu.common.text import passwords
from airflow_provider_vidu.models import Generation, GenerationStatus
from airflow_provider_vidu.operators import ViduDownloadOperator, ViduGenerateOperator
from airflow_provider_vidu.sensors import ViduGenerationSensor
from airflow_provider_vidu.tasks import masking
from airflow_provider_vidu.tasks.masking import as_result
from tests.versions import redact, reset_secrets_masker

SIGNATURE = "v1~Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5"
SIGNED = f"https://h/v.mp4?Expires=1&Signature={SIGNATURE}"
HOLDER = Generation(id="g", status=GenerationStatus.SUCCEEDED, video_url=SIGNED, raw={"video_url": SIGNED})


@pytest.fixture
def masker() -> Any:
    """Start and end with a masker that knows no secret."""
    reset_secrets_masker()
    yield redact
    reset_secrets_masker()


@pytest.mark.parametrize(("setting", "kept"), [(None, True), ("True", True), ("False", False)])
def test_the_setting_decides(monkeypatch, setting, kept):
    """Return values hold signed URLs by default, and none with [vidu] signed_urls_in_xcom = False."""
    if setting is not None:
        monkeypatch.setenv("AIRFLOW__VIDU__SIGNED_URLS_IN_XCOM", setting)
    assert (SIGNATURE in str(as_result(HOLDER))) is kept
    assert as_result(HOLDER)["video_url"].startswith("https://h/v.mp4")


@pytest.mark.parametrize(
    "operator",
    [
        lambda: ViduDownloadOperator(task_id="t", destination="/d/", video_url="{{ url }}"),
        lambda: ViduGenerateOperator(task_id="t", prompt="p", images=["{{ url }}"]),
        lambda: ViduGenerateOperator(task_id="t", parameters={"deep": [{"url": "{{ url }}"}]}, prompt="p"),
        lambda: ViduGenerateOperator(task_id="t", body={"text": "like {{ url }} please"}),
        lambda: ViduGenerationSensor(task_id="t", generation_id="{{ url }}"),
    ],
    ids=["video_url", "images", "parameters", "body", "generation_id"],
)
def test_rendered_signatures_are_masked(masker, operator):
    """What a template has rendered to is known to Airflow's masker before the rendered fields are stored."""
    with DAG("d", schedule=None):
        task = operator()
    assert SIGNATURE in str(masker(SIGNED))
    task.render_template_fields({"url": SIGNED})
    fields = [getattr(task, name) for name in task.template_fields]
    assert SIGNATURE in str(fields)
    assert SIGNATURE not in str(masker(fields))


def test_a_mapped_download_is_masked_too(masker):
    """A mapped task renders through its unmapped operator, which masks all the same."""
    with DAG("d", schedule=None):
        mapped = ViduDownloadOperator.partial(task_id="t", destination="/d/").expand(video_url=[SIGNED])
    context: dict[str, Any] = {"ti": None}
    task = mapped.unmap({"video_url": SIGNED})
    task._do_render_template_fields(task, mapped.template_fields, context, mapped.get_template_env(), set())
    assert task.video_url == SIGNED
    assert SIGNATURE not in str(masker(SIGNED))


def test_a_plain_url_is_not_masked(masker):
    """Without a signature there is nothing to hide, and no hole in any log."""
    with DAG("d", schedule=None):
        task = ViduDownloadOperator(task_id="t", destination="/d/", video_url="{{ url }}")
    task.render_template_fields({"url": "https://h/v.mp4?id=7&size=true"})
    assert masker("https://h/v.mp4?id=7&size=true") == "https://h/v.mp4?id=7&size=true"


SECRETS = ["c3VwZXJzZWNyZXQ=", "a1B2c3D4e5F6g7H8i9J0", "AccountName=clips;AccountKey=zZ9"]


@pytest.mark.parametrize("field", ["destination", "images", "nested"])
def test_secret_options_of_a_path_are_masked(masker, field):
    """Airflow shows the options of a path in the rendered fields, to all who may read the DAG."""
    known = {"s3_additional_kwargs": {"SSECustomerKey": SECRETS[0]}, "account_key": SECRETS[1]}
    plain = {"client_kwargs": {"region_name": "eu-central-1"}, "endpoint_url": "https://minio.example:9000"}
    path = ObjectStoragePath("file:///clips/", **known, **plain, connection_string=SECRETS[2])
    with DAG("d", schedule=None):
        if field == "destination":
            task = ViduDownloadOperator(task_id="t", destination=path, generation_id="g")
        elif field == "images":
            task = ViduGenerateOperator(task_id="t", prompt="p", images=[path])
        else:
            task = ViduGenerateOperator(task_id="t", body={"subjects": [{"images": [path]}]})
    task.render_template_fields({})
    shown = str(masker(SECRETS + list(plain.values())))
    assert [secret for secret in SECRETS if secret in shown] == []
    assert "eu-central-1" in shown
    assert "minio.example" in shown


@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("https://bob:S3cretPassw0rd@files.example/v.mp4", "S3cretPassw0rd"),
        ("like ftp://bob:S3cret%40Passw0rd@h/a.png please", "S3cret@Passw0rd"),
        ("sftp://bob:S3cret@Passw0rd@h/", "S3cret@Passw0rd"),
        ("sftp://bob:S3cret'Passw0rd@h/", "S3cret'Passw0rd"),
        ("http://:S3cretPassw0rd@h:8080/", "S3cretPassw0rd"),
        (r'{"from": "sftp:\/\/bob:S3cretPassw0rd@h\/a.png"}', "S3cretPassw0rd"),
        (ObjectStoragePath("sftp://bob:S3cretPassw0rd@h/clips/"), "S3cretPassw0rd"),
    ],
)
def test_passwords_of_addresses_are_masked(masker, address, password):
    """Users put them into addresses of any scheme, and all who may read the DAG see the rendered fields."""
    with DAG("d", schedule=None):
        task = ViduGenerateOperator(task_id="t", prompt="p", body=None, parameters={"deep": [{"url": "{{ url }}"}]})
    task.render_template_fields({"url": "x"})
    assert password in str(masker([password]))
    task.parameters = {"deep": [{"url": address}]}
    task.render_template_fields({})
    shown = str(masker([str(address), password]))
    assert not re.search("cret|Passw", shown)


def test_ports_and_connections_are_no_passwords() -> None:
    """Nothing is masked that stands elsewhere in an address; a text of addresses is searched in bounded time."""
    assert passwords(["s3://aws@b/k", "http://h:8080/a:b@c", "http://[::1]:80/", "a:b@c", "http://h/?q=a:b@c"]) == set()
    began = time.process_time()
    passwords(["://a:" * 200_000, "://" + "a" * 1_000_000, "://a:" + "b" * 1_000_000, "://a:" + "@:" * 500_000])
    passwords([r":\/\/a:" * 200_000, r":\/\/" * 300_000, ":" * 1_000_000, ":" + "\\" * 1_000_000])
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("options", "secrets"),
    [
        ({"SSECustomerKey": b"0123\x9f"}, ["0123\\x9f"]),
        ({"client_kwargs": {"headers": [("Authorization", "Bearer abc"), ["Accept", "*/*"]]}}, ["Bearer abc"]),
        ({"credentials": ["first", ["second"]], "regions": ["eu"]}, ["first", "second"]),
        ({"session": {"region_name": "eu"}, "token": 5, "key": None}, []),
    ],
)
def test_secrets_in_other_forms_of_options(options, secrets) -> None:
    """Stores take keys as bytes, and headers as pairs; rendered fields show both."""
    assert list(masking._secret_options([SimpleNamespace(storage_options=options)])) == secrets


@pytest.mark.parametrize("signed", ["True", "False"])
def test_parameters_are_no_object_of_airflow(monkeypatch, signed):
    """Otherwise their author could let a later task make an object of a class of Airflow's."""
    monkeypatch.setenv("AIRFLOW__VIDU__SIGNED_URLS_IN_XCOM", signed)
    asked = {"extra": [{"__type": "airflow.sdk.Connection", "__var": {"conn_id": "other"}}], "__classname__": "a"}
    generation = Generation(id="g", status=GenerationStatus.SUCCEEDED)
    assert as_result(generation, asked)["parameters"] == {
        "extra": [{"x__type": "airflow.sdk.Connection", "x__var": {"conn_id": "other"}}],
        "x__classname__": "a",
    }
