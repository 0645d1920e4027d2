"""The step `build` with the real buildah, toolkit and registry: recipes, what is in the image, what is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError, RunFailedError
from dtkpipe.proof.module import read_module
from dtkpipe.resources import shipped
from dtkpipe.values.module import ModuleSpec
from tests.fixtures.building import SOURCES, Build, Built
from tests.fixtures.toolkit import Toolkit

pytestmark = pytest.mark.tools
HELLO = shipped("catalog/samples/hello")


def modules_in(built: Built, kernel: str) -> list[str]:
    files = built.files()
    return [path for path in sorted(files.contents) if path.startswith(f"opt/lib/modules/{kernel}/") and ".ko" in path]


def spec_of(built: Built) -> ModuleSpec:
    return ModuleSpec.from_text(built.config.labels["dtkpipe.spec"])


def fails(build_module: Build, folder: Path, **args: object) -> RunFailedError:
    with pytest.raises(RunFailedError) as error:
        build_module(folder, **args)
    return error.value


@pytest.fixture(scope="module")
def hello(build_module: Build) -> Built:
    return build_module(HELLO)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sample that a test may break."""
    return shutil.copytree(HELLO, tmp_path / "hello")


def test_the_image_holds_the_module_depmods_data_and_what_loads_it(hello: Built, toolkit_cloud: Toolkit):
    kernel = toolkit_cloud.kernel.release
    files = hello.files()
    own = f"opt/lib/modules/{kernel}"
    module = files.file(f"{own}/updates/hello.ko")
    assert module is not None
    assert read_module(module).vermagic.startswith(f"{kernel} ")
    index = files.file(f"{own}/modules.dep")
    assert index is not None
    assert index.read_text() == "updates/hello.ko:\n"
    assert f"{own}/modules.dep.bin" in files.paths
    assert f"{own}/host" not in files.paths, "it needs no module of the kernel's"
    for program in ("sh", "cp", "modprobe"):
        assert any(files.entry(f"{folder}/{program}") for folder in ("bin", "sbin", "usr/bin", "usr/sbin"))
    assert hello.size - module.stat().st_size <= 5 * 2**20


def test_labels_and_results(hello: Built, toolkit_cloud: Toolkit):
    labels = hello.config.labels
    assert labels["dtkpipe.kernel"] == toolkit_cloud.kernel.release
    assert labels["dtkpipe.toolkit"] == str(toolkit_cloud.image)
    assert labels["dtkpipe.releases"] == "debian-12"
    assert labels["dtkpipe.module"] == hello.results.module == "hello"
    assert labels["dtkpipe.commit"] == labels["org.opencontainers.image.revision"] == hello.results.commit
    assert spec_of(hello).names == ("hello",)
    assert hello.config.architecture == "amd64"
    assert hello.results.kernel_image.startswith(hello.results.image_url)
    assert any(line.startswith("source: folder ") for line in hello.said)
    assert any(line.startswith("built: hello for ") for line in hello.said)


def test_the_same_source_and_toolkit_give_the_same_image(hello: Built, build_module: Build, copy: Path):
    (copy / "hello.c").touch()
    assert build_module(copy).results.image_digest == hello.results.image_digest


def test_a_module_that_needs_modules_of_the_kernel(build_module: Build, copy: Path, toolkit_cloud: Toolkit):
    kernel = toolkit_cloud.kernel.release
    (copy / "hello.c").write_text(
        "#include <linux/module.h>\n#include <net/udp_tunnel.h>\n"
        "static int __init start(void) { udp_tunnel_sock_release(NULL); return 0; }\nmodule_init(start);\n"
        'MODULE_LICENSE("GPL");\n'
    )
    files = build_module(copy).files()
    own = f"opt/lib/modules/{kernel}"
    link = files.tree.entries[f"{own}/host"].entry
    assert (link.kind, link.target) == ("symlink", f"/lib/modules/{kernel}")
    index = files.file(f"{own}/modules.dep")
    assert index is not None
    first, *others = index.read_text().splitlines()
    assert first.startswith("updates/hello.ko: host/kernel/net/ipv4/udp_tunnel.ko")
    assert len(others) < 5, "only what is needed is named"


def test_a_compile_error_is_the_compilers_first_and_the_log_is_kept(build_module: Build, copy: Path):
    text = (copy / "hello.c").read_text()
    (copy / "hello.c").write_text(text.replace('pr_info("hello', 'no_such_call("hello'))
    error = fails(build_module, copy)
    assert error.exit_code == 10
    assert error.what.startswith("`hello` does not compile for kernel ")
    assert error.details[0].startswith("hello.c:13:9: error: implicit declaration of function 'no_such_call'")
    assert "in function 'hello_init'" in error.details
    log = Path(error.details[-1].removeprefix("whole log: "))
    assert "make[" in log.read_text()
    assert not any("make[" in line for line in error.details)


