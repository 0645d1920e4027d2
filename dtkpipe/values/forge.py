"""The hosts of git repositories that call when somebody pushes: GitHub and GitLab, also those that companies run.

What they send: docs.github.com, "Webhook events and payloads"; docs.gitlab.com, "Webhook events".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from dtkpipe.errors import UsageError

GITHUB, GITLAB = "github", "gitlab"
TITLES = {GITHUB: "GitHub", GITLAB: "GitLab"}
FORGES = tuple(TITLES)
NO_COMMIT = "0" * 40
"""What a push says of a branch that is not there: before it, or after it."""


@dataclass(frozen=True)
class Repository:
    """A repository of a forge: `path` is what it calls it, in lower case (`org/hello`)."""

    forge: str
    host: str
    path: str

    @classmethod
    def parse(cls, url: str, forge: str = "") -> Repository:
        """Parse the URL of a repository; `forge` where its host does not tell. Raises UsageError."""
        host, path = place_of(url)
        if not host or path.count("/") < 1:
            raise UsageError(f"`{url[:80]}` is no repository that calls", "expected something like github.com/org/kmod")
        if forge and forge not in FORGES:
            raise UsageError(f"there is no forge `{forge[:80]}`", hint=f"--forge {' or --forge '.join(FORGES)}")
        found = forge or next((one for one in FORGES if one in host), "")
        if not found:
            raise UsageError(f"nothing says what {host} is", hint=f"--forge {' or --forge '.join(FORGES)}")
        return cls(found, host, path)


def place_of(url: str) -> tuple[str, str]:
    """Return host and path of a repository's URL in lower case, so that two ways of writing it are the same."""
    if "://" not in url and ":" in url.partition("/")[0]:
        url = f"ssh://{url.replace(':', '/', 1)}"
    parts = urlsplit(url if "://" in url else f"https://{url}")
    return (parts.hostname or "").lower(), parts.path.strip("/").removesuffix(".git").lower()


@dataclass(frozen=True)
class Call:
    """What a forge sends: a body and the headers that say what it is and who sent it."""

    body: bytes
    headers: Mapping[str, str]


def push(repository: Repository, ref: str, default_branch: str, secret: str, files: tuple[str, ...] = ()) -> Call:
    """Return a push to `ref` (`refs/heads/main`) as the forge sends and signs it, as far as bells look at it."""
    name = repository.path.rpartition("/")[2]
    after = hashlib.sha1(ref.encode(), usedforsecurity=False).hexdigest()
    commit = {"id": after, "message": "as `dtkpipe trigger test` has it", "added": [], "modified": list(files)}
    body: dict[str, object] = {
        "ref": ref, "before": NO_COMMIT, "after": after, "commits": [{**commit, "removed": []}],
    }  # fmt: skip
    if repository.forge == GITHUB:
        body |= {
            "created": False, "deleted": False, "forced": False,
            "repository": {"name": name, "full_name": repository.path, "default_branch": default_branch},
        }  # fmt: skip
        data = json.dumps(body).encode()
        sums = {
            header: f"{kind}={hmac.new(secret.encode(), data, kind).hexdigest()}"
            for header, kind in (("X-Hub-Signature-256", "sha256"), ("X-Hub-Signature", "sha1"))
        }
        headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": after, **sums}
    else:
        body |= {
            "object_kind": "push", "event_name": "push", "checkout_sha": after, "total_commits_count": 1,
            "project": {
                "name": name, "path_with_namespace": repository.path, "default_branch": default_branch,
            },
        }  # fmt: skip
        data = json.dumps(body).encode()
        headers = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": secret}
    return Call(data, {"Content-Type": "application/json", **headers})
