"""dtkpipe.yaml: what is read, what is refused and in which words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.resources import shipped
from dtkpipe.values.arch import AARCH64, X86_64
from dtkpipe.values.constraint import KernelConstraint
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.module import BuildSpec, Check, Module, ModuleSpec, Patch

WHOLE = """
apiVersion: dtkpipe/v1
name: simple-kmod
source: {repo: https://example.org/simple-kmod, ref: 1e5, path: .}
build: {recipe: kbuild, make: ["KVER=${KERNEL_VERSION}"], packages: [bc], args: {B: on, A: 08},
        patches: [{kernel: ">= 6.10", file: fix.patch}]}
modules:
  - {name: simple-kmod, parameters: [debug=1, "words=a b"], firmware: [vendor/fw.bin]}
inTreeModulesToRemove: [other-one]
checks: [{run: [grep, -q, simple, /proc/modules], timeout: 2m}]
unload: never
kernels: {min: 5.10, max: 6.1, variants: [std, rt]}
arches: [x86_64, arm64]
"""


def test_every_key_is_read_and_every_scalar_is_what_was_written():
    spec = ModuleSpec.from_text(WHOLE)

    assert spec.name == "simple-kmod"
    assert (spec.source.ref, spec.source.path) == ("1e5", "")
    assert spec.build == BuildSpec(
        recipe="kbuild", make=("KVER=${KERNEL_VERSION}",), packages=("bc",), args={"A": "08", "B": "on"},
        patches=(Patch(file="fix.patch", kernel=KernelConstraint(">=6.10")),),
    )  # fmt: skip
    assert spec.modules == (
        Module(name="simple_kmod", parameters=("debug=1", "words=a b"), firmware=("vendor/fw.bin",)),
    )
    assert spec.in_tree_modules_to_remove == ("other_one",)
    assert spec.checks == (Check(run=("grep", "-q", "simple", "/proc/modules"), timeout=120),)
    assert (spec.unload, spec.kernels.min, spec.kernels.max) == ("never", "5.10", "6.1")
    assert spec.arches == (X86_64, AARCH64)


def test_to_json_is_read_back_and_does_not_depend_on_the_order_of_keys():
    spec = ModuleSpec.from_text(WHOLE)
    assert ModuleSpec.from_text(spec.to_json()) == spec
    backwards = json.dumps(dict(reversed(json.loads(spec.to_json()).items())))
    assert ModuleSpec.from_text(backwards).to_json() == spec.to_json()


def test_short_forms_and_the_spelling_of_kmm():
    spec = ModuleSpec.from_text(
        "name: m\nmodules: [a-b, {moduleName: c}]\nchecks: [[test, -e, /dev/m]]\ninTreeModuleToRemove: old\n"
        "build: {dockerfile: Dockerfile, buildArgs: [{name: X, value: y}]}"
    )
    assert spec.names == ("a_b", "c")
    assert spec.checks[0].run == ("test", "-e", "/dev/m")
    assert spec.in_tree_modules_to_remove == ("old",)
    assert (spec.build.containerfile, spec.build.args) == ("Dockerfile", {"X": "y"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modules: [a]", "name: is required"),
        ("name: m\nmodulse: [a]", "modulse: unknown key"),
        ("name: m\nbuild: {recipy: make}", "build.recipy: unknown key"),
        ("name: m\nbuild: {recipe: kbild}", "build.recipe: `kbild` is not known"),
        ("name: m\nbuild: {containerfile: C, recipe: make}", "build.containerfile: says itself how to build"),
        ("name: m\nmodules: [a-b, a_b]", "modules: `a_b` is listed twice"),
        ("name: m\nmodules: [../a]", "modules[0].name: `../a` is not the name of a kernel module"),
        ("name: m\nmodules: [{name: a, firmware: [../../etc/shadow]}]", "modules[0].firmware[0]"),
        ("name: m\nmodules: [{name: a, parameters: [-r]}]", "modules[0].parameters[0]: `-r` is not a module parameter"),
        ("name: m\nmodules: a", "modules: expected a list"),
        ("name: m\nchecks: [{run: []}]", "checks[0].run: a check needs a command"),
        ("name: m\nchecks: [{run: [x], timeout: 11m}]", "checks[0].timeout: `11m` is out of range"),
        ("name: m\nkernels: {min: 6.1, max: 5.10}", "kernels: no kernel is both 6.1 or newer and 5.10 or older"),
        ("name: m\nkernels: {min: newest}", "kernels.min: `newest` is not a kernel version"),
        ("name: m\nbuild: {patches: [{kernel: about six, file: a}]}", "build.patches[0].kernel: `about six`"),
        ("name: m\nbuild: {patches: [{file: /etc/passwd}]}", "build.patches[0].file: `/etc/passwd` is not a path"),
        ("name: m\nbuild: {packages: [--allow-everything]}", "build.packages[0]"),
        ('name: m\nbuild: {make: ["a\\nb"]}', "build.make[0]: control characters"),
        ("name: m\narches: [sparc]", "arches[0]: unknown architecture `sparc`"),
        ("name: m\nname: n", "`name` is given twice"),
        ("apiVersion: dtkpipe/v2\nname: m", "apiVersion: `dtkpipe/v2`"),
        ("name: m\nbuild: {args: {A=B: c}}", "build.args: `A=B` is not a name of a variable"),
        ("name: m\nexclusions: [{kernel: '>=6', until: 2027-01-01}]", "exclusions[0].reason: is required"),
        ("name: m\nexclusions: [{kernel: '>=6', reason: r}]", "exclusions[0].until: is required"),
        ("name: m\nexclusions: [{reason: r, until: 2027-02-30}]", "exclusions[0].until: `2027-02-30` is not a day"),
        ("name: m\nexclusions: [{reason: r, until: tomorrow}]", "expected YYYY-MM-DD"),
        (
            "name: m\narches: [x86_64]\nexclusions: [{arches: [aarch64], reason: r, until: 2027-01-01}]",
            "exclusions[0].arches: the module is not for aarch64 anyway",
        ),
        ("- a", "expected keys and values here"),
        ("name: [", "dtkpipe.yaml:1 is not YAML"),
        ("a: &a [*a]", "contains itself"),
        ("name: 'm\x00'", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("name: m # " + "x" * 300_000, "is larger than"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(text: str, said: str):
    with pytest.raises(InvalidError) as error:
        ModuleSpec.from_text(text)
    assert said in str(error.value)
    assert error.value.what.startswith("dtkpipe.yaml")


def test_a_mistyped_key_gets_its_nearest_neighbour():
    with pytest.raises(InvalidError) as error:
        ModuleSpec.from_text("name: m\ninTreeModulesToRemoved: [a]", where="--spec")
    assert error.value.hint == "did you mean `inTreeModulesToRemove`?"
    assert error.value.what.startswith("--spec: ")


_TEXT = st.text(max_size=20)
_JSON = st.recursive(_TEXT | st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3)
                     | st.dictionaries(_TEXT, inner, max_size=3), max_leaves=10)  # fmt: skip
_KEYS = st.sampled_from(["apiVersion", "name", "source", "build", "modules", "checks", "unload", "kernels", "arches",
                         "inTreeModulesToRemove", "exclusions"])  # fmt: skip


@given(st.dictionaries(_KEYS, _JSON))
def test_no_document_gives_anything_but_a_spec_or_a_clear_error(document: dict[str, object]):
    for data in (document, {"name": "m", **document}):
        try:
            spec = ModuleSpec.parse(data)
        except InvalidError:
            continue
        assert ModuleSpec.from_text(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("constraint", "kernel", "holds"),
    [
        ("", "6.1.0-56-amd64", True),
        (">=6.10", "6.9.1", False),
        (">=6.10", "6.10.0-rc1", True),
        ("<=6.1", "6.1.90", True),
        ("<6.1", "6.1.90", False),
        (">5.14", "5.14.0-427.el9.x86_64", False),
        ("==5.14.0-427", "5.14.0-427.13.1.el9_4.x86_64", True),
        (">=5.14.0-430", "5.14.0-427.13.1.el9_4.x86_64", False),
        (">=5.14, <6.2", "6.1.0-56-amd64", True),
        (">=5.14 <6.1", "6.1.0-56-amd64", False),
        ("6.1", "6.1.0-56-amd64", True),
    ],
)
def test_constraints_compare_as_many_numbers_as_they_name(constraint: str, kernel: str, holds: bool):
    assert KernelConstraint.parse(constraint).holds(Kernel(kernel)) is holds


def test_the_kernels_a_module_is_for():
    kernels = ModuleSpec.from_text("name: m\nkernels: {min: 5.14, max: 6.1, variants: [std, rt]}").kernels
    assert kernels.refuses(Kernel("6.1.0-56-amd64")) == ""
    assert kernels.refuses(Kernel("5.10.0-8-amd64")) == "needs kernel 5.14 or newer"
    assert kernels.refuses(Kernel("6.12.9-amd64")) == "is for kernels up to 6.1"
    assert kernels.refuses(Kernel("6.1.0-56-cloud-amd64")) == "is for the kernel flavours std, rt, not cloud"


def test_an_exclusion_covers_what_it_names_and_all_of_what_it_does_not():
    text = (
        "name: m\nexclusions: [{kernel: '>=6.1', variants: [rt, cloud], reason: r, until: 2027-01-01}, {arches: [arm64]"
    )
    spec = ModuleSpec.from_text(text + ", reason: s, until: 2028-01-01}]")
    first, second = spec.exclusions
    assert first.covers(Kernel("6.1.0-56-cloud-amd64"), X86_64)
    assert not first.covers(Kernel("6.1.0-56-amd64"), X86_64)
    assert not first.covers(Kernel("5.10.0-8-rt-amd64"), X86_64)
    assert second.covers(Kernel("6.1.0-56-arm64"), AARCH64)
    assert not second.covers(Kernel("6.1.0-56-amd64"), X86_64)
    assert ModuleSpec.from_text(spec.to_json()) == spec


@pytest.mark.parametrize(
    "path", sorted(shipped("catalog/modules").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_the_catalogue_is_valid_and_names_its_sources(path):
    spec = ModuleSpec.from_text(path.read_text(), where=path.name)
    assert spec.name == path.stem
    assert spec.source.repo.startswith("https://" if spec.source.ref else "apt:")
    assert spec.modules
