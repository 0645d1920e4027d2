"""A cluster, read only: what its nodes run, and which toolkits it knows. The only importer of `kubernetes`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError, UnreachableError

_TIMEOUT = 30
"""Seconds for one answer."""


class Cluster:
    """The cluster of a kubeconfig's context, or the one whose pod we run in."""

    def __init__(self, kubeconfig: Path | None = None, context: str = "") -> None:
        """Read the kubeconfig (default: KUBECONFIG, ~/.kube/config). Raises InvalidError for one that is not usable."""
        import yaml
        from kubernetes import client, config

        settings, loader = client.Configuration(), cast("Any", config)
        try:
            if not kubeconfig and not context and Path(_ACCOUNT).is_file():
                loader.load_incluster_config(client_configuration=settings)
            else:
                loader.load_kube_config(
                    str(kubeconfig) if kubeconfig else None, context or None, client_configuration=settings
                )
        except (loader.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
            raise InvalidError(
                "there is no cluster to ask", f"{kubeconfig or 'kubeconfig'}: {str(error).splitlines()[0][:200]}",
                hint="--kubeconfig FILE, or oc login",
            ) from error  # fmt: skip
        settings.retries = False
        self.host = str(settings.host)
        self._api = client.ApiClient(settings)

    def node(self, name: str) -> Mapping[str, Any]:
        """Return `status.nodeInfo` of a node, as the API has it."""
        found = self._get(f"/api/v1/nodes/{name}", f"read node {name}")
        return dict((found.get("status") or {}).get("nodeInfo") or {})

    def image_stream(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Return an ImageStream."""
        path = f"/apis/image.openshift.io/v1/namespaces/{namespace}/imagestreams/{name}"
        return self._get(path, f"read the image stream {namespace}/{name}")

    def mirror_sets(self) -> list[Mapping[str, Any]]:
        """Return the objects that name mirrors of registries (`dtkpipe.values.mirrors`); none if it has none."""
        found: list[Mapping[str, Any]] = []
        for kind, path in _MIRROR_SETS.items():
            try:
                listed = self._get(f"/apis/{path}", f"list each {kind}").get("items")
            except NotFoundError:  # a release without that kind, or no OpenShift
                continue
            # Members of a list do not say their kind.
            found += [
                {**one, "kind": kind} for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)
            ]
        return found

    def _get(self, path: str, asked: str) -> Mapping[str, Any]:
        from urllib3.exceptions import HTTPError

        request = self._api.param_serialize(
            "GET", path, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        try:
            answer: Any = self._api.call_api(*request, _request_timeout=_TIMEOUT)
            body = answer.read()
        except (HTTPError, OSError) as error:
            raise UnreachableError(
                f"the cluster at {self.host} does not answer: cannot {asked}", str(error)[:200]
            ) from error
        if answer.status != 200:
            raise _refused(int(answer.status), self.host, asked)
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UnreachableError(f"the cluster at {self.host} gave an answer that is none: cannot {asked}")
        return found


_MIRROR_SETS = {
    "ImageDigestMirrorSet": "config.openshift.io/v1/imagedigestmirrorsets",
    "ImageTagMirrorSet": "config.openshift.io/v1/imagetagmirrorsets",
    "ImageContentSourcePolicy": "operator.openshift.io/v1alpha1/imagecontentsourcepolicies",
}
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def _refused(status: int, host: str, asked: str) -> DtkpipeError:
    details = f"the cluster at {host} answered {status}"
    if status in (401, 403):
        return NotAllowedError(f"the cluster does not allow to {asked}", details, hint="oc whoami")
    if status == 404:
        return NotFoundError(f"cannot {asked}: there is none", details)
    return UnreachableError(f"cannot {asked}", details)
