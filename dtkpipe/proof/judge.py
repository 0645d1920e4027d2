"""What a boot means: the first thing that went wrong, as a refusal, or nothing.

Facts come from what the guest told on the evidence channel. The console, where anybody in the guest can write, only
explains a boot that did not come to its end, and that is refused whatever the console says.
"""

from __future__ import annotations

from collections.abc import Mapping

from dtkpipe.proof import klog
from dtkpipe.proof.boot import ENDED, OVERTIME, Boot
from dtkpipe.proof.guest import Report
from dtkpipe.proof.module import KernelModule
from dtkpipe.proof.plan import CHECK, CONTROL, LOAD, LOOK, NEED, REMOVE, TRY, UNLOAD, Plan, Step
from dtkpipe.proof.verdict import Refusal

_TAIL = 12
_LEAD = 32
"""Lines that the kernel may say on its own between the clearing of its log and our mark."""
_SIGNALLED = 128
# What insmod says, by the error number of the kernel, and what it means there. Linux: kernel/module/main.c.
_CAUSES = (
    ("Required key not available", "the kernel enforces signatures, and the module has none that it trusts"),
    ("Key was rejected by service", "the kernel enforces signatures, and the module has none that it trusts"),
    ("Unknown symbol", "it needs a symbol that the kernel does not have or does not give to it"),
    ("unknown symbol", "it needs a symbol that the kernel does not have or does not give to it"),
    ("Exec format error", "the kernel does not take the file: other kernel, damaged, or compiled with other options"),
    (
        "invalid module format",
        "the kernel does not take the file: other kernel, damaged, or compiled with other options",
    ),
    ("File exists", "a module of this name is loaded already: name it in inTreeModulesToRemove"),
    ("No such device", "its init function found no device to drive"),
    ("Invalid argument", "its init function, or one of its parameters, was refused as invalid"),
    ("invalid parameter", "its init function, or one of its parameters, was refused as invalid"),
    ("Operation not permitted", "the kernel is locked down, or the module's init function refused"),
    ("Cannot allocate memory", "there is not enough memory in the virtual machine, or its init function said so"),
    ("Device or resource busy", "something else holds what it needs: is there an in-tree module to remove?"),
    ("No such file or directory", "its init function missed something: firmware, or a file"),
)


def judge(boot: Boot, plan: Plan, modules: Mapping[str, KernelModule]) -> Refusal | None:
    """Return why the boot refuses the image; None when it proves it."""
    report = boot.report
    if not report.kernel:
        return _not_up(boot)
    if accepted := _accepted(report, plan):
        return accepted
    if boot.stopped != ENDED:
        return _not_to_the_end(boot, plan)
    number = _failed(report, plan)
    failed = plan.steps[number] if number is not None else None
    status = report.statuses[number] if number is not None else 0
    loading = failed if failed and failed.do in (NEED, REMOVE, LOAD) else None
    # A program that dies of a signal while it loads a module died of an oops: the log has it.
    if loading and status < _SIGNALLED:
        return _not_loaded(report, loading, status, report.outputs[number or 0])
    if refusal := _log(boot):
        return refusal
    if loading:
        return _not_loaded(report, loading, status, report.outputs[number or 0])
    for name in plan.order:
        if refusal := _identity(report, modules[name]):
            return refusal
    if failed:
        said = report.outputs[number or 0]
        return _check(failed, status, said) if failed.do == CHECK else _not_unloaded(failed, said)
    left_out = [number for number in range(len(plan.steps)) if number not in report.statuses]
    if left_out:
        step = plan.steps[left_out[0]]
        code = {CHECK: "check-failed", UNLOAD: "unload-failed", LOOK: "identity-mismatch"}.get(step.do, "load-failed")
        return Refusal(code=code, reason=f"the guest left out a step: {_words(step)}")
    return None


