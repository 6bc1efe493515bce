"""Resources: where a kind of object lives on the API server.

A constant per resource that Taskmaster touches replaces discovery: the set is small and known, and a discovery round
trip at start would be one more thing that can fail.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

Object: TypeAlias = dict[str, Any]
"""One API object as parsed JSON. Typed models live in `taskmaster.api`; transport does not need them."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource type; `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, of one object, or of one object's subresource.

        For a namespaced resource `namespace=None` means all namespaces, which only a collection can span.

        Raises:
            ValueError: the combination does not exist on the server.
        """
        if namespace is not None and not self.namespaced:
            raise ValueError(f"{self.plural} are not namespaced, yet namespace {namespace!r} was given")
        if name is not None and self.namespaced and namespace is None:
            raise ValueError(f"{self.plural} {name!r} needs a namespace")
        if name == "" or namespace == "":
            # An empty segment would silently address the collection: a delete of one would become a delete of all.
            raise ValueError(f"{self.plural}: name and namespace must not be empty")
        if subresource is not None and name is None:
            raise ValueError(f"{self.plural}: subresource {subresource!r} needs a name")
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


TASKS = Resource("taskmaster.dev", "v1alpha1", "tasks", "Task")
TASKSCHEDULES = Resource("taskmaster.dev", "v1alpha1", "taskschedules", "TaskSchedule")
TASKQUEUES = Resource("taskmaster.dev", "v1alpha1", "taskqueues", "TaskQueue")
TASKTEMPLATES = Resource("taskmaster.dev", "v1alpha1", "tasktemplates", "TaskTemplate")
WORKERPOOLS = Resource("taskmaster.dev", "v1alpha1", "workerpools", "WorkerPool")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
PODS = Resource("", "v1", "pods", "Pod")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
