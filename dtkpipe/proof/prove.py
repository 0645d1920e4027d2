"""The five proofs in their order, until one fails: from an image and a kernel to a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtkpipe.clients.image import read_image
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import UnsupportedError
from dtkpipe.proof import static
from dtkpipe.proof.boot import Boot, boot
from dtkpipe.proof.image import ImageModules, read_modules, spec_of
from dtkpipe.proof.judge import judge
from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.klog import errors, parse
from dtkpipe.proof.module import KernelModule
from dtkpipe.proof.plan import CHECK, CONTROL, Plan, loading_order, make_plan
from dtkpipe.proof.signature import join
from dtkpipe.proof.static import Outcome
from dtkpipe.proof.verdict import Proof, Verdict, plain
from dtkpipe.tools import openssl, secureboot
from dtkpipe.tools.busybox import static_busybox
from dtkpipe.tools.qemu import Firmware
from dtkpipe.tools.x509 import Certificate
from dtkpipe.values.image import ImageRef
from dtkpipe.values.module import ModuleSpec

_BOOTS = 4
"""Boots at most: each after the first has what the kernel asked for in the one before."""
_IMAGE_LIMIT = 64 << 20
"""Bytes of an image that is put into the guest as a whole, for its check commands."""


@dataclass(frozen=True, kw_only=True)
class Prover:
    """What the proofs need besides the image. `time_limit` is in seconds, for one boot."""

    registry: Registry
    kernel: KernelFiles
    certificate: Certificate | None
    """The expected signer's; None when signing is off."""
    time_limit: int
    work: Path
    cache: Path
    say: Callable[[str], None]
    keep: Path
    """Folder for the evidence files: console.log, kernel.log."""

    def prove(self, image: ImageRef, spec_text: str) -> Verdict:
        """Run the proofs. Raises what reading the image, and starting programs, may raise; never for a bad module."""
        found = read_modules(self.registry, image, self.kernel, self.work / "image")
        spec = spec_of(found, spec_text)
        proofs: list[Proof] = []
        checks: tuple[tuple[str, Callable[[], Outcome]], ...] = (
            ("vermagic", lambda: static.check_vermagic(found, self.kernel)),
            ("files", lambda: static.check_files(found, self.kernel, spec)),
            ("symbols", lambda: static.check_symbols(found.modules, self.kernel)),
            ("signatures", lambda: self._signatures(found)),
            ("boot", lambda: self._boot(found, spec)),
        )
        for name, check in checks:
            started = time.monotonic()
            outcome = check()
            proofs.append(
                Proof(
                    name=name, seconds=time.monotonic() - started, summary=plain(outcome.summary), facts=outcome.facts,
                    refusal=outcome.refusal.plain() if outcome.refusal else None,
                )
            )  # fmt: skip
            self.say(line_of(proofs[-1]))
            if outcome.refusal:
                break
        return Verdict(
            image=str(image), kernel=self.kernel.kernel.release, arch=self.kernel.arch.name, proofs=tuple(proofs)
        )

    def _signatures(self, found: ImageModules) -> Outcome:
        certificate, work = self.certificate, self.work
        if certificate is None:
            return static.check_signatures(found.modules, "", lambda _: False)
        return static.check_signatures(
            found.modules,
            certificate.signer,
            lambda module: openssl.signed_by(module.content, module.signature, certificate, work),
        )

    def _boot(self, found: ImageModules, spec: ModuleSpec) -> Outcome:
        modules = {module.name: module for module in found.modules}
        signed = {
            name: join(module.content, module.signature) if module.signature else module.content
            for name, module in modules.items()
        }
        first = loading_order(found.modules, spec.names)[0]
        controls = self._controls(first)
        wished = {*spec.firmware, *(name for module in found.modules for name in module.firmware)}
        image, notes = self._check_files(found, spec)
        asked: tuple[str, ...] = ()
        for _ in range(_BOOTS):
            plan = make_plan(found.modules, signed, controls, self.kernel, spec, asked)
            done = boot(
                plan,
                self.kernel,
                self.work,
                busybox=static_busybox(self.kernel.arch, self.cache),
                time_limit=self.time_limit,
                firmware=self._firmware(),
                enforce=self.certificate is not None,
                firmware_files={name: file for name, file in found.firmware.items() if name in wished},
                image=image,
            )
            refusal = judge(done, plan, modules)
            more = [name for name in done.report.wanted if name not in asked and self.kernel.found_by(name)]
            if not (refusal and more):
                break
            # On a node modprobe would have found these: give the modules a second chance, with them.
            asked = (*asked, *more)
            self.say(f"the kernel asked for {', '.join(more)}: booting again with it")
        self.keep.mkdir(parents=True, exist_ok=True)
        (self.keep / "console.log").write_text(done.console)
        (self.keep / "kernel.log").write_text(done.report.log)
        facts = _facts(done, plan, [*plan.notes, *notes, *_unknown_parameters(modules, spec)])
        missing = sorted(name for name in spec.firmware if name not in found.firmware)
        if missing:
            facts["notes"] = [*facts["notes"], *(f"firmware {name} is not in the image" for name in missing)]
        if refusal:
            return Outcome(summary=refusal.reason, facts=facts, refusal=refusal)
        if self.certificate and not done.report.secure_boot:
            raise UnsupportedError(
                "the virtual machine came up without Secure Boot, so nothing is proven about signatures",
                "the target kernel does not say that Secure Boot is enabled", hint="dtkpipe doctor --for secure-boot",
            )  # fmt: skip
        return Outcome(summary=_summary(done, plan, spec), facts=facts)

    def _firmware(self) -> Firmware | None:
        if self.certificate is None:
            return None
        return secureboot.firmware(
            self.kernel.arch, self.certificate, self.kernel.vmlinuz, self.cache, self.work
        )  # fmt: skip

    def _controls(self, module: KernelModule) -> Mapping[str, bytes]:
        """Return copies of a module that a kernel which enforces signatures must refuse."""
        if self.certificate is None:
            return {}
        key, certificate = openssl.throw_away_key("a stranger to this kernel", self.work)
        signature = openssl.throw_away_signature(module.content, key, certificate, self.work)
        return {"unsigned": module.content, "signed-by-a-stranger": join(module.content, signature)}

    def _check_files(self, found: ImageModules, spec: ModuleSpec) -> tuple[Mapping[str, Path] | None, list[str]]:
        """Return the image's files for the guest: check commands run among them, as on a node."""
        if not spec.checks:
            return None, []
        size = sum(placed.entry.size for placed in found.files.tree.entries.values())
        if size > _IMAGE_LIMIT:
            return {}, [f"the image unpacks to {size >> 20} MiB: its checks saw only busybox"]
        whole = read_image(self.registry, found.ref, self.kernel.arch, lambda _: True, self.work / "whole")
        return _with_links(whole.contents, whole), []


