"""What a folder is recognised as, without running anything in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.source import containerfile, dkms, hazards, kbuild
from dtkpipe.source.recognise import recognise

SOURCES = Path(__file__).parents[1] / "fixtures" / "sources"


def write(folder: Path, **files: str) -> Path:
    """Write files; `__` in a name is `/`, `_` is `.`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


KMM = "ARG DTK_AUTO\nFROM ${DTK_AUTO}\nARG KERNEL_VERSION\n"


def test_order_decides_and_is_said(tmp_path: Path):
    folder = write(tmp_path, Makefile="obj-m := m.o\n")
    assert recognise(folder, "x").spec.build.recipe == "kbuild"

    write(folder, dkms_conf='PACKAGE_NAME="m"\nPACKAGE_VERSION=1\nBUILT_MODULE_NAME[0]="m"\n')
    found = recognise(folder, "x")
    assert (found.spec.build.recipe, found.how, found.notes) == ("dkms", "dkms.conf", ())

    write(folder, Containerfile=KMM)
    found = recognise(folder, "x")
    assert found.spec.build.containerfile == "Containerfile"
    assert found.notes == ("Containerfile says how to build; dkms.conf is there too, and is not used",)

    write(folder, dtkpipe_yaml="name: own\nbuild: {recipe: dkms}\nmodules: [m]\n")
    found = recognise(folder, "x")
    assert (found.spec.name, found.spec.build.recipe, found.listed) == ("own", "dkms", True)

    assert recognise(folder, "x", "name: given\nbuild: {recipe: kbuild}").spec.name == "given"


def test_a_given_spec_that_only_points_at_the_source_leaves_the_rest_to_the_sources_own(tmp_path: Path):
    folder = write(
        tmp_path, Makefile="obj-m := m.o\n", dtkpipe_yaml="name: own\nmodules: [m]\nkernels: {min: '5.10'}\n"
    )
    pointer = "name: given\nsource: {repo: example.org/m}\narches: [x86_64]\n"
    found = recognise(folder, "x", pointer)
    assert (found.spec.name, found.spec.names, found.listed) == ("given", ("m",), True)
    assert (found.spec.source.repo, found.spec.kernels.min) == ("example.org/m", "5.10")
    assert recognise(folder, "x", pointer + "kernels: {min: '6.1'}").spec.kernels.min == "6.1"
    assert recognise(folder, "x", pointer + "unload: never").spec.modules == ()
    (folder / "dtkpipe.yaml").unlink()
    assert recognise(folder, "x", pointer).spec.name == "given"


def test_a_containerfile_that_knows_nothing_of_kernels_is_not_the_modules_recipe(tmp_path: Path):
    folder = write(tmp_path, Dockerfile="FROM python:3\nRUN pip install docs\n", Makefile="obj-m := m.o\n")
    assert recognise(folder, "x").how == "Makefile"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("build: {recipe: dkms}", "there is no dkms.conf"),
        ("build: {containerfile: Dockerfile}", "there is no such file"),
        ("build: {make: [A=1]}", "says how to compile, and Containerfile says it too"),
    ],
)
def test_a_dtkpipe_yaml_that_asks_for_what_is_not_there(tmp_path: Path, spec: str, said: str):
    folder = write(tmp_path, Containerfile=KMM, Makefile="obj-m := m.o\n", dtkpipe_yaml=f"name: m\n{spec}\n")
    with pytest.raises(InvalidError, match=said):
        recognise(folder, "x")


def test_what_is_no_module_says_what_was_looked_for_and_found(tmp_path: Path):
    write(tmp_path, README_md="hi", Makefile="all:\n\techo hi\n", driver__Makefile="obj-m := m.o\n")
    with pytest.raises(InvalidError) as error:
        recognise(tmp_path, "thing")
    assert error.value.exit_code == 6
    assert error.value.what == "`thing` is not the source of a kernel module"
    assert "dtkpipe.yaml, Containerfile or Dockerfile" in error.value.details[0]
    assert error.value.details[1] == "found: Makefile, README.md, driver"
    assert error.value.hint == "`--path driver` looks like one"


