"""Runs on a cluster: checked here, created as the smallest object the engine takes, or found to be there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtkpipe.app import clusters
from dtkpipe.app.clusters import Engine, Place, Where
from dtkpipe.app.compile import Wanted, compile_pipeline, refuse_local_source
from dtkpipe.app.params import complete
from dtkpipe.app.pipelines import load, names
from dtkpipe.app.submit.lock import ENDED, Lock, OnConflict, lock_name, sweep
from dtkpipe.app.submit.request import Named, Request, Say, has_step, identified, known_params, label, run_name, step_of
from dtkpipe.builders import BUILDERS, with_builder
from dtkpipe.clients.cluster import SECRETS, Object
from dtkpipe.engines.rendered import Form
from dtkpipe.errors import (
    DtkpipeError,
    ExistsError,
    NotAllowedError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.resources import shipped
from dtkpipe.values.run import RunCard
from dtkpipe.values.source import Source

DEFAULT_PIPELINE = "kmod"
INPUTS = "dtkpipe.io/inputs"
"""Annotation of a run: digest of all its inputs. Runs of one name with different inputs are not the same."""
MODULE = "dtkpipe.io/module"
"""Label of a run: the module that it builds."""
MOST = 100
"""How many runs of the same inputs there can be (--force)."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that has been checked, and the object that will be created."""

    engine: Engine
    place: Place
    pipeline: Pipeline
    params: Mapping[str, str]
    module: str
    name: str
    digest: str
    run: Object
    request: Request

    @property
    def how_to_install(self) -> str:
        """The command that puts the pipeline onto the cluster."""
        engine, pipeline, builder = self.engine.name, self.request.pipeline or DEFAULT_PIPELINE, ""
        if self.request.builder != BUILDERS[0]:
            builder = f" --builder {self.request.builder}"
        if pipeline in names():
            return f"dtkpipe install --engine {engine} -n {self.place.namespace}{builder}"
        compile_ = f"dtkpipe compile --engine {engine} --pipeline {pipeline}{builder}"
        return f"{compile_} | kubectl apply -n {self.place.namespace} -f -"


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A run that is on the cluster."""

    name: str
    card: RunCard
    uid: str
    created: bool
    """False: it was there already."""


def find_engine(where: Where, request: Request, say: Say) -> tuple[Engine, Place] | None:
    """Return the engine that a configured cluster has our pipeline installed for; None where there is none."""
    if not clusters.is_configured(where):
        return None
    place = clusters.connect(where)
    pipeline = _pipeline(request).name
    try:
        found = clusters.find_engine(place, pipeline)
    except UnreachableError as error:
        raise clusters.unreachable_without_engine(error) from error
    if not found:
        return None
    engine, _ = found
    say(f"engine {engine.name}: pipeline {pipeline} is installed in {place}")
    return engine, place


def prepare(request: Request, engine: Engine, place: Place, here: Path, say: Say) -> Prepared:
    """Check the request, pin what can be pinned from here, and say what will be built from what. Asks no cluster.

    Raises DtkpipeError: what makes no sense on a cluster, unknown pipeline, parameter or release, a source that a pod
    cannot reach.
    """
    return prepare_loaded(_pipeline(request), request, engine, place, here, say)


def prepare_loaded(
    pipeline: Pipeline, request: Request, engine: Engine, place: Place, here: Path, say: Say
) -> Prepared:  # fmt: skip
    """Do the same for a pipeline that was loaded before: for who has many runs of it."""
    _refuse_what_is_for_this_machine(pipeline, request, place)
    params = complete(pipeline, known_params(pipeline, request.inputs.of(pipeline)))
    if has_step(pipeline, "resolve"):
        params = _pinned_release(params, say)
    named = Named(module=pipeline.name, commit="", params=params)
    if repo := params.get("repo"):
        refuse_local_source(repo)
        named = _pinned_source(
            Source.parse(repo, params.get("ref", ""), params.get("path", ""), here=here), params, say
        )
    if has_step(pipeline, "sign"):
        _say_signing(params, say)
    name, digest = run_name(named, pipeline.name)
    return Prepared(
        engine=engine, place=place, pipeline=pipeline, params=named.params, module=named.module, name=name,
        digest=digest, run=_object(engine, pipeline, named, name, digest), request=request,
    )  # fmt: skip


def check_there(prepared: Prepared, say: Say) -> None:
    """See that the cluster has what the run needs: the pipeline, and the Secret with the signing key.

    Raises UnsupportedError, NotFoundError, each with what to do.
    """
    place = prepared.place
    template = clusters.installed(place, prepared.engine, prepared.pipeline.name, prepared.how_to_install)
    clusters.say_versions(template, say)
    if not prepared.params.get("sign-cert"):
        return
    secret = next(one for task in prepared.pipeline.tasks if step_of(task) == "sign" for one in task.secrets
                  if one.name == "signing-key")  # fmt: skip
    default = next(one.default for one in prepared.pipeline.params if one.name == secret.param)
    name = prepared.params.get(secret.param) or default or ""
    try:
        found = place.cluster.find(SECRETS, name, place.namespace)
    except NotAllowedError:  # whoever may start runs need not be allowed to see secrets
        return
    if found is None:
        raise NotFoundError(
            f"there is no Secret {name} in namespace {place.namespace}", "it holds the key that signs modules",
            hint=f"kubectl create secret generic {name} -n {place.namespace} --from-file=key=FILE",
        )  # fmt: skip


def try_create(prepared: Prepared) -> Object:
    """Let the cluster check the run without creating it (--dry-run=server). Raises what creating it would raise."""
    place = prepared.place
    try:
        return place.cluster.create(prepared.engine.runs, prepared.run, place.namespace, dry_run=True)
    except ExistsError:
        there(prepared, prepared.name)  # raises for one that is none of ours
        return prepared.run


def submit(prepared: Prepared, on_conflict: OnConflict, say: Say, until: float | None = None) -> Submitted:
    """Create the run, or find that it is there: the same inputs are the same run, however often they are submitted.

    Raises ExistsError for an object of that name that is none of ours, what the lock raises, and what the cluster
    says against it.
    """
    if not prepared.request.force and (found := there(prepared, prepared.name)):
        return found
    for number in range(1, MOST):
        name = name_of_try(prepared, number) if prepared.request.force else prepared.name
        if prepared.request.force and _is_taken(prepared, name):
            continue
        if done := create(prepared, name, on_conflict, say, until):
            sweep(prepared.place)
            return done
    raise too_many(prepared)


def name_of_try(prepared: Prepared, number: int) -> str:
    """Return the name of the first, second, ... run of the same inputs."""
    return f"{prepared.name}-{number}" if number > 1 else prepared.name


def too_many(prepared: Prepared) -> ExistsError:
    """Return the error for inputs that were run too often."""
    return ExistsError(f"there are {MOST} runs {prepared.name}-*", hint="delete some: dtkpipe delete RUN")


def _pipeline(request: Request) -> Pipeline:
    return with_builder(load(request.pipeline or DEFAULT_PIPELINE), request.builder)


def create(prepared: Prepared, name: str, on_conflict: OnConflict, say: Say, until: float | None) -> Submitted | None:
    """Create the run under its lock, or find it there. None: its name was taken, or given free, in this very moment.

    Raises what `submit` raises.
    """
    engine, place = prepared.engine, prepared.place
    lock = _lock(prepared, name)
    if lock:
        lock.acquire(on_conflict, say, until)
    try:
        run = place.cluster.create(engine.runs, _called(prepared.run, name), place.namespace)
    except ExistsError:
        if not prepared.request.force:
            return there(prepared, name)
        if lock:
            lock.release()
        return None
    except DtkpipeError:
        if lock:
            lock.release()
        raise
    if lock:
        lock.belongs_to(run)
    return Submitted(name=name, card=engine.card(run), uid=str(run["metadata"]["uid"]), created=True)


def there(prepared: Prepared, name: str) -> Submitted | None:
    """Return the run if it is there already. Raises ExistsError for something else of that name."""
    engine, place = prepared.engine, prepared.place
    found = place.cluster.find(engine.runs, name, place.namespace)
    if found is None:
        return None
    if (found["metadata"].get("annotations") or {}).get(INPUTS) != prepared.digest:
        raise ExistsError(
            f"{engine.runs.words}/{name} in namespace {place.namespace} is not the run that was asked for",
            "it was made by somebody else, or from other inputs",
            hint="delete it, or --force for a run of another name",
        )
    card = engine.card(found)
    if card.state not in ENDED and (lock := _lock(prepared, name)):
        lock.belongs_to(found)  # who created it may have been killed before
    return Submitted(name=name, card=card, uid=str(found["metadata"]["uid"]), created=False)


def _lock(prepared: Prepared, name: str) -> Lock | None:
    """Return the lock of a run; none for a pipeline that pushes nowhere."""
    if not prepared.params.get("push-to"):
        return None
    lease = lock_name(prepared.module, prepared.params)
    return Lock(place=prepared.place, engine=prepared.engine, name=lease, run=name)


def _is_taken(prepared: Prepared, name: str) -> bool:
    return prepared.place.cluster.find(prepared.engine.runs, name, prepared.place.namespace) is not None


def _object(engine: Engine, pipeline: Pipeline, named: Named, name: str, digest: str) -> Object:
    wanted = Wanted(engine=engine.name, form=Form.RUN, params=named.params, run_name=name)
    run = compile_pipeline(pipeline, wanted).objects[0]
    metadata = run["metadata"]
    labels = {**metadata["labels"], MODULE: label(named.module, 63)}
    return {**run, "metadata": {**metadata, "labels": labels, "annotations": {INPUTS: digest}}}


def _called(run: Object, name: str) -> Object:
    labels = {**run["metadata"]["labels"], clusters.RUN: name}
    return {**run, "metadata": {**run["metadata"], "name": name, "labels": labels}}


def _refuse_what_is_for_this_machine(pipeline: Pipeline, request: Request, place: Place) -> None:
    own, there = request.here, f"-n {place.namespace}"
    signing = "kubectl create secret generic dtkpipe-signing-key --from-file=key=FILE"
    instead = {
        "--sign-key": (own.sign_key, f"{signing} {there}; it is read by the task `sign` alone"),
        "--sign-passphrase-file": (own.sign_passphrase_file, f"{signing} --from-file=passphrase=FILE {there}"),
        "--auth-file": (
            own.auth_file,
            f"kubectl create secret generic dtkpipe-registry --from-file=config.json=FILE {there}",
        ),
        "--secret": (
            own.secrets,
            f"kubectl create secret generic NAME --from-file=FOLDER {there}, and -p with the parameter that names it",
        ),
        "--load-on-this-host": (own.load_on_this_host, "--engine local; on a cluster, kmod loads on its nodes"),
        "--from-step": (own.from_step, "dtkpipe retry RUN --from-failed, or --force for another run"),
        "--keep": (own.keep, "dtkpipe logs keeps what was said; candidates stay until `clean` of --pipeline"),
    }  # fmt: skip
    for flag, (given, hint) in instead.items():
        if given:
            raise UsageError(
                f"{flag} is for runs on this machine", f"asked: a run of {pipeline.name} on a cluster", hint=hint
            )


def _pinned_release(params: Mapping[str, str], say: Say) -> dict[str, str]:
    """Say which release a line of them means now, and ask the run for that one. Channels are left to the run."""
    from dtkpipe.releases.lock import Lock as ReleaseLock
    from dtkpipe.toolkits.distribution import distribution_names
    from dtkpipe.values.arch import Arch
    from dtkpipe.values.release import DistributionRelease, parse_release

    if not (text := params.get("release")):
        return dict(params)
    release = parse_release(text, distribution_names())
    if isinstance(release, DistributionRelease):
        say(f"release {text}: the run finds its newest kernel")
        return dict(params)
    lock = ReleaseLock(shipped("catalog/releases"))
    version = release.exact or (None if release.channel else lock.newest(release))
    if version is None:
        say(f"release {text}: the run finds out which one that is now")
        return dict(params)
    arch = Arch.parse(params["arch"]) if params.get("arch") else Arch.host()
    known = [f"{row.kernels[name]} ({name})" for row in lock.find(version, arch) for name in row.kernels]
    toolkits = [row.toolkit for row in lock.find(version, arch) if row.toolkit]
    facts = [f"kernel {', '.join(dict.fromkeys(known))}"] if known else []
    facts += [f"toolkit {toolkits[0][:19]}"] if toolkits else ["its toolkit is found by the run"]
    say(f"release {text}{f' is {version}' if str(version) != text else ''}: {'; '.join(facts)}")
    return {**params, "release": str(version)}


def _pinned_source(source: Source, params: Mapping[str, str], say: Say) -> Named:
    """Find the commit from here; where that is not possible, the run does."""
    try:
        named, title = identified(source, params)
    except (UnreachableError, NotAllowedError) as error:
        say(f"repo {source}: the run finds its commit; from here it cannot be read: {error.what}")
        return Named(module=source.name, commit="", params={**params, "repo": source.repo})
    say(f"repo {title}")
    return named


def _say_signing(params: Mapping[str, str], say: Say) -> None:
    """Say whether modules get signed. Raises InvalidError for a certificate that is none."""
    if not (certificate := params.get("sign-cert")):
        say("unsigned: modules are not signed (--sign-cert, and a Secret with its key, sign them)")
        return
    from dtkpipe.tools.x509 import Certificate

    signer = Certificate.from_base64(certificate)
    for warning in signer.warnings():
        say(f"warning: {warning}")
    say(f"signing for {signer.signer}")
