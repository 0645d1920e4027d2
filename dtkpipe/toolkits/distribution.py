"""The distributions that toolkits are made of: catalog/toolkits/*.yaml, parsed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.resources import shipped
from dtkpipe.values.arch import Arch


@dataclass(frozen=True)
class Distribution:
    """One release of a distribution, and which of its packages make a toolkit."""

    name: str
    """What `--release` takes: `debian-12`."""
    title: str
    suite: str
    pockets: tuple[str, ...]
    flavours: Mapping[str, str]
    tools: tuple[str, ...]
    native: tuple[str, ...]
    cross: tuple[str, ...]
    alternatives: Mapping[str, str]
    """Command -> the command it is a link to."""
    leave_out: tuple[str, ...]
    """Patterns (fnmatch) of paths that no toolkit needs."""

    def suffix(self, variant: str, arch: Arch) -> str:
        """Return what ends the names of a flavour's kernels: `cloud-amd64`. Raises NotFoundError."""
        if variant not in self.flavours:
            raise NotFoundError(f"{self.name} has no kernel variant `{variant}`", f"it has: {', '.join(self.flavours)}")
        return self.flavours[variant].format(arch=arch.debian)

    def packages(self, target: Arch, host: Arch) -> tuple[str, ...]:
        """Return the packages of the toolkit's base: for kernels of `target`, run on `host`."""
        if target == host:
            return (*self.tools, *self.native)
        named = target.name.replace("_", "-")
        return (*self.tools, *(one.format(target=named) for one in self.cross))


@cache
def distributions() -> tuple[Distribution, ...]:
    """Return all that are in the catalogue, by name. Raises InvalidError for a file that is not right."""
    import yaml

    found = []
    for path in sorted(shipped("catalog/toolkits").glob("*.yaml")):
        try:
            found.append(_parse(yaml.safe_load(path.read_text())))
        except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise InvalidError(f"{path} is not a toolkit description", str(error)) from error
    return tuple(found)


def distribution_names() -> tuple[str, ...]:
    """Return the names of all that are in the catalogue, without reading it."""
    return tuple(sorted(path.stem for path in shipped("catalog/toolkits").glob("*.yaml")))


def _parse(data: Mapping[str, Any]) -> Distribution:
    return Distribution(
        name=str(data["name"]),
        title=str(data["title"]),
        suite=str(data["suite"]),
        pockets=tuple(map(str, data["pockets"])),
        flavours={str(name): str(suffix) for name, suffix in data["flavours"].items()},
        tools=tuple(map(str, data["tools"])),
        native=tuple(map(str, data["native"])),
        cross=tuple(map(str, data["cross"])),
        alternatives={str(name): str(target) for name, target in data["alternatives"].items()},
        leave_out=tuple(map(str, data["leave_out"])),
    )
