"""The proofs that need no boot, on modules made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from dtkpipe.clients.image import ImageFiles, Tree
from dtkpipe.clients.manifest import ImageConfig
from dtkpipe.proof import static
from dtkpipe.proof.image import Found, ImageModules
from dtkpipe.proof.kernel import Export, KernelFiles
from dtkpipe.proof.module import KernelModule, parse_module
from dtkpipe.proof.plan import loading_order, quoted
from dtkpipe.proof.signature import join
from dtkpipe.proof.static import Outcome
from dtkpipe.values.arch import X86_64
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.module import ModuleSpec
from tests.fixtures.elf import module_bytes

VERMAGIC = "6.1.0-56-cloud-amd64 SMP preempt mod_unload modversions"
PLACE = "/opt/lib/modules/6.1.0-56-cloud-amd64"


class FakeKernel(KernelFiles):
    """A kernel that exports what the test says."""

    exports: ClassVar = {
        "_printk": Export(0x92997ED8, "vmlinux", False, ""),
        "module_layout": Export(0x1234, "vmlinux", False, ""),
    }


def kernel(**exports: Export) -> KernelFiles:
    made = FakeKernel(
        folder=Path("none"), kernel=Kernel("6.1.0-56-cloud-amd64"), arch=X86_64, toolkit="sha256:0",
        vermagic=VERMAGIC, sums={},
    )  # fmt: skip
    object.__setattr__(made, "exports", FakeKernel.exports | exports)
    return made


def module(file: str = f"{PLACE}/demo-one.ko", **args) -> KernelModule:
    return parse_module(module_bytes(**args), file)


def image(*ours: KernelModule | Found, elsewhere: tuple[KernelModule, ...] = ()) -> ImageModules:
    def found(one: KernelModule | Found) -> Found:
        return one if isinstance(one, Found) else Found(path=one.file, module=one)

    files = ImageFiles(Path("none"), None, ImageConfig({}), Tree(), {})  # type: ignore[arg-type]
    return ImageModules(
        ref=ImageRef("localhost", "x"), kernel="6.1.0-56-cloud-amd64", files=files,
        ours=tuple(found(one) for one in ours), elsewhere=tuple(found(one) for one in elsewhere), firmware={},
    )  # fmt: skip


def spec(*names: str) -> ModuleSpec:
    return ModuleSpec.parse({"name": "test", "modules": list(names)})


def code(outcome: Outcome) -> str:
    return outcome.refusal.code if outcome.refusal else "ok"


@pytest.mark.parametrize(
    ("vermagic", "words"),
    [
        (
            "6.1.0-55-cloud-amd64 SMP preempt mod_unload modversions",
            "kernel 6.1.0-55-cloud-amd64, not 6.1.0-56-cloud-amd64",
        ),
        ("6.1.0-56-cloud-amd64 SMP mod_unload modversions", "without `preempt`"),
        ("6.1.0-56-cloud-amd64 SMP preempt mod_unload modversions gcc-12", "with `gcc-12`"),
        ("", "no vermagic"),
    ],
)
def test_another_vermagic_is_refused_and_the_difference_said(vermagic: str, words: str) -> None:
    outcome = static.check_vermagic(image(module(vermagic=vermagic)), kernel())
    assert code(outcome) == "vermagic-mismatch"
    assert words in outcome.summary


def test_the_kernels_own_vermagic_is_taken() -> None:
    assert code(static.check_vermagic(image(module()), kernel())) == "ok"


def test_a_module_in_the_folder_of_another_kernel_is_a_wrong_vermagic() -> None:
    other = module("/opt/lib/modules/6.9.1/extra/demo.ko", vermagic="6.9.1 SMP")
    outcome = static.check_vermagic(image(elsewhere=(other,)), kernel())
    assert code(outcome) == "vermagic-mismatch"
    assert "6.9.1" in outcome.refusal.details[0]


def test_an_image_without_modules_misses_them() -> None:
    assert code(static.check_vermagic(image(), kernel())) == "ok"
    assert code(static.check_files(image(), kernel(), spec())) == "module-missing"


def test_a_module_where_modprobe_does_not_look_is_missing() -> None:
    outcome = static.check_files(image(elsewhere=(module("/app/demo-one.ko"),)), kernel(), spec("demo-one"))
    assert code(outcome) == "module-missing"
    assert any("/app/demo-one.ko" in line for line in outcome.refusal.details)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("demo-one",), "ok"),
        ((), "ok"),
        (("demo-one", "other"), "module-missing"),
        (("other",), "module-missing"),
    ],
)
def test_listed_modules_have_to_be_there(names: tuple[str, ...], expected: str) -> None:
    assert code(static.check_files(image(module()), kernel(), spec(*names))) == expected


def test_what_is_not_listed_is_unexpected() -> None:
    outcome = static.check_files(image(module(), module(f"{PLACE}/x.ko", name="x")), kernel(), spec("demo-one"))
    assert code(outcome) == "module-unexpected"


def test_the_same_bytes_twice_are_one_module_and_different_ones_are_not() -> None:
    again = module("/lib/modules/6.1.0-56-cloud-amd64/demo-one.ko")
    assert code(static.check_files(image(module(), again), kernel(), spec())) == "ok"
    other = module("/lib/modules/6.1.0-56-cloud-amd64/demo-one.ko", srcversion="X")
    assert code(static.check_files(image(module(), other), kernel(), spec())) == "module-unexpected"


def test_a_broken_file_is_unexpected_or_missing() -> None:
    broken = Found(path=f"{PLACE}/x.ko", problem="not ELF")
    assert code(static.check_files(image(module(), broken), kernel(), spec())) == "module-unexpected"
    assert code(static.check_files(image(module(), broken), kernel(), spec("demo-one", "x"))) == "module-missing"


def test_another_machine_is_refused() -> None:
    assert code(static.check_files(image(module(machine=183)), kernel(), spec())) == "wrong-architecture"


def test_symbols_of_the_kernel_with_their_crcs_are_taken() -> None:
    assert code(static.check_symbols([module()], kernel())) == "ok"


def test_a_symbol_that_nobody_exports_is_missing_unless_it_is_weak() -> None:
    outcome = static.check_symbols([module(imports={"gone": 1})], kernel())
    assert code(outcome) == "symbol-missing"
    assert "gone" in outcome.summary


def test_another_crc_is_refused() -> None:
    outcome = static.check_symbols([module(imports={"_printk": 1})], kernel())
    assert code(outcome) == "symbol-crc-mismatch"
    assert "0x00000001" in outcome.summary
    assert "0x92997ed8" in outcome.summary
    outcome = static.check_symbols([module(imports={"module_layout": 1})], kernel())
    assert code(outcome) == "symbol-crc-mismatch"


def test_modules_of_the_image_give_symbols_to_each_other() -> None:
    giver = module(name="giver", exports={"shared": 7}, imports={})
    assert code(static.check_symbols([giver, module(imports={"shared": 7})], kernel())) == "ok"
    assert code(static.check_symbols([giver, module(imports={"shared": 8})], kernel())) == "symbol-crc-mismatch"


def test_a_module_without_any_crc_is_refused() -> None:
    bare = parse_module(module_bytes(imports={"_printk": 1}).replace(b"__versions", b"__nothings"), "x.ko")
    assert code(static.check_symbols([bare], kernel())) == "symbol-crc-mismatch"


def test_gpl_symbols_are_not_for_every_licence() -> None:
    exports = {"_printk": Export(0x92997ED8, "vmlinux", True, "")}
    outcome = static.check_symbols([module(license_="Proprietary")], kernel(**exports))
    assert code(outcome) == "symbol-missing"
    assert "GPL" in outcome.summary
    assert code(static.check_symbols([module(license_="Dual MIT/GPL")], kernel(**exports))) == "ok"


def _signed(by: bytes = b"signature") -> KernelModule:
    return parse_module(join(module_bytes(), by), "x.ko")


@pytest.mark.parametrize(
    ("made", "signer", "good", "expected"),
    [
        (module(), "", False, "ok"),
        (_signed(), "", False, "wrong-signer"),
        (module(), "Me", True, "unsigned"),
        (_signed(), "Me", True, "ok"),
        (_signed(), "Me", False, "wrong-signer"),
    ],
)
def test_signatures_are_there_when_they_should_be(made: KernelModule, signer: str, good: bool, expected: str) -> None:
    assert code(static.check_signatures([made], signer, lambda _: good)) == expected


def test_modules_load_as_wished_but_after_what_they_need() -> None:
    a = module(name="a", depends="b,c")
    b = module(name="b", depends="")
    c = module(name="c", depends="b")
    d = module(name="d", depends="d,nowhere")
    assert [one.name for one in loading_order([a, b, c, d], ["d", "a"])] == ["d", "b", "c", "a"]
    loop = module(name="b", depends="a")
    assert [one.name for one in loading_order([a, loop, c], [])] == ["b", "c", "a"]


def test_parameters_are_written_as_modprobe_does() -> None:
    assert quoted("debug") == "debug"
    assert quoted("name=two words") == 'name="two words"'
    assert quoted('name="two words"') == 'name="two words"'
    assert quoted("list=1,2") == "list=1,2"
