"""Taskmaster on a cluster, from nothing: `python -m demo`, behind `make demo`, `make up`, `make down`.

Everything here may be repeated: a healthy cluster is kept, the release is upgraded, and of the objects in the cluster
only the demo's own example Tasks are deleted.
"""

import argparse
import contextlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from images import OPERATOR, REPOSITORY, WORKER
from places import ExistingCluster, Place, choose
from steps import StepFailed, read, run, say, step, succeeds

RELEASE = "taskmaster"
RELEASE_NAMESPACE = "taskmaster-system"
NAMESPACE = "default"
"""Where the examples and by VALUES the default pool go: where kubectl looks when it is not told otherwise."""
EXAMPLES = REPOSITORY / "examples" / "demo"
VALUES = REPOSITORY / "examples" / "demo-values.yaml"
CHART = REPOSITORY / "charts" / "taskmaster"


@dataclass(frozen=True)
class Cluster:
    """A running cluster and the commands to speak with it."""

    place: Place
    bin: Path

    def kubectl(self, *arguments: str | Path) -> list[str | Path]:
        """Return a kubectl command line."""
        return [self.bin / "kubectl", "--kubeconfig", self.place.kubeconfig(), *arguments]

    def helm(self, *arguments: str | Path) -> list[str | Path]:
        """Return a helm command line."""
        return [self.bin / "helm", "--kubeconfig", self.place.kubeconfig(), "-n", RELEASE_NAMESPACE, *arguments]


def up(place: Place) -> Cluster:
    """Bring up the cluster, the images and the release."""
    with step("what this machine needs"):
        place.prepare()
    # Compiling Kubernetes takes the processors and images take the network, so both at once.
    with step("tools, images and cluster"), ThreadPoolExecutor(1) as beside:
        images = beside.submit(lambda: [place.build(image) for image in (OPERATOR, WORKER)])
        cluster = Cluster(place, place.tools())
        place.ensure(cluster.bin / "kubectl")
        operator, worker = images.result()
        for reference in (operator, worker):
            place.load(reference)
    with step("helm upgrade --install"):
        # Before the workers start: to running pods the kubelet brings a new ConfigMap only after a minute.
        run(cluster.kubectl("apply", "-n", NAMESPACE, *_files(task=False)), timeout=60)
        install(cluster, operator=operator, worker=worker)
    return cluster


def install(cluster: Cluster, *, operator: str, worker: str) -> None:
    """Install or upgrade the release and wait until operator and workers are ready."""
    unblock(cluster)
    values = {}
    for prefix, reference in (("image", operator), ("worker.image", worker)):
        values[f"{prefix}.repository"], _, values[f"{prefix}.tag"] = reference.rpartition(":")
    settings = [f"--set={key}={value}" for key, value in values.items()]
    command = cluster.helm("upgrade", "--install", RELEASE, CHART, "--create-namespace", "--wait", "--timeout=4m")
    command += [f"--values={VALUES}"]
    try:
        read([*command, *settings], timeout=300)
        workers = ("deployment", "-n", NAMESPACE, "-l", "taskmaster.dev/pool=default")
        run(cluster.kubectl("rollout", "status", *workers, "--timeout=120s"), timeout=150)
    except StepFailed:
        explain(cluster)
        raise


def unblock(cluster: Cluster) -> None:
    """Remove a release that an interrupted run left in the middle: Helm refuses to upgrade such a one."""
    if not succeeds(cluster.helm("status", RELEASE), timeout=60):
        return
    status = json.loads(read(cluster.helm("status", RELEASE, "-o", "json"), timeout=60))["info"]["status"]
    if status.startswith("pending") or status == "uninstalling":
        say(f"    release {RELEASE} is {status} since an interrupted run: removing it first")
        run(cluster.helm("uninstall", RELEASE, "--wait", "--timeout=2m"), timeout=150)