def _not_up(boot: Boot) -> Refusal:
    """The guest never said a word: not the module's fault, as it seems."""
    how = {OVERTIME: "said nothing within the time limit"}.get(boot.stopped, "went down before it was up")
    details = [*boot.machine.splitlines()[:5], *klog.console_panic(boot.console)]
    return Refusal(
        code="boot-failed", reason=f"the target kernel {how} ({boot.seconds:.0f} s)",
        details=tuple(details or _tail(boot.console) or ["the console is empty"]),
    )  # fmt: skip


def _accepted(report: Report, plan: Plan) -> Refusal | None:
    """A control is a copy that must be refused for its signature."""
    for number, step in enumerate(plan.steps):
        if step.do == CONTROL and number in report.statuses:
            said = report.outputs.get(number, "")
            if report.statuses[number] == 0:
                reason = f"the kernel loaded a copy of {step.module} that is {step.what}"
                return Refusal(code="unsigned-accepted", reason=reason)
            if not any(words in said for words in SIGNATURE_REFUSALS):
                # Signatures are checked before anything else: any other complaint means this one was taken.
                reason = f"the kernel did not mind that a copy of {step.module} is {step.what}; it only said"
                return Refusal(code="unsigned-accepted", reason=f"{reason}: {said}")
    return None


SIGNATURE_REFUSALS = ("Required key not available", "Key was rejected by service", "Operation not permitted")
"""ENOKEY, EKEYREJECTED, and EPERM of the lockdown."""


def _not_to_the_end(boot: Boot, plan: Plan) -> Refusal:
    report = boot.report
    if panic := klog.console_panic(boot.console):
        return Refusal(code="kernel-panic", reason=f"{panic[0]} ({_when(report, plan)})", details=tuple(panic))
    if boot.stopped == OVERTIME and (oops := klog.console_defect(boot.console)):
        reason = f"the kernel hung after an oops, {_when(report, plan)}"
        return Refusal(code="kernel-log", reason=reason, details=tuple(oops))
    step = _current(report, plan)
    if boot.stopped == OVERTIME:
        code = {CHECK: "check-failed", UNLOAD: "unload-failed"}.get(step.do, "load-timeout")
        if code == "load-timeout" and _unloading(report, plan):
            code = "unload-failed"
        reason = f"the guest did not come to an end: it stopped answering {_when(report, plan)}"
        return Refusal(code=code, reason=reason, details=tuple(_tail(boot.console)))
    code = {CHECK: "check-failed", UNLOAD: "unload-failed"}.get(step.do, "load-failed")
    reason = f"the guest restarted or switched itself off {_when(report, plan)}"
    return Refusal(code=code, reason=reason, details=tuple(_tail(boot.console)))


def _log(boot: Boot) -> Refusal | None:
    report = boot.report
    messages = list(klog.parse(report.log))
    begin = next((at for at, message in enumerate(messages[:_LEAD]) if message.text.endswith(boot.mark)), None)
    if begin is None:
        return Refusal(
            code="kernel-log", reason="so much was logged that the beginning is lost: the log cannot be judged",
            details=tuple(message.text for message in messages[-_TAIL:]),
        )  # fmt: skip
    messages = messages[begin:]
    if defects := klog.defects(messages):
        return Refusal(code="kernel-log", reason=defects[0], details=tuple(defects[:40]))
    if taints := klog.new_taints(*report.taints):
        reason = f"the kernel is tainted by: {', '.join(taints)}"
        return Refusal(code="kernel-log", reason=reason, details=tuple(klog.errors(messages)[:20]))
    return None


