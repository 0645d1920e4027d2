"""Whether an image can be pushed to where it shall go is asked before anything is built."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtkpipe.clients.registry import Registry
from dtkpipe.errors import NotAllowedError, UnreachableError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef
from tests.fixtures.cli import Cli, Said
from tests.fixtures.faults import Answer, on, proxied
from tests.fixtures.registry import LoopbackRegistry, free_port, running_registry
from tests.fixtures.submit import HELLO, TARGET
from tests.steps.test_registry import HTPASSWD

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    """A registry with a password."""
    with running_registry(tmp_path_factory.mktemp("guarded"), htpasswd=HTPASSWD) as running:
        yield running


def submit(cli: Cli, host: str, *words: str) -> Said:
    place = ("--push-to", f"{host}/org/hello", "--insecure-registry", host)
    return cli("submit", *TARGET, "--repo", HELLO, *place, *words)


def test_trying_leaves_nothing_behind(registry: LoopbackRegistry) -> None:
    repo = registry.repo("places/tried")
    registry.client.try_push(repo)
    assert registry.client.tags(repo) == ()
    # docker-registry keeps the state of its hash of an upload that was ended, and no data.
    assert list(registry.storage.rglob("repositories/places/tried/_uploads/*"))
    assert list(registry.storage.rglob("repositories/places/tried/_uploads/*/data")) == []


def test_an_upload_that_cannot_be_ended_is_no_refusal(registry: LoopbackRegistry) -> None:
    with proxied(registry.host) as proxy:
        proxy.faults.append(on("DELETE", "/blobs/uploads/", lambda one: one.say(Answer(403))))
        proxy.client().try_push(proxy.repo("places/tried"))
        assert proxy.count("DELETE", "/blobs/uploads/") == 1


@pytest.mark.parametrize("insecure", [False, True])
def test_a_refused_connection_is_called_that(insecure: bool) -> None:
    host = f"127.0.0.1:{free_port()}"
    registry = Registry(RegistryAccess(insecure=(host,) if insecure else ()))
    with pytest.raises(UnreachableError, match=host) as caught:
        registry.try_push(ImageRef(host, "org/hello"))
    assert caught.value.details == ("connection refused",)


def test_no_password_no_push(guarded: LoopbackRegistry) -> None:
    with pytest.raises(NotAllowedError, match=f"{guarded.host} does not allow to push to"):
        guarded.client.try_push(guarded.repo("places/tried"))


def test_a_dead_port_ends_submit_before_anything_runs(cli: Cli) -> None:
    host = f"127.0.0.1:{free_port()}"
    said = submit(cli, host)
    assert said.code == 7
    assert f"error: {host} cannot be reached: cannot push to {host}/org/hello\n  connection refused\n" in said.err
    assert not (cli.home / "state/runs").exists()


def test_credentials_are_tried_before_anything_runs(cli: Cli, guarded: LoopbackRegistry, tmp_path: Path) -> None:
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {guarded.host: {"auth": b64encode(b"user:wrong").decode()}}}))
    for words in ((), ("--auth-file", str(auth))):
        said = submit(cli, guarded.host, *words)
        assert said.code == 4
        assert f"error: {guarded.host} does not allow to push to {guarded.host}/org/hello" in said.err
        assert "wrong" not in said.err
    assert not (cli.home / "state/runs").exists()


def test_a_dry_run_asks_no_registry(cli: Cli) -> None:
    assert submit(cli, f"127.0.0.1:{free_port()}", "--dry-run").code == 0
