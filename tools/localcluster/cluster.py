"""Node clusters as their users see them: created, repaired, deleted, by name.

One lock serialises everything that changes a cluster. Each step leaves a state that the next command understands, so
that a creator killed at any moment leaves either nothing or something that `delete` and `ensure` can finish.
"""

import contextlib
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from localcluster import cgroups, discovery, health, namespaces, network, paths, requirements, tools
from localcluster.commands import locked, say
from localcluster.errors import LocalClusterError
from localcluster.layout import Layout, Spec
from localcluster.probes import Answer, https_get, wait_until
from localcluster.processes import tail

READY_TIMEOUT = 120.0
RECOVERY_TIMEOUT = 20.0
END_TIMEOUT = 30.0


class Cluster:
    """A cluster that may or may not exist."""

    def __init__(self, name: str) -> None:
        # The name becomes part of host, cgroup and directory names.
        if not name or len(name) > 40 or not name.replace("-", "").isalnum() or name != name.lower().strip("-"):
            raise LocalClusterError(f"{name!r} is not a usable name: lower-case letters, digits and '-', at most 40")
        self.name = name
        self.directory = paths.state("clusters", name)

    @property
    def exists(self) -> bool:
        """Whether there is anything of it: a directory or a process."""
        return self.directory.exists() or self.running

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return discovery.first_process(self.directory) is not None

    @property
    def layout(self) -> Layout:
        """Its files; an error if it does not exist."""
        return Layout.load(self.directory)

    @property
    def init(self) -> int:
        """The process id of its first process; an error if that does not run."""
        if pid := discovery.first_process(self.directory):
            return pid
        raise LocalClusterError(f"cluster {self.name!r} is not running; `python -m localcluster ensure` starts it")

    def healthy(self, *, since: datetime.datetime | None = None) -> bool:
        """Return whether API server and kubelet answer and the node is ready.

        Args:
            since: what was reported before that does not count: after a new start the API server still tells what it
                knew, of a node and of pods that have ended meanwhile.
        """
        try:
            layout = self.layout
        except LocalClusterError:
            return False
        node = f"/api/v1/nodes/{layout.spec.node}"

        def get(path: str) -> Answer:
            url = layout.spec.address.url + path
            return https_get(url, authority=layout.authority, credentials=layout.admin)

        reported = get(node)
        if reported.status != 200 or not health.node_ready(json.loads(reported.body), since):
            return False
        if since and not ((pods := get("/api/v1/pods")).body and health.pods_current(json.loads(pods.body), since)):
            return False
        needed = (f"{node}/proxy/healthz", "/api/v1/namespaces/default/serviceaccounts/default")
        return all(get(path).status == 200 for path in needed)

    def create(self, *, retain: bool = False) -> None:
        """Create it and wait until it is ready; whatever was made is removed again if that fails, unless `retain`."""
        requirements.ensure()
        bin_dir = tools.build()
        with self._changing():
            if self.exists:
                raise LocalClusterError(f'node(s) already exist for a cluster with the name "{self.name}"')
            started = time.monotonic()
            try:
                self._create(bin_dir)
            except BaseException:
                if not retain:
                    self._delete()
                raise
            say(f"Cluster {self.name!r} ready after {time.monotonic() - started:.1f} s")

    def ensure(self) -> None:
        """Make sure that it runs: keep a healthy one, start a stopped one with its data, replace a broken one."""
        requirements.ensure()
        bin_dir = tools.build()
        with self._changing():
            if self.running and self._becomes_healthy(bin_dir):
                return
            started = time.monotonic()
            try:
                self._end()
                spec = self.layout.spec
                say(f"Starting cluster {self.name!r} again, with its data")
                Layout(self.directory, Spec(spec.name, spec.subnet, str(bin_dir))).create()
                self._start()
            except LocalClusterError as error:
                if self.directory.exists():
                    say(f"Cluster {self.name!r} cannot be repaired, making a new one: {error}")
                self._delete()
                self._create(bin_dir)
            say(f"Cluster {self.name!r} ready after {time.monotonic() - started:.1f} s")

    def delete(self) -> None:
        """End all its processes and remove all it left; nothing happens if it does not exist."""
        with self._changing():
            self._delete()

    def _create(self, bin_dir: Path) -> None:
        others = [other.layout.spec.link.subnet for other in existing() if (other.directory / "cluster.json").exists()]
        link = network.choose_link(self.name, [*network.routed(), *others])
        Layout(self.directory, Spec(self.name, str(link.subnet), str(bin_dir))).create()
        self._start()

    def _start(self) -> None:
        log = self.directory / "logs" / "node.log"
        # Kubernetes' times have no fractions.
        since = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        with log.open("ab") as output:
            process = subprocess.Popen(
                namespaces.command([sys.executable, "-m", discovery.MODULE, str(self.directory)]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={
                    **os.environ,
                    "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
                    "PYTHONPATH": str(paths.TOOLS),
                    discovery.MARK: str(self.directory),
                },
                start_new_session=True,
            )

        def watch() -> None:
            if process.poll() is not None:
                raise LocalClusterError(f"the node ended while starting:\n{tail(log)}")

        what = f"cluster {self.name!r} to be ready"
        wait_until(lambda: self.healthy(since=since), what, timeout=READY_TIMEOUT, watch=watch)

    def _becomes_healthy(self, bin_dir: Path) -> bool:
        try:
            if self.layout.spec.bin_dir != str(bin_dir):
                return False
            wait_until(self.healthy, "recovery", timeout=RECOVERY_TIMEOUT)
        except LocalClusterError:
            return False
        return True

    def _end(self) -> None:
        pids = set(discovery.launched(self.directory)) | discovery.marked(self.directory) | cgroups.members(self.name)
        discovery.kill(pids)
        # Its first process ends only after all others of its pid namespace have.
        wait_until(
            lambda: not discovery.launched(self.directory) and not cgroups.members(self.name),
            f"the processes of cluster {self.name!r} to end",
            timeout=END_TIMEOUT,
        )
        network.disconnect(self.name)
        cgroups.remove(self.name)

    def _delete(self) -> None:
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with locked(paths.state("clusters.lock"), waiting_for="another change of a cluster"):
            yield


def existing() -> list[Cluster]:
    """Return all clusters of this user, running or not."""
    root = paths.state("clusters")
    return [Cluster(entry.name) for entry in sorted(root.iterdir()) if entry.is_dir()] if root.exists() else []
