"""stage: a published image comes back into staging with what its labels say, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtkpipe.errors import InvalidError, NotFoundError
from dtkpipe.steps import stage
from dtkpipe.steps.contract import Room
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.registry import LoopbackRegistry

pytestmark = pytest.mark.tools


def test_an_image_that_others_made_is_not_staged(registry: LoopbackRegistry, tmp_path: Path) -> None:
    client, repo, staging = registry.client, registry.repo("stage/foreign"), registry.repo("stage/foreign-staging")
    image = push_image(client, repo, [layer(file("a", b"a"))], tag="v1", labels={"dtkpipe.kernel": "6.1.0-1-amd64"})
    room = Room(work=tmp_path, cache=tmp_path, environ={}, say=lambda _line: None)
    for given in (image, repo.tagged("v1")):
        args = stage.Args(image=given, staging=staging, run_name="run-1", insecure_registries=(registry.host,))
        with pytest.raises(InvalidError, match=r"it has no label dtkpipe\.toolkit, dtkpipe\.commit") as refused:
            stage.run(args, room)
        assert image.digest in refused.value.what
    assert client.tags(staging) == ()
    gone = stage.Args(image=repo.tagged("v2"), staging=staging, run_name="run-1", insecure_registries=(registry.host,))
    with pytest.raises(NotFoundError):
        stage.run(gone, room)
