"""One cluster: read, list, create, apply, patch, replace, delete. Objects are plain dicts, as the API has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dtkpipe.clients.cluster import logs, remote
from dtkpipe.clients.cluster.connection import MANAGER, Connection
from dtkpipe.clients.cluster.refusals import Asked, GoneError
from dtkpipe.clients.cluster.resources import IMAGE_STREAMS, NODES, PODS, Object, Resource, resource_of, with_kind
from dtkpipe.clients.cluster.watching import Watch
from dtkpipe.errors import NotFoundError

_PAGE = 500
"""Objects of one answer; more come with the next."""


class Cluster:
    """The cluster of a kubeconfig's context, or the one whose pod we run in.

    Where a namespace is asked for and none is given, it is the object's own, or `self.namespace`; only `list` and
    `watch` take none as "in all namespaces". Every method raises NotAllowedError, and UnreachableError for a cluster
    that does not answer.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str = "") -> None:
        """Read the kubeconfig (default: KUBECONFIG, the pod's service account, ~/.kube/config).

        Raises InvalidError for a kubeconfig that is not there or not usable, NotFoundError for an unknown context.
        """
        self._connection = Connection(kubeconfig, context)
        self.namespace = self._connection.namespace
        self.context = self._connection.context
        self.host = self._connection.host

    def be_patient(self, seconds: float = 180.0) -> None:
        """Repeat reads that get no answer for so long, from now on: for who waits for something anyway."""
        self._connection.patience = seconds

    def read(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """Return an object. Raises NotFoundError."""
        where = self._where(resource, namespace)
        return self._connection.ask("GET", resource.path(where, name), _asked("get", resource, where, name))

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """Return an object, or None where there is none; also where its namespace or its kind is not there."""
        try:
            return self.read(resource, name, namespace)
        except NotFoundError:
            return None

    def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", limit: int = 0,
        metadata: bool = False,
    ) -> list[Object]:  # fmt: skip
        """Return the objects that fit selectors of labels and fields, in the API's order (by name), all pages of them.

        With a `limit` only so many, by one request. `metadata`: nothing but that of each, which is far less to send
        and to read (PartialObjectMetadata). Members of a list do not say their kind: it is added.
        """
        asked, found = _asked("list", resource, namespace), list[Object]()
        query = _present(labelSelector=labels, fieldSelector=fields, limit=str(limit or _PAGE))
        while True:
            try:
                page = self._connection.ask("GET", resource.path(namespace), asked, query=query, metadata=metadata)
            except GoneError:  # the list took so long that its first page is forgotten
                found, query = [], {name: value for name, value in query.items() if name != "continue"}
                continue
            found += with_kind(page, resource)
            more = str((page.get("metadata") or {}).get("continue") or "")
            if limit or not more:
                return found
            query = {**query, "continue": more}

    def create(self, resource: Resource, obj: Object, namespace: str = "", *, dry_run: bool = False) -> Object:
        """Create an object and return it as the API server has it. Fields that it does not know are refused.

        Raises ExistsError for a name that is taken, InvalidError for what is refused and by whom, NotAllowedError also
        for a quota that is used up and a namespace that is being deleted, NotFoundError for one that is not there.
        """
        where = self._where(resource, namespace or str(obj["metadata"].get("namespace") or ""))
        name = str(obj["metadata"].get("name") or "")
        query = _present(fieldManager=MANAGER, fieldValidation="Strict", dryRun="All" if dry_run else "")
        asked = _asked("create", resource, where, name)
        return self._connection.ask("POST", resource.path(where), asked, query=query, body=obj)

    def apply(self, obj: Object, namespace: str = "", *, dry_run: bool = False) -> Object:
        """Make an object what `obj` says, whether it is there or not (server-side apply, as the owner `dtkpipe`).

        Fields that others have set and `obj` names become ours; those that we named before and do not now are removed.
        """
        resource = resource_of(obj)
        where = self._where(resource, namespace or str(obj["metadata"].get("namespace") or ""))
        name = str(obj["metadata"]["name"])
        query = _present(fieldManager=MANAGER, force="true", fieldValidation="Strict", dryRun="All" if dry_run else "")
        return self._connection.ask(
            "PATCH", resource.path(where, name), _asked("patch", resource, where, name), query=query, body=obj,
            content_type="application/apply-patch+yaml",
        )  # fmt: skip

    def patch(
        self, resource: Resource, name: str, namespace: str, merge: Mapping[str, Any], *, subresource: str = ""
    ) -> Object:
        """Merge `merge` into an object (RFC 7396: null removes a field). Raises NotFoundError, InvalidError."""
        where = self._where(resource, namespace)
        return self._connection.ask(
            "PATCH", resource.path(where, name, subresource), _asked("patch", resource, where, name),
            query={"fieldManager": MANAGER}, body=dict(merge), content_type="application/merge-patch+json",
        )  # fmt: skip

    def replace(self, resource: Resource, obj: Object, namespace: str = "", *, subresource: str = "") -> Object:
        """Write an object back that was read. Raises ConflictError where it was changed since."""
        name = str(obj["metadata"]["name"])
        where = self._where(resource, namespace or str(obj["metadata"].get("namespace") or ""))
        return self._connection.ask(
            "PUT", resource.path(where, name, subresource), _asked("update", resource, where, name),
            query={"fieldManager": MANAGER}, body=obj,
        )  # fmt: skip

    def delete(
        self, resource: Resource, name: str, namespace: str = "", *, foreground: bool = False, uid: str = ""
    ) -> bool:
        """Delete an object, and behind it what it owns; `foreground`: what it owns first. False: it was not there.

        With a `uid`, only that very object: raises ConflictError where another has its name now.
        """
        where = self._where(resource, namespace)
        body: Object = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        asked = _asked("delete", resource, where, name)
        try:
            self._connection.ask("DELETE", resource.path(where, name), asked, body=body)
        except NotFoundError:
            return False
        return True

    def watch(
        self, resource: Resource, namespace: str = "", *, name: str = "", labels: str = "", patience: float = 180.0,
        until: float | None = None,
    ) -> Iterator[tuple[str, Object]]:  # fmt: skip
        """Give what is there as ("ADDED", object), then each change: ADDED, MODIFIED, DELETED.

        One object, by `name`, that is not there is DELETED to begin with, with no uid: else who waits for the end of
        something that has just gone would wait for ever.

        Goes on over dropped connections, restarts of the API server and forgotten versions (410) as long as some
        answer comes within `patience` seconds; then raises UnreachableError. What changed meanwhile is given as its
        last state. Ends at `until` (of time.monotonic()), without a word.
        """
        query = _present(fieldSelector=f"metadata.name={name}" if name else "", labelSelector=labels)
        asked = _asked("watch", resource, namespace, name)
        return Watch(self._connection, resource, namespace, query, asked, patience, until, name).events()

    def logs(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, previous: bool = False, tail: int = 0,
        since: str = "",
    ) -> Iterator[str]:  # fmt: skip
        """Give the lines that a container wrote, and with `follow` those that it writes until it ends.

        `previous`: those of the container before its last restart; `tail`: only so many of the last; `since`: only
        those after that time (RFC 3339). A connection that drops while following is taken up again. Raises
        NotFoundError for a pod that is not there, InvalidError for a container that has not started.
        """
        query = _present(
            container=container, follow=_true(follow), previous=_true(previous),
            tailLines=str(tail) if tail else "", sinceTime=since,
        )  # fmt: skip
        asked = Asked(verb="get", words="pods/log", namespace=namespace, said=f"read the log of pod {namespace}/{pod}")
        return logs.lines(self._connection, PODS.path(namespace, pod, "log"), query, asked)

    def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, timeout: float = 30,
        most: int = remote.MOST,
    ) -> remote.Executed:  # fmt: skip
        """Run a program in a container, without a shell, and return how it ended and what it wrote.

        What is more than `most` bytes on stdout, or on stderr, is dropped.

        Raises NotFoundError for a pod or program that is not there, RunUnknownError for one that does not end within
        `timeout` seconds; it may go on there.
        """
        asked = Asked(
            verb="create", words="pods/exec", namespace=namespace, said=f"run {argv[0]} in pod {namespace}/{pod}"
        )
        return remote.run(self._connection, PODS.path(namespace, pod, "exec"), container, argv, timeout, asked, most)

    def post(self, namespace: str, service: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send something to a service (`name:port`) through the API server.

        Raises NotFoundError for a service that is not there, UnreachableError for one that does not answer.
        """
        asked = Asked(verb="create", words="services/proxy", namespace=namespace, said=f"call service {service}")
        path = Resource("v1", "services", "Service").path(namespace, service, "proxy")
        with self._connection.opened("POST", f"{path}/", asked, body=body, more=headers) as answer:
            answer.read()

    def allowed(
        self, verb: str, resource: Resource, namespace: str = "", *, subresource: str = "", name: str = ""
    ) -> bool:
        """Say whether we may do that, by the cluster's own word (SelfSubjectAccessReview)."""
        about = _present(
            verb=verb, group=resource.group, resource=resource.plural, namespace=namespace, subresource=subresource,
            name=name,
        )  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": about},
        }  # fmt: skip
        asked = Asked(verb="create", words="selfsubjectaccessreviews.authorization.k8s.io", said="ask for your rights")
        answer = self._connection.ask(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", asked, body=review
        )
        return bool((answer.get("status") or {}).get("allowed"))

    def version(self) -> str:
        """Return the version of Kubernetes, e.g. `v1.34.10`."""
        found = self._connection.ask("GET", "/version", Asked(verb="get", words="version", said="get its version"))
        return str(found.get("gitVersion") or "")

    def served(self, api: str) -> frozenset[str]:
        """Return the plural names that a group and version (`tekton.dev/v1`) serves; none where it is not there."""
        path = f"/{'apis' if '/' in api else 'api'}/{api}"
        try:
            found = self._connection.ask("GET", path, Asked(verb="get", words=api, said=f"look for the API {api}"))
        except NotFoundError:
            return frozenset()
        named = found.get("resources")
        names = [str(one.get("name", "")) for one in named if isinstance(one, dict)] if isinstance(named, list) else []
        return frozenset(name for name in names if name and "/" not in name)

    def versions(self, group: str) -> tuple[str, ...]:
        """Return the versions that an API group is served in (`v1`, `v1beta1`); none where it is not there."""
        try:
            found = self._connection.ask(
                "GET", f"/apis/{group}", Asked(verb="get", words=group, said=f"look for the API group {group}")
            )
        except NotFoundError:
            return ()
        return tuple(str(one.get("version")) for one in found.get("versions") or () if isinstance(one, dict))

    def node(self, name: str) -> Mapping[str, Any]:
        """Return `status.nodeInfo` of a node. Raises NotFoundError."""
        found = self.read(NODES, name)
        return dict((found.get("status") or {}).get("nodeInfo") or {})

    def image_stream(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Return an ImageStream of OpenShift. Raises NotFoundError."""
        return self.read(IMAGE_STREAMS, name, namespace)

    def mirror_sets(self) -> Sequence[Mapping[str, Any]]:
        """Return the objects that name mirrors of registries (`dtkpipe.values.mirrors`); none if it has none."""
        found = []
        for resource in _MIRROR_SETS:
            try:
                found += self.list(resource)
            except NotFoundError:  # a release without that kind, or no OpenShift
                continue
        return found

    def _where(self, resource: Resource, namespace: str) -> str:
        return (namespace or self.namespace) if resource.namespaced else ""


_MIRROR_SETS = (
    Resource("config.openshift.io/v1", "imagedigestmirrorsets", "ImageDigestMirrorSet", namespaced=False),
    Resource("config.openshift.io/v1", "imagetagmirrorsets", "ImageTagMirrorSet", namespaced=False),
    Resource("operator.openshift.io/v1alpha1", "imagecontentsourcepolicies", "ImageContentSourcePolicy", False),
)


def _asked(verb: str, resource: Resource, namespace: str = "", name: str = "") -> Asked:
    return Asked(verb=verb, words=resource.words, namespace=namespace if resource.namespaced else "", name=name)


def _present(**query: str) -> dict[str, str]:
    return {name: value for name, value in query.items() if value}


def _true(switch: bool) -> str:
    return "true" if switch else ""
