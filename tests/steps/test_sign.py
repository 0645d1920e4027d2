"""sign: real modules, real keys, the kernel's own sign-file."""

from __future__ import annotations

import base64
import gzip
import io
import lzma
import shutil
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from dtkpipe.clients.image import read_image
from dtkpipe.clients.registry import Registry
from dtkpipe.errors import DtkpipeError, InvalidError, RunFailedError, UnsupportedError
from dtkpipe.proof.kernel import KernelFiles
from dtkpipe.proof.kernel_store import kernel_files, publish_kernel
from dtkpipe.proof.module import decompress
from dtkpipe.proof.signature import split
from dtkpipe.steps import sign
from dtkpipe.steps.contract import Room
from dtkpipe.tools import openssl, process, signfile
from dtkpipe.tools.x509 import Certificate, PrivateKey
from dtkpipe.values.image import ImageRef
from tests.fixtures.images import MTIME, file, layer, push_image, symlink
from tests.fixtures.keys import DAY, certificate, der, ec_key, key_pem, rsa_key
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.toolkit import Toolkit

pytestmark = pytest.mark.tools

KEY, STRANGER, EC = rsa_key(), rsa_key(), ec_key()
CERTIFICATE = certificate(KEY)
PASSPHRASE = "correct horse battery staple"
HERE = "opt/lib/modules/k/extra"
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".gz": gzip.compress,
}


@pytest.fixture(scope="module")
def kernel(registry: LoopbackRegistry, toolkit_cloud: Toolkit, shared_cache: Path) -> KernelFiles:
    return kernel_files(registry.client, toolkit_cloud.image, None, shared_cache)


@pytest.fixture(scope="module")
def kernel_image(registry: LoopbackRegistry, kernel: KernelFiles) -> ImageRef:
    return publish_kernel(registry.client, kernel, registry.repo("sign/kernel"))


@pytest.fixture(scope="module")
def module(kernel: KernelFiles) -> bytes:
    """A real module, signed by the distribution."""
    return decompress(kernel.module(kernel.in_tree["dummy"]), "dummy.ko")


class Desk:
    """A room to sign in, with the key and the certificate in files."""

    def __init__(self, folder: Path, cache: Path, registry: LoopbackRegistry, kernel_image: ImageRef) -> None:
        self.said: list[str] = []
        self.folder, self.cache, self.registry, self.kernel_image = folder, cache, registry, kernel_image
        self.key = folder / "key.pem"
        self.passphrase = folder / "passphrase"
        self.key.write_bytes(key_pem(KEY))
        self.rooms = 0

    def args(self, image: ImageRef, **more: object) -> sign.Args:
        given: dict[str, object] = {
            "image": image, "run_name": "run-1", "kernel_image": self.kernel_image, "key": str(self.key),
            "sign_cert": base64.b64encode(der(CERTIFICATE)).decode(),
            "insecure_registries": self.registry.access.insecure,
        }  # fmt: skip
        return sign.Args(**(given | more))  # type: ignore[arg-type]

    def run(self, image: ImageRef, **more: object) -> sign.Results:
        self.rooms += 1
        work = self.folder / f"work-{self.rooms}"
        work.mkdir()
        return sign.run(self.args(image, **more), Room(work=work, cache=self.cache, environ={}, say=self.said.append))


@pytest.fixture
def desk(tmp_path: Path, shared_cache: Path, registry: LoopbackRegistry, kernel_image: ImageRef) -> Desk:
    return Desk(tmp_path, shared_cache, registry, kernel_image)


@pytest.fixture
def client(registry: LoopbackRegistry) -> Registry:
    return registry.client


def _modules(client: Registry, image: ImageRef, into: Path) -> dict[str, bytes]:
    found = read_image(client, image, None, lambda path: ".ko" in path, into)
    return {path.rpartition("/")[2]: one.read_bytes() for path, one in found.contents.items()}


