"""Mirrors of registries, as OpenShift names them: ImageContentSourcePolicy, ImageDigestMirrorSet, ImageTagMirrorSet.

Rules: openshift/api, config/v1 and operator/v1alpha1. The most specific source wins, its prefix is replaced, and
mirrors are asked in their order, before the source. ICSP and IDMS are for digests, ITMS is for tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from dtkpipe.errors import InvalidError
from dtkpipe.values.image import ImageRef

_NAME = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[a-z0-9._-]+)*")
_SOURCE = re.compile(rf"(?:\*\.)?{_NAME.pattern}")
# Kind -> where its sets stand in spec, and whether they are for tags.
_KINDS = {
    "ImageContentSourcePolicy": ("repositoryDigestMirrors", False),
    "ImageDigestMirrorSet": ("imageDigestMirrors", False),
    "ImageTagMirrorSet": ("imageTagMirrors", True),
}
_POLICIES = {"": True, "AllowContactingSource": True, "NeverContactSource": False}


@dataclass(frozen=True)
class MirrorSet:
    """Where the images below one source are too. `source` is `host[:port][/path]`, or `*.domain`."""

    source: str
    mirrors: tuple[str, ...]
    tags: bool
    contact_source: bool = True

    @property
    def weight(self) -> tuple[bool, int]:
        """How specific the source is."""
        return not self.source.startswith("*"), len(self.source)

    def rest(self, image: ImageRef) -> str | None:
        """Return what of an image's name follows the source: "" or "/path"; None for an image elsewhere."""
        if self.source.startswith("*."):
            # A wildcard stands for the host: the mirror takes the place of the whole of it.
            return f"/{image.repository}" if image.registry.endswith(self.source[1:]) else None
        name = image.name
        inside = name == self.source or name.startswith(f"{self.source}/")
        return name[len(self.source) :] if inside else None


@dataclass(frozen=True)
class Mirrors:
    """All the sets there are."""

    sets: tuple[MirrorSet, ...] = ()

    def places(self, image: ImageRef) -> tuple[ImageRef, ...]:
        """Return where to look for an image, in order; the image itself last, unless its source is never asked.

        A digest is looked for in the mirrors for tags too, after its own: what was found there by tag is read on there.
        """
        found, contact = self._mirrors(image, tags=not image.digest)
        if image.digest:
            found += self._mirrors(image, tags=True)[0]
        return tuple(dict.fromkeys([*found, *([image] if contact else [])]))

    def hosts(self, image: ImageRef) -> str:
        """Return in words the registries that an image is read from."""
        return " or ".join(dict.fromkeys(place.registry for place in self.places(image)))

    def digest_mirrors(self, image: ImageRef) -> tuple[ImageRef, ...]:
        """Return the mirrors for digests with the tag of `image`: where oc-mirror puts the images of releases."""
        return tuple(self._mirrors(image, tags=False)[0])

    def _mirrors(self, image: ImageRef, *, tags: bool) -> tuple[list[ImageRef], bool]:
        fitting = [(one, rest) for one in self.sets if one.tags == tags and (rest := one.rest(image)) is not None]
        best = max((one.weight for one, _ in fitting), default=None)
        chosen = [(one, rest) for one, rest in fitting if one.weight == best]
        names = [f"{mirror}{rest}" for one, rest in chosen for mirror in one.mirrors]
        return [_renamed(image, name) for name in names if "/" in name], all(one.contact_source for one, _ in chosen)


def _renamed(image: ImageRef, name: str) -> ImageRef:
    registry, _, repository = name.partition("/")
    return replace(image, registry=registry, repository=repository)


def parse_mirrors(text: str, where: str = "the mirror file") -> Mirrors:
    """Parse YAML or JSON with any number of documents, lists of objects among them, as `oc get -o yaml` prints them.

    Objects of other kinds are left out. Raises InvalidError for a set that is not valid, and for text without any.
    """
    import yaml

    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidError(f"{where}{line} is not YAML", error.problem or "") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidError(f"{where} is not YAML", str(error).splitlines()[0]) from error
    sets = tuple(one for document in documents for item in _objects(document) for one in _sets(item, where))
    if not sets:
        raise InvalidError(f"{where} names no mirrors", f"expected one of {', '.join(_KINDS)}")
    return Mirrors(sets)


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        items = document.get("items")
        yield from (one for one in items if isinstance(one, dict)) if isinstance(items, list) else [document]


def _sets(item: dict[str, Any], where: str) -> Iterator[MirrorSet]:
    kind = str(item.get("kind"))
    if kind not in _KINDS:
        return
    key, tags = _KINDS[kind]
    spec = item.get("spec")
    entries = spec.get(key) if isinstance(spec, dict) else None
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        place = f"{kind}: spec.{key}[{number}]"
        mirrors = entry.get("mirrors") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(mirrors or [], list):
            raise InvalidError(f"{where} is not valid", f"{place} is not a source with a list of mirrors")
        source = str(entry.get("source") or "")
        policy = str(entry.get("mirrorSourcePolicy") or "")
        names = [str(one) for one in mirrors or []]
        if not _SOURCE.fullmatch(source):
            raise InvalidError(
                f"{where} is not valid", f"{place}: source `{source[:80]}` is not a registry or repository"
            )
        if wrong := [one for one in names if not _NAME.fullmatch(one)]:
            raise InvalidError(f"{where} is not valid", f"{place}: `{wrong[0][:80]}` is not a registry or repository")
        if policy not in _POLICIES:
            raise InvalidError(
                f"{where} is not valid", f"{place}: mirrorSourcePolicy `{policy[:80]}`",
                f"known: {', '.join(name for name in _POLICIES if name)}",
            )  # fmt: skip
        yield MirrorSet(source, tuple(names), tags, _POLICIES[policy])
