"""Sources that nobody here wrote, and the other ways to say how a module is built: dkms.conf, Containerfiles."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError, RunFailedError, UnreachableError
from dtkpipe.resources import shipped
from dtkpipe.tools import process
from dtkpipe.values.image import ImageRef
from dtkpipe.values.module import ModuleSpec
from tests.fixtures.building import SOURCES, Build, Built
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import MakeToolkit, Toolkit
from tests.fixtures.user import User

pytestmark = pytest.mark.tools


def names(built: Built) -> tuple[str, ...]:
    return ModuleSpec.from_text(built.config.labels["dtkpipe.spec"]).names


def files_below(built: Built, folder: str) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in sorted(built.files().contents) if path.startswith(f"{folder}/")]


# dkms.conf


def test_acpi_call_out_of_debians_package(build_module: Build, debian_source: Callable[[str], Path]):
    built = build_module(debian_source("acpi-call-dkms"))
    assert (built.results.module, names(built)) == ("acpi-call", ("acpi_call",))
    with_spec = build_module(
        debian_source("acpi-call-dkms"), spec=(shipped("catalog/modules") / "acpi-call.yaml").read_text()
    )
    assert with_spec.config.labels["dtkpipe.module"] == "acpi-call"


def test_v4l2loopback_out_of_debians_package(
    build_module: Build, debian_source: Callable[[str], Path], make_toolkit: MakeToolkit, toolkit_cloud: Toolkit
):
    source = debian_source("v4l2loopback-dkms")
    with pytest.raises(RunFailedError) as error:
        build_module(source)
    assert error.value.what == f"`v4l2loopback` excludes kernel {toolkit_cloud.kernel}"
    assert "REQUIRES CONFIG_VIDEO_DEV" in error.value.details[0]

    standard = make_toolkit(release="debian-12", variant="std", arch="x86_64")
    built = build_module(source, toolkit=standard)
    assert names(built) == ("v4l2loopback",)
    index = built.files().file(f"opt/lib/modules/{standard.kernel}/modules.dep")
    assert index is not None
    assert index.read_text().startswith("updates/v4l2loopback.ko: host/kernel/drivers/media/v4l2-core/videodev.ko")


def test_several_modules_patches_preparation_and_new_names(build_module: Build, toolkit_cloud: Toolkit):
    built = build_module(SOURCES / "several")
    assert names(built) == ("first", "second"), "first exports what second needs"
    updates = f"opt/lib/modules/{toolkit_cloud.kernel}/updates"
    assert files_below(built, updates) == ["second.ko", "several-first.ko"]
    log = (built.work / "evidence" / "build.log").read_text()
    assert "applying patches/greeting.patch" in log
    assert "never.patch" not in log


@pytest.mark.parametrize(
    ("old", "new", "what", "detail"),
    [
        ("[6-9])", "[7-9])", "excludes kernel", "BUILD_EXCLUSIVE_KERNEL is"),
        ("!CONFIG_NO_SUCH_OPTION", "!CONFIG_PCI", "excludes kernel", "it is not for kernels with CONFIG_PCI"),
        ("!CONFIG_NO_SUCH_OPTION", "CONFIG_NO_SUCH_OPTION", "excludes kernel", "it needs a kernel with CONFIG_NO_SUCH"),
        ('AUTOINSTALL="yes"', 'BUILD_EXCLUSIVE_ARCH="^arm"', "excludes kernel", "BUILD_EXCLUSIVE_ARCH is `^arm`"),
        ('AUTOINSTALL="yes"', 'BUILD_EXCLUSIVE_KERNEL_MIN="6.2"', "excludes kernel", "KERNEL_MIN is 6.2"),
        ("never.patch", "greeting.patch", "", ""),
        ('"^2\\."', '"^6\\."', "cannot be built", "there is no patch patches/never.patch"),
        (
            'NAME[1]="second"',
            'NAME[1]="third"',
            "cannot be built",
            "promises second/third.ko, and make did not build it",
        ),
        ("prepare.sh", "missing.sh", "cannot be built", "PRE_BUILD names"),
    ],
)
def test_what_a_dkms_conf_demands(build_module: Build, tmp_path: Path, old: str, new: str, what: str, detail: str):
    folder = shutil.copytree(SOURCES / "several", tmp_path / "several")
    conf = (folder / "dkms.conf").read_text()
    assert old in conf
    (folder / "dkms.conf").write_text(conf.replace(old, new))
    if not what:
        build_module(folder)
        return
    with pytest.raises(RunFailedError) as error:
        build_module(folder)
    assert what in error.value.what
    assert detail in error.value.details[0]


# Containerfiles


def test_a_multi_stage_containerfile_keeps_its_final_image(
    build_module: Build, small_base: ImageRef, toolkit_cloud: Toolkit
):
    built = build_module(SOURCES / "multi-stage", build_args=(f"BASE={small_base}",), hermetic=True)
    kernel = toolkit_cloud.kernel.release
    files = built.files()
    assert f"opt/lib/modules/{kernel}/staged.ko" in files.contents
    assert "etc/base-release" in files.paths, "the author's base"
    assert names(built) == ("staged",)
    labels = built.config.labels
    assert (labels["example.module"], labels["example.kernel"]) == ("multi-stage", kernel)
    assert labels["dtkpipe.kernel"] == kernel
    assert "warning: the image has no sh and no cp; Kernel Module Management needs both" in built.said


def test_an_image_that_is_the_toolkit_gets_an_image_of_its_own(build_module: Build, toolkit_cloud: Toolkit):
    built = build_module(SOURCES / "one-stage", build_args=("WORDS=a; exit 1",))
    kernel = toolkit_cloud.kernel.release
    assert f"opt/lib/modules/{kernel}/updates/staged.ko" in built.files().contents
    assert built.size < 6 * 2**20
    assert "words: a; exit 1" in (built.work / "evidence" / "build.log").read_text()


@pytest.fixture
def containerfile(tmp_path: Path) -> Callable[[str], Path]:
    """Return a module's folder with this Containerfile."""

    def write(text: str) -> Path:
        folder = shutil.copytree(SOURCES / "one-stage", tmp_path / "module")
        (folder / "Dockerfile").unlink()
        (folder / "Containerfile").write_text(text)
        return folder

    return write