def test_every_form_of_a_module_is_signed_and_stays_what_it_is(
    client: Registry, registry: LoopbackRegistry, desk: Desk, module: bytes, tmp_path: Path
) -> None:
    bare = split(module).content
    forms = [file(f"{HERE}/m.ko{end}", pack(bare)) for end, pack in _COMPRESS.items()]
    host = symlink("opt/lib/modules/k/host", "/lib/modules/k")
    layers = [layer(file("bin/sh", b"x")), layer(*forms, file(f"{HERE}/signed.ko", module), host)]
    image = push_image(client, registry.repo("sign/forms"), layers, labels={"dtkpipe.kernel": "k"})
    results = desk.run(image)
    signed = ImageRef.parse(results.image_url).at(results.image_digest)
    ours = Certificate.parse(der(CERTIFICATE))
    found = _modules(client, signed, tmp_path / "x")
    assert sorted(found) == ["m.ko", "m.ko.gz", "m.ko.xz", "m.ko.zst", "signed.ko"]
    for name, data in found.items():
        made = split(decompress(data, name))
        assert made.content == bare
        assert openssl.signed_by(made.content, made.signature, ours, tmp_path)
    assert found["m.ko.xz"][:8].endswith(b"\x00\x01"), "the kernel reads xz with CRC32 only"
    told = process.run(["modinfo", "-F", "signer", tmp_path / "x" / HERE / "m.ko.zst"], timeout=60)
    assert told.output.strip() == "Test Signer"
    assert (tmp_path / "x" / HERE / "m.ko").stat().st_mtime == MTIME
    assert results.signer == ours.signer
    assert client.config(signed).labels == {"dtkpipe.kernel": "k", "dtkpipe.signer": ours.fingerprint}
    assert client.digest(signed.tagged("run-1-sign")) == signed.digest
    assert client.manifest(signed).layers[0] == client.manifest(image).layers[0]


def test_no_layer_keeps_an_unsigned_copy(
    client: Registry, registry: LoopbackRegistry, desk: Desk, module: bytes, tmp_path: Path
) -> None:
    bare = split(module).content
    where = f"{HERE}/m.ko"
    hiding = [
        layer(file(where, bare)),
        layer(file(where, bare)),
        layer(file(f"{HERE}/.wh.m.ko"), file("keep.ko", bare)),
    ]
    results = desk.run(push_image(client, registry.repo("sign/hidden"), hiding))
    signed = ImageRef.parse(results.image_url).at(results.image_digest)
    for descriptor in client.manifest(signed).layers:
        with client.open_blob(signed, descriptor) as blob:
            plain = gzip.decompress(blob.readall())
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            for member in tar.getmembers():
                if ".wh." not in member.name:
                    content = tar.extractfile(member)
                    assert content
                    assert split(content.read()).signature, member.name


def test_signing_the_same_again_gives_the_same_image(
    client: Registry, registry: LoopbackRegistry, desk: Desk, module: bytes
) -> None:
    image = push_image(client, registry.repo("sign/again"), [layer(file(f"{HERE}/m.ko", module))])
    first = desk.run(image)
    assert desk.run(image) == first
    assert desk.run(ImageRef.parse(first.image_url).at(first.image_digest)) == first


def test_ec_keys_sign_too(
    client: Registry, registry: LoopbackRegistry, desk: Desk, module: bytes, tmp_path: Path
) -> None:
    desk.key.write_bytes(key_pem(EC))
    image = push_image(client, registry.repo("sign/ec"), [layer(file(f"{HERE}/m.ko", module))])
    cert = certificate(EC, "EC Signer")
    results = desk.run(image, sign_cert=base64.b64encode(der(cert)).decode(), sign_hash="sha384")
    assert results.signer.startswith("EC Signer (sha256:")


def test_without_a_certificate_nothing_changes_and_that_is_said(
    client: Registry, registry: LoopbackRegistry, desk: Desk, module: bytes
) -> None:
    image = push_image(client, registry.repo("sign/unsigned"), [layer(file(f"{HERE}/m.ko", module))])
    results = desk.run(image, sign_cert="", key="")
    assert results == sign.Results(image_url=image.name, image_digest=image.digest, signer="unsigned")
    assert desk.said == ["unsigned: no certificate was given; a node with Secure Boot will refuse these modules"]
    assert client.tags(registry.repo("sign/unsigned")) == ()


