"""`dtkpipe submit` for real: from source to a published image that a real kernel has loaded."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from dtkpipe.clients.registry import Registry
from dtkpipe.tools import process
from dtkpipe.values.image import ImageRef
from dtkpipe.values.run import RunCard
from tests.fixtures.cli import Cli
from tests.fixtures.keys import certificate, der, key_pem, rsa_key
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO, TARGET, card_of, source, to

pytestmark = pytest.mark.tools


def test_from_source_to_a_published_image(shell: Cli, registry: LoopbackRegistry) -> None:
    words = ("submit", *TARGET, "--repo", HELLO, *to(registry, "submit/hello"), "-o", "json")
    first = shell(*words)
    assert first.code == 0, first.err
    card = card_of(first)
    assert card.result("verify", "VERDICT") == "proven"
    assert card.verdict
    assert card.result("sign", "SIGNER") == "unsigned"
    assert "unsigned: modules are not signed" in first.err
    kernel = card.result("resolve", "KERNEL")
    client = Registry(registry.access)
    published = registry.repo("submit/hello").at(card.result("publish", "IMAGE_DIGEST"))
    assert client.digest(registry.repo("submit/hello").tagged(kernel)) == published.digest
    assert client.config(published).labels["dtkpipe.kernel"] == kernel
    # Nothing of the run is left in staging, and nothing but images and evidence at the final place.
    assert card.result("clean", "REMOVED").isdigit()

    again = shell(*words)
    assert again.code == 0, again.err
    assert {step.name: step.reused for step in card_of(again).steps} == {
        step.name: step.name != "resolve" for step in card.steps
    }
    assert "reused: all of it was there already" in again.err
    assert card_of(again).result("publish", "IMAGE_DIGEST") == published.digest


def test_signed_and_proven_under_secure_boot(shell: Cli, registry: LoopbackRegistry, tmp_path: Path) -> None:
    key = rsa_key()
    (tmp_path / "key.pem").write_bytes(key_pem(key, b"open sesame"))
    (tmp_path / "passphrase").write_text("open sesame\n")
    (tmp_path / "cert.der").write_bytes(der(certificate(key, "Submit Test")))
    said = shell(
        "submit", *TARGET, "--repo", HELLO, *to(registry, "submit/signed"), "--sign-key", "key.pem", "--sign-cert",
        "cert.der", "--sign-passphrase-file", "passphrase", "-o", "json",
    )  # fmt: skip
    assert said.code == 0, said.err
    card = card_of(said)
    assert card.result("sign", "SIGNER").startswith("Submit Test (sha256:")
    assert "signing for Submit Test" in said.err
    assert "unsigned" not in said.err
    assert card.result("verify", "VERDICT") == "proven"
    kept = "".join(
        path.read_text(errors="replace")
        for path in (shell.home / "state/runs" / card.name).rglob("*")
        if path.is_file()
    )  # fmt: skip
    assert "open sesame" not in kept + said.out + said.err
    assert "PRIVATE KEY" not in kept + said.out + said.err


def test_two_runs_at_once_share_cache_and_registry(shell: Cli, tmp_path: Path) -> None:
    repos = [source(tmp_path / name, name=name) for name in ("twin_a", "twin_b")]
    runs = [
        subprocess.Popen(
            shell.argv("submit", *TARGET, "--repo", repo, "-o", "json"), cwd=shell.here, env=shell.environ(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for repo in repos
    ]  # fmt: skip
    for run in runs:
        out, err = run.communicate(timeout=600)
        assert run.returncode == 0, err
        assert RunCard.from_json(out).result("verify", "VERDICT") == "proven"


def test_killed_and_started_again(shell: Cli, tmp_path: Path) -> None:
    repo = source(tmp_path / "phoenix", name="phoenix")
    words = ("submit", *TARGET, "--repo", repo, "-o", "json")
    for task in ("build", "verify"):
        with subprocess.Popen(
            shell.argv(*words), cwd=shell.here, env=shell.environ(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as run:
            assert run.stderr
            before = {"build": b"resolve", "verify": b"sign"}[task]
            for line in run.stderr:
                if before in line and b"succeeded" in line:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(1)
            run.kill()
    said = shell(*words)
    assert said.code == 0, said.err
    card = card_of(said)
    assert card.result("verify", "VERDICT") == "proven"
    assert next(step for step in card.steps if step.name == "build").reused


PIPELINE = """\
from dtkpipe.model import InputRef, Pipeline, ResultPath, container
from dtkpipe.tasks import resolve

resolved = resolve()
look = container(
    "look", image="IMAGE", results={"RELEASE": "What is in the image", "PLACE": "Where it runs"},
    argv=("sh", "-c", 'cp /etc/os-release "$2"; printf %s "$PWD $3" > "$4"', "sh", "--", ResultPath("RELEASE"),
          InputRef("kernel"), ResultPath("PLACE")),
    inputs={"kernel": resolved.kernel}, env={"KERNEL": InputRef("kernel")},
)
mine = Pipeline("mine", "A look into a container", tasks=(resolved, look))
"""


def test_a_task_of_the_users_own_runs_in_its_own_image(shell: Cli, tmp_path: Path) -> None:
    first = card_of(shell("submit", *TARGET, "--repo", HELLO, "-o", "json"))
    toolkit = f"{first.result('resolve', 'TOOLKIT_URL')}@{first.result('resolve', 'TOOLKIT_DIGEST')}"
    (tmp_path / "mine.py").write_text(PIPELINE.replace("IMAGE", toolkit))
    said = shell("submit", "--pipeline", "mine.py", *TARGET, "-o", "json")
    assert said.code == 0, said.err
    card = card_of(said)
    assert "VERSION_CODENAME=bookworm" in card.result("look", "RELEASE")
    assert card.result("look", "PLACE") == f"/workspace {card.result('resolve', 'KERNEL')}"


def test_this_machines_kernel_is_left_alone_unless_asked_for(shell: Cli) -> None:
    said = shell("submit", *TARGET, "--repo", HELLO, "--pipeline", "kmod", "-o", "json")
    assert said.code == 0, said.err
    assert "this machine's kernel is left alone: deploy, smoke-test" in said.err
    states = {step.name: step.state for step in card_of(said).steps}
    assert (states["publish"], states["deploy"], states["smoke-test"]) == ("succeeded", "skipped", "skipped")
    asked = shell("submit", *TARGET, "--repo", HELLO, "--load-on-this-host", "-o", "json")
    if os.uname().release == card_of(said).result("resolve", "KERNEL"):
        assert card_of(asked).result("deploy", "WORKLOAD") == "host"
    else:
        assert asked.code == 8
        assert "error: deploy: the kernel of this machine is" in asked.err


def test_the_image_can_be_copied_out_of_the_caches_registry(shell: Cli, tmp_path: Path) -> None:
    said = shell("submit", *TARGET, "--repo", HELLO)
    assert said.code == 0, said.err
    command = said.err.splitlines()[-1].split()
    assert command[:3] == ["dtkpipe", "registry", "skopeo"]
    done = shell(*command[1:])
    assert done.code == 0, done.err
    listed = json.loads(process.run(["skopeo", "inspect", f"oci-archive:{tmp_path}/hello.tar"]).output)
    assert listed["Labels"]["dtkpipe.module"] == "hello"
    assert ImageRef.parse(command[5].removeprefix("docker://")).digest == listed["Digest"]
