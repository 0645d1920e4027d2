"""Failed cells as the registry keeps them: one small artifact each, under a tag that carries the cell's key."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtkpipe.errors import InvalidError
from dtkpipe.matrix.fingerprint import Fingerprint
from dtkpipe.values.image import ImageRef

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry

SCHEMA = "dtkpipe/failure/v1"
ARTIFACT = "application/vnd.dtkpipe.failure.v1+json"
RECORD, LOG = "failure.json", "log.txt"
LOG_LIMIT = 64 * 1024
"""Bytes of the log's end that are kept."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a cell failed. `when` is in seconds since the epoch."""

    module: str
    kernel: str
    arch: str
    step: str
    kind: str
    cause: str
    """The words of its fingerprint."""
    lines: tuple[str, ...]
    """What the step said: its error first."""
    run: str
    by: str
    """Who ran it: user@host."""
    when: int
    tool: str
    """Version of dtkpipe."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What it has in common with others."""
        return Fingerprint(self.kind, self.cause)

    def to_json(self) -> str:
        """Write it: one JSON object."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Failure:
        """Read it. Raises InvalidError for anything that `to_json` would not write."""
        try:
            data = json.loads(text)
            if data.pop("schema") != SCHEMA:
                raise InvalidError("not a record of a failure that we know", f"expected {SCHEMA}")
            data["lines"] = tuple(str(line) for line in data["lines"])
            found = cls(**data)
            if not all(isinstance(getattr(found, one.name), str) for one in dataclasses.fields(cls)
                       if one.name not in ("lines", "when")):  # fmt: skip
                raise InvalidError("the record of a failure cannot be read", "its values are not text")
            return dataclasses.replace(found, when=int(found.when))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidError("the record of a failure cannot be read", str(error)[:200]) from error


def record(registry: Registry, at: ImageRef, failure: Failure, log: bytes) -> None:
    """Push the record under the tag of `at`. Raises what the registry raises."""
    files = {RECORD: failure.to_json().encode() + b"\n", LOG: log[-LOG_LIMIT:]}
    notes = {"dtkpipe.cause": str(failure.fingerprint), "dtkpipe.run": failure.run}
    registry.push_artifact(at.tagged(""), ARTIFACT, files, tag=at.tag, annotations=notes)


def read(registry: Registry, at: ImageRef) -> Failure:
    """Read a record. Raises InvalidError for something else under its tag, and what the registry raises."""
    manifest = registry.manifest(at)
    if not manifest.layers:
        raise InvalidError(f"{at} is no record of a failure")
    return Failure.from_json(registry.read_blob(at, manifest.layers[0]))


def read_log(registry: Registry, at: ImageRef) -> bytes:
    """Read the end of the log that a record keeps. Raises InvalidError for a record without one, and others."""
    manifest = registry.manifest(at)
    if len(manifest.layers) < 2:
        raise InvalidError(f"{at} keeps no log")
    return registry.read_blob(at, manifest.layers[1])
