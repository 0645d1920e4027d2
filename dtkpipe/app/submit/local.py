"""Runs on this machine: what is checked before, where images go, and the run itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dtkpipe import __version__
from dtkpipe.app.leftovers import sweep
from dtkpipe.app.params import complete
from dtkpipe.app.pipelines import load
from dtkpipe.app.registry import loopback_registry
from dtkpipe.app.runs import Runs, with_findings
from dtkpipe.app.submit.request import (
    Named,
    OnThisMachine,
    Request,
    Say,
    has_step,
    identified,
    known_params,
    label,
    run_name,
    step_of,
)
from dtkpipe.engines.local.engine import Order, Watcher, execute
from dtkpipe.errors import InvalidError, NotFoundError, UnreachableError, UsageError
from dtkpipe.model.pipeline import Pipeline
from dtkpipe.resources import cache_dir
from dtkpipe.values.run import RunCard
from dtkpipe.values.source import Source

if TYPE_CHECKING:
    from dtkpipe.clients.registry import Registry
    from dtkpipe.clients.transport import Patience

CLUSTER_ONLY = ("deploy", "smoke-test", "rollback")
"""Steps that change a kernel that is in use: on this machine only when asked for by name."""


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
    own = request.here
    pipeline = load(request.pipeline or ("kmod" if own.load_on_this_host else "prebuild"))
    _refuse_what_is_not_for_here(pipeline, request)
    target = {"target": "host"} if own.load_on_this_host else {}
    params = known_params(pipeline, {**request.inputs.of(pipeline), **target})
    # Nothing is started or fetched when something is missing; what goes to loopback is known later.
    complete(pipeline, {**params, **dict.fromkeys(_unplaced(pipeline, pipeline.name, params), "localhost/later")})
    named = Named(module=pipeline.name, commit="", params=params)
    if repo := params.get("repo"):
        source = Source.parse(repo, params.get("ref", ""), params.get("path", ""), here=here)
        named, title = identified(source, params)
        say(f"repo {title}")
    secrets = _secrets(own)
    if any(task.secrets and step_of(task) == "sign" for task in pipeline.tasks):
        _check_signing(params.get("sign-cert", ""), own, say)
    name, _ = run_name(named, pipeline.name)
    return Prepared(
        request=request, pipeline=pipeline, params=named.params, module=named.module, name=name, secrets=secrets
    )


def try_places(prepared: Prepared, environ: Mapping[str, str]) -> None:
    """See that we may push to where images go, minutes before they are ready. What is on loopback is not tried.

    Raises NotAllowedError, UnreachableError.
    """
    from dtkpipe.clients.transport import Patience
    from dtkpipe.values.image import ImageRef

    quick = Patience(connect=5, read=20, attempts=2)
    for name in ("push-to", "staging"):
        if place := prepared.params.get(name):
            registry = _registry(prepared.params, environ, prepared.request.here.auth_file, quick)
            registry.try_push(ImageRef.parse(place))


def run(prepared: Prepared, runs: Runs, environ: Mapping[str, str], watcher: Watcher, say: Say) -> RunCard:
    """Run it to its end, and return its card. A second run of the same inputs waits for the first, and reuses it."""
    own, pipeline = prepared.request.here, prepared.pipeline
    cache = cache_dir(environ)
    sweep(cache)
    folder = runs.folder(prepared.name)
    if folder.is_locked():
        say(f"run {prepared.name} is running already: waiting for it")
    with folder.locked(), contextlib.ExitStack() as stack:
        params = dict(prepared.params)
        _fill_in(pipeline, prepared.module, params, lambda: stack.enter_context(loopback_registry(cache, say)))
        off = [task.name for task in pipeline.all_tasks if step_of(task) in CLUSTER_ONLY and not own.load_on_this_host]
        if off:
            say(f"this machine's kernel is left alone: {', '.join(off)} not run (--load-on-this-host runs them)")
        order = Order(
            pipeline=pipeline,
            params=complete(pipeline, params),
            folder=folder,
            cache=cache,
            version=__version__,
            alive=_alive(params, environ, own.auth_file),
            secrets=prepared.secrets,
            from_step=own.from_step,
            force=prepared.request.force,
            always={task.name for task in pipeline.tasks if step_of(task) == "resolve"},
            skip={*off, *(task.name for task in pipeline.finally_ if own.keep and step_of(task) == "clean")},
            keep=own.keep,
        )
        card = with_findings(execute(order, watcher))
        folder.save(card)
    return card


def _refuse_what_is_not_for_here(pipeline: Pipeline, request: Request) -> None:
    for secret in (secret for task in pipeline.all_tasks for secret in task.secrets):
        if secret.param in request.inputs.given:
            raise UsageError(
                f"`{secret.param}` names a Secret of a cluster, and this run is on this machine",
                hint=f"give its files: --sign-key, --auth-file, or --secret {secret.name}=FOLDER",
            )
    if request.here.load_on_this_host and not has_step(pipeline, "deploy"):
        raise UsageError(f"--load-on-this-host: pipeline `{pipeline.name}` has no `deploy`", hint="--pipeline kmod")


def _secrets(own: OnThisMachine) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for name, folder in own.secrets.items():
        if not folder.is_dir():
            raise NotFoundError(f"secret `{name}`: there is no folder {folder}")
        found[name] = {file.name: file.absolute() for file in sorted(folder.iterdir()) if file.is_file()}
    files = {
        ("signing-key", "key"): own.sign_key,
        ("signing-key", "passphrase"): own.sign_passphrase_file,
        ("registry-auth", "config.json"): own.auth_file,
        ("registry-pull", "config.json"): own.auth_file,
    }
    for (name, key), file in files.items():
        if file is None:
            continue
        if not file.is_file():
            raise NotFoundError(f"there is no file {file}", f"expected: {name}, {key}")
        found.setdefault(name, {})[key] = file.absolute()
    return found


def _check_signing(certificate: str, own: OnThisMachine, say: Say) -> None:
    """Say whether modules get signed, and refuse a key that is not the certificate's before any work is done."""
    if bool(certificate) != bool(own.sign_key):
        given, missing = ("--sign-cert", "--sign-key") if certificate else ("--sign-key", "--sign-cert")
        raise UsageError(f"{given} is given without {missing}", "signing takes both", hint=f"add {missing} FILE")
    if not own.sign_key:
        say("unsigned: modules are not signed (--sign-key and --sign-cert sign them)")
        return
    from dtkpipe.tools.x509 import Certificate, PrivateKey

    signer = Certificate.from_base64(certificate)
    passphrase = own.sign_passphrase_file.read_bytes().splitlines() if own.sign_passphrase_file else []
    key = PrivateKey.parse(own.sign_key.read_bytes(), passphrase[0] if passphrase else b"")
    if not key.matches(signer):
        raise InvalidError(
            "the signing key and the certificate do not belong together",
            f"key: {own.sign_key}", f"certificate: {signer.signer}",
            hint="openssl pkey -in KEY -pubout; openssl x509 -in CERT -noout -pubkey",
        )  # fmt: skip
    for warning in signer.warnings():
        say(f"warning: {warning}")
    say(f"signing for {signer.signer}")


def _unplaced(pipeline: Pipeline, module: str, params: Mapping[str, str]) -> dict[str, str]:
    """Return the repositories that the user did not name, and what they are called in the registry on loopback."""
    places = {"push-to": label(module, 60), "staging": "staging", "toolkit-repo": "toolkits"}
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
