"""What is known of a matrix, written for people and machines: one form to stdout, or all of them into a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe.app.matrix.plan import Place
from dtkpipe.errors import DtkpipeError
from dtkpipe.matrix.causes import Group, grouped
from dtkpipe.matrix.failure import Failure, read, read_log
from dtkpipe.matrix.plan import Plan
from dtkpipe.values.cell import State
from dtkpipe.values.image import ImageRef

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry

FORMS = ("html", "json", "badge", "junit", "markdown")
_FILES = {"html": "index.html", "json": "matrix.json", "badge": "badge.svg", "junit": "junit.xml",
          "markdown": "summary.md"}  # fmt: skip
_PARALLEL = 16


def failures(plan: Plan, registry: Registry, cache: Path) -> dict[str, Failure]:
    """Return the record of every red cell, by its image reference. A record never changes: it is read once.

    One that cannot be read is left out; its cell stays red, for that reason.
    """
    folder = cache / "matrix" / "failures"
    images = [one.image for one in plan.cells if one.state is State.FAILED_BEFORE]

    def record(image: str) -> Failure | None:
        kept = folder / re.sub(r"[^A-Za-z0-9.-]", "_", image)
        try:
            return Failure.from_json(kept.read_bytes())
        except (OSError, DtkpipeError):
            pass
        try:
            found = read(registry, ImageRef.parse(image))
        except DtkpipeError:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f"{kept.name}.new")
        beside.write_text(found.to_json())
        beside.replace(kept)
        return found

    with ThreadPoolExecutor(_PARALLEL) as pool:
        return {image: one for image, one in zip(images, pool.map(record, images), strict=True) if one}


def groups(plan: Plan, at: Place, cache: Path) -> tuple[Group, ...]:
    """Return the red cells by their causes."""
    return grouped(plan.cells, failures(plan, at.registry, cache))


def rendered(form: str, plan: Plan, causes: tuple[Group, ...], when: str, logs: Mapping[str, str]) -> str:
    """Return the report in one of FORMS, ending in a newline."""
    import json

    if form == "html":
        from dtkpipe.report.matrix_page import Extra, page

        return page(plan, Extra(groups=causes, when=when, logs=logs))
    if form == "junit":
        from dtkpipe.report.matrix_formats import junit

        return junit(plan, causes)
    if form == "markdown":
        from dtkpipe.report.matrix_formats import markdown

        return markdown(plan, causes)
    if form == "badge":
        from dtkpipe.report.matrix_formats import badge

        return badge(plan)
    from dtkpipe.report.matrix import document, of_groups

    whole = {**document(plan), "causes": of_groups(causes), "when": when}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path, plan: Plan, causes: tuple[Group, ...], at: Place, when: str) -> list[Path]:
    """Write every form into a folder, and the logs of red cells beside them; return the files but the logs."""
    logs = _logs(folder, causes, at)
    written = []
    for form, name in _FILES.items():
        file = folder / name
        beside = file.with_name(f".{name}.new")
        beside.write_text(rendered(form, plan, causes, when, logs))
        beside.replace(file)
        written.append(file)
    return written


def _logs(folder: Path, causes: tuple[Group, ...], at: Place) -> dict[str, str]:
    """Write the logs; return where each one is, relative to the folder. One that cannot be read has no link."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    cells = [one for group in causes for one in group.cells]

    def log(image: str, name: str) -> str:
        try:
            text = read_log(at.registry, ImageRef.parse(image))
        except DtkpipeError:
            return ""
        (folder / "logs" / name).write_bytes(text)
        return f"logs/{name}"

    names = [f"{_file(one.module)}-{_file(one.target.kernel.release)}.txt" for one in cells]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = pool.map(log, [one.image for one in cells], names)
        return {one.image: path for one, path in zip(cells, found, strict=True) if path}


def _file(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)
