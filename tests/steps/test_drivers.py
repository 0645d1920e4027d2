"""What an image says of itself when it is deployed: by its label, or by the modules that it holds."""

import pytest

from dtkpipe.app.drivers import Published, Site, published
from dtkpipe.errors import InvalidError, NotFoundError, UsageError
from dtkpipe.steps.contract import RegistryArgs
from dtkpipe.values.image import ImageRef
from dtkpipe.values.kernel import Kernel
from tests.fixtures.images import file, layer, push_image
from tests.fixtures.registry import LoopbackRegistry

FIRST, SECOND = "6.1.0-1-cloud-amd64", "6.1.0-2-cloud-amd64"


def site(registry: LoopbackRegistry) -> Site:
    registries = RegistryArgs(insecure_registries=(registry.host,))
    return Site(cluster=None, namespace="x", registries=registries, environ={}, say=lambda _: None)  # type: ignore[arg-type]


def pushed(registry: LoopbackRegistry, *kernels: str, tag: str = "", **labels: str) -> ImageRef:
    members = [file(f"opt/lib/modules/{kernel}/updates/hello.ko", b"x") for kernel in kernels]
    repo = registry.repo("drivers-of-others")
    return push_image(registry.client, repo, [layer(file("bin/sh"), *members)], tag=tag, labels=labels)


def test_the_label_says_the_kernel(registry: LoopbackRegistry) -> None:
    image = pushed(registry, FIRST, tag="one", **{"dtkpipe.kernel": SECOND})
    found = published(site(registry), registry.repo("drivers-of-others").tagged("one"))
    assert found == Published(image=image, kernel=Kernel.parse(SECOND))
    assert published(site(registry), image, FIRST).kernel == Kernel.parse(FIRST)


def test_an_image_made_elsewhere_says_it_by_its_modules(registry: LoopbackRegistry) -> None:
    assert published(site(registry), pushed(registry, FIRST)).kernel == Kernel.parse(FIRST)
    with pytest.raises(UsageError, match="has modules for several kernels") as several:
        published(site(registry), pushed(registry, FIRST, SECOND))
    assert several.value.hint == f"say which: --kernel {FIRST}"
    with pytest.raises(InvalidError, match="is no driver image: it has no modules"):
        published(site(registry), pushed(registry))


def test_an_image_that_is_not_there_is_not_found(registry: LoopbackRegistry) -> None:
    with pytest.raises(NotFoundError):
        published(site(registry), registry.repo("drivers-of-others").tagged("no-such-tag"))
