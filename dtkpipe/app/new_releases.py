"""Releases that are new in the update graph: what the planners of triggers ask before they plan.

What was seen at the last planning is a digest in a ConfigMap. It may be lost: then there is one planning too many.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dtkpipe.app import catalog
from dtkpipe.app.clusters import Place
from dtkpipe.app.matrix.outcome import ExitCode
from dtkpipe.app.matrix.plan import Request
from dtkpipe.app.resolve import lock_folder
from dtkpipe.clients.cluster import CONFIG_MAPS
from dtkpipe.clients.registry import Registry
from dtkpipe.engines.rights import SEEN
from dtkpipe.errors import NotFoundError, NothingSelectedError, UnreachableError
from dtkpipe.matrix.targets import Selection
from dtkpipe.releases.lock import Lock
from dtkpipe.releases.refresh import Reader, Report, Target, refresh
from dtkpipe.toolkits.distribution import distribution_names
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import Arch
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.version import Wanted

EVERY = "*/15 * * * *"
"""When the update graph is asked, where nobody says otherwise."""
Say = Callable[[str], None]
_JOBS = 8
"""Releases that are read at the same time."""
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the matrix is of, and how to ask about it."""

    request: Request
    access: RegistryAccess
    words: Sequence[str]
    """The same as the words of `matrix submit`: another matrix was never planned before."""


def look(
    place: Place, name: str, question: Question, plan: Callable[[Path], ExitCode], say: Say, *, at_once: bool
) -> int:
    """Plan when a release is listed that was not there at the last planning; return the exit code.

    `plan` gets the folder of a lock that has the new ones. `at_once`: plan whatever is listed. What could not be asked
    is asked again by the next start. Raises NothingSelectedError where no channel lists anything, UnreachableError,
    and what `plan` raises.
    """
    place.cluster.be_patient()
    found = listed(question, say)
    now = digest(question.words, found)
    if at_once:
        say("asked for by hand: planned at once")
    elif now == _seen(place, name):
        say(f"no new release: {len(found)} are listed, as at the last planning")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = brought_up(question, found, Path(folder), say)
        code = plan(Path(folder))
    lost = any(isinstance(error, UnreachableError) for error in report.failed.values())
    if lost or code.unknown or code == _INTERRUPTED:
        say("not all of it could be asked: the next start plans again")
        return code or UnreachableError.exit_code
    _keep(place, name, now, say)
    return code


def knows(question: Question, kernels: Sequence[Kernel], folder: Path, say: Say) -> bool:
    """Write a lock into `folder` that has the releases that are listed now, for kernels that the meant one lacks.

    False: nothing is written, because that one knows them all, or nobody answers. Raises what registries raise.
    """
    lock = Lock(lock_folder(question.request.lock))
    unknown = [kernel for kernel in kernels if kernel.is_red_hat and not lock.with_kernel(kernel)]
    if not unknown:
        return False
    say(f"kernels that the lock does not know: {', '.join(map(str, unknown))}; asked for newer releases")
    try:
        brought_up(question, listed(question, say), folder, say)
    except (UnreachableError, NothingSelectedError) as error:
        say(f"note: {error.what}: planned with what is known")
        return False
    return True


def listed(question: Question, say: Say) -> list[Target]:
    """Ask the update graph what it lists of the releases that are meant: once for each channel and architecture.

    Raises NothingSelectedError where that is nothing, and what the graph raises.
    """
    request = question.request
    known = Lock(lock_folder(request.lock)).lines
    asked = dict[tuple[str, tuple[int, int], Arch], list[Wanted]]()
    for channel, wanted in Selection.parse(request.releases, distribution_names()).growing:
        for line in catalog.Selection(wanted=wanted, arches=()).lines(known):
            for arch in request.arches:
                asked.setdefault((channel, line, arch), []).append(wanted)
    found = dict[str, Target]()
    for (channel, line, arch), wishes in asked.items():
        offered = catalog.in_channel(question.access, request.graph, channel, line, arch, say)
        found |= {str(one): one for one in offered if any(wanted.admits(one.version) for wanted in wishes)}
    if not found:
        raise NothingSelectedError(f"the update graph has no release that is {request.releases}")
    return sorted(found.values(), key=lambda one: (one.version, one.arch.name))


def digest(words: Sequence[str], found: Sequence[Target]) -> str:
    """Return a digest of a matrix and of the releases that are listed for it."""
    return hashlib.sha256(json.dumps([list(words), [str(one) for one in found]]).encode()).hexdigest()


def brought_up(question: Question, found: Sequence[Target], folder: Path, say: Say) -> Report:
    """Write a lock that has what is listed into `folder`: the one that is meant, and what registries know besides."""
    for file in lock_folder(question.request.lock).glob("*.yaml"):
        shutil.copyfile(file, folder / file.name)
    reader = Reader(Registry(question.access), datetime.now(UTC).date().isoformat())
    return refresh(Lock(folder), reader, found, say, jobs=_JOBS)


def _seen(place: Place, name: str) -> str:
    kept = place.cluster.find(CONFIG_MAPS, SEEN, place.namespace) or {}
    return str((kept.get("data") or {}).get(name) or "")


def _keep(place: Place, name: str, now: str, say: Say) -> None:
    try:
        place.cluster.patch(CONFIG_MAPS, SEEN, place.namespace, {"data": {name: now}})
    except NotFoundError:
        say(f"note: there is no ConfigMap {SEEN} in {place}, so that every start plans; create the trigger again")
