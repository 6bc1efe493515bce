"""The kind WorkerPool: a Deployment of warm workers.

The template is a chosen part of a pod's spec. A service account is not in it and neither is a projected volume: the
pod's only token belongs to the agent, and user code must not get at it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import Conditions, Count, EnvVars, FreeForm, Label, Model, Name, list_by
from taskmaster.api.models.placement import Labels

Path = Annotated[str, Field(min_length=1, max_length=4_096)]
Quantity = Annotated[str, Field(max_length=64, json_schema_extra={"x-kubernetes-int-or-string": True})]
Names = Annotated[list[Name], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"})]
QueueNames = Annotated[list[Label], Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"})]
Strings = Annotated[dict[str, Annotated[str, Field(max_length=1_024)]], Field(max_length=64)]


class KeyToPath(Model):
    """One key of a ConfigMap or Secret and the file it becomes."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key."""
    path: Path
    """The file, relative to where the volume is mounted."""


Items = Annotated[list[KeyToPath], Field(max_length=64)]


class ConfigMapSource(Model):
    """A ConfigMap of the pool's namespace."""

    name: Name
    """The name of the ConfigMap."""
    items: Items | None = None
    """Which keys to mount, and as which files. Default: all, under their own names."""
    optional: bool | None = None
    """Whether the pod may start without it."""


class SecretSource(Model):
    """A Secret of the pool's namespace."""

    secret_name: Name
    """The name of the Secret."""
    items: Items | None = None
    """Which keys to mount, and as which files. Default: all, under their own names."""
    optional: bool | None = None
    """Whether the pod may start without it."""


class EmptyDirSource(Model):
    """An empty directory that lives as long as the pod."""

    medium: Annotated[str, Field(max_length=16, json_schema_extra={"enum": ["", "Memory"]})] | None = None
    """Memory for a tmpfs; otherwise the node's disk."""
    size_limit: Quantity | None = None
    """The most it may hold, such as 1Gi."""


class ClaimSource(Model):
    """A PersistentVolumeClaim of the pool's namespace."""

    claim_name: Name
    """The name of the claim. Workers of the pool share it."""
    read_only: bool | None = None
    """Whether it is mounted read-only."""


class Volume(Model):
    """A volume; exactly one source is set."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """The name that volumeMounts refer to."""
    config_map: ConfigMapSource | None = None
    """Files from a ConfigMap."""
    secret: SecretSource | None = None
    """Files from a Secret."""
    empty_dir: EmptyDirSource | None = None
    """An empty directory."""
    persistent_volume_claim: ClaimSource | None = None
    """A persistent volume."""


class VolumeMount(Model):
    """Where a volume appears in the runner's file system."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """The name of the volume."""
    mount_path: Path
    """Where it is mounted. Python modules under /app can be called by Tasks."""
    sub_path: Annotated[str, Field(max_length=4_096)] | None = None
    """A path within the volume."""
    read_only: bool | None = None
    """Whether it is mounted read-only."""


class Resources(Model):
    """Requests and limits of the runner container, which all running Tasks of a worker share."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    """What the scheduler of Kubernetes reserves, such as {cpu: 500m, memory: 256Mi}."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    """What the container may use at most."""


class PullSecret(Model):
    """A Secret with credentials for a registry."""

    name: Name
    """The name of the Secret."""


class WorkerTemplate(Model):
    """How worker pods look: the image with the user's code, and where it may run."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The image that Tasks run in; Python 3.11 or newer is all it needs. Default: the worker image of the chart."""
    image_pull_policy: (
        Annotated[str, Field(max_length=16, json_schema_extra={"enum": ["Always", "IfNotPresent", "Never"]})] | None
    ) = None
    """When to pull the image."""
    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=16)] | None = None
    """Credentials for pulling images."""
    labels: Strings | None = None
    """More labels for the pods."""
    annotations: Strings | None = None
    """More annotations for the pods."""
    env: EnvVars | None = None
    """Environment variables of every Task that runs on this pool; those of a Task win."""
    volumes: (
        Annotated[
            list[Volume],
            Field(max_length=32, json_schema_extra=list_by("name")),
        ]
        | None
    ) = None
    """Volumes for volumeMounts."""
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=32)] | None = None
    """What is mounted into the runner container. Mount a ConfigMap with modules at /app to run them."""
    resources: Resources | None = None
    """Requests and limits of the runner container."""
    node_selector: Strings | None = None
    """Labels that a node must have."""
    tolerations: Annotated[list[FreeForm], Field(max_length=32)] | None = None
    """Tolerations, as in a Pod."""
    affinity: FreeForm | None = None
    """Affinity, as in a Pod."""
    topology_spread_constraints: Annotated[list[FreeForm], Field(max_length=16)] | None = None
    """How pods spread over nodes and zones, as in a Pod."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """The PriorityClass of the pods."""
    runtime_class_name: Annotated[str, Field(max_length=253)] | None = None
    """The RuntimeClass of the pods, for example a sandbox."""


class WorkerPoolSpec(Model):
    """How many workers there should be, and what they are like."""

    replicas: Annotated[int, Field(ge=0, le=10_000)] = 3
    """How many worker pods to run. `kubectl scale workerpool NAME --replicas=N` sets it."""
    slots: Annotated[int, Field(ge=1, le=1_000)] = 4
    """How many Tasks each worker runs at the same time."""
    queues: QueueNames | None = None
    """The queues whose Tasks the workers take. Default: all."""
    labels: Labels | None = None
    """Labels of the workers, for `spec.requires` of Tasks; `pool`, the name of the pool, is always one of them."""
    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """How long a leaving worker lets its Tasks run on before it stops them and hands them over, in seconds."""
    preload: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]],
            Field(max_length=64),
        ]
        | None
    ) = None
    """Python modules that every worker imports once, so that calls into them start in milliseconds."""
    secret_names: Names | None = None
    """The Secrets of the namespace that Tasks on this pool may read by valueFrom. Each one is readable by the agents of
    all pools of the namespace, never by user code itself."""
    config_map_names: Names | None = None
    """The ConfigMaps of the namespace that Tasks on this pool may read by valueFrom."""
    template: WorkerTemplate | None = None
    """How worker pods look."""


class WorkerPoolStatus(Model):
    """How the pool is doing; written at most once in 5 seconds."""

    observed_generation: Count | None = None
    """The generation of the spec that this status speaks of."""
    replicas: Count | None = None
    """Worker pods that exist."""
    ready_workers: Count | None = None
    """Workers that are registered and take Tasks."""
    busy_workers: Count | None = None
    """Workers that hold at least one Task."""
    slots: Count | None = None
    """Slots of all ready workers."""
    busy_slots: Count | None = None
    """Slots that Tasks have taken."""
    selector: Annotated[str, Field(max_length=512)] | None = None
    """The label selector of the worker pods, for the scale subresource."""
    conditions: Conditions | None = None
    """Ready: whether all the workers asked for are there and take Tasks."""