def test_a_missing_header_and_a_missing_symbol(build_module: Build, copy: Path):
    text = (copy / "hello.c").read_text()
    (copy / "hello.c").write_text("#include <vendor/none.h>\n" + text)
    error = fails(build_module, copy)
    assert error.details[0] == "hello.c:1:10: fatal error: vendor/none.h: No such file or directory"

    (copy / "hello.c").write_text(
        "void nobody_exports(void);\n" + text.replace("pr_info(", "nobody_exports(); pr_info(")
    )
    error = fails(build_module, copy)
    assert error.details[0] == '"nobody_exports" [hello.ko] undefined!'


def test_a_module_that_the_kernel_has_too(build_module: Build, copy: Path):
    (copy / "hello.c").rename(copy / "dummy.c")
    (copy / "Makefile").write_text("obj-m := dummy.o\n")
    warning = "warning: the kernel has a module `dummy` of its own: list it in inTreeModulesToRemove"
    assert warning in build_module(copy).said
    assert warning not in build_module(copy, spec="{name: dummy, inTreeModulesToRemove: [dummy]}").said


def test_a_program_that_the_toolkit_lacks(build_module: Build, copy: Path):
    (copy / "Makefile").write_text("obj-m := hello.o\nall:\n\tno-such-program\n\tmake -C $(KDIR) M=$(PWD) modules\n")
    error = fails(build_module, copy)
    assert "no-such-program" in error.details[0]


def test_what_earlier_builds_left_behind_does_not_count(build_module: Build, copy: Path, toolkit_cloud: Toolkit):
    for name in ("hello.ko", "hello.o", "hello.mod", "other.ko"):
        (copy / name).write_text("stale")
        (copy / f".{name}.cmd").write_text("stale")
    kernel = toolkit_cloud.kernel.release
    assert modules_in(build_module(copy), kernel) == [f"opt/lib/modules/{kernel}/updates/hello.ko"]


def test_uname_answers_the_kernel_that_is_built_for(build_module: Build, copy: Path, toolkit_cloud: Toolkit):
    (copy / "Makefile").write_text(
        "obj-m := hello.o\nKVER := $(shell /bin/uname -r)\nall:\n"
        '\ttest $(KVER) = "$$(uname --kernel-release)" -a $$(uname -m) = x86_64\n'
        "\t$(MAKE) -C /lib/modules/$(KVER)/build M=$(CURDIR) modules\n"
    )
    built = build_module(copy)
    assert modules_in(built, toolkit_cloud.kernel.release)


def test_values_reach_make_as_data(build_module: Build, copy: Path):
    """Whatever a value holds, it is one argument of make: nothing of it is run by a shell of ours."""
    words = "a b;touch${IFS}/pwned 'q' \"d\" `id` \\ ü"
    (copy / "Makefile").write_text(
        'obj-m := hello.o\nccflags-y := -DKERNEL_WORD=\\"$(KERNEL_WORD)\\"\n'
        "ifneq ($(value WORDS),$(value EXPECTED))\n$(error got $(value WORDS))\nendif\n"
    )
    (copy / "hello.c").write_text((copy / "hello.c").read_text() + "MODULE_INFO(word, KERNEL_WORD);\n")
    built = build_module(
        copy,
        spec='{"name": "hello", "build": {"make": ["KERNEL_WORD=${KERNEL_XYZ}-${MOD_NAME}"]}}',
        build_args=(f"WORDS={words}", f"EXPECTED={words}"),
    )
    files = built.files()
    module = next(file for path, file in files.contents.items() if path.endswith("hello.ko"))
    assert b"word=6.1.0-hello\0" in module.read_bytes()
    assert "pwned" not in " ".join(files.paths)


def test_listed_but_not_built_and_built_but_not_listed(build_module: Build, copy: Path):
    (copy / "Makefile").write_text("obj-m := hello.o other.o\n")
    shutil.copy(copy / "hello.c", copy / "other.c")
    recipe = '"build": {"recipe": "make", "make": ["-C", "/lib/modules/${KERNEL_VERSION}/build", "M=/src", "modules"]}'
    error = fails(build_module, copy, spec=f'{{"name": "m", "modules": ["hello", "third"], {recipe}}}')
    assert error.what == "listed but not built: third"
    assert error.details == ("Makefile built: hello, other", "`modules` lists: hello, third")

    error = fails(build_module, copy, spec=f'{{"name": "m", "modules": ["hello"], {recipe}}}')
    assert error.what == "built but not listed: other"
    assert error.exit_code == 10

    only = build_module(copy, spec='{"name": "m", "modules": ["hello"], "build": {"recipe": "kbuild"}}')
    assert spec_of(only).names == ("hello",)


