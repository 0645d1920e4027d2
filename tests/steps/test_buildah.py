"""buildah: as root and as a user, with and without network, against a registry."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from dtkpipe.errors import NotAllowedError, NotFoundError, UnreachableError
from dtkpipe.tools import process
from dtkpipe.tools.buildah import Buildah, Mount
from dtkpipe.tools.busybox import static_busybox
from dtkpipe.tools.process import ProcessFailedError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from tests.fixtures.registry import LoopbackRegistry, free_port, running_registry
from tests.fixtures.user import User

pytestmark = pytest.mark.tools
ROOT = Path(__file__).resolve().parents[2]
# docker-registry takes bcrypt only; this is "secret".
HTPASSWD = "ci:$2b$04$dc20hbeYb1WNZhv0xaQxcuKuSOCkQ7idqgEnCc90o3/I4eSckq0Ve\n"
CONTAINERFILE = """\
FROM scratch AS tools
COPY busybox /bin/busybox
RUN ["/bin/busybox", "ln", "-s", "busybox", "/bin/sh"]
ARG WORD
ARG KERNEL_VERSION
RUN /bin/busybox printf '%s' "$WORD" > /word; /bin/busybox cat /proc/net/dev > /net
FROM scratch AS final
COPY --from=tools /word /net /
FROM tools AS other
RUN exit 3
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("context")
    shutil.copy(static_busybox(Arch.host(), shared_cache), folder / "busybox")
    (folder / "Containerfile").write_text(CONTAINERFILE)
    return folder


@pytest.fixture
def buildah(registry: LoopbackRegistry, tmp_path: Path) -> Buildah:
    return Buildah(tmp_path / "storage", registry.access)


def build(buildah: Buildah, context: Path, *, network: bool = False, word: str = "", target: str = "tools") -> str:
    return buildah.build(
        context, context / "Containerfile", args={"WORD": word}, labels={"a": "b c"}, target=target, network=network
    )


def content(buildah: Buildah, image: str, path: str, log: Path) -> str:
    log.unlink(missing_ok=True)
    with log.open("wb") as sink:
        assert buildah.run_in(image, ["/bin/busybox", "cat", path], log=sink) == 0
    return log.read_text()


@pytest.mark.parametrize("word", ["x", "$(id) `id` '\" ; $HOME", "-rf --", "a\nb", "ünïcode"])
def test_build_arguments_are_data(buildah: Buildah, context: Path, tmp_path: Path, word: str) -> None:
    assert content(buildah, build(buildah, context, word=word), "/word", tmp_path / "log") == word


def test_a_build_that_meets_a_container_of_its_base_waits_for_it(
    buildah: Buildah, context: Path, tmp_path: Path
) -> None:
    """It clears away what stages without instructions are: the base, which is in use."""
    base, folder = build(buildah, context, word="here"), tmp_path / "context"
    folder.mkdir()
    (folder / "Containerfile").write_text(f"FROM {base} AS first\nFROM scratch\nCOPY --from=first /bin /bin\n")
    with (tmp_path / "log").open("wb") as log:
        other = threading.Thread(
            target=buildah.run_in, args=(base, ["/bin/busybox", "sleep", "5"]), kwargs={"log": log}
        )
        other.start()
        time.sleep(2)
        image = buildah.build(folder, folder / "Containerfile")
        other.join()
    assert image.startswith("sha256:")


# Debian's buildah, but for the first time that it is to run something in a container.
BUSY_ONCE = """\
#!/bin/sh
case " $* " in *" --isolation=chroot "*)
    if mkdir "$BUSY_ONCE" 2>/dev/null; then
        echo 'Close_Fd sealing memfd copy: Device or resource busy' >&2
        exit 1
    fi ;;
esac
exec /usr/bin/buildah "$@"
"""


