"""The one YAML writer. Same objects, same bytes, and every reader sees the same values.

YAML 1.1 and 1.2 readers disagree about `y`, `08`, `1e5`, `0o17`: here a string is in double quotes, as in JSON, unless
all of them take it for a string (word characters after a letter, and none of their words for true, false, nothing).
Written by hand because that is all there is to it: PyYAML's fastest writer needs ten times as long for a pipeline, and
its representers belong to whoever changed them last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"})
# What YAML 1.1 does not call printable, and JSON leaves as it is. https://yaml.org/spec/1.1/#c-printable
_NOT_PRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def dump(documents: Sequence[Mapping[str, Any] | Sequence[Any]]) -> str:
    """Write documents as one YAML stream, separated by `---`, keys in their order.

    Takes what JSON takes; anything else (a number that is not finite, too) is the caller's bug and raises TypeError.
    """
    texts = []
    for one in documents:
        lines: list[str] = []
        if isinstance(one, dict) and one:
            _mapping(one, "", "", lines)
        elif isinstance(one, list) and one:
            _sequence(one, "", "", lines)
        else:
            lines.append(_scalar(one))
        texts.append("\n".join([*lines, ""]))
    return "---\n".join(texts)


def _mapping(items: Mapping[str, Any], first: str, indent: str, lines: list[str]) -> None:
    """Append the lines of a mapping; the first one begins with `first` (`- ` of a sequence), the others with spaces."""
    for key, value in items.items():
        _value(f"{first}{_string(key)}:", value, indent, lines)
        first = indent


def _sequence(items: Sequence[Any], first: str, indent: str, lines: list[str]) -> None:
    for value in items:
        if isinstance(value, dict) and value:
            _mapping(value, f"{first}- ", f"{indent}  ", lines)
        elif isinstance(value, list) and value:
            _sequence(value, f"{first}- ", f"{indent}  ", lines)
        else:
            lines.append(f"{first}- {_scalar(value)}")
        first = indent


def _value(head: str, value: Any, indent: str, lines: list[str]) -> None:
    if isinstance(value, dict) and value:
        lines.append(head)
        _mapping(value, f"{indent}  ", f"{indent}  ", lines)
    elif isinstance(value, list) and value:
        lines.append(head)
        _sequence(value, indent, indent, lines)
    else:
        lines.append(f"{head} {_scalar(value)}")


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and isfinite(value):
        return f"{value:.6f}"
    if value == {} or value == []:
        return "{}" if value == {} else "[]"
    raise TypeError(f"{value!r} is no plain data")


@lru_cache(maxsize=8192)
def _string(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no key")
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
