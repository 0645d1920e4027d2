"""From what the user asked to a run on this machine: checked up front, and named by its inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtkpipe import __version__
from dtkpipe.app.leftovers import sweep
from dtkpipe.app.params import Inputs, complete, known
from dtkpipe.app.pipelines import load
from dtkpipe.app.registry import loopback_registry
from dtkpipe.app.runs import Runs
from dtkpipe.engines.local.engine import Order, Watcher, execute
from dtkpipe.errors import InvalidError, NotFoundError, UnreachableError, UsageError
from dtkpipe.model.pipeline import Pipeline, Task
from dtkpipe.resources import cache_dir
from dtkpipe.values.run import RunCard

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry
    from dtkpipe.clients.transport import Patience

CLUSTER_ONLY = ("deploy", "smoke-test")
"""Steps that change a kernel that is in use: on this machine only when asked for by name."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    pipeline: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    """Values for the pipeline's parameters."""
    sign_key: Path | None = None
    sign_passphrase_file: Path | None = None
    auth_file: Path | None = None
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Secret -> folder with its files."""
    load_on_this_host: bool = False
    from_step: str = ""
    force: bool = False
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that has been checked."""

    request: Request
    pipeline: Pipeline
    params: Mapping[str, str]
    module: str
    name: str
    secrets: Mapping[str, Mapping[str, Path]]


def prepare(request: Request, here: Path, say: Say) -> Prepared:
    """Check the request, resolve its source to a commit, and say what will be built from what.

    Raises DtkpipeError: unknown pipeline, parameter or release, a source that is not there, a key that is not the
    certificate's.
    """
    pipeline = load(request.pipeline or ("kmod" if request.load_on_this_host else "prebuild"))
    _refuse_what_is_not_for_here(pipeline, request)
    target = {"target": "host"} if request.load_on_this_host else {}
    params = known(pipeline, {**request.inputs.of(pipeline), **target})
    # Nothing is started or fetched when something is missing; what goes to loopback is known later.
    complete(pipeline, {**params, **dict.fromkeys(_unplaced(pipeline, pipeline.name, params), "localhost/later")})
    if _has_step(pipeline, "resolve"):
        _check_target(pipeline, params)
    module, commit = pipeline.name, ""
    if repo := params.get("repo"):
        module, commit, changes = _source(repo, params, here, say)
        params |= changes
    secrets = _secrets(request)
    if any(task.secrets and _step(task) == "sign" for task in pipeline.tasks):
        _check_signing(params.get("sign-cert", ""), request, say)
    name = _name(module, pipeline, params, commit)
    return Prepared(request=request, pipeline=pipeline, params=params, module=module, name=name, secrets=secrets)


def try_places(prepared: Prepared, environ: Mapping[str, str]) -> None:
    """See that we may push to where images go, minutes before they are ready. What is on loopback is not tried.

    Raises NotAllowedError, UnreachableError.
    """
    from dtkpipe.clients.transport import Patience
    from dtkpipe.values.image import ImageRef

    quick = Patience(connect=5, read=20, attempts=2)
    for name in ("push-to", "staging"):
        if place := prepared.params.get(name):
            registry = _registry(prepared.params, environ, prepared.request.auth_file, quick)
            registry.try_push(ImageRef.parse(place))


def run(prepared: Prepared, runs: Runs, environ: Mapping[str, str], watcher: Watcher, say: Say) -> RunCard:
    """Run it to its end, and return its card. A second run of the same inputs waits for the first, and reuses it."""
    request, pipeline = prepared.request, prepared.pipeline
    cache = cache_dir(environ)
    sweep(cache)
    folder = runs.folder(prepared.name)
    if folder.is_locked():
        say(f"run {prepared.name} is running already: waiting for it")
    with folder.locked(), contextlib.ExitStack() as stack:
        params = dict(prepared.params)
        _fill_in(pipeline, prepared.module, params, lambda: stack.enter_context(loopback_registry(cache, say)))
        off = {task.name for task in pipeline.tasks if _step(task) in CLUSTER_ONLY and not request.load_on_this_host}
        if off:
            say(
                f"this machine's kernel is left alone: {', '.join(sorted(off))} not run (--load-on-this-host runs them)"
            )
        order = Order(
            pipeline=pipeline,
            params=complete(pipeline, params),
            folder=folder,
            cache=cache,
            version=__version__,
            alive=_alive(params, environ, request.auth_file),
            secrets=prepared.secrets,
            from_step=request.from_step,
            force=request.force,
            always={task.name for task in pipeline.tasks if _step(task) == "resolve"},
            skip=off | {task.name for task in pipeline.finally_ if request.keep and _step(task) == "clean"},
            keep=request.keep,
        )
        card = with_findings(execute(order, watcher))
        folder.save(card)
    return card


