"""Hazards: each rule finds what it is for, and leaves alone what is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtkpipe.cli.main import main
from dtkpipe.source import hazards
from dtkpipe.source.recognise import recognise
from dtkpipe.values.module import ModuleSpec

SOURCES = Path(__file__).parents[1] / "fixtures" / "sources"
CLEAN_C = '#include <linux/module.h>\nMODULE_LICENSE("GPL");\n'


def found_in(folder: Path, spec: str = "name: m\nbuild: {recipe: kbuild}") -> list[tuple[str, int, str]]:
    return [(one.file, one.line, one.rule) for one in hazards.find(folder, recognise(folder, "m", spec))]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text("obj-m := m.o\n")
    (tmp_path / "m.c").write_text(CLEAN_C)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "line", "rule"),
    [
        ("Makefile", "obj-m := m.o\nKVER := $(shell uname -r)\n", 2, "builders-kernel"),
        ("Makefile", "obj-m := m.o\nKDIR = /lib/modules/$(shell uname -mr)/build\n", 2, "builders-kernel"),
        ("configure", "#!/bin/sh\nkernel=`uname -r`\n", 2, "builders-kernel"),
        ("dkms.conf", 'PACKAGE_NAME=m\nMAKE[0]="make KVER=`uname -r`"\n', 2, "builders-kernel"),
        ("Dockerfile", "FROM scratch\nRUN make \\\n  KVER=$(uname -r)\n", 2, "builders-kernel"),
        ("Makefile", "obj-m := m.o\nKDIR := /usr/src/linux\n", 2, "fixed-kernel"),
        ("build.sh", "make -C /lib/modules/5.14.0-427.el9.x86_64/build\n", 1, "fixed-kernel"),
        ("Makefile", "obj-m := m.o\ninstall:\n\tsudo cp m.ko /lib\n", 3, "sudo"),
        ("Containerfile", "FROM scratch\nRUN make && sudo make install\n", 2, "sudo"),
        ("Containerfile", "FROM scratch\nRUN git clone https://host/x && make -C x\n", 2, "unpinned-clone"),
        ("Containerfile", "FROM quay.io/org/base:latest\n", 1, "unpinned-base"),
        ("Containerfile", "FROM scratch\nRUN dnf install gcc\n", 2, "asks-questions"),
        ("Containerfile", "FROM scratch\nRUN microdnf --nodocs install kmod && true\n", 2, "asks-questions"),
        ("Containerfile", "FROM scratch\nRUN modprobe m\n", 2, "loads-in-build"),
        ("Containerfile", "FROM scratch\nRUN depmod -b /opt\n", 2, "depmod-without-kernel"),
        ("Containerfile", "FROM scratch\nRUN depmod\n", 2, "depmod-without-kernel"),
        ("Containerfile", "ARG KERNEL_VERSION\nFROM scratch\nRUN make K=${KERNEL_VERSION}\n", 3, "undeclared-argument"),
        ("m.c", "#include <linux/module.h>\n", 1, "license-missing"),
        ("m.c", 'MODULE_LICENSE("Proprietary");\n', 1, "license-proprietary"),
    ],
)
def test_a_hazard_is_found_with_its_line(module: Path, file: str, text: str, line: int, rule: str):
    (module / file).write_text(text)
    assert found_in(module) == [(file, line, rule)]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("Makefile", "obj-m := m.o\n# KVER := $(shell uname -r)\nARCH := $(shell uname -m)\n"),
        ("Makefile", "obj-m := m.o\nm-objs := a.o\n"),
        ("Containerfile", "FROM quay.io/org/base@sha256:" + "0" * 64 + " AS b\nFROM b\nRUN microdnf install -y kmod\n"),
        ("Containerfile", "ARG DTK_AUTO\nFROM ${DTK_AUTO}\nARG KERNEL_VERSION\nRUN depmod -b /opt ${KERNEL_VERSION}\n"),
        ("Containerfile", "FROM scratch\nRUN git clone https://h/x && git -C x checkout 0123abc && yum -y install a\n"),
        ("Containerfile", "FROM scratch\n# RUN sudo modprobe x\nCOPY depmod sudo /\n"),
        ("NOTES.txt", "uname -r\nsudo make install\n"),
    ],
)
def test_what_is_right_is_left_alone(module: Path, file: str, text: str):
    (module / file).write_text(text)
    assert found_in(module) == []


def test_a_spec_is_compared_with_the_files_it_speaks_of(module: Path):
    (module / "dtkpipe.yaml").write_text("name: m\nbuild: {recipe: kbuild}\nmodules:\n- m\n- no-such\n")
    assert found_in(module, "") == [("dtkpipe.yaml", 5, "module-not-declared")]

    (module / "Containerfile").write_text("ARG DTK_AUTO\nFROM ${DTK_AUTO}\n")
    (module / "dtkpipe.yaml").write_text("name: m\nbuild:\n  containerfile: Containerfile\n  args: {KMODVER: v1}\n")
    assert found_in(module, "") == [("dtkpipe.yaml", 4, "undeclared-argument")]


def test_the_sample_of_the_driver_toolkits_readme_has_all_its_known_traps():
    rules = {rule for _, _, rule in found_in(SOURCES / "simple-kmod")}
    assert rules == {"builders-kernel", "sudo", "unpinned-clone", "asks-questions", "depmod-without-kernel",
                     "unpinned-base"}  # fmt: skip


def test_lint_prints_places_and_fixes_and_exits_with_1(module: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["lint", str(module)]) == 0
    assert capsys.readouterr() == ("", f"source: folder {module}\nrecipe: from Makefile\nno problems found\n")

    (module / "Makefile").write_text("obj-m := m.o\nKVER := $(shell uname -r)\n")
    assert main(["lint", str(module)]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("Makefile:2: warning: `uname -r` is the kernel of the machine that builds")
    assert "[builders-kernel]\n    fix: " in told.out
    assert told.err.endswith("1 warning\n")

    assert main(["lint", str(module), "-o", "json"]) == 1
    finding = json.loads(capsys.readouterr().out)[0]
    assert (finding["file"], finding["line"], finding["rule"]) == ("Makefile", 2, "builders-kernel")
    assert finding["fix"]


def test_lint_of_what_is_no_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["lint", str(tmp_path)]) == 6
    assert "is not the source of a kernel module" in capsys.readouterr().err
    assert main(["lint", str(tmp_path / "none")]) == 5
    assert main(["lint", str(tmp_path), "--spec", str(tmp_path / "none.yaml")]) == 5


def test_lint_checks_pipelines_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["lint", "--pipeline", "prebuild"]) == 0
    assert "no problems found" in capsys.readouterr().err
    (tmp_path / "mine.py").write_text("this is not python")
    assert main(["lint", "--pipeline", str(tmp_path / "mine.py")]) == 6


def test_init_writes_what_it_inferred_and_reads_it_back(module: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", str(module)]) == 0
    written = module / "dtkpipe.yaml"
    told = capsys.readouterr()
    assert told.out == f"{written}\n"
    assert told.err.startswith("next: dtkpipe submit")
    spec = ModuleSpec.from_text(written.read_text())
    assert (spec.name, spec.build.recipe, spec.names) == ("m", "kbuild", ("m",))
    assert recognise(module, "x").spec == spec

    written.write_text("name: mine\n")
    assert main(["init", str(module)]) == 6
    assert "--force" in capsys.readouterr().err
    assert written.read_text() == "name: mine\n"
    assert main(["init", str(module), "--force"]) == 0
    assert ModuleSpec.from_text(written.read_text()) == spec


def test_init_says_what_only_the_build_can_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "dkms.conf").write_text("PACKAGE_NAME=m\nBUILT_MODULE_NAME[0]=$(pick)\n")
    assert main(["init", str(tmp_path)]) == 0
    assert "dkms.conf line 2: the value of `BUILT_MODULE_NAME` depends on where it runs" in capsys.readouterr().err
    text = (tmp_path / "dtkpipe.yaml").read_text()
    assert "# `modules` is left out: whatever the build gives" in text
    assert main(["init", "github.com/org/kmod"]) == 5
