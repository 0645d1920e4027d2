"""What is stale and why: cells against what a registry's tags say. A pure function; whoever calls it has asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from dtkpipe.errors import DtkpipeError
from dtkpipe.matrix.modules import Broken, MatrixModule
from dtkpipe.values.cell import Cell, State, Target
from dtkpipe.values.image import ImageRef
from dtkpipe.values.key import ContentKey, KeyTag, cell_hash, content_key
from dtkpipe.values.module import Exclusion


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was found out about a module. `problem` says why something is not known."""

    module: MatrixModule
    repo: ImageRef
    """Where its images are published."""
    commit: str = ""
    tags: Sequence[str] = ()
    problem: DtkpipeError | None = None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell, its state and the reason for it."""

    cell: Cell
    state: State
    reason: str
    key: ContentKey | None = None
    """What it is to be made of; of a current cell, what it is made of. None where that is not known."""
    image: str = ""
    """The image of a current cell, or of one that only has to be signed; the record of one that failed."""
    until: date | None = None
    """The day on which a quarantine ends."""

    @property
    def module(self) -> str:
        """The module's name."""
        return self.cell.module

    @property
    def target(self) -> Target:
        """The kernel."""
        return self.cell.target


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every cell of a matrix, by module, then by kernel from the oldest."""

    cells: tuple[Planned, ...]
    notices: tuple[str, ...] = ()
    """What people should know: expired exclusions, kernels that a module is not for."""
    broken: tuple[Broken, ...] = ()
    """Module specs that could not be read: nobody knows what their cells would be."""

    def count(self, state: State) -> int:
        """Return how many cells are in a state."""
        return sum(one.state is state for one in self.cells)

    @property
    def stale(self) -> tuple[Planned, ...]:
        """The cells that have to be built or signed."""
        return tuple(one for one in self.cells if one.state.stale)


@dataclass
class _Held:
    """What a repository has of one cell."""

    published: list[KeyTag] = field(default_factory=list)
    failed: list[KeyTag] = field(default_factory=list)


def plan(known: Iterable[Known], targets: Sequence[Target], signer: str, today: date) -> Plan:
    """Judge every cell. `signer` is who images shall be signed by, as tags name signers."""
    cells: list[Planned] = []
    notices: list[str] = []
    for one in known:
        refused: dict[str, int] = {}
        held = _index(one.tags)
        kernels = sum(bool(of_cell.published) for of_cell in held.values())
        mine: list[Target] = []
        for target in targets:
            if why := one.module.spec.refuses(target.kernel, target.arch):
                refused[why] = refused.get(why, 0) + 1
            else:
                mine.append(target)
                cells.append(_judge(one, target, held, kernels, signer, today))
        notices += [f"{one.module.name} {why}: {count} of the kernels left out" for why, count in refused.items()]
        notices += _expired(one.module, mine, today)
    return Plan(cells=tuple(cells), notices=tuple(notices))


def _index(tags: Iterable[str]) -> Mapping[str, _Held]:
    held: dict[str, _Held] = {}
    for tag in tags:
        if found := KeyTag.parse(tag):
            of_cell = held.setdefault(found.key.cell, _Held())
            (of_cell.failed if found.failed_at else of_cell.published).append(found)
    return held


def _expired(module: MatrixModule, targets: Sequence[Target], today: date) -> list[str]:
    """Say which exclusions count no more, though kernels are still there that they were for."""

    def covered(one: Exclusion) -> int:
        return sum(one.covers(target.kernel, target.arch) for target in targets)

    return [
        f"{module.name}: an exclusion ended on {one.until}, {covered(one)} of the kernels count again: {one.reason}"
        for one in module.spec.exclusions
        if one.until <= today and covered(one)
    ]


def _judge(
    known: Known, target: Target, held: Mapping[str, _Held], kernels: int, signer: str, today: date
) -> Planned:  # fmt: skip
    module, cell = known.module, Cell(module=known.module.name, target=target)
    if excluded := _excluded(module, target, today):
        return Planned(cell=cell, state=State.QUARANTINED, reason=excluded.reason, until=excluded.until)
    if known.problem:
        return Planned(cell=cell, state=State.UNKNOWN, reason=known.problem.what)
    if not target.toolkits and not target.toolkit_tag:
        return Planned(cell=cell, state=State.UNKNOWN, reason=f"the toolkit of {target.serves} is not known")
    keys = [key_of(known, target, toolkit) for toolkit in target.toolkits]
    own = held.get(cell_hash(module.name, target.kernel, target.arch), _Held())
    if not own.published and not own.failed:
        if kernels:
            reason = f"published for {kernels} other kernel{'s' if kernels > 1 else ''}, and not for this one"
            return Planned(cell=cell, state=State.NEW_KERNEL, reason=reason, key=next(iter(keys), None))
        reason = f"no image in {known.repo}"
        return Planned(cell=cell, state=State.MISSING, reason=reason, key=next(iter(keys), None))
    same = [tag for tag in own.published if tag.key in keys]
    for tag in same:
        if tag.signer == signer:
            return Planned(cell=cell, state=State.CURRENT, reason="published", key=tag.key, image=_at(known, tag))
    failed = [tag for tag in own.failed if tag.key in keys and tag.signer == signer]
    if failed:
        last = max(failed, key=lambda tag: tag.failed_at)
        when = datetime.fromtimestamp(last.failed_at, UTC)
        reason = f"failed on {when:%Y-%m-%d %H:%M} UTC"
        return Planned(cell=cell, state=State.FAILED_BEFORE, reason=reason, key=last.key, image=_at(known, last))
    if same:
        reason = f"signed by {same[0].signer}, to be signed by {signer}"
        return Planned(cell=cell, state=State.RESIGN, reason=reason, key=same[0].key, image=_at(known, same[0]))
    wanted = keys[0] if keys else key_of(known, target, "")
    state, reason = _difference(own, wanted, signer, known=bool(keys))
    return Planned(cell=cell, state=state, reason=reason, key=wanted if keys else None)


def _excluded(module: MatrixModule, target: Target, today: date) -> Exclusion | None:
    active = [one for one in module.spec.exclusions if today < one.until and one.covers(target.kernel, target.arch)]
    return max(active, key=lambda one: one.until, default=None)


def key_of(known: Known, target: Target, toolkit: str) -> ContentKey:
    """Return the key of a cell that is built with `toolkit`, a digest."""
    module = known.module
    return content_key(
        module=module.name, commit=known.commit, kernel=target.kernel, arch=target.arch, toolkit=toolkit,
        path=module.source.path, spec=module.spec,
    )  # fmt: skip


def _at(known: Known, tag: KeyTag) -> str:
    return str(known.repo.tagged(str(tag)))


def _difference(own: _Held, wanted: ContentKey, signer: str, *, known: bool) -> tuple[State, str]:
    """Say what changed since the last time that the cell was built, or failed to."""

    def alike(tag: KeyTag) -> tuple[int, int]:
        key = tag.key
        return 4 * (key.commit == wanted.commit) + 2 * (key.recipe == wanted.recipe), tag.failed_at

    best = max([*own.failed, *own.published], key=alike)
    was = "failed at" if best.failed_at else "published from"
    if best.key.commit != wanted.commit:
        return State.NEW_COMMIT, f"{was} {best.key.commit}, now it is {wanted.commit}"
    if best.key.recipe != wanted.recipe:
        return State.SPEC_CHANGED, "its spec, a patch for this kernel or a step of dtkpipe changed"
    if best.key == wanted:
        return State.MISSING, f"failed when signed by {best.signer}, to be signed by {signer}"
    if known:
        return State.TOOLKIT_CHANGED, f"built with toolkit {best.key.toolkit}, now it is {wanted.toolkit}"
    return State.TOOLKIT_CHANGED, f"built with toolkit {best.key.toolkit}, now it is one that is not made yet"