BEGIN = "ARG DTK_AUTO\nFROM ${DTK_AUTO}\nARG KERNEL_VERSION\nARG KERNEL_FULL_VERSION\nARG MOD_NAME\nARG MOD_NAMESPACE\n"


def test_all_of_kmms_build_arguments(build_module: Build, containerfile: Callable[[str], Path], toolkit_cloud: Toolkit):
    kernel = toolkit_cloud.kernel.release
    folder = containerfile(
        f"{BEGIN}ARG KERNEL_XYZ\nARG KERNEL_X\nCOPY . /w\n"
        f'RUN test "$KERNEL_VERSION $KERNEL_FULL_VERSION" = "{kernel} {kernel}"\n'
        'RUN test "$MOD_NAME $MOD_NAMESPACE" = "module default"\n'
        f'RUN test "$KERNEL_XYZ $KERNEL_X" = "6.1.0 6"\n'
        "RUN make -C /lib/modules/$KERNEL_VERSION/build M=/w && "
        "install -D -t /opt/lib/modules/$KERNEL_VERSION /w/staged.ko\n"
    )
    assert names(build_module(folder)) == ("staged",)


def test_a_build_argument_that_nobody_declares(build_module: Build, small_base: ImageRef):
    with pytest.raises(InvalidError) as error:
        build_module(SOURCES / "multi-stage", build_args=(f"BASES={small_base}",))
    assert error.value.what == "the Containerfile declares no build argument `BASES`"
    assert error.value.hint == "did you mean `BASE`?"