def with_findings(card: RunCard) -> RunCard:
    """Return the card with the verdict and the nodes that are among the results of its steps."""
    from dtkpipe.proof.verdict import unpack_evidence

    evidence = card.result("verify", "EVIDENCE")
    nodes: Mapping[str, Any] = {}
    with contextlib.suppress(ValueError):
        nodes = json.loads(card.result("smoke-test", "NODES") or "{}")
    return replace(
        card, verdict=unpack_evidence(evidence) if evidence else None,
        nodes={str(node): str(verdict) for node, verdict in nodes.items()},
    )  # fmt: skip


def _refuse_what_is_not_for_here(pipeline: Pipeline, request: Request) -> None:
    for secret in (secret for task in pipeline.all_tasks for secret in task.secrets):
        if secret.param in request.inputs.given:
            raise UsageError(
                f"`{secret.param}` names a Secret of a cluster, and this run is on this machine",
                hint=f"give its files: --sign-key, --auth-file, or --secret {secret.name}=FOLDER",
            )
    if request.load_on_this_host and not _has_step(pipeline, "deploy"):
        raise UsageError(f"--load-on-this-host: pipeline `{pipeline.name}` has no `deploy`", hint="--pipeline kmod")


def _check_target(pipeline: Pipeline, params: Mapping[str, str]) -> None:
    """Refuse a target that cannot be one. Raises UsageError for none, NotFoundError with the nearest names."""
    from dtkpipe.toolkits.distribution import distribution_names
    from dtkpipe.values.arch import Arch
    from dtkpipe.values.image import ImageRef
    from dtkpipe.values.kernel import Kernel
    from dtkpipe.values.release import parse_release

    release, kernel, toolkit, arch = (params.get(name) for name in ("release", "kernel", "toolkit", "arch"))
    if not (release or kernel or toolkit) and any(param.name == "release" for param in pipeline.params):
        raise UsageError(
            "nothing says what to build for", "expected --release, --kernel or --toolkit", hint="--release debian-12"
        )
    if release:
        parse_release(release, distribution_names())
    if kernel:
        Kernel.parse(kernel)
    if toolkit:
        ImageRef.parse(toolkit)
    if arch:
        Arch.parse(arch)


def _source(repo: str, params: Mapping[str, str], here: Path, say: Say) -> tuple[str, str, dict[str, str]]:
    from dtkpipe.source.fetch import identify
    from dtkpipe.values.source import GIT, Source

    source = Source.parse(repo, params.get("ref", ""), params.get("path", ""), here=here)
    commit, title = identify(source)
    say(f"repo {title}")
    # The branch may move on before `build` fetches it: what was resolved here is what is built.
    return source.name, commit, {"repo": source.repo, **({"ref": commit} if source.kind == GIT else {})}


def _secrets(request: Request) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for name, folder in request.secrets.items():
        if not folder.is_dir():
            raise NotFoundError(f"secret `{name}`: there is no folder {folder}")
        found[name] = {file.name: file.absolute() for file in sorted(folder.iterdir()) if file.is_file()}
    own = {
        ("signing-key", "key"): request.sign_key,
        ("signing-key", "passphrase"): request.sign_passphrase_file,
        ("registry-auth", "config.json"): request.auth_file,
    }
    for (name, key), file in own.items():
        if file is None:
            continue
        if not file.is_file():
            raise NotFoundError(f"there is no file {file}", f"expected: {name}, {key}")
        found.setdefault(name, {})[key] = file.absolute()
    return found


