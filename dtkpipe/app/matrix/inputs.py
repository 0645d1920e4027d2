"""From a cell of a matrix to the parameters of its run: the same on every engine."""

from __future__ import annotations

from dataclasses import replace

from dtkpipe.app.matrix.plan import Place, Request
from dtkpipe.matrix.plan import Known, Planned
from dtkpipe.releases.images import CONTENT
from dtkpipe.values.cell import State
from dtkpipe.values.key import UNSIGNED
from dtkpipe.values.source import GIT


def is_signed_only(one: Planned, request: Request) -> bool:
    """Whether the image is there, and lacks nothing but this signature. What has one cannot become unsigned."""
    return one.state is State.RESIGN and request.signer != UNSIGNED


def pipeline_of(one: Planned, request: Request, pipeline: str) -> str:
    """Return the pipeline that a cell takes, where `pipeline` builds: name or file."""
    return "resign" if is_signed_only(one, request) else pipeline


def inputs_of(one: Planned, known: Known, request: Request, at: Place) -> dict[str, str]:
    """Return the parameters of a cell's run, without what says how registries are spoken to. `spec` is its text."""
    source, target = known.module.source, one.target
    given = {"push-to": known.repo.name, "staging": at.staging}
    if is_signed_only(one, request):
        given["image"] = one.image
    else:
        given |= {
            "repo": source.repo, "path": source.path, "ref": known.commit if source.kind == GIT else "",
            "spec": replace(known.module.spec, exclusions=()).to_json(), "release": target.release,
            "kernel": target.kernel.release, "arch": target.arch.name, "variant": target.kernel.variant,
            "stream": target.stream, "toolkit-repo": at.toolkit_repo,
        }  # fmt: skip
        if request.lock and target.toolkits and not target.toolkit_tag:
            given["toolkit"] = str(CONTENT.at(target.toolkits[0]))  # a run only knows the lock that is shipped
    return {name: value for name, value in given.items() if value}