def test_what_the_kernel_did_not_let_begin_is_begun_again(
    buildah: Buildah, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/buildah").write_text(BUSY_ONCE)
    (tmp_path / "bin/buildah").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("BUSY_ONCE", str(tmp_path / "in-the-build"))
    image = build(buildah, context, word="here")
    monkeypatch.setenv("BUSY_ONCE", str(tmp_path / "in-the-run"))
    assert content(buildah, image, "/word", tmp_path / "log") == "here"
    assert {"in-the-build", "in-the-run"} <= {path.name for path in tmp_path.iterdir()}


def test_network_is_there_only_when_asked_for(buildah: Buildah, context: Path, tmp_path: Path) -> None:
    def interfaces(*, network: bool) -> set[str]:
        seen = content(buildah, build(buildah, context, network=network), "/net", tmp_path / "log")
        return {line.split(":")[0].strip() for line in seen.splitlines() if ":" in line}

    ours = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines() if ":" in line}
    assert interfaces(network=False) == {"lo"}
    assert interfaces(network=True) == ours


def test_same_input_same_image(buildah: Buildah, context: Path, registry: LoopbackRegistry, tmp_path: Path) -> None:
    other = Buildah(tmp_path / "other", registry.access)
    first, second = build(buildah, context, target="final"), build(other, context, target="final")
    assert first == second
    repo = registry.repo("buildah/same")
    digest = buildah.push(first, repo.tagged("a"))
    assert digest == other.push(second, repo.tagged("b"))
    assert registry.client.digest(repo.tagged("a")) == digest
    assert registry.client.config(repo.at(digest)).labels["a"] == "b c"


def test_what_killed_builds_left_is_in_nobodys_way(buildah: Buildah, context: Path, tmp_path: Path) -> None:
    base = build(buildah, context).removeprefix("sha256:")
    buildah._run(["from", "--pull=never", base])  # a build that is killed leaves this container
    (tmp_path / "Containerfile").write_text(f"FROM {base} AS base\nFROM scratch\nCOPY --from=base /word /word\n")
    assert buildah.build(tmp_path, tmp_path / "Containerfile")
    assert not buildah._run(["containers", "--quiet"]).output.strip()


def test_failed_instruction(buildah: Buildah, context: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ProcessFailedError, match="`buildah` ended with exit code"):
        buildah.build(context, context / "Containerfile", target="other", log=log)
    assert "RUN exit 3" in log.read_text()


