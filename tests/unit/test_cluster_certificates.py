"""The certificates of a kubeconfig: used by many threads at once, and such as cannot be used."""

from __future__ import annotations

import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dtkpipe.clients.cluster import PODS, Cluster
from dtkpipe.errors import InvalidError
from tests.fixtures.keys import Key, certificate, ec_key, key_pem
from tests.fixtures.serving import Quiet, serving


class Handler(Quiet):
    """Knows who shows a certificate, and closes each connection."""

    def do_GET(self) -> None:  # noqa: N802
        known = bool(self.connection.getpeercert())  # type: ignore[attr-defined]
        body = json.dumps({"kind": "PodList", "items": [], "metadata": {}}).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def files(folder: Path, key: Key, passphrase: bytes = b"") -> tuple[Path, Path]:
    cert, secret = folder / "client.crt", folder / "client.key"
    cert.write_bytes(certificate(key).public_bytes(Encoding.PEM))
    secret.write_bytes(key_pem(key, passphrase))
    return cert, secret


def kubeconfig(folder: Path, host: str, user: dict[str, str]) -> Path:
    path = folder / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"https://{host}", "insecure-skip-tls-verify": True}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
    }))  # fmt: skip
    return path


def test_every_thread_shows_the_certificate(tmp_path: Path) -> None:
    cert, key = files(tmp_path, ec_key())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    tls.load_verify_locations(cert)
    tls.verify_mode = ssl.CERT_OPTIONAL
    with serving(Handler, tls=tls) as host:
        user = {"client-certificate": str(cert), "client-key": str(key)}
        cluster = Cluster(kubeconfig(tmp_path, host, user))
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: cluster.list(PODS, "x"), range(200))) == [[]] * 200


@pytest.mark.parametrize("damage", ["no key", "no file", "a passphrase", "another's key"])
def test_certificates_that_cannot_be_used(tmp_path: Path, damage: str) -> None:
    cert, key = files(tmp_path, ec_key(), b"secret" if damage == "a passphrase" else b"")
    if damage == "no key":
        key.write_text("nothing")
    elif damage == "no file":
        key.unlink()
    elif damage == "another's key":
        key.write_bytes(key_pem(ec_key()))
    user = {"client-certificate": str(cert), "client-key": str(key)}
    with pytest.raises(InvalidError) as raised:
        Cluster(kubeconfig(tmp_path, "127.0.0.1:1", user))
    assert raised.value.hint
