"""verify for another architecture than this machine's: the kernel is emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtkpipe.proof.kernel_store import kernel_files
from dtkpipe.proof.module import decompress
from dtkpipe.proof.signature import split
from tests.fixtures.keys import certificate, rsa_key
from tests.fixtures.modules import PushModules
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit
from tests.steps.test_verify import Verify, run_verify
from tests.steps.test_verify_signed import encoded, sign

pytestmark = pytest.mark.tools
__all__ = ["run_verify"]


def test_a_module_for_aarch64_is_proven_on_x86(
    run_verify: Verify, push_modules: PushModules, registry: LoopbackRegistry, toolkit_arm64: Toolkit,
    shared_cache: Path,
) -> None:  # fmt: skip
    # One of the kernel's own modules, without its signature: needs no cross compiler, and is certainly for that kernel.
    kernel = kernel_files(registry.client, toolkit_arm64.image, None, shared_cache)
    path = kernel.in_tree["dummy"]
    module = split(decompress(kernel.module(path), path)).content
    image = push_modules({"dummy": module}, kernel=toolkit_arm64.kernel.release)
    spec = {"name": "dummy", "modules": ["dummy"], "checks": [{"run": ["sh", "-c", 'test "$(uname -m)" = aarch64']}]}
    answer = run_verify(image, spec, toolkit=toolkit_arm64.image)
    assert answer.results.verdict == "proven"
    assert answer.document["arch"] == "aarch64"
    assert answer.boot["loaded"]["dummy"]["buildId"]


def test_a_module_for_another_architecture_is_refused(
    run_verify: Verify, push_modules: PushModules, registry: LoopbackRegistry, toolkit_arm64: Toolkit,
    toolkit_cloud: Toolkit, shared_cache: Path,
) -> None:  # fmt: skip
    foreign = kernel_files(registry.client, toolkit_arm64.image, None, shared_cache)
    here = kernel_files(registry.client, toolkit_cloud.image, None, shared_cache)
    path = foreign.in_tree["dummy"]
    module = split(decompress(foreign.module(path), path)).content
    answer = run_verify(push_modules({"dummy": module}))
    assert answer.document["code"] == "vermagic-mismatch"
    assert "aarch64" in answer.document["details"][0]
    # With the vermagic forged, the machine type is what is left to see.
    vermagic = here.vermagic.ljust(len(foreign.vermagic)).encode()
    forged = module.replace(f"vermagic={foreign.vermagic}".encode(), b"vermagic=" + vermagic)
    assert len(forged) == len(module)
    assert run_verify(push_modules({"dummy": forged})).document["code"] == "wrong-architecture"


def test_a_signed_module_for_aarch64_is_proven_under_secure_boot(
    run_verify: Verify, push_modules: PushModules, registry: LoopbackRegistry, toolkit_arm64: Toolkit,
    shared_cache: Path, tmp_path: Path,
) -> None:  # fmt: skip
    kernel = kernel_files(registry.client, toolkit_arm64.image, None, shared_cache)
    key = rsa_key()
    signer = (key, certificate(key, "Driver Vendor"))
    path = kernel.in_tree["dummy"]
    module = sign(split(decompress(kernel.module(path), path)).content, signer, kernel, tmp_path)
    image = push_modules({"dummy": module}, kernel=toolkit_arm64.kernel.release)
    answer = run_verify(image, toolkit=toolkit_arm64.image, sign_cert=encoded(signer))
    assert answer.results.verdict == "proven"
    assert answer.boot["secureBoot"] is True
    assert list(answer.boot["controls"]) == ["unsigned", "signed-by-a-stranger"]