def _identity(report: Report, module: KernelModule) -> Refusal | None:
    loaded = report.loaded.get(module.name)

    def refusal(reason: str) -> Refusal:
        told = [("file", module.srcversion, module.build_id)]
        if loaded:
            told.append(("kernel", loaded.srcversion, loaded.build_id))
        details = (f"{who}: srcversion {src or 'none'}, build id {build or 'none'}" for who, src, build in told)
        return Refusal(code="identity-mismatch", reason=reason, details=tuple(details))

    if loaded is None or not loaded.state:
        return refusal(f"{module.name} was loaded without an error, but /proc/modules does not list it")
    if loaded.state != "Live":
        return refusal(f"{module.name} is {loaded.state}, not Live")
    for what, mine, theirs in (
        ("srcversion", module.srcversion, loaded.srcversion),
        ("build id", module.build_id, loaded.build_id),
    ):
        if mine != theirs and (mine and theirs):
            return refusal(f"the loaded {module.name} has another {what} than the file")
    return None


def _failed(report: Report, plan: Plan) -> int | None:
    """Return the number of the step that the guest ended at."""
    for number, step in enumerate(plan.steps):
        if report.statuses.get(number, 0) != 0 and step.do not in (CONTROL, TRY, LOOK):
            return number
    return None


def _not_loaded(report: Report, step: Step, status: int, said: str) -> Refusal:
    words = said.split(": ", 2)[-1] if said else f"exit code {status}"
    subject = {NEED: f"{step.module}, which {step.what} depends on,", REMOVE: f"the in-tree module {step.module}"}
    verb = "could not be removed" if step.do == REMOVE else "did not load"
    cause = next((why for text, why in _CAUSES if text in said), "its init function, or the kernel, refused")
    messages = [message for message in klog.parse(report.log) if message.by_kernel][-_TAIL:]
    worst = klog.errors(messages)[-1:]  # the driver's own word on why is the most telling one, where it has one
    log = [message.text for message in messages if message.text not in worst]
    return Refusal(
        code="load-failed", reason=f"{subject.get(step.do, step.module)} {verb}: {words}",
        details=(*(f"kernel: {line}" for line in worst), cause, *(f"kernel: {line}" for line in log)),
    )  # fmt: skip


def _check(step: Step, status: int, output: str) -> Refusal:
    how = {127: "there is no such command", 126: "it cannot be executed", 137: f"not done within {step.limit} s"}
    reason = f"`{' '.join(step.args)}` failed: {how.get(status, f'exit code {status}')}"
    return Refusal(code="check-failed", reason=reason, details=tuple(output.splitlines()[-_TAIL:]))


def _not_unloaded(step: Step, said: str) -> Refusal:
    if step.do != UNLOAD:
        return Refusal(code="boot-failed", reason=f"the guest could not do its work: {_words(step)}", details=(said,))
    why = {"Resource temporarily unavailable": "it is in use", "Device or resource busy": "it has no exit function"}
    cause = next((reason for text, reason in why.items() if text in said), said.split(": ", 2)[-1])
    return Refusal(code="unload-failed", reason=f"{step.module} did not unload: {cause}", details=(said,))


def _current(report: Report, plan: Plan) -> Step:
    return plan.steps[max(0, min(report.begun, len(plan.steps) - 1))]


def _unloading(report: Report, plan: Plan) -> bool:
    return any(step.do == UNLOAD for step in plan.steps[: report.begun + 1])


def _when(report: Report, plan: Plan) -> str:
    if report.begun < 0:
        return "before the first module"
    step = _current(report, plan)
    if report.begun in report.statuses or step.do not in (CONTROL, TRY, NEED, LOAD, REMOVE, UNLOAD, CHECK):
        before = [one for one in plan.steps[: report.begun + 1] if one.do in (LOAD, UNLOAD, CHECK)]
        return f"after {_words(before[-1])}" if before else "before the first module"
    return f"while {_words(step)}"


def _words(step: Step) -> str:
    match step.do:
        case "check":
            return f"running `{' '.join(step.args)}`"
        case "unload" | "remove":
            return f"unloading {step.module}"
        case "load" | "try" | "need" | "control":
            return f"loading {step.module}"
    return step.do


def _tail(console: str) -> list[str]:
    lines = [line.strip() for line in console.splitlines()]
    return [line for line in lines if line][-_TAIL:]
