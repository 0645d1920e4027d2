"""The kinds of objects that dtkpipe reads and writes, and where the API server has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtkpipe.errors import InvalidError, UnreachableError

Object = dict[str, Any]
"""One Kubernetes object as the API has it: JSON, decoded."""


@dataclass(frozen=True)
class Resource:
    """A kind of object. `api` is its group and version (`apps/v1`; `v1` for the core), `plural` its name in paths."""

    api: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api.rpartition("/")[0]

    @property
    def words(self) -> str:
        """How messages and `kubectl` name the resource: `workflows.argoproj.io`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of the API, every name in it quoted. Without a namespace: in all of them."""
        from urllib.parse import quote

        parts = ["apis" if "/" in self.api else "api", self.api]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [self.plural, *(quote(one, safe="") for one in (name, subresource) if one)]
        return "/" + "/".join(parts)


NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("v1", "nodes", "Node", namespaced=False)
PODS = Resource("v1", "pods", "Pod")
SECRETS = Resource("v1", "secrets", "Secret")
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")
EVENTS = Resource("v1", "events", "Event")
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
RESOURCE_QUOTAS = Resource("v1", "resourcequotas", "ResourceQuota")
DAEMON_SETS = Resource("apps/v1", "daemonsets", "DaemonSet")
CONTROLLER_REVISIONS = Resource("apps/v1", "controllerrevisions", "ControllerRevision")
DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
JOBS = Resource("batch/v1", "jobs", "Job")
CRON_JOBS = Resource("batch/v1", "cronjobs", "CronJob")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
PRIORITY_CLASSES = Resource("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False)
CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
WORKFLOWS = Resource("argoproj.io/v1alpha1", "workflows", "Workflow")
WORKFLOW_TEMPLATES = Resource("argoproj.io/v1alpha1", "workflowtemplates", "WorkflowTemplate")
CRON_WORKFLOWS = Resource("argoproj.io/v1alpha1", "cronworkflows", "CronWorkflow")
WORKFLOW_EVENT_BINDINGS = Resource("argoproj.io/v1alpha1", "workfloweventbindings", "WorkflowEventBinding")
EVENT_SOURCES = Resource("argoproj.io/v1alpha1", "eventsources", "EventSource")
SENSORS = Resource("argoproj.io/v1alpha1", "sensors", "Sensor")
EVENT_BUSES = Resource("argoproj.io/v1alpha1", "eventbus", "EventBus")
TRIGGERS = Resource("triggers.tekton.dev/v1beta1", "triggers", "Trigger")
EVENT_LISTENERS = Resource("triggers.tekton.dev/v1beta1", "eventlisteners", "EventListener")
PIPELINES = Resource("tekton.dev/v1", "pipelines", "Pipeline")
TASKS = Resource("tekton.dev/v1", "tasks", "Task")
PIPELINE_RUNS = Resource("tekton.dev/v1", "pipelineruns", "PipelineRun")
TASK_RUNS = Resource("tekton.dev/v1", "taskruns", "TaskRun")
IMAGE_STREAMS = Resource("image.openshift.io/v1", "imagestreams", "ImageStream")
SECURITY_CONTEXT_CONSTRAINTS = Resource(
    "security.openshift.io/v1", "securitycontextconstraints", "SecurityContextConstraints", namespaced=False
)

_KNOWN = {(one.api, one.kind): one for one in tuple(globals().values()) if isinstance(one, Resource)}


def resource_of(obj: Mapping[str, Any]) -> Resource:
    """Return the resource that an object is of, by apiVersion and kind. Raises InvalidError for one not known here."""
    api, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    if found := _KNOWN.get((api, kind)):
        return found
    raise InvalidError(f"an object of a kind that is not known here: {kind or 'no kind'} ({api or 'no apiVersion'})")


def with_kind(page: Object, resource: Resource) -> list[Object]:
    """Return the members of a list, each with its kind. Raises UnreachableError for an answer that is no list."""
    items = page.get("items", [])
    if items is None:  # how Go writes an empty list at times
        return []
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise UnreachableError(f"the cluster gave an answer that is none: cannot list {resource.words}")
    return [{"apiVersion": resource.api, "kind": resource.kind, **one} for one in items]
