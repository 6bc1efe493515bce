"""A cluster as its users reach it: kubectl and helm, each call with a time limit, and nothing polled.

What takes time is waited for by `kubectl wait`, or by reading a watch line by line. A call that fails
raises `CommandFailed`, whose text is what kubectl said.
"""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

Object = dict[str, Any]
T = TypeVar("T")

SYSTEM_NAMESPACE = "taskmaster-system"
NAMESPACE = "default"
"""Where the pool of examples/demo-values.yaml is, and where kubectl looks when it is not told otherwise."""

GROUPS = {
    "leases": "/apis/coordination.k8s.io/v1",
    "pods": "/api/v1",
    "taskqueues": "/apis/taskmaster.dev/v1alpha1",
    "tasks": "/apis/taskmaster.dev/v1alpha1",
    "taskschedules": "/apis/taskmaster.dev/v1alpha1",
    "workerpools": "/apis/taskmaster.dev/v1alpha1",
}
"""Where what the tests watch is in the API."""

CALL_SECONDS = 60.0
"""For a command that waits for nothing; the machine may be busy."""


class CommandFailed(AssertionError):
    """kubectl or helm ended with another code than 0, or did not end in time."""


@dataclass(frozen=True)
class Cluster:
    """The commands to speak with a cluster."""

    bin: Path
    kubeconfig: Path

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, seconds: float = CALL_SECONDS) -> str:
        """Run kubectl and return what it printed."""
        return self._run("kubectl", arguments, stdin=stdin, seconds=seconds)

    def helm(self, *arguments: str | Path, seconds: float = CALL_SECONDS) -> str:
        """Run helm in the release's namespace and return what it printed."""
        return self._run("helm", ("-n", SYSTEM_NAMESPACE, *arguments), stdin=None, seconds=seconds)

    def get(self, *arguments: str, namespace: str = NAMESPACE) -> Object:
        """Return an object."""
        found: Object = json.loads(self.kubectl("get", "-n", namespace, *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str, namespace: str = NAMESPACE) -> list[Object]:
        """Return objects."""
        found: list[Object] = self.get(*arguments, namespace=namespace)["items"]
        return found

    def apply(self, *objects: Object, namespace: str = NAMESPACE) -> None:
        """Apply objects."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=document, seconds=120)

    def delete(self, *arguments: str, namespace: str = NAMESPACE, seconds: float = 120) -> None:
        """Delete objects, if they are there, and wait until they are gone."""
        limit = f"--timeout={seconds:.0f}s"
        self.kubectl("delete", "-n", namespace, *arguments, "--ignore-not-found", limit, seconds=seconds + 10)

    def wait(self, condition: str, *what: str, namespace: str = NAMESPACE, seconds: float = 60) -> None:
        """Wait with `kubectl wait --for=CONDITION`."""
        limit = f"--timeout={seconds:.0f}s"
        self.kubectl("wait", "-n", namespace, f"--for={condition}", limit, *what, seconds=seconds + 15)

    def finished(self, *names: str, namespace: str = NAMESPACE, seconds: float = 60) -> list[Object]:
        """Wait until Tasks are finished, and return them."""
        tasks = [f"task/{name}" for name in names]
        self.wait("condition=Finished", *tasks, namespace=namespace, seconds=seconds)
        return [self.get(task, namespace=namespace) for task in tasks]

    @contextmanager
    def following(self, *arguments: str) -> "Iterator[Lines]":
        """Run kubectl beside the test and read its lines as they come."""
        lines = Lines(" ".join(["kubectl", *arguments]))
        with self._beside(lines, lambda _: arguments, again=False):
            yield lines

    @contextmanager
    def watching(
        self, resource: str, *, labels: str = "", fields: str = "", namespace: str = NAMESPACE
    ) -> "Iterator[History]":
        """Collect every revision of objects from now on.

        The API server cuts off who reads too slowly. `kubectl get --watch` would end there; this goes on after the last
        revision that it has seen.
        """
        path = f"{GROUPS[resource]}/namespaces/{namespace}/{resource}"
        selectors = {"labelSelector": labels, "fieldSelector": fields}

        def arguments(lines: Sequence[str]) -> Sequence[str]:
            versions = (int(json.loads(line)["object"]["metadata"]["resourceVersion"]) for line in lines)
            since = {"resourceVersion": str(max(versions))} if lines else {}
            return ("get", "--raw", f"{path}?{urlencode({'watch': '1', **selectors, **since})}")

        lines = Lines(f"the watch of {path}")
        with self._beside(lines, arguments, again=True):
            yield History(lines)

    @contextmanager
    def _beside(
        self, lines: "Lines", arguments: Callable[[Sequence[str]], Sequence[str]], *, again: bool
    ) -> Iterator[None]:
        """Run kubectl beside the test; `again` as often as it ends well."""
        processes: list[subprocess.Popen[str]] = []
        stopping = threading.Event()

        def run() -> None:
            code = 0
            while not stopping.is_set() and code == 0 and (again or not processes):
                command = [str(self.bin / "kubectl"), *arguments(lines.lines)]
                with subprocess.Popen(
                    command, env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                ) as process:
                    processes.append(process)
                    if stopping.is_set():
                        process.kill()
                    lines.read(process)
                    code = process.wait()
            lines.end()

        reader = threading.Thread(target=run, daemon=True)
        reader.start()
        try:
            yield
        finally:
            stopping.set()
            for process in processes:
                process.kill()
            reader.join()

    @contextmanager
    def forwarding(self, pod: str, port: int, *, namespace: str = SYSTEM_NAMESPACE) -> Iterator[str]:
        """Forward a free local port to a pod's, and yield the URL."""
        with self.following("port-forward", "-n", namespace, pod, f":{port}") as lines:
            line = lines.until(lambda seen: next((each for each in seen if "Forwarding from 127" in each), None), 30)
            found = re.search(r"127\.0\.0\.1:\d+", line)
            assert found, line
            yield f"http://{found.group()}"

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def _run(self, program: str, arguments: Sequence[str | Path], *, stdin: str | None, seconds: float) -> str:
        words = [str(word) for word in arguments]
        shown = " ".join([program, *words])
        try:
            done = subprocess.run(
                [str(self.bin / program), *words],
                env=self._environment(),
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"took longer than {seconds:.0f} s: {shown}") from error
        if done.returncode != 0:
            raise CommandFailed(f"exit code {done.returncode}: {shown}\n{done.stdout}{done.stderr}")
        return done.stdout


class Lines:
    """What a running command has printed so far."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.lines: list[str] = []
        self.ended = False
        self._changed = threading.Condition()

    def read(self, process: "subprocess.Popen[str]") -> None:
        """Take lines until there are no more."""
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def end(self) -> None:
        """Take note that there will be no more."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def until(self, find: Callable[[Sequence[str]], T | None], seconds: float) -> T:
        """Return what `find` makes of all lines, as soon as that is something."""
        found: T | None = None

        def look() -> bool:
            nonlocal found
            found = find(self.lines)
            return found is not None or self.ended

        with self._changed:
            self._changed.wait_for(look, seconds)
            if found is None:
                how = "ended" if self.ended else f"did not say it in {seconds:.0f} s"
                raise CommandFailed(
                    f"{self.command} {how}; its last lines:\n" + "\n".join(line[:200] for line in self.lines[-20:])
                )
            return found


@dataclass
class History:
    """Every revision of the objects of a watch, by name, in order; a deleted one is marked by `None`."""

    source: Lines
    revisions: dict[str, list[Object | None]] = field(default_factory=dict)
    _read: int = 0

    def latest(self) -> dict[str, Object]:
        """The objects as they are now."""
        return {name: each[-1] for name, each in self.revisions.items() if each[-1] is not None}

    def until(self, wanted: Callable[[Mapping[str, Object]], bool], seconds: float, what: str) -> dict[str, Object]:
        """Wait until the objects are as wanted, and return them."""

        looked = False

        def find(lines: Sequence[str]) -> dict[str, Object] | None:
            nonlocal looked
            if not self._take(lines) and looked:
                return None
            looked = True
            current = self.latest()
            return current if wanted(current) else None

        try:
            return self.source.until(find, seconds)
        except CommandFailed as error:
            if self.source.ended:
                raise
            raise AssertionError(f"not in {seconds:.0f} s: {what}") from error

    def catch_up(self) -> None:
        """Take what has been printed."""
        self.source.until(lambda lines: (self._take(lines), True), 5)

    def _take(self, lines: Sequence[str]) -> bool:
        # Each event is a line of JSON.
        for line in lines[self._read :]:
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise CommandFailed(f"{self.source.command} cannot go on: {line}")
            name = event["object"]["metadata"]["name"]
            self.revisions.setdefault(name, []).append(None if event["type"] == "DELETED" else event["object"])
        news = self._read < len(lines)
        self._read = len(lines)
        return news