class Watch(threading.Thread):
    """Reads every command line and environment of the machine until it is stopped."""

    def __init__(self, secrets: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.secrets, self.over = secrets, threading.Event()
        self.found: list[str] = []
        self.programs: set[bytes] = set()

    def run(self) -> None:
        while not self.over.is_set():
            for path in (one / name for one in Path("/proc").glob("[0-9]*") for name in ("cmdline", "environ")):
                try:
                    data = path.read_bytes()
                except OSError:
                    continue
                if path.name == "cmdline":
                    self.programs.add(data.split(b"\0")[0].rpartition(b"/")[2])
                if any(secret in data for secret in self.secrets):
                    self.found.append(str(path))


@pytest.fixture
def watch() -> Iterator[Watch]:
    lines = [line for line in key_pem(KEY).splitlines() if not line.startswith(b"-----")]
    watching = Watch([*lines, PASSPHRASE.encode()])
    watching.start()
    yield watching
    watching.over.set()
    watching.join(30)


def test_the_key_is_seen_nowhere(
    client: Registry, registry: LoopbackRegistry, desk: Desk, module: bytes, watch: Watch
) -> None:
    began = time.time() - 1
    desk.key.write_bytes(key_pem(KEY, PASSPHRASE.encode()))
    desk.passphrase.write_text(PASSPHRASE + "\n")
    many = [file(f"{HERE}/m{number}.ko", module) for number in range(25)]
    image = push_image(client, registry.repo("sign/secret"), [layer(*many)])
    desk.run(image, passphrase=str(desk.passphrase))
    watch.over.set()
    assert watch.found == []
    assert b"sign-file" in watch.programs, "the watch has to have seen what it watches"
    secrets = [*watch.secrets, base64.b64decode(b"".join(watch.secrets[:-1]))[:64]]
    for path in [*registry.storage.rglob("*"), *(desk.folder / "work-1").rglob("*"), registry.log]:
        if path.is_file() and path.stat().st_mtime >= began:
            data = path.read_bytes()
            plain = zlib.decompressobj(wbits=31).decompress(data) if data.startswith(b"\x1f\x8b") else data
            assert not any(secret in data or secret in plain for secret in secrets), path
    assert not any(secret.decode() in line for secret in watch.secrets for line in desk.said)


# What is checked before anything is done


@pytest.fixture
def image(client: Registry, registry: LoopbackRegistry, module: bytes) -> ImageRef:
    return push_image(client, registry.repo("sign/checks"), [layer(file(f"{HERE}/m.ko", module))])


def _cert(made: object) -> str:
    return base64.b64encode(der(made)).decode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"key": ""}, "no signing key"),
        ({"key": "/nowhere/key.pem"}, "cannot be read"),
        ({"sign_cert": "!!!"}, "not base64"),
        ({"sign_cert": "aGVsbG8="}, "cannot be read"),
        ({"sign_cert": _cert(certificate(STRANGER))}, "do not belong together"),
        ({"sign_hash": "md5"}, "no digest algorithm"),
        ({"kernel_image": None}, "no kernel artifact"),
    ],
)
def test_what_does_not_fit_is_refused(desk: Desk, image: ImageRef, given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        desk.run(image, **given)
    assert caught.value.exit_code == 6
    assert desk.registry.client.tags(image) == ()


def test_an_encrypted_key_without_or_with_a_wrong_passphrase_is_refused(desk: Desk, image: ImageRef) -> None:
    desk.key.write_bytes(key_pem(KEY, PASSPHRASE.encode()))
    with pytest.raises(InvalidError, match="encrypted") as caught:
        desk.run(image, passphrase=str(desk.folder / "not-there"))
    assert "passphrase" in caught.value.hint
    desk.passphrase.write_text("wrong")
    with pytest.raises(InvalidError, match="does not open"):
        desk.run(image, passphrase=str(desk.passphrase))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (certificate(KEY, start=-9 * DAY, end=-DAY), "expired"),
        (certificate(KEY, start=DAY), "not valid before"),
        (certificate(KEY, ca=True), "is a CA"),
    ],
)
def test_odd_certificates_are_warned_of_and_sign(desk: Desk, image: ImageRef, made: object, words: str) -> None:
    results = desk.run(image, sign_cert=_cert(made))
    assert "Test Signer" in results.signer
    assert any(line.startswith("warning: ") and words in line for line in desk.said)