def _check_signing(certificate: str, request: Request, say: Say) -> None:
    """Say whether modules get signed, and refuse a key that is not the certificate's before any work is done."""
    if bool(certificate) != bool(request.sign_key):
        given, missing = ("--sign-cert", "--sign-key") if certificate else ("--sign-key", "--sign-cert")
        raise UsageError(f"{given} is given without {missing}", "signing takes both", hint=f"add {missing} FILE")
    if not request.sign_key:
        say("unsigned: modules are not signed (--sign-key and --sign-cert sign them)")
        return
    from dtkpipe.tools.x509 import Certificate, PrivateKey

    signer = Certificate.from_base64(certificate)
    passphrase = request.sign_passphrase_file.read_bytes().splitlines() if request.sign_passphrase_file else []
    key = PrivateKey.parse(request.sign_key.read_bytes(), passphrase[0] if passphrase else b"")
    if not key.matches(signer):
        raise InvalidError(
            "the signing key and the certificate do not belong together",
            f"key: {request.sign_key}", f"certificate: {signer.signer}",
            hint="openssl pkey -in KEY -pubout; openssl x509 -in CERT -noout -pubkey",
        )  # fmt: skip
    for warning in signer.warnings():
        say(f"warning: {warning}")
    say(f"signing for {signer.signer}")


def _unplaced(pipeline: Pipeline, module: str, params: Mapping[str, str]) -> dict[str, str]:
    """Return the repositories that the user did not name, and what they are called in the registry on loopback."""
    places = {"push-to": _label(module, 60), "staging": "staging", "toolkit-repo": "toolkits"}
    names = {param.name for param in pipeline.params}
    return {name: place for name, place in places.items() if name in names and not params.get(name)}


def _fill_in(pipeline: Pipeline, module: str, params: dict[str, str], registry: Callable[[], str]) -> None:
    """Send to the registry on loopback what the user named no place for."""
    if not (unplaced := _unplaced(pipeline, module, params)):
        return
    host = registry()
    params |= {name: f"{host}/{place}" for name, place in unplaced.items()}
    names = {param.name for param in pipeline.params}
    if "insecure-registries" in names:
        hosts = json.loads(params.get("insecure-registries") or "[]")
        params["insecure-registries"] = json.dumps([*hosts, *([host] if host not in hosts else [])])


def _registry(
    params: Mapping[str, str], environ: Mapping[str, str], auth_file: Path | None, patience: Patience | None = None
) -> Registry:
    """Return the client that the parameters of a run ask for."""
    from dtkpipe.clients.registry import Registry
    from dtkpipe.values.access import access_from

    own = {**environ, **({"REGISTRY_AUTH_FILE": str(auth_file)} if auth_file else {})}
    hosts = json.loads(params.get("insecure-registries") or "[]")
    access = access_from(hosts, params.get("registry-ca", ""), own, params.get("registry-mirrors", ""))
    return Registry(access, patience)


def _alive(params: Mapping[str, str], environ: Mapping[str, str], auth_file: Path | None) -> Callable[[str, str], bool]:
    def alive(url: str, digest: str) -> bool:
        from dtkpipe.values.image import ImageRef

        try:
            return _registry(params, environ, auth_file).exists(ImageRef.parse(url).at(digest))
        except (UnreachableError, InvalidError):
            return False  # the task that needs it says so better

    return alive


def _step(task: Task) -> str:
    """Return the step that a task runs; an empty string for a task of the user's own."""
    program, *words = task.program.argv
    if program == "dtkpipe" and words[:1] == ["step"] and isinstance(words[1], str):
        return words[1]
    return ""


def _has_step(pipeline: Pipeline, step: str) -> bool:
    return any(_step(task) == step for task in pipeline.tasks)


def _name(module: str, pipeline: Pipeline, params: Mapping[str, str], commit: str) -> str:
    """Name the run by its inputs: the same inputs are the same run."""
    text = json.dumps([pipeline.name, sorted(params.items()), commit, __version__])
    target = params.get("kernel") or params.get("release") or ""
    words = (_label(module, 24), _label(target, 24), _label(params.get("variant", ""), 8))
    return "-".join([*filter(None, words), hashlib.sha256(text.encode()).hexdigest()[:8]])


def _label(text: str, length: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-")
