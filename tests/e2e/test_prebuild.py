"""The pipeline `prebuild` as pods on both engines: from a git address to a published image, or to why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dtkpipe.clients.image import read_image
from dtkpipe.proof.module import read_module
from dtkpipe.values.image import ImageRef
from tests.e2e.cluster.git import GitServer
from tests.e2e.cluster.target import Cluster
from tests.e2e.pipelines import ENGINES, Ended, Site, at_once, described, site_of
from tests.fixtures.keys import certificate, der, key_pem, rsa_key
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO, source
from tests.fixtures.toolkit import Toolkit


@pytest.fixture(scope="module")
def site(
    cluster: Cluster, registry: LoopbackRegistry, git_server: GitServer, toolkit_cloud: Toolkit, runner_image: ImageRef,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:  # fmt: skip
    with site_of(cluster, registry, git_server, toolkit_cloud, tmp_path_factory.mktemp("site")) as made:
        made.install(runner_image)
        yield made


def on_both(site: Site, name: str, folder: Path, *more: str | Path) -> dict[str, Ended]:
    ended = at_once(*(partial(site.run, engine, name, folder, *more) for engine in ENGINES))
    return dict(zip(ENGINES, ended, strict=True))


def nothing_published(site: Site, run: Ended) -> None:
    assert site.tags(run.to) == ()
    assert not site.candidates(run)
    assert run.states()["publish"] != "succeeded"


def modules(site: Site, image: ImageRef, into: Path) -> dict[str, bool]:
    """The modules of an image: path -> whether it is signed."""
    files = read_image(site.registry.client, image, None, lambda path: path.endswith(".ko"), into)
    return {path: bool(read_module(file, path).signature) for path, file in files.contents.items()}


@pytest.mark.core
def test_a_good_module_is_proven_and_published(site: Site, tmp_path: Path) -> None:
    for engine, run in on_both(site, "hello", HELLO).items():
        assert (run.code, run.card.state) == (0, "succeeded"), described(run)
        assert run.card.engine == engine
        assert run.results("verify")["VERDICT"] == "proven"
        image = ImageRef.parse(run.results("publish")["IMAGE_URL"]).at(run.results("publish")["IMAGE_DIGEST"])
        kernel = site.toolkit.kernel.release
        path = f"opt/lib/modules/{kernel}/updates/hello.ko"
        assert modules(site, image, tmp_path / engine) == {path: False}
        assert site.toolkit.kernel.tag in site.tags(run.to)
        assert not site.candidates(run)
        log = site.pod_log(run, "build")
        assert "CC [M]" in log, "what the compiler says is seen, since its files go with the pod"


@pytest.mark.core
def test_with_a_key_every_module_is_signed_and_secure_boot_takes_it(site: Site, tmp_path: Path) -> None:
    key = rsa_key()
    (tmp_path / "key").write_bytes(key_pem(key, b"open sesame"))
    (tmp_path / "passphrase").write_text("open sesame\n")
    (tmp_path / "cert.der").write_bytes(der(certificate(key)))
    files = [f"--from-file={tmp_path / name}" for name in ("key", "passphrase")]
    site.cluster.kubectl("-n", site.namespace, "create", "secret", "generic", "dtkpipe-signing-key", *files)
    for engine, run in on_both(site, "signed", HELLO, "--sign-cert", tmp_path / "cert.der").items():
        assert (run.code, run.card.state) == (0, "succeeded"), described(run)
        assert run.results("sign")["SIGNER"].startswith("Test Signer")
        image = ImageRef.parse(run.results("publish")["IMAGE_URL"]).at(run.results("publish")["IMAGE_DIGEST"])
        assert set(modules(site, image, tmp_path / engine).values()) == {True}


def test_what_does_not_compile_ends_the_run_with_the_compilers_first_error(site: Site, tmp_path: Path) -> None:
    folder = source(tmp_path / "broken", init="return no_such_call();", name="broken")
    for run in on_both(site, "broken", folder).values():
        assert (run.code, run.card.state) == (10, "failed"), described(run)
        assert "broken.c:2:" in run.card.cause
        assert "implicit declaration of function 'no_such_call'" in run.card.cause
        assert run.said.count("no_such_call") >= 1
        nothing_published(site, run)
        log = site.pod_log(run, "build")
        assert log.count("does not compile for kernel") == 1, "a compile error is not repeated"


@pytest.mark.core
def test_what_verify_refuses_is_not_published(site: Site, tmp_path: Path) -> None:
    folder = source(tmp_path / "refused", init="return -EINVAL;", name="refused")
    for run in on_both(site, "refused", folder).values():
        assert (run.code, run.card.state) == (10, "failed"), described(run)
        assert run.results("verify")["VERDICT"] == "refused: load-failed"
        assert "load-failed" in run.card.cause
        nothing_published(site, run)
        assert site.pod_log(run, "verify").count("refused: load-failed") == 1, "a refusal is not repeated"
