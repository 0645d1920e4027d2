"""The one YAML writer. Same objects, same bytes, and every reader sees the same values.

YAML 1.1 and 1.2 readers disagree about `y`, `08`, `1e5`, `0o17`: here every string is in double quotes unless all of
them take it for a string (word characters after a letter, and none of their words for true, false and nothing).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

try:
    from yaml import CSafeDumper as _Base  # ten times faster where PyYAML has libyaml
except ImportError:  # pragma: no cover
    from yaml import SafeDumper as _Base  # type: ignore[assignment]

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"})
_NEVER_FOLD = 2**31 - 1


class Dumper(_Base):
    """Represents plain data only. Its own representers: other packages change those of PyYAML's classes."""

    yaml_representers = {}  # noqa: RUF012  (PyYAML's name and type)
    yaml_multi_representers = {}  # noqa: RUF012

    def ignore_aliases(self, _data: Any) -> bool:
        """Write what occurs twice twice: anchors are for machines."""
        return True


def _string(dumper: Any, text: str) -> yaml.Node:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')  # type: ignore[no-any-return]


def _refuse(_dumper: Any, value: object) -> yaml.Node:
    raise TypeError(f"{value!r} is no plain data")


Dumper.add_representer(None, _refuse)  # type: ignore[arg-type]
Dumper.add_representer(str, _string)
Dumper.add_representer(bool, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:bool", str(value).lower()))
Dumper.add_representer(int, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:int", str(value)))
Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items))
Dumper.add_representer(dict, lambda dumper, items: dumper.represent_mapping("tag:yaml.org,2002:map", items.items()))


def dump(objects: Sequence[Mapping[str, Any]]) -> str:
    """Write objects as one YAML stream, separated by `---`, keys in their order.

    Takes strings, booleans, integers, lists and dictionaries; anything else is a bug of the caller's and raises
    TypeError.
    """
    return "---\n".join(
        yaml.dump(one, Dumper=Dumper, sort_keys=False, default_flow_style=False, width=_NEVER_FOLD, allow_unicode=True)
        for one in objects
    )