def test_a_containerfile_that_fails_says_where(build_module: Build, containerfile: Callable[[str], Path]):
    folder = containerfile(BEGIN + "COPY . /w\nRUN cp /w/none.ko /opt\n")
    with pytest.raises(RunFailedError) as error:
        build_module(folder)
    assert error.value.details[0] == "cp: cannot stat '/w/none.ko': No such file or directory"
    assert error.value.details[1] == "in: RUN cp /w/none.ko /opt"


def test_a_containerfile_that_builds_nothing(build_module: Build, containerfile: Callable[[str], Path]):
    with pytest.raises(RunFailedError, match="cannot be built") as error:
        build_module(containerfile(BEGIN))
    assert "put no module into /opt/lib/modules/" in error.value.details[0]


def test_modules_for_another_kernel(
    build_module: Build, containerfile: Callable[[str], Path], small_base: ImageRef, toolkit_cloud: Toolkit
):
    folder = containerfile(
        f"{BEGIN}COPY . /w\nRUN make -C /lib/modules/$KERNEL_VERSION/build M=/w\n"
        f"FROM {small_base}\nCOPY --from=0 /w/staged.ko /opt/lib/modules/5.14.0-wrong/staged.ko\n"
    )
    with pytest.raises(RunFailedError) as error:
        build_module(folder)
    assert error.value.what == f"the image holds no kernel module for {toolkit_cloud.kernel}"
    assert error.value.details[1] == "it has modules for 5.14.0-wrong"


def test_hermetic_takes_the_network_away(build_module: Build, containerfile: Callable[[str], Path]):
    folder = containerfile(f'{BEGIN}RUN test -z "$(cat /proc/net/route | tail -n +2)" && exit 7\n')
    with pytest.raises(RunFailedError) as error:
        build_module(folder, hermetic=True)
    assert "exit 7" in error.value.details[-2] + error.value.details[0]


def test_a_base_image_whose_registry_does_not_answer(
    build_module: Build, containerfile: Callable[[str], Path], registry: LoopbackRegistry
):
    folder = containerfile(f"{BEGIN}FROM 127.0.0.1:1/none:1\nCOPY --from=0 /etc/hostname /x\n")
    with pytest.raises(UnreachableError, match="cannot be fetched"):
        build_module(folder)


# Without root


ROOTLESS = """
import json, os, sys
from pathlib import Path
from dtkpipe.steps import build
from dtkpipe.steps.contract import Room, parse_args
work = Path(sys.argv[1])
args = parse_args(build.Args, json.loads(sys.argv[2]))
print(build.run(args, Room(work, work / "cache", os.environ, lambda line: None)).image_digest)
"""


def test_without_root_the_same_image_comes_out(
    user: User, build_module: Build, shared_cache: Path, toolkit_cloud: Toolkit, registry: LoopbackRegistry
):
    hello = shipped("catalog/samples/hello")
    by_root = build_module(hello)
    work = user.home / "work"
    shutil.copytree(hello, work / "hello")
    for name in ("driver-base", "kernels"):
        shutil.copytree(shared_cache / name, work / "cache" / name)
    given = {
        "repo": str(work / "hello"), "toolkit": str(toolkit_cloud.image), "kernel": str(toolkit_cloud.kernel),
        "arch": "x86_64", "release": "debian-12", "staging": str(registry.repo("rootless")), "run-name": "rootless",
        "insecure-registries": json.dumps([registry.host]),
    }  # fmt: skip
    (work / "script.py").write_text(ROOTLESS)
    # A user may not be able to read the interpreter that we run in; Debian's own can load our packages.
    command: list[str | Path] = [sys.executable, work / "script.py", work, json.dumps(given)]
    if os.geteuid() == 0:
        process.run(["chown", "--recursive", f"{user.name}:", work])
        command = ["runuser", "--user", user.name, "--", "/usr/bin/python3", *command[1:]]
    packages = f"{Path(__file__).parents[2]}:{sysconfig.get_path('purelib')}"
    env = {"HOME": str(user.home), "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": ""}
    done = process.run(command, env=env, cwd=user.home)
    assert done.output.strip() == by_root.results.image_digest
