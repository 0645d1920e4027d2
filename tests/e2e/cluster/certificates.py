"""The cluster's certificates, and the kubeconfigs that carry them."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.e2e.cluster import layout
from tests.e2e.cluster.layout import MACHINES, NODE, Run

_DAYS = 30
_API_NAMES = (
    "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", layout.HOST, layout.FIRST_SERVICE
)  # fmt: skip

# Name -> common name and group, as https://kubernetes.io/docs/setup/best-practices/certificates/ has them.
_CLIENTS = {
    "admin": ("admin", "system:masters"),
    "kubelet-client": ("apiserver-kubelet", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}


class Authority:
    """The certificate authority of one run; writes into the run's folder."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dtkpipe e2e")])
        run.pki.mkdir(parents=True, exist_ok=True)
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        certificate = self._builder(self._name, self._key).add_extension(constraint, critical=True)
        self.certificate = _pem(certificate.sign(self._key, hashes.SHA256()))
        self._path("ca.crt").write_bytes(self.certificate)

    def issue(self, name: str, common_name: str, group: str = "", alternatives: Sequence[str] = ()) -> None:
        """Write `<name>.crt` and `<name>.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if group:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(x509.Name(attributes), key).add_extension(usages, critical=False)
        if alternatives:
            names = x509.SubjectAlternativeName([_alternative(one) for one in alternatives])
            builder = builder.add_extension(names, critical=False)
        self._path(f"{name}.crt").write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        self._path(f"{name}.key").write_bytes(_key(key))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
        )

    def _path(self, name: str) -> Path:
        return self._run.pki / name


def write(run: Run) -> None:
    """Write all certificates, the key of service accounts, and a kubeconfig for everybody who asks the API server."""
    authority = Authority(run)
    authority.issue("apiserver", "kube-apiserver", alternatives=_API_NAMES)
    for name, (common_name, group) in _CLIENTS.items():
        authority.issue(name, common_name, group)
    nodes = {NODE: layout.HOST, **{one.name: one.address for one in MACHINES}}
    for name, address in nodes.items():
        authority.issue(name, f"system:node:{name}", "system:nodes", (name, address))
    for name in (*_CLIENTS, *nodes):
        kubeconfig = kubeconfig_of(run, name, authority.certificate)
        (run.folder / f"{name}.kubeconfig").write_text(json.dumps(kubeconfig))
        (run.folder / f"{name}.kubeconfig").chmod(0o600)
    accounts = ec.generate_private_key(ec.SECP256R1())
    (run.pki / "accounts.key").write_bytes(_key(accounts))
    (run.pki / "accounts.pub").write_bytes(
        accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )  # fmt: skip


def kubeconfig_of(run: Run, name: str, authority: bytes) -> dict[str, object]:
    """A kubeconfig that carries its certificates, so that it can be copied anywhere."""
    files = {"client-certificate-data": f"{name}.crt", "client-key-data": f"{name}.key"}
    user = {key: _encoded((run.pki / file).read_bytes()) for key, file in files.items()}
    cluster = {"server": layout.API, "certificate-authority-data": _encoded(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "dtkpipe-e2e", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "dtkpipe-e2e", "context": {"cluster": "dtkpipe-e2e", "user": name}}],
        "current-context": "dtkpipe-e2e",
    }


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