def _with_links(contents: Mapping[str, Path], whole: Any) -> Mapping[str, Path]:
    """Put each file at its own path and at every path by which a link leads to it."""
    paths = dict(contents)
    for path in whole.paths:
        if path not in paths and (file := whole.file(path)):
            paths[path] = file
    return paths


def line_of(proof: Proof) -> str:
    """Say one proof in one line."""
    sign = "refused" if proof.refusal else "ok"
    code = f" {proof.refusal.code}:" if proof.refusal else ""
    return f"{proof.name:<10} {sign:<7} {proof.seconds:5.1f} s {code} {proof.summary}"


def _unknown_parameters(modules: Mapping[str, KernelModule], spec: ModuleSpec) -> list[str]:
    return [
        f"{one.name} has no parameter `{name}`: the kernel ignores it"
        for one in spec.modules
        for name in (parameter.partition("=")[0].replace("-", "_") for parameter in one.parameters)
        if one.name in modules and name not in modules[one.name].parameters
    ]


def _facts(done: Boot, plan: Plan, notes: list[str]) -> dict[str, Any]:
    report = done.report
    messages = list(parse(report.log))
    return {
        "seconds": round(done.seconds, 2),
        "machine": "hardware (KVM)" if done.accelerated else "emulated",
        "secureBoot": report.secure_boot,
        "lockdown": report.lockdown,
        "order": list(plan.order),
        "inTree": list(plan.in_tree),
        "asked": list(report.wanted),
        "controls": {
            step.what: report.outputs.get(number, "").split(": ", 2)[-1]
            for number, step in enumerate(plan.steps)
            if step.do == CONTROL
        },
        "loaded": {
            name: {"state": one.state, "srcversion": one.srcversion, "buildId": one.build_id, "taint": one.taint}
            for name, one in report.loaded.items()
        },
        "checks": [
            {"run": list(step.args), "exit": report.statuses.get(number), "output": report.outputs.get(number, "")}
            for number, step in enumerate(plan.steps)
            if step.do == CHECK
        ],
        "errors": errors(messages)[:20],
        "log": [message.text for message in messages[1:41]],
        "noise": report.noise,
        "notes": notes,
    }


def _summary(done: Boot, plan: Plan, spec: ModuleSpec) -> str:
    parts = [f"{done.report.kernel} booted in {done.seconds:.1f} s", f"loaded {', '.join(plan.order)}"]
    if done.report.secure_boot:
        parts[0] += " under Secure Boot"
    if any(step.do == CONTROL for step in plan.steps):
        parts.append("refused an unsigned and a stranger's copy")
    if spec.checks:
        parts.append(f"{len(spec.checks)} check{'s' if len(spec.checks) > 1 else ''} passed")
    parts.append("unloaded" if any(step.do == "unload" for step in plan.steps) else "unload: never")
    return "; ".join(parts)
