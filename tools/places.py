"""Where Taskmaster can be tried: real kind, the local cluster, or the cluster that kubectl is set to.

`CLUSTER` chooses: `kind`, `local` or `existing`; `auto` (the default) takes kind where a Docker engine and kind are,
and else the local cluster. It never takes `existing`: nobody's cluster is changed without being asked for.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images import REPOSITORY, Image
from localcluster import paths
from localcluster.choice import Choice, docker_runs
from localcluster.choice import choose as choice_of_environment
from localcluster.errors import LocalClusterError
from steps import StepFailed, read, run, succeeds

NAME = "taskmaster"
TEST_NAME = "taskmaster-test"
MINUTE = 60.0


class Place(Protocol):
    """A cluster, and how images get into it."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def prepare(self) -> None:
        """Make sure that what it needs of this machine is there."""

    def tools(self) -> Path:
        """Build what is needed of kubectl, Helm and Kubernetes, and return the directory of the programs."""
        ...

    def ensure(self, kubectl: Path) -> None:
        """Make sure that the cluster runs: keep a healthy one, replace a broken one."""

    def build(self, image: Image) -> str:
        """Build an image unless it is there, and return the reference by which pods name it."""
        ...

    def load(self, reference: str) -> None:
        """Bring a built image to the cluster's nodes."""

    def kubeconfig(self) -> Path:
        """Return the path of a kubeconfig for it."""
        ...

    def delete(self) -> None:
        """Delete the cluster."""


def choose(name: str = NAME) -> Place:
    """Return the place that CLUSTER asks for.

    Raises:
        StepFailed: an unknown value, or something is missing that only the user can install.
    """
    try:
        choice = choice_of_environment()
    except LocalClusterError as error:
        raise StepFailed(str(error)) from error
    match choice:
        case Choice.KIND:
            return KindCluster(name)
        case Choice.LOCAL:
            return LocalCluster(name)
        case Choice.EXISTING:
            return ExistingCluster(os.environ.get("IMAGE_REGISTRY", ""))


@dataclass(frozen=True)
class LocalCluster:
    """Real Kubernetes processes and containerd on this machine, without Docker (tools/localcluster)."""

    name: str

    @property
    def kind(self) -> Path:
        """The executable with kind's verbs."""
        return REPOSITORY / "tools" / "kind"

    def prepare(self) -> None:
        """Install the packages that a node needs."""
        run([*_localcluster(), "requirements"], timeout=10 * MINUTE)

    def tools(self) -> Path:
        """Build all of Kubernetes, and Helm."""
        return _tools()

    def ensure(self, kubectl: Path) -> None:
        """Start the cluster unless a healthy one runs."""
        run([*_localcluster(), "ensure", "--name", self.name], timeout=5 * MINUTE)
        _write_kubeconfig(self.kubeconfig(), read([self.kind, "get", "kubeconfig", "--name", self.name], timeout=60))

    def build(self, image: Image) -> str:
        """Build with buildah, on a base image made of Debian packages."""
        # With a registry's part: without one every program completes the name in its own way.
        reference = f"localhost/{image.reference}"
        command = [*_localcluster(), "image", "build", "--tag", reference]
        command += ["--file", image.dockerfile, "--context", str(REPOSITORY), "--input", *image.inputs]
        read(command, timeout=15 * MINUTE)
        return reference

    def load(self, reference: str) -> None:
        """Import the image into the node's containerd."""
        run([self.kind, "load", "docker-image", reference, "--name", self.name], timeout=5 * MINUTE)

    def kubeconfig(self) -> Path:
        """Return where `ensure` wrote it."""
        return paths.state("kubeconfigs", f"{self.name}.yaml")

    def delete(self) -> None:
        """End all processes and remove all that they left."""
        run([self.kind, "delete", "cluster", "--name", self.name], timeout=2 * MINUTE)
        self.kubeconfig().unlink(missing_ok=True)