def test_a_file_that_is_no_module_is_refused(client: Registry, registry: LoopbackRegistry, desk: Desk) -> None:
    image = push_image(client, registry.repo("sign/no-elf"), [layer(file(f"{HERE}/m.ko", b"#!/bin/sh"))])
    with pytest.raises(InvalidError, match=r"m\.ko is not a kernel module"):
        desk.run(image)
    assert client.tags(image) == ()


def test_an_image_without_modules_is_refused(client: Registry, registry: LoopbackRegistry, desk: Desk) -> None:
    with pytest.raises(RunFailedError, match="nothing to sign"):
        desk.run(push_image(client, registry.repo("sign/none"), [layer(file("a"))]))


# sign-file itself


def _sign_with(program: Path, module: bytes, work: Path) -> DtkpipeError:
    target = work / "m.ko"
    target.write_bytes(split(module).content)
    key, cert = PrivateKey.parse(key_pem(KEY)), Certificate.parse(der(CERTIFICATE))
    with pytest.raises(DtkpipeError) as caught:
        signfile.sign(program, "sha256", key, cert, target, work)
    return caught.value


def test_a_sign_file_for_another_machine_is_said_to_be_one(kernel: KernelFiles, module: bytes, tmp_path: Path) -> None:
    program = bytearray(kernel.sign_file.read_bytes())
    program[18] = 0xF3  # e_machine: RISC-V
    (tmp_path / "sign-file").write_bytes(program)
    (tmp_path / "sign-file").chmod(0o755)
    error = _sign_with(tmp_path / "sign-file", module, tmp_path)
    assert isinstance(error, UnsupportedError)


def test_a_sign_file_whose_library_is_missing_names_it(kernel: KernelFiles, module: bytes, tmp_path: Path) -> None:
    program = kernel.sign_file.read_bytes().replace(b"libcrypto.so.3", b"libcrypto.so.9")
    (tmp_path / "sign-file").write_bytes(program)
    (tmp_path / "sign-file").chmod(0o755)
    error = _sign_with(tmp_path / "sign-file", module, tmp_path)
    assert isinstance(error, UnsupportedError)
    assert "libcrypto.so.9" in str(error)


def test_a_signature_that_is_not_ours_is_noticed(desk: Desk, image: ImageRef, module: bytes, tmp_path: Path) -> None:
    """A sign-file that lies: it signs with a key of its own."""
    args = desk.args(image)
    room = Room(work=tmp_path, cache=tmp_path, environ={}, say=print)
    signer = sign.signer_from(args, room)
    other = replace(signer, key=PrivateKey.parse(key_pem(STRANGER)))
    work = tmp_path / "w"
    work.mkdir()
    real = shutil.which("true")
    assert real
    with pytest.raises(RunFailedError, match="does not prove good"):
        sign.sign_module("m.ko", module, Path(real), signer, work)
    with pytest.raises((RunFailedError, InvalidError)):
        sign.sign_module("m.ko", module, _kernel_sign_file(desk), other, work)


def _kernel_sign_file(desk: Desk) -> Path:
    from dtkpipe.proof.kernel_store import stored_kernel

    return stored_kernel(desk.registry.client, desk.kernel_image, desk.cache).sign_file


def test_throw_away_keys_are_whole_and_leave_no_file(tmp_path: Path) -> None:
    key, cert = openssl.throw_away_key("stranger", tmp_path)
    assert key.matches(cert)
    assert list(tmp_path.iterdir()) == []
