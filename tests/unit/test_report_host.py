"""The kernel of this machine, read from a /proc and a /sys of the test's own, and from the real ones."""

import platform
from pathlib import Path

import pytest

from dtkpipe.errors import UnsupportedError
from dtkpipe.tools.host import HostKernel
from dtkpipe.values.kernel import Kernel

RELEASE = "6.1.0-53-cloud-amd64"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with RELEASE running, root's rights, and two modules loaded."""
    write(tmp_path, "proc/sys/kernel/osrelease", f"{RELEASE}\n")
    write(tmp_path, "proc/sys/kernel/modules_disabled", "0\n")
    write(tmp_path, "proc/sys/kernel/tainted", "12288\n")
    write(tmp_path, "proc/self/status", "Name:\tpython3\nCapEff:\t000001ffffffffff\n")
    write(
        tmp_path, "proc/modules",
        "simple_kmod 16384 0 - Live 0xffffffffc0a00000 (OE)\n"
        "simple 16384 1 other,[permanent], Loading 0x0000000000000000\n",
    )  # fmt: skip
    write(tmp_path, "sys/module/simple_kmod/srcversion", "B7C4A0F2E1D3C5B6A798899\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_what_is_loaded(machine: Path) -> None:
    host = HostKernel(machine)
    assert host.state("simple-kmod") == "Live"
    assert host.state("simple") == "Loading"
    assert host.state("simpl") == ""
    assert host.srcversion("simple-kmod") == "B7C4A0F2E1D3C5B6A798899"
    assert host.srcversion("simple") == ""
    assert host.sickness() == ()
    host.require(Kernel.parse(RELEASE))


@pytest.mark.parametrize(("tainted", "words"), [("128", ("oops",)), ("13184", ("oops", "warning"))])
def test_a_sick_kernel_is_told(machine: Path, tainted: str, words: tuple[str, ...]) -> None:
    write(machine, "proc/sys/kernel/tainted", tainted)
    assert HostKernel(machine).sickness() == words


def test_another_kernel_is_refused(machine: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"of this machine is {RELEASE}, the image is for 5.14.0-427"):
        HostKernel(machine).require(Kernel.parse("5.14.0-427.13.1.el9_4.x86_64"))


def test_a_kernel_without_modules_is_refused(machine: Path) -> None:
    (machine / "proc/modules").unlink()
    with pytest.raises(UnsupportedError, match="CONFIG_MODULES is off"):
        HostKernel(machine).require(Kernel.parse(RELEASE))


def test_a_locked_kernel_is_refused(machine: Path) -> None:
    write(machine, "proc/sys/kernel/modules_disabled", "1\n")
    with pytest.raises(UnsupportedError, match="modules_disabled"):
        HostKernel(machine).require(Kernel.parse(RELEASE))


def test_a_user_without_the_right_is_refused(machine: Path) -> None:
    write(machine, "proc/self/status", "Name:\tpython3\nCapEff:\t00000000a80425fb\n")
    with pytest.raises(UnsupportedError, match="CAP_SYS_MODULE"):
        HostKernel(machine).require(Kernel.parse(RELEASE))


def test_a_machine_without_linux_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="does not run Linux"):
        HostKernel(tmp_path).require(Kernel.parse(RELEASE))


def test_this_machine() -> None:
    assert HostKernel().release == platform.release()
