"""The proofs that need no boot: pure functions over what was read. Each returns what it found, refused or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtkpipe.proof.image import Found, ImageModules
from dtkpipe.proof.kernel import Export, KernelFiles
from dtkpipe.proof.module import KernelModule
from dtkpipe.proof.verdict import Refusal
from dtkpipe.values.module import ModuleSpec

_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one proof found: a line for people, facts for machines, and the refusal if it failed."""

    summary: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None


def refuse(code: str, reason: str, details: Iterable[str] = (), **facts: Any) -> Outcome:
    """Return a failed outcome. Long lists of details are cut."""
    lines = list(details)
    more = [f"... and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return Outcome(
        summary=reason, facts=facts, refusal=Refusal(code=code, reason=reason, details=(*lines[:_LISTED], *more))
    )


def check_vermagic(image: ImageModules, kernel: KernelFiles) -> Outcome:
    """Every module is compiled for exactly the target kernel, as the kernel's own modules are."""
    target = kernel.vermagic
    if not image.ours:
        # Built for the kernel of the build machine, they land in that kernel's folder: `uname -r` in a Makefile.
        strangers = [found for found in image.elsewhere if found.module and found.module.vermagic != target]
        if strangers:
            return refuse(
                "vermagic-mismatch",
                f"no module is for kernel {kernel.kernel}, but {_count(strangers)} for other kernels",
                (_built_for(found.path, found.module, target) for found in strangers if found.module),
                target=target,
            )
    wrong = [module for module in image.modules if module.vermagic != target]
    if wrong:
        first = wrong[0]
        return refuse(
            "vermagic-mismatch",
            f"{first.name} was compiled for {_difference(first.vermagic, target)}",
            (_built_for(module.file, module, target) for module in wrong),
            target=target,
        )
    return Outcome(summary=f"every module is for {target.split()[0]}", facts={"vermagic": target})


def _built_for(path: str, module: KernelModule, target: str) -> str:
    return f"{path}: `{module.vermagic}` ({module.machine.removeprefix('EM_').lower()}), the target is `{target}`"


def _difference(found: str, target: str) -> str:
    mine, theirs = found.split(), target.split()
    if not mine:
        return "no kernel at all: it has no vermagic"
    if mine[0] != theirs[0]:
        return f"kernel {mine[0]}, not {theirs[0]}"
    more = [f"with `{word}`" for word in mine if word not in theirs]
    less = [f"without `{word}`" for word in theirs if word not in mine]
    return f"another configuration of kernel {theirs[0]}: {', '.join(more + less) or 'in another order'}"


