"""What is installed on a cluster for one engine: namespaces, accounts and rights, pipelines. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dtkpipe.engines import rbac
from dtkpipe.engines.dump import dump
from dtkpipe.engines.rendered import Object

INSTANCE_LABEL = "app.kubernetes.io/instance"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
KUSTOMIZATION = "Kustomization"
"""One of the three names that kustomize knows: kubernetes-sigs/kustomize, api/konfig/general.go."""


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


def files(objects: Iterable[Object], origin: str) -> dict[str, str]:
    """Return file name -> text: a file for each object, and last a Kustomization that lists them in their order.

    `origin` is argo, tekton or openshift: files of another one are not taken for this one's. `kubectl apply -f` takes a
    folder's files by name: namespaces come before what is in them, an account before its token; and only those that end
    in .yaml, so that `kubectl apply -k`, Argo CD and Flux find a Kustomization which the other does not trip over.
    """
    head = header(origin)
    texts = {_name(one): head + dump([one]) for one in objects}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(texts),
    }  # fmt: skip
    return {**texts, KUSTOMIZATION: head + dump([kustomization])}


def _name(one: Object) -> str:
    # A cluster removes a token whose account is not there: kubernetes/kubernetes, pkg/controller/serviceaccount.
    kind = "token" if one.get("type") == "kubernetes.io/service-account-token" else one["kind"].lower()
    # A colon, which roles have in their names and no other object, is none on every file system.
    return f"{kind}-{one['metadata']['name']}.yaml".replace(":", ".")


def header(origin: str) -> str:
    """Return the line that all files of one origin begin with, and no others."""
    return f"# Written by `dtkpipe compile --dir` for {origin}. Change what it is made of, not this file.\n"