def test_a_spec_that_leaves_the_recipe_open_gets_the_one_that_is_there(tmp_path: Path):
    folder = write(tmp_path, Makefile="obj-m := m.o\n", dtkpipe_yaml="name: m\nbuild: {make: [W=1]}\n")
    build = recognise(folder, "x").spec.build
    assert (build.recipe, build.make) == ("kbuild", ("W=1",))


MAKEFILE = """\
KDIR ?= /lib/modules/$(shell uname -r)/build
NAME = other
obj-m := first.o # a comment
obj-m += sub/ \\
\t$(NAME).o
obj-$(CONFIG_MAYBE) += maybe.o
first-objs := a.o b.o

tools:
\tgcc -o tool tool.c
all: modules tools
modules:
\t$(MAKE) -C $(KDIR) M=$(CURDIR) modules
clean:
\t$(MAKE) -C $(KDIR) M=$(CURDIR) clean
"""


def test_a_makefile_is_read_with_its_conditions_taken_as_true(tmp_path: Path):
    folder = write(tmp_path, Makefile=MAKEFILE, sub__Kbuild="obj-m += inner.o\n")
    makefile = kbuild.find(folder)
    assert makefile is not None
    assert makefile.objects == ("first.o", "sub/", "other.o", "maybe.o")
    assert makefile.goal == "modules", "the first rule, `tools`, does not lead to the kernel's build"
    assert kbuild.modules(folder) == ("first", "sub/inner", "other", "maybe")
    assert makefile.kernel_arguments("6.1.0") == [], "KDIR follows from uname, which the build answers"


def test_the_default_goal_is_left_to_make_where_it_builds_the_modules(tmp_path: Path):
    write(tmp_path, Makefile="obj-m := m.o\nall: modules\nmodules:\n\tmake -C $(KERNELDIR) SUBDIRS=$(PWD) modules\n")
    makefile = kbuild.find(tmp_path)
    assert makefile is not None
    assert makefile.goal == ""
    assert makefile.kernel_arguments("6.1.0") == ["KERNELDIR=/lib/modules/6.1.0/build"]


def test_modules_that_only_make_knows_are_not_guessed(tmp_path: Path):
    write(tmp_path, Makefile="obj-m := $(patsubst %.c,%.o,$(wildcard *.c))\n")
    assert kbuild.modules(tmp_path) is None
    found = recognise(tmp_path, "x")
    assert (found.spec.build.recipe, found.spec.modules) == ("kbuild", ())


def test_a_simple_kmod_is_built_by_its_own_rule():
    makefile = kbuild.find(SOURCES / "simple-kmod")
    assert makefile is not None
    assert makefile.goal == "all", "the first rule installs packages with sudo"
    assert recognise(SOURCES / "simple-kmod", "x").how == "Dockerfile"


def test_dkms_conf_is_read_as_data(tmp_path: Path):
    marker = tmp_path / "was-run"
    conf = write(tmp_path, dkms_conf=f"""\
# comment with "quotes' in it
PACKAGE_NAME=$(touch {marker}; echo m)
PACKAGE_NAME='several'; PACKAGE_VERSION="1.${{undefined:-0}}"
touch {marker}
. ./more.sh
`touch {marker}`
BUILT_MODULE_NAME[0]="$PACKAGE_NAME"  # trailing
BUILT_MODULE_NAME[1]=sec\\
ond
BUILT_MODULE_LOCATION[1]="drivers/x/"
DEST_MODULE_NAME[1]="renamed"
MAKE[0]="make -C ${{kernel_source_dir}} \\
  VERSION=\\"$PACKAGE_VERSION\\" M=$dkms_tree/x modules"
if [ -f /etc/passwd ]; then
  BUILD_EXCLUSIVE_KERNEL="never"
fi
""")  # fmt: skip
    read = dkms.read(conf / "dkms.conf")
    assert not marker.exists()
    assert (read.name, read.version) == ("several", "1.0")
    assert read.modules == (
        dkms.DkmsModule(built="several", location="", installed="several"),
        dkms.DkmsModule(built="second", location="drivers/x", installed="renamed"),
    )
    assert read.values["MAKE[0]"].text == 'make -C ${kernel_source_dir}   VERSION="1.0" M=${dkms_tree}/x modules'
    assert read.values["BUILD_EXCLUSIVE_KERNEL[0]"].text is None
    assert "line 15: the value of `BUILD_EXCLUSIVE_KERNEL` depends on where it runs" in read.open_points
    assert "line 4: the command `touch` is not run" in read.open_points


