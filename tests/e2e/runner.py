"""The runner image for tests: made of catalog/runner/Containerfile like the real one, on a base that is not pulled.

`python -m tests.e2e.runner HOST/REPOSITORY` makes it, pushes it and prints it by digest. The base comes from
mmdebstrap; buildah's cache keeps every layer whose inputs are the same, so that a change of code costs seconds.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from dtkpipe.resources import cache_dir
from dtkpipe.tools import process
from dtkpipe.tools.apt import archive_site
from dtkpipe.tools.lock import locked
from dtkpipe.values.image import ImageRef

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = ROOT / "catalog" / "runner" / "Containerfile"
_SUITE = "trixie"


def runner(target: ImageRef) -> ImageRef:
    """Make the runner image, push it to the repository `target` (a registry without TLS); return it by digest."""
    folder = cache_dir(os.environ) / "e2e" / "runner"
    folder.mkdir(parents=True, exist_ok=True)
    buildah = ["buildah", "--root", folder / "storage", "--runroot", folder / "run"]
    with locked(folder / "lock"), tempfile.TemporaryDirectory() as name:
        work = Path(name)
        base = _base(folder, buildah)
        process.run(
            [*buildah, "build", "--isolation=chroot", "--layers", "--format=oci", "--pull=never", "--network=host",
             *_mirror_of_pypi(work), f"--build-arg=BASE={base}", f"--iidfile={work / 'id'}",
             f"--file={CONTAINERFILE}", ROOT],
            log=folder / "build.log",
        )  # fmt: skip
        image = (work / "id").read_text()
        process.run(
            [*buildah, "push", "--tls-verify=false", f"--digestfile={work / 'digest'}", image, f"docker://{target}:e2e"]
        )
        return target.at((work / "digest").read_text())


def _base(folder: Path, buildah: list[str | Path]) -> str:
    """Return the image of a minimal Debian, as Debian's own images are; made where it is not there yet."""
    entry = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    site = archive_site(security=False)
    sources = f"{entry} {site} {_SUITE} main\n{entry} {site} {_SUITE}-updates main\n"
    if site := archive_site(security=True):
        sources += f"{entry} {site} {_SUITE}-security main\n"
    name = f"localhost/debian:{hashlib.sha256(sources.encode()).hexdigest()[:16]}"
    if not process.run([*buildah, "images", "--quiet", name], ok=None).output.strip():
        tar = folder / "base.tar"
        process.run(
            ["mmdebstrap", "--variant=apt", "--mode=root", "--include=debian-archive-keyring", "--format=tar",
             "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
             "--dpkgopt=path-exclude=/usr/share/locale/*", _SUITE, tar, "-"],
            stdin=sources, timeout=900,
        )  # fmt: skip
        container = process.run([*buildah, "from", "scratch"]).output.strip()
        process.run([*buildah, "add", "--quiet", container, tar, "/"])
        process.run([*buildah, "commit", "--quiet", "--rm", container, name])
        tar.unlink()
    return name


def _mirror_of_pypi(work: Path) -> list[str]:
    """Return the build's secrets that say where pip finds packages, from this machine's own settings."""
    settings = process.run([sys.executable, "-m", "pip", "config", "list"]).output
    wanted = dict(line.split("=", 1) for line in settings.splitlines() if "=" in line)
    found = {key.split(".")[-1]: value.strip("'") for key, value in wanted.items()}
    lines = ["[global]"] + [
        f"{key} = {found[key]}" for key in ("index-url", "extra-index-url", "trusted-host") if key in found
    ]
    secrets = []
    if bundle := found.get("cert") or os.environ.get("SSL_CERT_FILE"):
        lines.append("cert = /run/secrets/ca.pem")
        secrets.append(f"--secret=id=ca.pem,src={bundle}")
    (work / "pip.conf").write_text("\n".join(lines) + "\n")
    return [*secrets, f"--secret=id=pip.conf,src={work / 'pip.conf'}"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.e2e.runner HOST/REPOSITORY")
    print(runner(ImageRef.parse(sys.argv[1])))
