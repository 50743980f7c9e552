"""What a TLS server chooses: no handshake computes for a second, and no write waits for its messages."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import ssl
from base64 import encodebytes
from contextlib import suppress

import pytest
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from airflow_provider_vidu.network.tls import ssl_context

HELLO_REQUEST = bytes(4)
HANDSHAKE = b"\x16\x03\x03"


class Pair:
    """A client as ours with a server of TLS 1.2, in memory.

    :ivar sent: all that the server has sent.
    """

    def __init__(self, ciphers: str, parameters: str | None = None, log: str | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        trustme.CA().issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA).configure_cert(context)
        if parameters is not None:
            context.load_dh_params(parameters)
        if log is not None:
            context.keylog_filename = log
        self.to_client, self.to_server, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO(), b""
        out = self._out = ssl.MemoryBIO()
        self.client = ssl_context(False).wrap_bio(self.to_client, self.to_server)
        self.server = context.wrap_bio(incoming := ssl.MemoryBIO(), out, server_side=True)
        self._incoming = incoming

    def shake_hands(self) -> None:
        for _ in range(3):
            for side in (self.client, self.server):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                self._incoming.write(self.to_server.read())
                self.sent += (data := self._out.read())
                self.to_client.write(data)


def number(value: int) -> bytes:
    """Return a number in DER, long enough for two bytes of length."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02\x82" + len(data).to_bytes(2, "big") + data


@pytest.mark.fault(
    "attacks",
    "a TLS server chooses a group of 10,000 bits for the handshake",
    outcome="clear error",
    seen="no shared cipher; nothing was computed, so the event loop does not stand still",
)
def test_no_server_chooses_what_a_handshake_costs(tmp_path) -> None:
    """Two powers with such a modulus took a second of the event loop, for each handshake of each poll."""
    numbers = number(secrets.randbits(10_000) | 1 << 9_999 | 1) + b"\x02\x01\x02"
    der = b"\x30\x82" + len(numbers).to_bytes(2, "big") + numbers
    path = tmp_path / "dh.pem"
    path.write_text(f"-----BEGIN DH PARAMETERS-----\n{encodebytes(der).decode()}-----END DH PARAMETERS-----\n")
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        Pair("DHE", str(path)).shake_hands()


def expanded(secret: bytes, seed: bytes, length: int) -> bytes:
    """Return the output of TLS 1.2's pseudo-random function (RFC 5246, 5)."""
    output, state = b"", seed
    while len(output) < length:
        state = hmac.digest(secret, state, hashlib.sha256)
        output += hmac.digest(secret, state + seed, hashlib.sha256)
    return output[:length]


@pytest.mark.fault(
    "attacks",
    "a TLS server asks to begin again, and floods the handshake once the next request is written",
    outcome="survived",
    seen="no new handshake begins",
)
def test_a_write_reads_nothing(tmp_path) -> None:
    """In a new handshake, a write took the server's messages without end: no timeout and no signal interrupted it."""
    log = tmp_path / "keys"
    pair = Pair("ECDHE-RSA-AES128-GCM-SHA256", log=str(log))
    pair.shake_hands()
    words = next(line.split() for line in log.read_text().splitlines() if line.startswith("CLIENT_RANDOM"))
    client_random, secret = map(bytes.fromhex, words[1:])
    keys = expanded(secret, b"key expansion" + pair.sent[11:43] + client_random, 40)
    head = HANDSHAKE + len(HELLO_REQUEST).to_bytes(2, "big")
    place = (1).to_bytes(8, "big")
    record = place + AESGCM(keys[16:32]).encrypt(keys[36:40] + place, HELLO_REQUEST, place + head)
    pair.to_server.read()
    pair.to_client.write(HANDSHAKE + len(record).to_bytes(2, "big") + record)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.read()
    assert not pair.to_server.read().startswith(HANDSHAKE)
    assert pair.client.write(b"GET / HTTP/1.1\r\n\r\n") == 18