def test_modules_of_a_dkms_conf_that_counts_them_by_command_are_left_open(tmp_path: Path):
    write(tmp_path, dkms_conf="PACKAGE_NAME=m\ni=$((1+1))\nBUILT_MODULE_NAME[$i]=a\n")
    assert dkms.read(tmp_path / "dkms.conf").modules is None
    assert recognise(tmp_path, "x").spec.modules == ()


def test_a_dkms_conf_of_one_module_may_leave_its_name_out(tmp_path: Path):
    write(tmp_path, dkms_conf="PACKAGE_NAME=my-module\nPACKAGE_VERSION=1\n")
    assert recognise(tmp_path, "x").spec.names == ("my_module",)


def test_a_containerfile_is_read_through_all_its_stages():
    parsed = containerfile.parse((SOURCES / "multi-stage" / "Containerfile").read_text())
    assert [stage.name for stage in parsed.stages] == ["builder", "1"]
    assert set(parsed.declared) == {"DTK_AUTO", "BASE", "KERNEL_VERSION", "KERNEL_FULL_VERSION", "MOD_NAME"}
    assert parsed.final_base({"BASE": "quay.io/x/y:1"}) == "quay.io/x/y:1"
    assert parsed.bases({"DTK_AUTO": "q.io/dtk@sha256:1", "BASE": "q.io/b"}) == ["q.io/dtk@sha256:1", "q.io/b"]

    chained = containerfile.parse("ARG DTK_AUTO=x\nFROM $DTK_AUTO as a\nFROM a AS b\nFROM ${NONE:-b}\n")
    assert chained.final_base({"DTK_AUTO": "toolkit"}) == "toolkit"


def test_comments_and_continued_lines_in_a_containerfile():
    parsed = containerfile.parse("# FROM no\nFROM --platform=linux/amd64 a \\\n  # inside\n  AS b\nRUN x && \\\n y\n")
    assert parsed.stages[0].name == "b"
    assert [(one.line, one.word, one.rest) for one in parsed.instructions][1] == (5, "RUN", "x && y")


def test_makefiles_that_lead_in_circles_or_out_of_the_source(tmp_path: Path):
    (tmp_path / "loop").symlink_to(".")
    for text in (
        "obj-m := ./\n",
        "obj-m := loop/\n",
        "obj-m := ../\n",
        "obj-m := /etc/\n",
        "A = $(A)\nobj-m := $(A)\n",
    ):
        write(tmp_path, Makefile=text)
        assert kbuild.modules(tmp_path) is None


def test_values_that_grow_without_end_are_not_followed(tmp_path: Path):
    doubling = "".join(f"V{n + 1} = $(V{n})$(V{n})\n" for n in range(60))
    write(tmp_path, Makefile=f"V0 = {'x' * 1000}\n{doubling}obj-m := $(V60)\n")
    assert kbuild.modules(tmp_path) is None


def test_a_recipe_of_a_gigabyte_is_refused(tmp_path: Path):
    with (tmp_path / "dkms.conf").open("wb") as file:
        file.truncate(1024**3)
    with pytest.raises(InvalidError, match=r"dkms.conf is larger than 1024 KiB"):
        recognise(tmp_path, "x")


_SHELL = st.text(alphabet="ab=$(){}[]\"'`\\ \n#;&|:0.*+/-", max_size=200)


@given(_SHELL)
def test_no_text_breaks_the_readers(text: str):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("dkms.conf", "Makefile", "Containerfile"):
            (folder / file).write_text(f"PACKAGE_NAME=x\n{text}")
        dkms.read(folder / "dkms.conf")
        kbuild.modules(folder)
        containerfile.parse(text).final_base({})
        found = recognise(folder, "x")
        assert hazards.find(folder, found) is not None
