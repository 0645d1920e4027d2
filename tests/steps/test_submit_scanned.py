"""The pipeline of docs/how-to/write-your-own-pipeline.md for real, with a scanner that is a script in a small image."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtkpipe.tools.busybox import static_busybox
from dtkpipe.values.arch import Arch
from dtkpipe.values.image import ImageRef
from tests.fixtures.cli import Cli, Said
from tests.fixtures.images import file, layer, push_image, symlink
from tests.fixtures.registry import LoopbackRegistry
from tests.fixtures.submit import HELLO, TARGET, card_of, tags, to

pytestmark = pytest.mark.tools

PIPELINE = Path(__file__).parents[1] / "fixtures/pipelines/scan.py"
IMAGE = "quay.io/acme/scanner:1.4"
SCAN = b"""\
#!/bin/sh
for word in "$@"; do
    case $word in
        --image=*) image=${word#*=} ;;
        --severity=*) severity=${word#*=} ;;
        --summary=*) summary=${word#*=} ;;
        *) exit 2 ;;
    esac
done
if [ "$severity" = low ]; then
    echo "error: 1 finding in $image"
    exit 1
fi
printf 'nothing that is %s in %s' "$severity" "$image" > "$summary"
"""


@pytest.fixture(scope="module")
def scanner(registry: LoopbackRegistry, shared_cache: Path) -> ImageRef:
    """An image with a shell and the program `scan`."""
    shell = static_busybox(Arch.host(), shared_cache).read_bytes()
    files = layer(file("bin/busybox", shell, 0o755), symlink("bin/sh", "busybox"), file("bin/scan", SCAN, 0o755))
    return push_image(registry.client, registry.repo("acme/scanner"), [files], arch=Arch.host().oci)


def submit(cli: Cli, registry: LoopbackRegistry, scanner: ImageRef, name: str, *words: str) -> Said:
    text = PIPELINE.read_text()
    assert text.count(IMAGE) == 1
    (cli.here / "mine.py").write_text(text.replace(IMAGE, str(scanner)))
    place = to(registry, name)
    return cli("submit", "--pipeline", "mine.py", *TARGET, "--repo", HELLO, *place, *words, "-o", "json")


def test_what_the_scanner_passes_is_published(shell: Cli, registry: LoopbackRegistry, scanner: ImageRef) -> None:
    said = submit(shell, registry, scanner, "scanned/good")
    assert said.code == 0, said.err
    card = card_of(said)
    seen = f"{card.result('sign', 'IMAGE_URL')}@{card.result('sign', 'IMAGE_DIGEST')}"
    assert card.result("scan", "SUMMARY") == f"nothing that is high in {seen}"
    assert card.result("verify", "VERDICT") == "proven"
    assert card.result("resolve", "KERNEL") in tags(registry, "scanned/good")


def test_what_the_scanner_finds_stops_the_run(shell: Cli, registry: LoopbackRegistry, scanner: ImageRef) -> None:
    said = submit(shell, registry, scanner, "scanned/bad", "-p", "severity=low")
    assert said.code == 10
    assert "error: scan: 1 finding in " in said.err
    assert {step.name: step.state for step in card_of(said).steps}["publish"] == "pending"
    assert tags(registry, "scanned/bad") == ()
