"""The objects that make a WorkerPool real: a Deployment per pool, a ServiceAccount and a RoleBinding per namespace.

A pool that offers Secrets or ConfigMaps to Tasks also gets a Role and a RoleBinding of its own.

Pure: a pool and the settings go in, objects for server-side apply come out. What is made per pool is owned by it, the
identity of the workers by the chart's ClusterRole, so that the garbage collector of Kubernetes removes them; nothing
here needs a finalizer.

The pod has two containers. `agent` is the only one that gets the token of the ServiceAccount; `runner` is the user's
image, runs as another user, and shares with it one directory that holds a socket.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from taskmaster.api import names
from taskmaster.api.models.workerpool import WorkerPoolSpec
from taskmaster.coordinator.settings import Settings

Object = dict[str, Any]

AGENT_UID: Final = 10_001
RUNNER_UID: Final = 10_002
SHARED_GID: Final = 10_000
AGENT_PORT: Final = 8_081
SOCKET: Final = "/run/taskmaster/runner.sock"
RUNNER_HOME: Final = "/opt/taskmaster/runner"
SHUTDOWN_MARGIN_SECONDS: Final = 15
"""Beyond draining and grace: for the last status writes."""
DEFAULT_GRACE_SECONDS: Final = 20
RESERVED_VOLUME_PREFIX: Final = "taskmaster-"

_RESTRICTED: Final[Object] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def deployment_name(pool: str) -> str:
    """Return the name of a pool's Deployment, which the names of its pods begin with."""
    return f"{pool}-worker"


def pod_labels(pool: str) -> dict[str, str]:
    """Return the labels by which a pool's pods are found."""
    return {**names.MANAGED_LABELS, names.POOL_LABEL: pool}


def selector(pool: str) -> str:
    """Return the same as a label selector."""
    return ",".join(f"{key}={value}" for key, value in sorted(pod_labels(pool).items()))


def owner_reference(pool: Object) -> Object:
    """Return the reference by which an object goes when its pool goes."""
    metadata = pool["metadata"]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "WorkerPool",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def trouble(spec: WorkerPoolSpec) -> str:
    """Return why a spec must not be used; empty if it may.

    A mount that names one of *our* volumes would hand the agent's token to user code.
    """
    template = spec.template
    volumes = [volume.name for volume in template.volumes or ()] if template else []
    for name in volumes:
        if name.startswith(RESERVED_VOLUME_PREFIX):
            return f'template.volumes: names that begin with {RESERVED_VOLUME_PREFIX} are reserved: rename "{name}"'
    for mount in (template.volume_mounts or ()) if template else ():
        if mount.name not in volumes:
            return f'template.volumeMounts: there is no "{mount.name}" in template.volumes: add it there'
    return ""


def service_account(namespace: str, role: Object) -> Object:
    """Return the ServiceAccount of the agents of a namespace."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _identity_metadata(namespace, role),
        "automountServiceAccountToken": False,
    }


def role_binding(namespace: str, role: Object) -> Object:
    """Return the RoleBinding that lets the agents of a namespace work there, and nowhere else."""
    return _binding(_identity_metadata(namespace, role), "ClusterRole", role["metadata"]["name"])


def value_role_name(pool: str) -> str:
    """Return the name of a pool's Role and RoleBinding for `valueFrom`."""
    return f"{names.WORKER_SERVICE_ACCOUNT}-{pool}"


def value_role(pool: Object, spec: WorkerPoolSpec) -> Object:
    """Return the Role for what a pool offers to `valueFrom`; it has no rules if that is nothing."""
    offered = (("secrets", spec.secret_names), ("configmaps", spec.config_map_names))
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _value_metadata(pool),
        # A rule without names would grant them all.
        "rules": [
            {"apiGroups": [""], "resources": [resource], "resourceNames": sorted(listed), "verbs": ["get"]}
            for resource, listed in offered
            if listed
        ],
    }


def value_role_binding(pool: Object) -> Object:
    """Return the RoleBinding that gives this Role to the agents of the namespace."""
    return _binding(_value_metadata(pool), "Role", value_role_name(pool["metadata"]["name"]))


def deployment(pool: Object, spec: WorkerPoolSpec, settings: Settings) -> Object:
    """Return the Deployment of a pool."""
    name = pool["metadata"]["name"]
    template = _pod_template(name, spec, settings)
    digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(name),
            "namespace": pool["metadata"]["namespace"],
            "labels": pod_labels(name),
            "annotations": {names.TEMPLATE_HASH_ANNOTATION: digest},
            "ownerReferences": [owner_reference(pool)],
        },
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": pod_labels(name)},
            "template": template,
        },
    }


def _identity_metadata(namespace: str, role: Object) -> Object:
    """Owned by the chart's ClusterRole, not by pools: a pool's last workers still write while they drain."""
    owner = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "name": role["metadata"]["name"],
        "uid": role["metadata"]["uid"],
    }
    return {
        "name": names.WORKER_SERVICE_ACCOUNT,
        "namespace": namespace,
        "labels": names.MANAGED_LABELS,
        "ownerReferences": [owner],
    }


def _value_metadata(pool: Object) -> Object:
    name = pool["metadata"]["name"]
    return {
        "name": value_role_name(name),
        "namespace": pool["metadata"]["namespace"],
        "labels": pod_labels(name),
        "ownerReferences": [owner_reference(pool)],
    }


