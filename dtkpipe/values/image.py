"""Image references: parsed once, never a bare string again."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from dtkpipe.errors import InvalidError

# The grammar of github.com/distribution/reference, without the Docker Hub short names.
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<registry>{_HOST})/(?P<repository>{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class ImageRef:
    """One image: `registry/repository[:tag][@digest]`. A repository alone has neither tag nor digest."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @classmethod
    def parse(cls, text: str) -> ImageRef:
        """Parse a full reference, host included. Raises InvalidError."""
        found = _REFERENCE.fullmatch(text.removeprefix("docker://"))
        if not found or not ("." in found["registry"] or ":" in found["registry"] or found["registry"] == "localhost"):
            raise InvalidError(
                f"`{text}` is not an image reference",
                "expected registry/repository[:tag][@sha256:...], with the host, e.g. quay.io/org/kmod:v1",
            )
        return cls(found["registry"], found["repository"], found["tag"] or "", found["digest"] or "")

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def pinned(self) -> bool:
        """Whether it names a digest or a version. A repository alone, or `latest`, can be another image tomorrow."""
        return bool(self.digest) or self.tag not in ("", "latest")

    def at(self, digest: str) -> ImageRef:
        """Return the same repository at `digest` (`sha256:...`), without a tag."""
        return replace(self, tag="", digest=digest)

    def tagged(self, tag: str) -> ImageRef:
        """Return the same repository at `tag`, without a digest."""
        return replace(self, tag=tag, digest="")
