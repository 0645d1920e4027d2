"""The runs of the local engine: found by name, listed, deleted."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.engines.local.folder import RunFolder, remove
from dtkpipe.errors import (
    DtkpipeError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    RunFailedError,
    RunUnknownError,
    UnreachableError,
    UnsupportedError,
)
from dtkpipe.values.run import FAILED, RunCard

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

    def all(self) -> list[RunCard]:
        """Return the cards of all runs, the newest first. A folder without a card is no run."""
        found: list[RunCard] = []
        for path in self.root.iterdir() if self.root.is_dir() else ():
            try:
                found.append(RunFolder(path).load())
            except InvalidError:
                continue
        return sorted(found, key=lambda card: card.created, reverse=True)

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

    def delete(self, name: str) -> None:
        """Delete a run and its logs. Raises NotFoundError, UnsupportedError for a run that is running."""
        folder = self.find(name)
        if folder.is_locked():
            raise UnsupportedError(f"run `{folder.name}` is running", hint="end it first, with Ctrl-C where it runs")
        with folder.locked():
            remove(folder.path)


_KINDS = (NotAllowedError, NotFoundError, InvalidError, UnreachableError, UnsupportedError, RunUnknownError)


def failure(card: RunCard, runs: Runs) -> DtkpipeError | None:
    """Return why a run failed, with the exit code that fits: that of its first failed task where it says more than
    "failed" (not found, unreachable, out of time), else 10. None for a run that did not fail.
    """
    step = next((step for step in card.steps if step.state == FAILED), None)
    if card.state != FAILED or not step:
        return None
    place = runs.folder(card.name).task(step.name)
    kind = next((kind for kind in _KINDS if kind.exit_code == step.exit_code), RunFailedError)
    details = [line.strip() for line in place.error()[1:] if line.strip()]
    hints = [line.removeprefix("hint: ") for line in details if line.startswith("hint: ")]
    return kind(
        f"{step.name}: {step.cause}",
        *(line for line in details if not line.startswith("hint: ")),
        f"log: {step.log}",
        hint="\n      ".join([*hints, f"dtkpipe logs {card.name} --task {step.name}"]),
    )
