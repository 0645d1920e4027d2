"""publish: give a proven image its final tags, with its run card and evidence attached."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dtkpipe.errors import InvalidError, NotFoundError, RunFailedError
from dtkpipe.steps.contract import RegistryArgs, Room, arg, result
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from dtkpipe.values.key import LABEL, ContentKey, KeyTag, signer_id

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry

PROVEN = "proven"
RUN_CARD = "application/vnd.dtkpipe.run.v1+json"
EVIDENCE = "application/vnd.dtkpipe.evidence.v1+json"
"""Types of the artifacts that are attached to a published image."""
KEY = "dtkpipe.key"
"""Annotation of an attachment: the same inputs have the same."""
_COMMIT = 12


@dataclass(frozen=True, kw_only=True)
class Args(RegistryArgs):
    """The proven image, and where it belongs."""

    image: ImageRef = arg("Verified image, by digest")
    verdict: str = arg("Verdict of verify; anything but `proven` publishes nothing")
    evidence: str = arg("Evidence of verify", "")
    push_to: ImageRef = arg("Repository for the final image; a tag given with it is set as well")
    kernel: Kernel = arg("Kernel release the image is for: its tag")
    run_name: str = arg("Name of the run")
    toolkit: str = arg("Toolkit image, by digest", "")
    release: str = arg("Release the image is for", "")
    repo: str = arg("Source of the module", "")
    commit: str = arg("Commit of the source", "")
    signer: str = arg("Signer of the modules", "")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The published image."""

    image_url: str = result("Repository of the published image")
    image_digest: str = result("Digest of the published image")
    tags: str = result("Final tags, separated by spaces")


def run(args: Args, room: Room) -> Results:
    """Copy by digest, attach, tag; in this order. Raises RunFailedError for anything but a proven image."""
    from dtkpipe.clients.registry import Registry

    if args.verdict != PROVEN:
        raise RunFailedError(
            "nothing was published: only a proven image is", f"the verdict is: {args.verdict[:200] or 'none'}"
        )
    if not args.image.digest:
        raise InvalidError("nothing was published: the image is not given by digest", str(args.image))
    registry = Registry(args.access(room.environ))
    files = attachments(args)
    tags = final_tags(args, registry.config(args.image, args.kernel.arch).labels.get(LABEL, ""))
    repo = args.push_to.tagged("")
    image = repo.at(registry.copy(args.image, repo))
    attached = _attach(registry, image, files, room)
    moved = [tag for tag in tags if _tag(registry, image, tag, room)]
    if attached or moved:
        room.say(f"published {image}")
    else:
        room.say(f"already published, nothing to do: {image}")
    return Results(image_url=image.name, image_digest=image.digest, tags=" ".join(tags))


def final_tags(args: Args, key: str = "") -> tuple[str, ...]:
    """Return the tags of the final image, the kernel's last: whoever looks for it finds everything there.

    `key` is the image's content key, by which a matrix finds it; an image of another maker has none.
    Raises InvalidError for a tag that no registry takes.
    """
    commit = args.commit.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]*", commit):
        raise InvalidError(f"`{args.commit}` is not a commit", "expected hexadecimal digits")
    by_key = str(KeyTag(ContentKey.parse(key), signer_id(args.signer))) if key else ""
    wanted = [args.push_to.tag, by_key, f"{args.kernel.tag}-{commit[:_COMMIT]}" if commit else "", args.kernel.tag]
    tags = tuple(dict.fromkeys(tag for tag in wanted if tag))
    for tag in tags:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag):
            raise InvalidError(f"`{tag}` is not a tag", "at most 128 letters, digits, `.`, `_` and `-`")
    return tags


def attachments(args: Args) -> dict[str, tuple[str, bytes]]:
    """Return what is attached to the image: artifact type -> file name and content. No clock, no host in them.

    Raises InvalidError for evidence that cannot be read, RunFailedError for that of another image.
    """
    from dtkpipe import __version__
    from dtkpipe.values.run import SUCCEEDED, RunCard

    evidence = _evidence(args)
    inputs = {name: str(getattr(args, name)) for name in ("repo", "commit", "release", "kernel", "toolkit", "signer")}
    card = RunCard(
        name=args.run_name,
        engine="",
        pipeline="",
        state=SUCCEEDED,
        inputs={**inputs, "image_digest": args.image.digest},
        verdict=evidence or {"verdict": args.verdict},
        tool=__version__,
    )
    found = {RUN_CARD: ("run.json", card.to_json().encode() + b"\n")}
    if evidence:
        text = json.dumps(evidence, indent=2, ensure_ascii=False, sort_keys=True)
        found[EVIDENCE] = ("evidence.json", text.encode() + b"\n")
    return found


def _evidence(args: Args) -> dict[str, Any]:
    """Read what verify gives, and see to it that it is about this image."""
    from dtkpipe.proof.verdict import unpack_evidence

    if not args.evidence:
        return {}
    found = unpack_evidence(args.evidence)
    about = str(found.get("image") or "")
    if found.get("verdict") != PROVEN or ("@" in about and not about.endswith(args.image.digest)):
        raise RunFailedError(
            "nothing was published: the evidence is not for this image",
            f"it says: {found.get('verdict')}, {about}",
            f"to publish: {args.image}",
        )
    return found


def _attach(registry: Registry, image: ImageRef, files: dict[str, tuple[str, bytes]], room: Room) -> bool:
    """Attach what is not attached yet, for the same inputs from whichever run; tell whether something was."""
    key = _key(image, files)
    new = False
    for artifact_type, (name, content) in files.items():
        there = registry.referrers(image, artifact_type)
        if any(one.annotations.get(KEY) == key for one in there):
            continue
        registry.attach(image, artifact_type, {name: content}, {KEY: key})
        room.say(f"attached {name}")
        new = True
    return new


def _key(image: ImageRef, files: dict[str, tuple[str, bytes]]) -> str:
    """Return what makes two runs the same: all inputs, but neither the run's name nor how long the proofs took."""
    card = json.loads(files[RUN_CARD][1])
    same = {"image": image.digest, "inputs": card["inputs"], "tool": card["tool"], "evidence": EVIDENCE in files}
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _tag(registry: Registry, image: ImageRef, tag: str, room: Room) -> bool:
    """Let a tag point at the image; tell whether it did not before."""
    target = image.tagged(tag)
    try:
        before = registry.digest(target)
    except NotFoundError:
        before = ""
    if before == image.digest:
        return False
    registry.tag(image, [tag])
    room.say(f"moved {target}: {before} -> {image.digest}" if before else f"tagged {target}: {image.digest}")
    return True
