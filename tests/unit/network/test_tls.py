"""Which certificates are trusted; what the watch ends is in tests/integration/api/clients/test_tls_without_data.py."""

from __future__ import annotations

import os
import socket
import ssl
import threading

import pytest
import trustme

from airflow_provider_vidu.exceptions import ViduConfigError
from airflow_provider_vidu.network.tls import BUNDLE_VARIABLES, _Watch, _watch, ssl_context


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return a CA bundle with a single certificate."""
    path = tmp_path_factory.mktemp("ca") / "bundle.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def test_true_trusts_public_authorities():
    """The usual trust is not empty, checks host names, and is made once."""
    context = ssl_context(True, {})
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] > 10
    assert ssl_context(True, {}) is context


def test_false_checks_nothing():
    """verify=false is what it says."""
    context = ssl_context(False, {})
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_a_path_is_the_only_trust(bundle):
    """A bundle of one's own replaces the public authorities."""
    assert ssl_context(str(bundle), {}).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("name", BUNDLE_VARIABLES)
def test_the_environment_names_a_bundle(name, bundle):
    """The variables of requests, curl and OpenSSL are honoured."""
    assert ssl_context(True, {name: str(bundle)}).cert_store_stats()["x509_ca"] == 1


def test_the_connection_wins_over_the_environment(bundle):
    """verify=false stays false whatever the environment says."""
    assert ssl_context(False, {"REQUESTS_CA_BUNDLE": str(bundle)}).verify_mode is ssl.CERT_NONE


def test_a_folder_of_certificates_is_accepted(tmp_path):
    """OpenSSL's hashed folders work as they do with requests."""
    assert ssl_context(str(tmp_path), {}).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("variable", [None, "CURL_CA_BUNDLE"])
def test_an_unreadable_bundle_is_named(variable, tmp_path):
    """The error says which setting names which file."""
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ViduConfigError, match=rf"missing\.pem.*{variable or 'verify'}.*No such file"):
        ssl_context(True if variable else missing, {variable: missing} if variable else {})


def test_a_file_without_certificates_is_named(tmp_path):
    """A file of something else is not a bundle."""
    path = tmp_path / "notes.txt"
    path.write_text("no certificate")
    with pytest.raises(ViduConfigError, match="no certificate in PEM form"):
        ssl_context(str(path), {})


def test_a_replaced_bundle_is_read_again(tmp_path):
    """The cache does not outlive the file it was made from."""
    path = tmp_path / "bundle.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    first = ssl_context(str(path), {})
    assert ssl_context(str(path), {}) is first
    trustme.CA().cert_pem.write_to_path(str(path))
    os.utime(path, ns=(1, 1))
    assert ssl_context(str(path), {}) is not first


def test_a_forked_process_takes_no_lock_with_it():
    """Another thread of the parent may hold it, and would never release it in the child."""
    with _watch._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if _watch._lock.acquire(timeout=5) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_signal_handler_may_send_a_request_while_the_watch_begins(monkeypatch):
    """Airflow cancels a killed task's generation in one: it waited for ever for the lock of what it had interrupted."""
    watch = _Watch()
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    thread = threading.Thread

    class Interrupted(thread):
        def start(self) -> None:
            monkeypatch.setattr(threading, "Thread", thread)
            watch.begin(theirs)
            watch.end(theirs)
            super().start()

    task = thread(target=lambda: (watch.begin(ours), watch.end(ours)), daemon=True)
    monkeypatch.setattr(threading, "Thread", Interrupted)
    with ours, theirs:
        task.start()
        task.join(5)
        assert not task.is_alive()