def _binding(metadata: Object, kind: str, role: str) -> Object:
    subject = {"kind": "ServiceAccount", "name": names.WORKER_SERVICE_ACCOUNT, "namespace": metadata["namespace"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [subject],
    }


def _pod_template(pool: str, spec: WorkerPoolSpec, settings: Settings) -> Object:
    given: Object = spec.template.model_dump(by_alias=True, exclude_none=True) if spec.template else {}
    passed_on = (
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "priorityClassName",
        "runtimeClassName",
    )
    return {
        "metadata": {
            "labels": {**given.get("labels", {}), **pod_labels(pool)},
            **({"annotations": given["annotations"]} if "annotations" in given else {}),
        },
        "spec": {
            **{key: given[key] for key in passed_on if key in given},
            "serviceAccountName": names.WORKER_SERVICE_ACCOUNT,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": spec.drain_seconds + DEFAULT_GRACE_SECONDS + SHUTDOWN_MARGIN_SECONDS,
            "securityContext": {
                "fsGroup": SHARED_GID,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [_installer(settings)],
            "containers": [_agent(pool, spec, settings), _runner(spec, given, settings)],
            "volumes": [
                {"name": "taskmaster-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "taskmaster-runner", "emptyDir": {"sizeLimit": "16Mi"}},
                {"name": "taskmaster-tmp", "emptyDir": {}},
                {"name": "taskmaster-token", "projected": _token()},
                *given.get("volumes", []),
            ],
        },
    }


def _installer(settings: Settings) -> Object:
    return {
        "name": "install-runner",
        "image": settings.worker_image,
        "imagePullPolicy": settings.worker_image_pull_policy,
        "command": ["python", "-m", "taskmaster_worker.agent", "install-runner", RUNNER_HOME],
        "securityContext": {**_RESTRICTED, "runAsUser": AGENT_UID, "runAsGroup": SHARED_GID},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "taskmaster-runner", "mountPath": RUNNER_HOME}],
    }


def _agent(pool: str, spec: WorkerPoolSpec, settings: Settings) -> Object:
    downward = {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
    }
    values = {
        "TASKMASTER_POOL": pool,
        "TASKMASTER_SLOTS": spec.slots,
        "TASKMASTER_LABELS": _json(spec.labels or {}),
        "TASKMASTER_QUEUES": _json(sorted(spec.queues or ())),
        "TASKMASTER_RUNNER_SOCKET": SOCKET,
        "TASKMASTER_RUNNER_UID": RUNNER_UID,
        "TASKMASTER_LEASE_SECONDS": settings.worker_lease_seconds,
        "TASKMASTER_RENEW_SECONDS": settings.worker_renew_seconds,
        "TASKMASTER_DRAIN_SECONDS": spec.drain_seconds,
        "TASKMASTER_SECRET_NAMES": ",".join(sorted(spec.secret_names or ())),
        "TASKMASTER_CONFIG_MAP_NAMES": ",".join(sorted(spec.config_map_names or ())),
        "TASKMASTER_HTTP_ADDRESS": f"0.0.0.0:{AGENT_PORT}",
        "TASKMASTER_LOG_LEVEL": settings.log_level,
    }
    return {
        "name": names.AGENT_CONTAINER,
        "image": settings.worker_image,
        "imagePullPolicy": settings.worker_image_pull_policy,
        "command": ["python", "-m", "taskmaster_worker.agent"],
        "env": [
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in downward.items()),
            *({"name": name, "value": str(value)} for name, value in values.items()),
        ],
        "ports": [{"name": "http", "containerPort": AGENT_PORT}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "securityContext": {**_RESTRICTED, "runAsUser": AGENT_UID, "runAsGroup": SHARED_GID},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "taskmaster-run", "mountPath": "/run/taskmaster"},
            {
                "name": "taskmaster-token",
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                "readOnly": True,
            },
        ],
    }


def _runner(spec: WorkerPoolSpec, given: Object, settings: Settings) -> Object:
    environment = {
        "PYTHONPATH": f"{RUNNER_HOME}:/app",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",
    }
    ours = {
        "TASKMASTER_RUNNER_SOCKET": SOCKET,
        "TASKMASTER_AGENT_UID": str(AGENT_UID),
        "TASKMASTER_PRELOAD": ",".join(spec.preload or ()),
    }
    users = [
        {**variable, "value": f"{RUNNER_HOME}:{variable['value']}"} if variable["name"] == "PYTHONPATH" else variable
        for variable in given.get("env", [])
    ]
    set_by_user = {variable["name"] for variable in users}
    return {
        "name": names.RUNNER_CONTAINER,
        "image": given.get("image", settings.worker_image),
        "imagePullPolicy": given.get("imagePullPolicy", settings.worker_image_pull_policy),
        "command": ["python3", "-m", "taskmaster_worker.runner"],
        "env": [
            *({"name": name, "value": value} for name, value in environment.items() if name not in set_by_user),
            *(variable for variable in users if variable["name"] not in ours),
            *({"name": name, "value": value} for name, value in ours.items()),
        ],
        "securityContext": {**_RESTRICTED, "runAsUser": RUNNER_UID, "runAsGroup": SHARED_GID},
        "resources": given.get("resources", {}),
        "volumeMounts": [
            {"name": "taskmaster-run", "mountPath": "/run/taskmaster"},
            {"name": "taskmaster-runner", "mountPath": RUNNER_HOME, "readOnly": True},
            {"name": "taskmaster-tmp", "mountPath": "/tmp"},
            *given.get("volumeMounts", []),
        ],
    }


def _json(value: Object | list[str]) -> str:
    """The same text for the same value, so that workers are not replaced for the order of its words."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _token() -> Object:
    """The usual projected volume, mounted by hand because only one of the containers gets it."""
    return {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3_607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ],
        "defaultMode": 0o440,
    }