def test_pulled_image_is_found_by_digest(
    buildah: Buildah, context: Path, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    image = registry.repo("buildah/pull").at(
        buildah.push(build(buildah, context, word="here"), registry.repo("buildah/pull").tagged("x"))
    )
    other = Buildah(tmp_path / "other", registry.access)
    pulled = other.pull(image)
    assert other.pull(image) == pulled
    assert content(other, str(image), "/word", tmp_path / "log") == "here"
    own = tmp_path / "context"
    own.mkdir()
    (own / "Containerfile").write_text(f"FROM {image}\n")
    assert other.build(own, own / "Containerfile").startswith("sha256:")
    other.remove(pulled)


def test_container_sees_its_environment_and_its_mounts(buildah: Buildah, context: Path, tmp_path: Path) -> None:
    image = build(buildah, context)
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").write_text("content")
    command = "cd /given; /bin/busybox cat file; echo $NAME; echo out > made; exit 7"
    for read_only, made in ((True, False), (False, True)):
        mount = Mount(tmp_path / "given", "/given", read_only=read_only)
        log = tmp_path / f"log-{read_only}"
        with log.open("wb") as sink:
            code = buildah.run_in(image, ["/bin/sh", "-c", command], env={"NAME": "a $b 'c'"}, mounts=[mount], log=sink)
        assert code == 7
        said = log.read_text()  # what it complains of has a way of its own, and may come before, or between
        assert ("content" in said, "a $b 'c'\n" in said) == (True, True)
        assert (tmp_path / "given/made").exists() is made


def test_registry_without_tls_only_when_asked(buildah: Buildah, context: Path, registry: LoopbackRegistry) -> None:
    strict = Buildah(buildah.storage, RegistryAccess())
    image = build(buildah, context, target="final")
    with pytest.raises(UnreachableError) as caught:
        strict.push(image, registry.repo("buildah/strict").tagged("x"))
    assert registry.host in str(caught.value)
    assert caught.value.exit_code == 7


def test_image_that_is_not_there(buildah: Buildah, registry: LoopbackRegistry) -> None:
    with pytest.raises(NotFoundError, match="buildah/nothing"):
        buildah.pull(registry.repo("buildah/nothing").tagged("x"))


def test_registry_that_is_down(buildah: Buildah, context: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    access = RegistryAccess(insecure=(host,))
    image = build(buildah, context, target="final")
    with pytest.raises(UnreachableError, match=host):
        Buildah(buildah.storage, access).push(image, ImageRef(host, "x", "x"))


def test_credentials(context: Path, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", htpasswd=HTPASSWD) as registry:
        auth = tmp_path / "auth.json"
        access = RegistryAccess(insecure=(registry.host,), auth_file=auth)
        buildah = Buildah(tmp_path / "storage", access)
        image = build(buildah, context, target="final")
        with pytest.raises(NotAllowedError, match=registry.host) as caught:
            buildah.push(image, registry.repo("x").tagged("x"))
        assert caught.value.exit_code == 4
        auth.write_text(json.dumps({"auths": {registry.host: {"auth": "Y2k6c2VjcmV0"}}}))
        assert buildah.push(image, registry.repo("x").tagged("x")).startswith("sha256:")


def test_authority(context: Path, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    process.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    )  # fmt: skip
    with running_registry(tmp_path / "registry", tls=(cert, key), ca=cert.read_text()) as registry:
        buildah = Buildah(tmp_path / "storage", registry.access)
        image = build(buildah, context, target="final")
        assert buildah.push(image, registry.repo("x").tagged("x")).startswith("sha256:")
        with pytest.raises(UnreachableError, match=registry.host):
            Buildah(tmp_path / "storage", RegistryAccess()).push(image, registry.repo("x").tagged("x"))


ROOTLESS = """
import sys
import threading
import time
from pathlib import Path
from dtkpipe.tools.buildah import Buildah
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef
work, host = Path(sys.argv[1]), sys.argv[2]
buildah = Buildah(work / "storage", RegistryAccess(insecure=(host,)))
log = work / "log"
file = work / "context/Containerfile"
image = buildah.build(work / "context", file, args={"WORD": "rootless"}, target="tools", log=log)
log.unlink()
with log.open("wb") as sink:
    assert buildah.run_in(image, ["/bin/busybox", "cat", "/word", "/net"], log=sink) == 0
print(buildah.push(image, ImageRef(host, "buildah/rootless", "x")))
print(log.read_text())
"""


def test_rootless(user: User, context: Path, registry: LoopbackRegistry) -> None:
    work = user.home / "work"
    shutil.copytree(context, work / "context")
    (work / "script.py").write_text(ROOTLESS)
    shutil.copytree(ROOT / "dtkpipe", work / "code" / "dtkpipe")  # nor may a user be able to read the checkout
    # A user may not be able to read the interpreter that we run in; Debian's own has all that this needs.
    command: list[str | Path] = [sys.executable, work / "script.py", work, registry.host]
    if os.geteuid() == 0:
        process.run(["chown", "--recursive", f"{user.name}:", work])
        command = ["runuser", "--user", user.name, "--", "/usr/bin/python3", *command[1:]]
    code = str(work / "code")
    env = {"HOME": str(user.home), "PYTHONPATH": code, "PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": ""}
    done = process.run(command, env=env, cwd=user.home)
    digest, seen = done.output.split("\n", 1)
    assert registry.client.digest(registry.repo("buildah/rootless").tagged("x")) == digest
    assert seen.startswith("rootless")
    assert "lo:" in seen
    assert "eth0" not in seen
