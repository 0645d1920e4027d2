"""Documents written by people: read strictly, every scalar as the text that was written.

YAML's guesses (5.10 is 5.1, `on` is true, a short commit 1e5 is a number) are what this keeps out. A key that nobody
asks for is an error that names its nearest neighbour.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from dtkpipe.errors import DtkpipeError, InvalidError

T = TypeVar("T")

LIMIT = 256 * 1024
"""Characters that a document may have."""


def load(text: str, where: str) -> Any:
    """Parse YAML or JSON text into dicts, lists and strings. Raises InvalidError with the line."""
    if len(text) > LIMIT:
        raise InvalidError(f"{where} is larger than {LIMIT // 1024} KiB")
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=lambda pairs: _once(pairs, where))
        except ValueError:
            pass  # YAML's flow style begins the same
    import yaml

    try:
        return _plain(yaml.compose(text, Loader=yaml.SafeLoader), where, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InvalidError(f"{where}{line} is not YAML", error.problem or str(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidError(f"{where} is not YAML", str(error).splitlines()[0]) from error


def _once(pairs: Sequence[tuple[str, Any]], where: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidError(f"{where}: `{key}` is given twice")
        result[key] = value
    return result


def _plain(node: Any, where: str, above: tuple[int, ...]) -> Any:
    if node is None:
        return {}
    if id(node) in above:
        raise InvalidError(f"{where}:{node.start_mark.line + 1} contains itself")
    above = (*above, id(node))
    if node.id == "mapping":
        return _once([(str(key.value), _plain(value, where, above)) for key, value in node.value], where)
    if node.id == "sequence":
        return [_plain(item, where, above) for item in node.value]
    return "" if node.tag == "tag:yaml.org,2002:null" else node.value


class Document:
    """One mapping of a document, and where in it we are."""

    def __init__(self, data: Any, where: str, path: str = "") -> None:
        self._where, self._path = where, path
        self._known: dict[str, None] = {}
        if data in ("", None):
            data = {}
        if not isinstance(data, dict):
            raise self.error("", "expected keys and values here")
        self._data: dict[str, Any] = data

    def error(self, key: str, problem: str, *details: str, hint: str = "") -> InvalidError:
        """Return an error about `key`, with the file and the key's whole path."""
        path = ".".join(part for part in (self._path, key) if part)
        return InvalidError(f"{self._where}: {path}: {problem}" if path else f"{self._where}: {problem}", *details,
                            hint=hint)  # fmt: skip

    def done(self) -> None:
        """Refuse keys that nobody asked for. Raises InvalidError with the nearest key."""
        for key in self._data:
            if key not in self._known:
                near = difflib.get_close_matches(str(key), list(self._known), n=1)
                known = ", ".join(self._known)
                raise self.error(str(key), "unknown key", f"known: {known}",
                                 hint=f"did you mean `{near[0]}`?" if near else "")  # fmt: skip

    def _take(self, key: str, also: str = "") -> Any:
        self._known[key] = None
        if also and also in self._data:
            self._known[also] = None
            if key in self._data:
                raise self.error(also, f"is given as `{key}` too")
            return self._data[also]
        return self._data.get(key)

    def _string(self, path: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            shown = f"{value!r}" if isinstance(value, int | float) else type(value).__name__
            raise self.error(path, f"expected text, got {shown}", hint="put it in quotes")
        text = str(value)
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
            raise self.error(path, "control characters and line breaks are not allowed here")
        return text

    def text(self, key: str, default: str = "", *, also: str = "") -> str:
        """Return a string."""
        value = self._take(key, also)
        return default if value in (None, "") else self._string(key, value)

    def matching(self, key: str, pattern: re.Pattern[str], what: str, *, required: bool = False) -> str:
        """Return a string of the form `pattern`, or an empty one."""
        text = self.text(key)
        if not text and not required:
            return ""
        if not pattern.fullmatch(text):
            raise self.error(key, f"`{text}` is not allowed" if text else "is required", f"expected {what}")
        return text

    def groups(self, key: str, pattern: re.Pattern[str], what: str, default: str) -> tuple[str, ...]:
        """Return the groups of `pattern` in a string."""
        text = self.text(key, default)
        found = pattern.fullmatch(text)
        if not found:
            raise self.error(key, f"`{text}` is not allowed", f"expected {what}")
        return tuple(found.groups())

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Return one of `choices`."""
        text = self.text(key, default)
        if text != default and text not in choices:
            near = difflib.get_close_matches(text, choices, n=1)
            raise self.error(key, f"`{text}` is not known", f"known: {', '.join(choices)}",
                             hint=f"did you mean `{near[0]}`?" if near else "")  # fmt: skip
        return text

    def convert(self, key: str, parse: Callable[[str], T], *, also: str = "", default: str | None = None) -> T:
        """Return what `parse` makes of a string; its error is told with the key."""
        text = self.text(key, also=also)
        if not text and default is None:
            raise self.error(key, "is required")
        return self._converted(key, text or default or "", parse)

    def converted(self, key: str, parse: Callable[[str], T], *, also: str = "") -> Iterator[T]:
        """Return what `parse` makes of each string of a list."""
        return (self._converted(f"{key}[{n}]", text, parse) for n, text in enumerate(self.texts(key, also=also)))

    def _converted(self, path: str, text: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(text)
        except DtkpipeError as error:
            raise self.error(path, error.what, *error.details, hint=error.hint) from error

    def texts(self, key: str, *, also: str = "") -> list[str]:
        """Return a list of strings. One string alone is a list of one only under an `also` spelling."""
        value = self._take(key, also)
        if value in (None, ""):
            return []
        if isinstance(value, str) and also and key not in self._data:
            return [self._string(key, value)]
        if not isinstance(value, list | tuple):
            raise self.error(key, "expected a list", hint=f"write `{key}: [...]`")
        return [self._string(f"{key}[{n}]", item) for n, item in enumerate(value)]

    def each(self, key: str, pattern: re.Pattern[str], what: str) -> list[str]:
        """Return a list of strings of the form `pattern`."""
        texts = self.texts(key)
        for n, text in enumerate(texts):
            if not pattern.fullmatch(text):
                raise self.error(f"{key}[{n}]", f"`{text}` is not {what}")
        return texts

    def _inside(self, path: str, text: str) -> str:
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if text.startswith(("/", "-")) or ".." in parts:
            raise self.error(path, f"`{text}` is not a path inside the folder")
        return "/".join(parts)

    def path(self, key: str, *, also: str = "") -> str:
        """Return a relative path that stays inside its folder; `.` is empty."""
        return self._inside(key, self.text(key, also=also))

    def paths(self, key: str) -> list[str]:
        """Return a list of relative paths that stay inside their folder."""
        return [self._inside(f"{key}[{n}]", text) for n, text in enumerate(self.texts(key))]

    def section(self, key: str) -> Document:
        """Return a mapping below this one; an empty one if it is not there."""
        return Document(self._take(key), self._where, ".".join(part for part in (self._path, key) if part))

    def sections(self, key: str, *, short: str) -> list[Document]:
        """Return a list of mappings. An item that is a string or a list stands for `{short: item}`."""
        value = self._take(key)
        if value in (None, ""):
            return []
        if not isinstance(value, list | tuple):
            raise self.error(key, "expected a list", hint=f"write `{key}: [...]`")
        path = ".".join(part for part in (self._path, key) if part)
        return [
            Document(item if isinstance(item, dict) else {short: item}, self._where, f"{path}[{n}]")
            for n, item in enumerate(value)
        ]

    def pairs(self, key: str, names: re.Pattern[str], *, also: str = "") -> dict[str, str]:
        """Return name -> string, from a mapping or from KMM's list of {name, value}."""
        value = self._take(key, also)
        if value in (None, ""):
            return {}
        if isinstance(value, list | tuple):
            items = [Document(item, self._where, f"{key}[{n}]") for n, item in enumerate(value)]
            value = _once([(item.text("name"), item.text("value")) for item in items], f"{self._where}: {key}")
        if not isinstance(value, dict):
            raise self.error(key, "expected names and values")
        for name in value:
            if not names.fullmatch(str(name)):
                raise self.error(key, f"`{name}` is not a name of a variable")
        return {name: self._string(f"{key}.{name}", item) if item != "" else "" for name, item in value.items()}