def check_files(image: ImageModules, kernel: KernelFiles, spec: ModuleSpec) -> Outcome:
    """Every listed module is there, none that is not listed, each once, all for the right machine."""
    place = f"lib/modules/{kernel.kernel}"
    there = {found.name for found in image.ours if found.module}
    facts: dict[str, Any] = {"modules": {found.path: found.name for found in image.ours}}
    if image.elsewhere:
        facts["elsewhere"] = [found.path for found in image.elsewhere]
    expected = spec.names or tuple(sorted(there))
    missing = [name for name in expected if name not in there]
    if missing or not there:
        no_modules = [f"{found.path}: {found.problem}" for found in image.ours if found.problem]
        other = [f"{found.path}: not below {place}" for found in image.elsewhere]
        what = ", ".join(missing) or "every module"
        return refuse(
            "module-missing",
            f"{what} is missing" if len(missing) < 2 else f"{what} are missing",
            [f"looked below: {place}; found: {', '.join(sorted(there)) or 'none'}", *no_modules, *other],
            **facts,
        )
    if broken := [found for found in image.ours if found.problem]:
        return refuse(
            "module-unexpected", f"{broken[0].path} is not a kernel module",
            (f"{found.path}: {found.problem}" for found in broken), **facts,
        )  # fmt: skip
    if extra := [found for found in image.ours if found.name not in expected]:
        return refuse(
            "module-unexpected", f"{extra[0].name} is in the image, but not in the spec",
            (f"{found.path}: {found.name}" for found in extra), **facts,
        )  # fmt: skip
    names = [module.name for module in image.modules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return refuse(
            "module-unexpected", f"{twice[0]} is in the image twice, with different content",
            (found.path for found in image.ours if found.name in twice), **facts,
        )  # fmt: skip
    machine = kernel.arch.elf_machine
    if foreign := [module for module in image.modules if module.machine != machine]:
        return refuse(
            "wrong-architecture", f"{foreign[0].name} was compiled for {foreign[0].machine}, not {machine}",
            (f"{module.file}: {module.machine}" for module in foreign), **facts,
        )  # fmt: skip
    note = "" if image.has_index else "; no modules.dep: modprobe will not find them, run depmod in the image"
    return Outcome(summary=f"{_count(image.modules)}: {', '.join(names)}{note}", facts=facts)


def check_symbols(modules: Sequence[KernelModule], kernel: KernelFiles) -> Outcome:
    """Every symbol that a module needs is there for it, in the version it was compiled against."""
    ours = {name: (module, crc) for module in modules for name, crc in module.exports.items()}
    versions = "modversions" in kernel.vermagic.split()
    missing, changed, notes = list[str](), list[str](), list[str]()
    for module in modules:
        if versions and module.imports.keys() - module.weak and all(crc is None for crc in module.imports.values()):
            changed.append(f"{module.name} holds no symbol CRCs, and the kernel wants them")
        for name, crc in module.imports.items():
            export = kernel.exports.get(name)
            if name not in ours and export is None:
                if name not in module.weak and name != "module_layout":
                    missing.append(f"{module.name} needs `{name}`, which nobody exports")
                continue
            if reason := _forbidden(module, name, export) if name not in ours else "":
                missing.append(reason)
            given = (ours[name][1] if name in ours else None, export.crc if export else None)
            known = [one for one in given if one is not None]
            if versions and crc is not None and known and crc not in known:
                by = ours[name][0].name if name in ours else f"the kernel ({export.module})" if export else ""
                changed.append(f"{module.name} needs `{name}` {crc:#010x}, {by} has {known[0]:#010x}")
            if export and export.namespace and export.namespace not in module.namespaces:
                notes.append(f"{module.name} does not import the namespace {export.namespace} of `{name}`")
    needed = sum(len(module.imports) for module in modules)
    facts: dict[str, Any] = {"symbols": needed, "versions": versions} | ({"notes": notes[:_LISTED]} if notes else {})
    if missing:
        return refuse("symbol-missing", missing[0], missing, **facts)
    if changed:
        return refuse("symbol-crc-mismatch", changed[0], changed, **facts)
    how = "every CRC as in Module.symvers" if versions else "the kernel keeps no versions"
    return Outcome(summary=f"{needed} symbols, {how}", facts=facts)


def _forbidden(module: KernelModule, name: str, export: Export | None) -> str:
    if export and export.gpl and not module.gpl:
        return f"{module.name} may not use `{name}`: it is for GPL modules, and the licence is `{module.license}`"
    return ""


def check_signatures(
    modules: Sequence[KernelModule], signer: str, is_signers: Callable[[KernelModule], bool]
) -> Outcome:
    """With a `signer`, every module is signed by it; without, none is signed. `is_signers` checks the cryptography."""
    signed = [module for module in modules if module.signature]
    if not signer:
        if signed:
            return refuse(
                "wrong-signer", f"{signed[0].name} is signed, but no signer is expected",
                (f"{module.file}: {len(module.signature)} bytes of signature" for module in signed),
            )  # fmt: skip
        return Outcome(summary="unsigned: nobody signed these modules", facts={"signer": "unsigned"})
    if bare := [module for module in modules if not module.signature]:
        return refuse(
            "unsigned", f"{bare[0].name} is not signed", (module.file for module in bare), signer=signer
        )  # fmt: skip
    if foreign := [module for module in modules if not is_signers(module)]:
        return refuse(
            "wrong-signer", f"the signature of {foreign[0].name} is not by {signer}",
            (f"{module.file}: signed by another key, or changed after it was signed" for module in foreign),
            signer=signer,
        )  # fmt: skip
    return Outcome(summary=f"signed by {signer}", facts={"signer": signer})


def _count(things: Sequence[Found | KernelModule]) -> str:
    return f"{len(things)} module" + ("s" if len(things) != 1 else "")
