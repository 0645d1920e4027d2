"""verify with signing on: the right signer is proven under Secure Boot, and nobody else gets that far."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.x509 import Certificate as Made

from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.kernel_store import kernel_files
from dtkpipe.tools import signfile
from dtkpipe.tools.x509 import Certificate, PrivateKey
from tests.fixtures.keys import Key, certificate, der, key_pem, rsa_key
from tests.fixtures.modules import PushModules
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit
from tests.steps.test_verify import Verify, run_verify

pytestmark = pytest.mark.tools
__all__ = ["run_verify"]

Signer = tuple[Key, Made]


@pytest.fixture(scope="module")
def kernel(registry: LoopbackRegistry, toolkit_cloud: Toolkit, shared_cache: Path) -> KernelFiles:
    return kernel_files(registry.client, toolkit_cloud.image, None, shared_cache)


@pytest.fixture(scope="module")
def signer() -> Signer:
    key = rsa_key()
    return key, certificate(key, "Driver Vendor")


def sign(data: bytes, by: Signer, kernel: KernelFiles, work: Path) -> bytes:
    module = work / "to-sign.ko"
    module.write_bytes(data)
    signfile.sign(
        kernel.sign_file, "sha256", PrivateKey.parse(key_pem(by[0])), Certificate.parse(der(by[1])), module, work
    )
    return module.read_bytes()


def encoded(by: Signer) -> str:
    return base64.b64encode(der(by[1])).decode()


def test_a_signed_module_is_proven_under_secure_boot(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes], kernel: KernelFiles, signer: Signer,
    tmp_path: Path,
) -> None:  # fmt: skip
    image = push_modules(
        {name: sign(modules[name], signer, kernel, tmp_path) for name in ("provider", "consumer", "in_tree_user")}
    )
    answer = run_verify(image, sign_cert=encoded(signer))
    assert answer.results.verdict == "proven"
    assert answer.boot["secureBoot"] is True
    assert "integrity" in answer.boot["lockdown"]
    controls = answer.boot["controls"]
    assert list(controls) == ["unsigned", "signed-by-a-stranger"]
    assert set(controls.values()) <= {"Required key not available", "Key was rejected by service"}
    assert any("signed by Driver Vendor (sha256:" in line for line in answer.said)


@pytest.mark.parametrize("case", ["unsigned", "stranger", "changed", "not wanted"])
def test_another_signature_than_expected_is_refused_before_any_boot(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes], kernel: KernelFiles, signer: Signer,
    tmp_path: Path, case: str,
) -> None:  # fmt: skip
    other = rsa_key()
    data = modules["good"]
    match case:
        case "stranger":
            data = sign(data, (other, certificate(other, "Driver Vendor")), kernel, tmp_path)
        case "changed":
            data = sign(data, signer, kernel, tmp_path).replace(b"good: bye", b"good: BYE")
        case "not wanted":
            data = sign(data, signer, kernel, tmp_path)
    answer = run_verify(push_modules({"good": data}), sign_cert="" if case == "not wanted" else encoded(signer))
    assert answer.document["code"] == ("unsigned" if case == "unsigned" else "wrong-signer")
