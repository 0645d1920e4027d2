"""The runs of the local engine: found by name, listed, waited for, ended, deleted; and how a run's end is told."""

from __future__ import annotations

import contextlib
import difflib
import re
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from dtkpipe.engines.local.folder import RunFolder, remove
from dtkpipe.errors import (
    DtkpipeError,
    InvalidError,
    NotFoundError,
    RunCancelledError,
    RunFailedError,
    RunUnknownError,
    UnsupportedError,
)
from dtkpipe.values.health import unpack
from dtkpipe.values.run import CANCELLED, FAILED, TELLING, RunCard

LATEST = "@latest"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Runs:
    """All runs below the state folder."""

    state: Path

    @property
    def root(self) -> Path:
        """The folder of the runs."""
        return self.state / "runs"

    def folder(self, name: str) -> RunFolder:
        """Return the folder of a run that may not exist yet."""
        return RunFolder(self.root / name)

    def __str__(self) -> str:
        return str(self.root)

    def all(self, limit: int = 0) -> list[RunCard]:
        """Return the cards of runs, the newest first, at most `limit` where one is given.

        A folder without a card is no run.
        """
        found: list[RunCard] = []
        for path in self.root.iterdir() if self.root.is_dir() else ():
            try:
                found.append(RunFolder(path).load())
            except InvalidError:
                continue
        return sorted(found, key=lambda card: card.created, reverse=True)[: limit or None]

    def find(self, name: str) -> RunFolder:
        """Return a run that exists; `@latest` is the newest. Raises NotFoundError."""
        if name == LATEST:
            cards = self.all()
            if not cards:
                raise NotFoundError("there are no runs yet", f"looked in: {self.root}", hint="dtkpipe submit --help")
            return self.folder(cards[0].name)
        if _NAME.fullmatch(name) and (self.root / name / "run.json").is_file():
            return self.folder(name)
        names = [card.name for card in self.all()]
        near = difflib.get_close_matches(name, names, n=1)
        raise NotFoundError(
            f"there is no run `{name[:80]}`", f"looked in: {self.root}",
            hint=f"did you mean `{near[0]}`?" if near else "dtkpipe list",
        )  # fmt: skip

    def card(self, name: str) -> RunCard | None:
        """Return the card of a run, if there is such a run."""
        is_one = _NAME.fullmatch(name) and (self.root / name / "run.json").is_file()
        return self.folder(name).load() if is_one else None

    def wait(self, name: str, until: float | None = None) -> RunCard:
        """Return the card of a run when nobody works on it any more. `until` is of time.monotonic().

        Raises NotFoundError, and RunUnknownError when it is over before the run is.
        """
        folder = self.find(name)
        if folder.is_locked():
            idle = threading.Event()

            def wait() -> None:
                folder.wait_until_idle()
                idle.set()

            threading.Thread(target=wait, daemon=True).start()
            if not idle.wait(None if until is None else max(0.0, until - time.monotonic())):
                raise RunUnknownError(f"run {folder.name} has not ended yet", hint=f"dtkpipe describe {folder.name}")
        return folder.load()

    def cancel(self, name: str) -> bool:
        """Ask whoever works on a run to end it, as Ctrl-C does: its finally tasks run. False: nobody does.

        Raises NotFoundError, NotAllowedError for another user's process.
        """
        return self.find(name).interrupt()

    def retry(self, name: str, *, from_failed: bool) -> RunCard:  # noqa: ARG002 - a local run always goes on
        """Refuse: what a local run was given, keys and credentials, is not kept. Raises UnsupportedError."""
        raise UnsupportedError(
            f"run {self.find(name).name} is a run on this machine", "the files that it was given are not kept with it",
            hint="give the same `dtkpipe submit` again: what succeeded is reused, and the rest runs",
        )  # fmt: skip

    def delete(self, name: str) -> None:
        """Delete a run and its logs. Raises NotFoundError, UnsupportedError for a run that is running."""
        folder = self.find(name)
        if folder.is_locked():
            raise UnsupportedError(f"run `{folder.name}` is running", hint=f"dtkpipe cancel {folder.name}")
        with folder.locked():
            remove(folder.path)


def outcome(card: RunCard) -> DtkpipeError | None:
    """Return how a run ended as the error that it is, with the exit code that tells it; None for one that did well.

    A run that failed has the exit code of its first failed task where that says more than "failed" (not found,
    unreachable, out of time), else 10.
    """
    hint = next((step.hint for step in card.steps if step.state == FAILED), "") or card.hint
    look = (
        f"dtkpipe logs {card.address} --failed"
        if card.state == FAILED and card.steps
        else f"dtkpipe describe {card.address}"
    )
    if card.state in (FAILED, CANCELLED):
        known: tuple[type[DtkpipeError], ...] = (*TELLING, RunCancelledError)
        kind = next((one for one in known if one.exit_code == card.exit_code), RunFailedError)
        said = f"run {card.name} {card.state}" + (f": {card.cause}" if card.cause else "")
        return kind(said, hint="\n      ".join(filter(None, (hint, look))))
    return None


def failure(card: RunCard, runs: Runs) -> DtkpipeError | None:
    """Return why a run on this machine failed, with all that its task said. None for a run that did not fail."""
    step = next((step for step in card.steps if step.state == FAILED), None)
    if card.state != FAILED or not step:
        return None
    place = runs.folder(card.name).task(step.name)
    kind = next((kind for kind in TELLING if kind.exit_code == step.exit_code), RunFailedError)
    details = [line.strip() for line in place.error()[1:] if line.strip()]
    hints = [line.removeprefix("hint: ") for line in details if line.startswith("hint: ")]
    return kind(
        f"{step.name}: {step.cause}",
        *(line for line in details if not line.startswith("hint: ")),
        f"log: {step.log}",
        hint="\n      ".join([*hints, f"dtkpipe logs {card.name} --task {step.name}"]),
    )


def with_findings(card: RunCard) -> RunCard:
    """Return the card with the verdict and the nodes that are among the results of its steps, if they can be read."""
    from dtkpipe.proof.verdict import unpack_evidence

    evidence, verdict = card.result("verify", "EVIDENCE"), None
    with contextlib.suppress(InvalidError):
        verdict = unpack_evidence(evidence) if evidence else None
    return replace(card, verdict=verdict, nodes=unpack(card.result("smoke-test", "NODES")))
