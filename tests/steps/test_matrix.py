"""A matrix for real: built, refused and not compiling for a real kernel; then signed again without a build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtkpipe.values.image import ImageRef
from dtkpipe.values.key import LABEL, KeyTag
from tests.fixtures.cli import Cli, Said
from tests.fixtures.keys import certificate, der, key_pem, rsa_key
from tests.fixtures.matrix import Shelf
from tests.fixtures.registry import LoopbackRegistry

pytestmark = pytest.mark.tools


def results(said: Said) -> dict[str, str]:
    return {one["module"]: one["result"] for one in json.loads(said.out)["cells"]}


def test_a_matrix_ends_with_every_cell_told_and_signs_again_without_a_build(
    shell: Cli, registry: LoopbackRegistry, tmp_path: Path
) -> None:
    shelf = Shelf(shell.here)
    shelf.module("matrix_good")
    shelf.module("matrix_bad", source="return no_such_thing();")
    shelf.module("matrix_shy", source="return -ENODEV;")
    place = registry.repo("matrix-steps")

    def matrix(command: str, *more: str) -> Said:
        return shell(
            "matrix", command, "--modules", "modules/*", "--releases", "debian-12", "--variant", "cloud", "--push-to",
            str(place), "--insecure-registry", place.registry, "-o", "json", *more, timeout=900,
        )  # fmt: skip

    first = matrix("submit")
    assert first.code == 10, first.err
    assert results(first) == {"matrix_bad": "failed", "matrix_good": "built", "matrix_shy": "failed"}
    causes = {one["module"]: one.get("cause", "") for one in json.loads(first.out)["cells"]}
    assert causes["matrix_bad"] == "compile: implicit declaration of function 'no_such_thing'"
    assert causes["matrix_shy"].startswith("verdict: load-failed: MODULE")
    assert {one["state"] for one in json.loads(matrix("plan").out)["cells"]} == {"current", "failed-before"}
    again = matrix("submit")
    assert (again.code, set(results(again).values())) == (10, {"reused", "failed"})

    key = rsa_key()
    cert = certificate(key, "Matrix Test")
    (shell.here / "key.pem").write_bytes(key_pem(key))
    (shell.here / "cert.der").write_bytes(der(cert))
    for name in ("bad", "shy"):
        (shelf.root / f"modules/matrix_{name}.yaml").unlink()
    (cell,) = json.loads(matrix("plan", "--sign-cert", "cert.der").out)["cells"]
    assert cell["state"] == "resign"
    signed = matrix("submit", "--sign-cert", "cert.der", "--sign-key", "key.pem")
    assert (signed.code, results(signed)) == (0, {"matrix_good": "signed"}), signed.err
    assert matrix("plan", "--sign-cert", "cert.der").code == 0
    assert matrix("plan").code == 0, "the unsigned image is there still"

    client, repo = registry.client, ImageRef.parse(f"{place}/matrix-good")
    tags = {tag.signer: repo.tagged(str(tag)) for text in client.tags(repo) if (tag := KeyTag.parse(text))}
    before, after = client.config(tags.pop("unsigned")).labels, client.config(tags.popitem()[1]).labels
    assert before[LABEL] == after[LABEL]
    assert before["dtkpipe.commit"] == after["dtkpipe.commit"]
    assert "dtkpipe.signer" in after
