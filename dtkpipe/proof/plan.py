"""What the guest has to do, step by step: worked out here, so that the guest only obeys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.module import KernelModule, decompress
from dtkpipe.values.module import NEVER, ModuleSpec

CONTROL, TRY, NEED, LOAD, REMOVE, UNLOAD, MARK, SETTLE, LOOK, CHECK = (
    "control",
    "try",
    "need",
    "load",
    "remove",
    "unload",
    "mark",
    "settle",
    "look",
    "check",
)
SETTLE_SECONDS = "0.3"
"""Time for what a module has set going (timers, work queues) to go wrong before we look at the log."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing the guest does. The words are explained in catalog/guest/init."""

    do: str
    module: str = ""
    file: str = ""
    args: tuple[str, ...] = ()
    limit: str = ""
    what: str = ""
    """For people: whose copy it is (control), for whom it is (need, try)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps in order, the module files they name, and what is worth saying about the order."""

    steps: tuple[Step, ...]
    files: Mapping[str, bytes] = field(repr=False)
    """Path in the guest -> uncompressed module."""
    order: tuple[str, ...]
    """Our modules, in the order in which they load."""
    in_tree: tuple[str, ...]
    """Modules of the kernel that are loaded for ours."""
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the kernel asks modprobe for -> the module files that answer it, in loading order."""
    notes: tuple[str, ...]


def make_plan(
    modules: Sequence[KernelModule],
    signed: Mapping[str, bytes],
    controls: Mapping[str, bytes],
    kernel: KernelFiles,
    spec: ModuleSpec,
    asked: Sequence[str] = (),
) -> Plan:
    """Work out the steps.

    `signed` are our modules' bytes by name, as they are to be loaded; `controls` are copies of the first module to
    load that must be refused, by what is wrong with them; `asked` is what the kernel is known to ask modprobe for
    while these modules load. Raises CacheCorruptError.
    """
    return _Planner(modules, signed, kernel, spec).plan(controls, asked)


def loading_order(modules: Sequence[KernelModule], wished: Sequence[str]) -> tuple[KernelModule, ...]:
    """Sort modules: as `wished`, except that what a module depends on comes before it."""
    by_name = {module.name: module for module in modules}
    order: dict[str, KernelModule] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        module = by_name.get(name)
        if module is None or name in order or name in above:
            return
        for needed in (*module.softdeps, *module.depends):
            visit(needed, (*above, name))
        order[name] = module

    for name in (*wished, *by_name):
        visit(name, ())
    return tuple(order.values())


class _Planner:
    def __init__(
        self, modules: Sequence[KernelModule], signed: Mapping[str, bytes], kernel: KernelFiles, spec: ModuleSpec
    ) -> None:
        self._order = loading_order(modules, spec.names)
        self._signed, self._kernel, self._spec = signed, kernel, spec
        self._files: dict[str, bytes] = {}
        self._notes: list[str] = []
        self._in_tree: dict[str, None] = {}

    def plan(self, controls: Mapping[str, bytes], asked: Sequence[str]) -> Plan:
        steps = [*self._controls(controls), *self._removals()]
        for module in self._order:
            steps += self._needs(module)
        steps += [Step(do=MARK), *self._loads(), Step(do=SETTLE, limit=SETTLE_SECONDS)]
        steps += [Step(do=LOOK, module=module.name) for module in self._order]
        steps += [Step(do=CHECK, args=check.run, limit=str(check.timeout)) for check in self._spec.checks]
        if self._spec.unload != NEVER:
            steps += [Step(do=UNLOAD, module=module.name) for module in reversed(self._order)]
            steps.append(Step(do=SETTLE, limit=SETTLE_SECONDS))
        answers = {name: self._answer(name) for name in asked}
        return Plan(
            steps=tuple(steps), asked=answers, files=self._files, order=tuple(module.name for module in self._order),
            in_tree=tuple(self._in_tree), notes=tuple(self._notes),
        )  # fmt: skip

    def _controls(self, controls: Mapping[str, bytes]) -> Iterator[Step]:
        first = self._order[0].name
        for what, data in controls.items():
            path = f"/modules/controls/{what}.ko"
            self._files[path] = data
            yield Step(do=CONTROL, module=first, file=path, what=what)

    def _removals(self) -> Iterator[Step]:
        """Load the in-tree modules that the spec removes, as a node would have them, and remove them."""
        for name in self._spec.in_tree_modules_to_remove:
            path = self._kernel.in_tree.get(name)
            if path is None:
                how = "is part of the kernel image" if name in self._kernel.builtin else "is not in this kernel"
                self._notes.append(f"{name} {how}: there is nothing to remove")
                continue
            for needed in self._closure(path):
                yield self._in_tree_step(TRY, needed, name)
            yield Step(do=REMOVE, module=name)

    def _answer(self, asked: str) -> tuple[str, ...]:
        """Return the guest's files of the in-tree modules that modprobe would load for a name, in order."""
        ours = {one.name for one in self._order}
        steps = [
            self._in_tree_step(TRY, needed, asked)
            for path in self._kernel.found_by(asked)
            for needed in self._closure(path)
            if self._name(needed) not in ours
        ]
        return tuple(dict.fromkeys(step.file for step in steps))

    def _needs(self, module: KernelModule) -> Iterator[Step]:
        ours = {one.name for one in self._order}
        for name in (*module.softdeps, *module.depends):
            if name in ours or name in self._kernel.builtin:
                continue
            hard = name in module.depends
            paths = self._kernel.found_by(name)
            if hard and not paths:
                self._notes.append(f"{module.name} depends on {name}, which is nowhere")
            for path in paths:
                for needed in self._closure(path):
                    if self._name(needed) not in ours:
                        do = NEED if hard and needed in self._hard(path) else TRY
                        yield self._in_tree_step(do, needed, module.name)

    def _closure(self, path: str) -> tuple[str, ...]:
        """Return an in-tree module's path after those of all that it needs or wishes for, softly or not."""
        found: dict[str, None] = {}

        def visit(one: str) -> None:
            if one in found:
                return
            soft = [
                path for name in self._kernel.softdeps.get(self._name(one), ()) for path in self._kernel.found_by(name)
            ]
            for needed in (*soft, *self._kernel.dependencies.get(one, ())):
                if needed != one and needed not in above:
                    above.add(needed)
                    visit(needed)
            found[one] = None

        above = {path}
        visit(path)
        return tuple(found)

    def _hard(self, path: str) -> tuple[str, ...]:
        return (path, *self._kernel.dependencies.get(path, ()))

    def _in_tree_step(self, do: str, path: str, why: str) -> Step:
        name = self._name(path)
        file = f"/modules/kernel/{name}.ko"
        if file not in self._files:
            self._files[file] = decompress(self._kernel.module(path), path)
        self._in_tree[name] = None
        return Step(do=do, module=name, file=file, what=why)

    def _loads(self) -> Iterator[Step]:
        wanted = {module.name: module for module in self._spec.modules}
        for module in self._order:
            path = f"/modules/{module.name}.ko"
            self._files[path] = self._signed[module.name]
            parameters = wanted[module.name].parameters if module.name in wanted else ()
            yield Step(do=LOAD, module=module.name, file=path, args=tuple(quoted(one) for one in parameters))

    def _name(self, path: str) -> str:
        from dtkpipe.proof.module import module_name

        return module_name(path)


def quoted(parameter: str) -> str:
    """Write a parameter as modprobe hands it to the kernel: values with spaces in double quotes."""
    name, equals, value = parameter.partition("=")
    return f'{name}="{value}"' if equals and " " in value and not value.startswith('"') else parameter