def explain(cluster: Cluster) -> None:
    """Show what a person would look at first when the installation does not get ready."""
    selector = "app.kubernetes.io/component=coordinator"
    for arguments in (
        ("get", "pods,deployments,workerpools", "-A", "-o", "wide"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        ("logs", "-n", RELEASE_NAMESPACE, "-l", selector, "--tail=40", "--prefix"),
        ("logs", "-n", NAMESPACE, "-l", "taskmaster.dev/pool=default", "--all-containers", "--tail=8", "--prefix"),
    ):
        say(f"--- kubectl {' '.join(arguments)}")
        with contextlib.suppress(StepFailed):
            run(cluster.kubectl(*arguments), timeout=30)


def examples(cluster: Cluster) -> None:
    """Submit the example Tasks and wait until they are finished.

    Raises:
        StepFailed: one of them did not succeed.
    """
    with step("example Tasks"):
        tasks = [f"task/{name}" for path in sorted(EXAMPLES.glob("*.yaml")) for name in _task_names(path)]
        run(cluster.kubectl("delete", "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s", *tasks), timeout=90)
        run(cluster.kubectl("apply", "-n", NAMESPACE, *_files(task=True)), timeout=60)
        wait = ("wait", "-n", NAMESPACE, "--for=condition=Finished", "--timeout=180s")
        try:
            read(cluster.kubectl(*wait, *tasks), timeout=200)
        except StepFailed:
            explain(cluster)
            raise
    print(read(cluster.kubectl("get", "-n", NAMESPACE, "tasks"), timeout=60), end="", flush=True)
    ended = read(cluster.kubectl("get", "-n", NAMESPACE, *tasks, "-o", "json"), timeout=60)
    failed = [task["metadata"]["name"] for task in _items(ended) if task["status"]["phase"] != "Succeeded"]
    if failed:
        explain(cluster)
        raise StepFailed(f"did not succeed: {', '.join(failed)}")


def next_steps(cluster: Cluster) -> str:
    """Say what can be tried now."""
    path = f"export PATH={cluster.bin}:$PATH\n  " if not isinstance(cluster.place, ExistingCluster) else ""
    return f"""
Try next:
  {path}export KUBECONFIG=$(make -s kubeconfig)
  kubectl apply -f examples/hello.yaml && kubectl wait --for=condition=Finished task/hello --timeout=60s
  kubectl get tasks -w                        # in another terminal
  kubectl explain task.spec.run
  kubectl scale workerpool/default --replicas=5
  helm test -n {RELEASE_NAMESPACE} {RELEASE}
  make down                                   # when you are done
"""


def down(place: Place) -> None:
    """Delete the cluster, or of an existing one the release."""
    if isinstance(place, ExistingCluster):
        cluster = Cluster(place, place.tools())
        run(cluster.helm("uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=3m"), timeout=200)
    else:
        place.delete()


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="demo", description="Taskmaster on a cluster, from nothing.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--no-examples", action="store_true", help="install only")
    action.add_argument("--down", action="store_true", help="delete the cluster (existing: the release)")
    action.add_argument(
        "--print-kubeconfig", action="store_true", help="print the path of the kubeconfig, nothing else"
    )
    options = parser.parse_args()
    started = time.monotonic()
    try:
        place = choose()
        if options.print_kubeconfig:
            if not place.kubeconfig().exists():
                raise StepFailed("there is no cluster yet: `make up` starts one")
            print(place.kubeconfig())
        elif options.down:
            down(place)
        else:
            cluster = up(place)
            if not options.no_examples:
                examples(cluster)
            print(next_steps(cluster))
            print(f"Done in {time.monotonic() - started:.0f} s.")
    except StepFailed as failure:
        say(f"error: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _files(*, task: bool) -> list[str]:
    """Return the options for the example files with Tasks, or for those with what the Tasks need."""
    return [f"--filename={path}" for path in sorted(EXAMPLES.glob("*.yaml")) if bool(_task_names(path)) == task]


def _task_names(path: Path) -> list[str]:
    documents = [each for each in yaml.safe_load_all(path.read_text()) if each]
    return [each["metadata"]["name"] for each in documents if each["kind"] == "Task"]


def _items(text: str) -> list[dict[str, Any]]:
    parsed = json.loads(text)
    return parsed["items"] if parsed["kind"] == "List" else [parsed]


if __name__ == "__main__":
    sys.exit(main())