def test_firmware_and_patches(build_module: Build, copy: Path):
    (copy / "firmware" / "vendor").mkdir(parents=True)
    (copy / "firmware" / "vendor" / "hello.bin").write_bytes(b"firmware")
    (copy / "six.patch").write_text('--- a/hello.c\n+++ b/hello.c\n@@ -6,1 +6,1 @@\n-static char *name = "world";\n'
                                    '+static char *name = "patched";\n')  # fmt: skip
    spec = """{{"name": "hello", "modules": [{{"name": "hello", "firmware": ["{firmware}"]}}],
              "build": {{"patches": [{{"file": "six.patch", "kernel": ">=6"}},
                                     {{"file": "none", "kernel": "<6"}}]}}}}"""
    files = build_module(copy, spec=spec.format(firmware="vendor/hello.bin")).files()
    firmware = files.file("opt/lib/firmware/vendor/hello.bin")
    assert firmware is not None
    assert firmware.read_bytes() == b"firmware"
    module = next(file for path, file in files.contents.items() if path.endswith("hello.ko"))
    assert b"patched" in module.read_bytes()

    error = fails(build_module, copy, spec=spec.format(firmware="vendor/none.bin"))
    assert "lists the firmware vendor/none.bin, which is neither in the source nor built" in error.details[0]

    (copy / "six.patch").write_text("--- a/hello.c\n+++ b/hello.c\n@@ -1,1 +1,1 @@\n-nothing like it\n+x\n")
    error = fails(build_module, copy, spec=spec.format(firmware="vendor/hello.bin"))
    assert error.what.startswith("`hello` cannot be built")
    assert error.details[0] == "six.patch does not apply"


def test_packages_come_without_network(build_module: Build, copy: Path):
    (copy / "Makefile").write_text(
        "obj-m := hello.o\nall:\n\ttest -f /usr/include/zlib.h\n\tjq --version\n"
        "\t! getent hosts example.org\n\tmake -C /lib/modules/$(shell uname -r)/build M=$(PWD) modules\n"
    )
    built = build_module(copy, spec='{"name": "hello", "build": {"packages": ["zlib1g-dev", "jq"]}}')
    assert spec_of(built).build.packages == ("zlib1g-dev", "jq")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ('"kernels": {"min": "6.2"}', "needs kernel 6.2 or newer"),
        ('"kernels": {"variants": ["rt"]}', "is for the kernel flavours rt, not cloud"),
        ('"arches": ["aarch64"]', "is for aarch64, not x86_64"),
    ],
)
def test_kernels_that_the_module_is_not_for(build_module: Build, toolkit_cloud: Toolkit, key: str, reason: str):
    error = fails(build_module, HELLO, spec=f'{{"name": "hello", {key}}}')
    assert error.what == f"`hello` excludes kernel {toolkit_cloud.kernel}"
    assert error.details == (f"the module's source says: {reason}",)


def test_a_folder_that_is_no_module(build_module: Build, tmp_path: Path):
    (tmp_path / "README").write_text("nothing here")
    with pytest.raises(InvalidError, match="is not the source of a kernel module"):
        build_module(tmp_path)


@pytest.mark.parametrize("argument", ["NOVALUE", "=x", "1A=x", "A=x\ny"])
def test_build_arguments_that_are_none(build_module: Build, argument: str):
    with pytest.raises(InvalidError, match="is not a build argument"):
        build_module(HELLO, build_args=(argument,))


def test_a_module_for_another_architecture(build_module: Build, toolkit_arm64: Toolkit):
    built = build_module(HELLO, toolkit=toolkit_arm64)
    assert built.config.architecture == "arm64"
    module = next(file for path, file in built.files().contents.items() if path.endswith("hello.ko"))
    assert read_module(module).machine == "EM_AARCH64"


def test_a_simple_kmod_gives_its_good_half_by_spec(build_module: Build):
    """Its second module cannot compile since Linux 5.6: the error says so, and the catalogue's spec leaves it out."""
    spec = (shipped("catalog/modules") / "simple-kmod.yaml").read_text()
    built = build_module(SOURCES / "simple-kmod", spec=spec)
    assert spec_of(built).names == ("simple_kmod",)

    error = fails(build_module, SOURCES / "simple-kmod", spec="name: m\nbuild: {recipe: make}")
    assert error.details[0].startswith("simple-procfs-kmod.c:14:")
    assert "proc_create" in error.details[0]
