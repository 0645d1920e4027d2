"""verify on a real kernel: good modules are proven, hostile ones end in their code, and none ends the tool."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dtkpipe.errors import NotFoundError, UsageError
from dtkpipe.proof.kernel_store import kernel_files
from dtkpipe.proof.module import parse_module
from dtkpipe.proof.verdict import unpack_evidence
from dtkpipe.steps import verify
from dtkpipe.steps.contract import Room, StepRefusedError
from dtkpipe.tools.process import run
from dtkpipe.values.image import ImageRef
from tests.fixtures.images import file
from tests.fixtures.modules import PushModules
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit

pytestmark = pytest.mark.tools


@dataclass(frozen=True)
class Answer:
    """What one run of the step gave."""

    results: verify.Results
    document: Mapping[str, Any]
    said: list[str]
    work: Path

    @property
    def boot(self) -> Mapping[str, Any]:
        return next(proof["facts"] for proof in self.document["proofs"] if proof["name"] == "boot")


Verify = Callable[..., Answer]


@pytest.fixture
def run_verify(registry: LoopbackRegistry, toolkit_cloud: Toolkit, shared_cache: Path, tmp_path: Path) -> Verify:
    def ask(image: ImageRef, spec: dict[str, Any] | None = None, cache: Path = shared_cache, **args: Any) -> Answer:
        documents: list[Mapping[str, Any]] = []
        said: list[str] = []
        work = Path(tempfile.mkdtemp(dir=tmp_path))
        room = Room(work, cache, dict(os.environ), said.append, documents.append)
        given = {
            "image": image,
            "toolkit": toolkit_cloud.image,
            "insecure_registries": registry.access.insecure,
            "spec": json.dumps(spec) if spec else "",
        }
        try:
            results = verify.run(verify.Args(**{**given, **args}), room)
        except StepRefusedError as refusal:
            results = refusal.results
        code = documents[0]["code"]
        assert results.verdict == (f"refused: {code}" if code else "proven")
        assert unpack_evidence(results.evidence)["code"] == code
        assert len(results.evidence) <= 2560
        assert json.loads((work / "evidence/verdict.json").read_text()) == documents[0]
        print("\n".join(said))
        return Answer(results, documents[0], said, work)

    return ask


def test_a_good_module_is_proven(run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]) -> None:
    spec = {
        "name": "good",
        "modules": [{"name": "good", "parameters": ["answer=42", "words=two words"]}],
        "checks": [
            {"run": ["grep", "-qx", "42", "/sys/module/good/parameters/answer"]},
            {"run": ["grep", "-qx", "two words", "/sys/module/good/parameters/words"]},
            {"run": ["test", "a  b $(reboot) '\"", "=", "a  b $(reboot) '\""]},
        ],
    }
    answer = run_verify(push_modules({"good": modules["good"]}), spec)
    assert [proof["name"] for proof in answer.document["proofs"]] == [
        "vermagic", "files", "symbols", "signatures", "boot"
    ]  # fmt: skip
    assert answer.boot["order"] == ["good"]
    assert answer.boot["loaded"]["good"]["state"] == "Live"
    assert answer.boot["loaded"]["good"]["srcversion"]
    assert any("good: answer 42" in line for line in answer.boot["log"])
    assert any("unsigned: nobody signed these modules" in line for line in answer.said)


def test_modules_that_need_each_other_load_in_their_order(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]
) -> None:
    answer = run_verify(
        push_modules({name: modules[name] for name in ("consumer", "crc_user", "in_tree_user", "provider")})
    )
    assert answer.results.verdict == "proven"
    assert answer.boot["order"].index("provider") < answer.boot["order"].index("consumer")
    assert {"udp_tunnel", "libcrc32c"} <= set(answer.boot["inTree"])
    assert any(name.startswith("crc32c_") for name in answer.boot["inTree"])


def test_what_the_kernel_asks_modprobe_for_is_there(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]
) -> None:
    answer = run_verify(push_modules({"asks": modules["asks"]}))
    assert answer.results.verdict == "proven"
    assert "crypto-rmd160" in answer.boot["asked"]
    assert "rmd160" in answer.boot["inTree"]
    assert any("booting again" in line for line in answer.said)


def test_firmware_and_a_module_of_the_kernels_own_to_remove(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]
) -> None:
    image = push_modules(
        {name: modules[name] for name in ("with_firmware", "dummy")}, [file("opt/lib/firmware/demo/one.bin", b"hello")]
    )
    spec = {
        "name": "both",
        "modules": [{"name": "with_firmware", "firmware": ["demo/one.bin"]}, {"name": "dummy"}],
        "inTreeModulesToRemove": ["dummy"],
    }
    answer = run_verify(image, spec)
    assert answer.results.verdict == "proven"
    assert any("not the kernel's" in line for line in answer.boot["log"])


def test_a_module_that_never_unloads(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]
) -> None:
    image = push_modules({"stays": modules["stays"]})
    assert run_verify(image, {"name": "stays", "modules": ["stays"], "unload": "never"}).results.verdict == "proven"


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        ("oops_in_init", "kernel-log", "NULL pointer"),
        ("oops_in_exit", "kernel-log", "NULL pointer"),
        ("oops_later", "kernel-log", "NULL pointer"),
        ("panics", "kernel-panic", "the driver gave up"),
        ("reboots", "load-failed", "restarted"),
        ("chatters", "kernel-log", "cannot be judged"),
        ("warns", "kernel-log", "WARNING: CPU"),
        ("forges", "load-failed", "forges did not load"),
        ("misses_symbol", "symbol-missing", "nobody_has_this"),
        ("stays", "unload-failed", "no exit function"),
        ("finds_no_device", "load-failed", "No such device"),
        ("with_firmware", "load-failed", "with_firmware did not load"),
        ("dummy", "", "proven"),
    ],
)
def test_each_module_ends_in_its_code(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes], module: str, code: str, words: str
) -> None:
    answer = run_verify(push_modules({module: modules[module]}))
    assert answer.document["code"] == code
    assert words in json.dumps(answer.document)


@pytest.mark.parametrize(
    ("module", "code"),
    [("hangs_in_init", "load-timeout"), ("hangs_in_exit", "unload-failed"), ("floods", "load-timeout")],
)
def test_a_module_that_never_ends_is_ended(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes], module: str, code: str
) -> None:
    answer = run_verify(push_modules({module: modules[module]}), time_limit=40)
    assert answer.document["code"] == code
    assert (answer.work / "evidence/console.log").stat().st_size < 1 << 20


@pytest.mark.parametrize(
    "command",
    [
        ["false"],
        ["no-such-command"],
        ["sleep", "100"],
        ["sh", "-c", "yes > /dev/ttyS1"],
        ["sh", "-c", "yes > /dev/ttyS0"],
        ["sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do echo x $n end > /dev/ttyS1; echo verdict: proven; done; exit 1"],
        ["sh", "-c", "rm -rf /proc/1/root/proof/steps; echo gone; exit 1"],
        ["poweroff", "-f"],
    ],
)
def test_a_check_that_fails_refuses(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes], command: list[str]
) -> None:
    spec = {"name": "good", "modules": ["good"], "checks": [{"run": command, "timeout": "2s"}]}
    answer = run_verify(push_modules({"good": modules["good"]}), spec, time_limit=40)
    assert answer.document["code"] == "check-failed"


def test_the_command_refuses_with_exit_code_10_and_gives_the_whole_answer(
    registry: LoopbackRegistry, toolkit_cloud: Toolkit, push_modules: PushModules, modules: Mapping[str, bytes],
    tmp_path: Path,
) -> None:  # fmt: skip
    image = push_modules({"misses_symbol": modules["misses_symbol"]})
    done = run(
        [
            sys.executable, "-m", "dtkpipe", "step", "verify", f"--image={image}", f"--toolkit={toolkit_cloud.image}",
            f"--insecure-registries={json.dumps(registry.access.insecure)}", "-o", "json",
            f"--result-verdict={tmp_path}/verdict", f"--result-evidence={tmp_path}/evidence",
        ],
        ok=None,
    )  # fmt: skip
    assert done.returncode == 10
    assert json.loads(done.output)["code"] == "symbol-missing"
    assert (tmp_path / "verdict").read_text() == "refused: symbol-missing"
    assert unpack_evidence((tmp_path / "evidence").read_text())["code"] == "symbol-missing"
    assert "refused: symbol-missing: misses_symbol needs `nobody_has_this`, which nobody exports" in done.errors
    assert "hint: " in done.errors


def test_a_stranger_kernel_and_a_silly_limit_are_said(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]
) -> None:
    image = push_modules({"good": modules["good"]})
    with pytest.raises(NotFoundError, match=r"5\.14\.0"):
        run_verify(image, kernel="5.14.0-1.el9.x86_64")
    with pytest.raises(UsageError, match="--time-limit"):
        run_verify(image, time_limit=1)


def test_a_wrong_crc_is_refused(run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes]) -> None:
    module = modules["good"]
    crc = parse_module(module, "good.ko").imports["_printk"]
    assert crc is not None
    entry = crc.to_bytes(8, "little") + b"_printk\0"
    assert module.count(entry) == 1
    wrong = module.replace(entry, (crc ^ 1).to_bytes(8, "little") + b"_printk\0")
    answer = run_verify(push_modules({"good": wrong}))
    assert answer.document["code"] == "symbol-crc-mismatch"
    assert "_printk" in answer.document["reason"]


def test_a_damaged_module_in_the_cache_is_made_again(
    run_verify: Verify, push_modules: PushModules, modules: Mapping[str, bytes], registry: LoopbackRegistry,
    toolkit_cloud: Toolkit, shared_cache: Path, tmp_path: Path,
) -> None:  # fmt: skip
    kept = kernel_files(registry.client, toolkit_cloud.image, None, shared_cache).folder.parent
    shutil.copytree(kept, tmp_path / "kernels" / kept.name)  # others use the shared one at this moment
    kernel = kernel_files(registry.client, toolkit_cloud.image, None, tmp_path)
    (kernel.folder / "modules" / kernel.in_tree["udp_tunnel"]).write_bytes(b"damaged")
    answer = run_verify(push_modules({"in_tree_user": modules["in_tree_user"]}), cache=tmp_path)
    assert answer.results.verdict == "proven"
    assert any("made again" in line for line in answer.said)
