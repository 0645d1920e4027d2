"""What is installed on a cluster for one engine: namespaces, accounts and rights, pipelines. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dtkpipe.engines import rbac
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Object

INSTANCE_LABEL = "app.kubernetes.io/instance"
MANAGED_LABEL = "app.kubernetes.io/managed-by"


def instance(engine: str) -> str:
    """Return the value of INSTANCE_LABEL on what is one engine's own."""
    return f"{rbac.INSTANCE}-{engine}"


def installation(engine: str, namespace: str, target: str, templates: Iterable[Object]) -> list[Object]:
    """Return all objects, each with its namespace, in the order in which they are applied."""
    placed = [
        {
            **one,
            "metadata": {
                "name": one["metadata"]["name"],
                "namespace": namespace,
                **{key: value for key, value in one["metadata"].items() if key != "name"},
                "labels": {**one["metadata"]["labels"], INSTANCE_LABEL: instance(engine)},
            },
        }
        for one in templates
    ]
    return [*rbac.namespaces(namespace, target), *rbac.objects(engine, namespace, target), *placed]


def files(objects: Iterable[Object]) -> dict[str, str]:
    """Return file name -> text, as they lie in catalog/<engine>.

    `kubectl apply -f` takes a folder's files by name, so the namespaces' comes first; and only those that end in
    .yaml, so that `kubectl apply -k` finds a Kustomization which the other does not trip over.
    """
    grouped: dict[str, list[Object]] = {}
    for one in objects:
        kind, name = one["kind"], one["metadata"]["name"]
        if kind == "Namespace":
            file = "namespaces.yaml"
        elif kind in ("ServiceAccount", "Secret") or one["apiVersion"].startswith("rbac."):
            file = "rbac.yaml"
        else:
            file = f"{kind.lower()}-{name}.yaml"
        grouped.setdefault(file, []).append(one)
    texts = {name: _HEADER + dump(some) for name, some in grouped.items()}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(texts),
    }  # fmt: skip
    return {**texts, "Kustomization": _HEADER + dump([kustomization])}


_HEADER = "# Written by `dtkpipe install --dry-run=client --dir`. Change what it is made of, not this file.\n"
