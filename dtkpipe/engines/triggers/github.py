"""A trigger as a workflow of GitHub Actions: it calls .github/workflows/rebuild.yml of this project. Pure.

Fields and expressions: docs.github.com, "Workflow syntax". What is on GitHub's machines builds there, and asks no
cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtkpipe import __version__
from dtkpipe.engines.rendered import Object, carried

REBUILD = f"dtkpipe/dtkpipe/.github/workflows/rebuild.yml@v{__version__.partition('+')[0]}"
"""The reusable workflow, of this version."""
SECRETS = {"registry-auth": "REGISTRY_AUTH", "sign-key": "SIGN_KEY"}
"""What it needs -> the repository's secret that has it."""

_TYPES: Mapping[str, type] = {"cells": int, "retry-failed": bool}


def workflow(name: str, repository: str, paths: Sequence[str], inputs: Mapping[str, str]) -> Object:
    """Return the workflow of a repository (`org/kmod`), for pushes to its default branch that change `paths`.

    In a fork it does nothing. Raises UsageError for values that GitHub would not take as data.
    """
    carried({"name": name, "repo": repository, **inputs, **{f"path {one}": one for one in paths}})
    own = f"github.repository == '{repository}' && github.ref_name == github.event.repository.default_branch"
    changed = {"paths": [path.replace("*", "**") for path in paths]} if paths else {}
    needed = [one for one in SECRETS if one != "sign-key" or "sign-cert" in inputs]
    return {
        "name": name,
        "on": {"push": {"branches": ["**"], **changed}},
        "permissions": {"contents": "read"},
        "jobs": {
            "rebuild": {
                "if": own,
                "uses": REBUILD,
                "with": {key: _TYPES.get(key, str)(text) for key, text in inputs.items()},
                "secrets": {one: f"${{{{ secrets.{SECRETS[one]} }}}}" for one in needed},
            },
        },
    }