@dataclass(frozen=True)
class KindCluster:
    """Kubernetes in Docker."""

    name: str

    @property
    def kind(self) -> Path:
        """The kind that is installed."""
        return Path(shutil.which("kind") or "kind")

    def prepare(self) -> None:
        """Check for kind and for a Docker engine."""
        if not shutil.which("kind"):
            raise StepFailed("CLUSTER=kind needs kind: install it with `go install sigs.k8s.io/kind@latest`")
        if not docker_runs():
            raise StepFailed("CLUSTER=kind needs a running Docker engine: `docker info` fails")

    def tools(self) -> Path:
        """Build kubectl and Helm."""
        return _tools("--only", "kubectl,helm")

    def ensure(self, kubectl: Path) -> None:
        """Create the cluster unless it is there and answers."""
        if self.name in read([self.kind, "get", "clusters"], timeout=60).split():
            _write_kubeconfig(
                self.kubeconfig(), read([self.kind, "get", "kubeconfig", "--name", self.name], timeout=60)
            )
            if succeeds([kubectl, "--kubeconfig", self.kubeconfig(), "get", "--raw", "/readyz"], timeout=30):
                return
            self.delete()
        self.kubeconfig().parent.mkdir(parents=True, exist_ok=True)
        options = ["--name", self.name, "--kubeconfig", str(self.kubeconfig()), "--wait", "180s"]
        run([self.kind, "create", "cluster", *options], timeout=10 * MINUTE)

    def build(self, image: Image) -> str:
        """Build with Docker."""
        return _docker_build(image, image.reference)

    def load(self, reference: str) -> None:
        """Copy the image into the node's container."""
        run([self.kind, "load", "docker-image", reference, "--name", self.name], timeout=5 * MINUTE)

    def kubeconfig(self) -> Path:
        """Return where `ensure` wrote it."""
        return paths.state("kubeconfigs", f"{self.name}.yaml")

    def delete(self) -> None:
        """Delete the containers."""
        run([self.kind, "delete", "cluster", "--name", self.name], timeout=5 * MINUTE)
        self.kubeconfig().unlink(missing_ok=True)


@dataclass(frozen=True)
class ExistingCluster:
    """The cluster of kubectl's current context; images go through a registry that it can pull from."""

    registry: str

    @property
    def name(self) -> str:
        """What to call it."""
        return "kubectl's current context"

    def prepare(self) -> None:
        """Check what only the user can know."""
        if not self.registry:
            raise StepFailed("CLUSTER=existing needs IMAGE_REGISTRY=host/path, from which the cluster can pull images")
        if not docker_runs():
            raise StepFailed("CLUSTER=existing needs a running Docker engine to build images: `docker info` fails")

    def tools(self) -> Path:
        """Build kubectl and Helm."""
        return _tools("--only", "kubectl,helm")

    def ensure(self, kubectl: Path) -> None:
        """Check that it answers."""
        run([kubectl, "--kubeconfig", self.kubeconfig(), "get", "--raw", "/readyz"], timeout=60)

    def build(self, image: Image) -> str:
        """Build with Docker and push."""
        reference = _docker_build(image, f"{self.registry.rstrip('/')}/{image.reference}")
        run(["docker", "push", reference], timeout=15 * MINUTE)
        return reference

    def load(self, reference: str) -> None:
        """Nothing to do: nodes pull from the registry."""

    def kubeconfig(self) -> Path:
        """Return what kubectl itself would take, if that is one file."""
        path = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        if os.pathsep in path:
            raise StepFailed("KUBECONFIG names several files: `kubectl config view --flatten` makes one of them")
        return Path(path)

    def delete(self) -> None:
        """Refuse: it is not ours."""
        raise StepFailed("the existing cluster is not deleted by this command")


def _localcluster() -> list[str]:
    return [sys.executable, "-m", "localcluster"]


def _tools(*options: str) -> Path:
    return Path(read([*_localcluster(), "tools", *options], timeout=25 * MINUTE).strip())


def _docker_build(image: Image, reference: str) -> str:
    command = ["docker", "build", "--file", str(REPOSITORY / image.dockerfile), "--tag", reference, str(REPOSITORY)]
    run(command, timeout=15 * MINUTE)
    return reference


def _write_kubeconfig(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
