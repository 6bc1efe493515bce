"""The programs a cluster is made of, built once from pinned Go modules and kept in a cache.

The cache key covers everything that changes a binary: both modules' go.mod and go.sum, our own Go sources, the build
flags and the Go version. A directory whose name is that key therefore never changes its meaning, and a binary in it
is complete because it is renamed into place; there is nothing to invalidate.
"""

import hashlib
import platform
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localcluster import paths
from localcluster.commands import locked, run, say
from localcluster.errors import LocalClusterError

BUILD_TIMEOUT = 1800.0
MINIMUM_GO = (1, 26)


@dataclass(frozen=True)
class Tool:
    """One binary: its name, the module directory it is pinned in, and its Go package."""

    name: str
    module: str
    package: str


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", "kubernetes", "go.etcd.io/etcd/server/v3"),
        Tool("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
        Tool("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        Tool("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
        Tool("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
        Tool("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
        Tool("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
        Tool("pause", "kubernetes", "./pause"),
        Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    )
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


def build(names: Iterable[str] = (), *, modules: Path = paths.TOOLS) -> Path:
    """Make sure that the named tools (all of them by default) are built, and return the directory they are in.

    Raises:
        LocalClusterError: an unknown name, no suitable Go, or a build that failed.
    """
    wanted = [_tool(name) for name in (tuple(names) or TOOLS)]
    directory = paths.cache("tools", cache_key(modules, go_version()))
    if all((directory / tool.name).exists() for tool in wanted):
        return directory
    with locked(directory.with_suffix(".lock"), waiting_for="the build of Kubernetes tools"):
        missing = [tool for tool in wanted if not (directory / tool.name).exists()]
        directory.mkdir(parents=True, exist_ok=True)
        if missing:
            say(f"Building {len(missing)} tools from source, kept in {directory}")
        for tool in missing:
            started = time.monotonic()
            _build_one(tool, directory, modules)
            say(f"  {tool.name}: {time.monotonic() - started:.0f} s")
    return directory


def go_version() -> str:
    """Return Go's version and target as Go prints them, such as "go1.26.8 linux/amd64".

    Raises:
        LocalClusterError: Go is missing or too old.
    """
    try:
        printed = run(["go", "version"], timeout=60).strip().removeprefix("go version ")
    except LocalClusterError as error:
        raise LocalClusterError(f"Go 1.26 or newer is needed to build the local cluster's tools: {error}") from error
    found = re.match(r"go(\d+)\.(\d+)", printed)
    if not found or (int(found[1]), int(found[2])) < MINIMUM_GO:
        raise LocalClusterError(f"Go 1.26 or newer is needed to build the local cluster's tools, found: {printed}")
    return printed


def cache_key(modules: Path, version: str) -> str:
    """Hash everything that decides what the binaries are."""
    digest = hashlib.sha256(f"{version}\n{platform.machine()}\n".encode())
    for module in sorted({tool.module for tool in TOOLS.values()}):
        digest.update(" ".join(build_flags(modules, module)).encode())
        files = [modules / module / name for name in ("go.mod", "go.sum")]
        for path in [*files, *sorted((modules / module).rglob("*.go"))]:
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(modules)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def build_flags(modules: Path, module: str) -> list[str]:
    """Return the flags of `go build`; they stamp in the version, which Helm's kubeVersion check reads."""
    if module == "helm":
        stamps = {"helm.sh/helm/v4/internal/version.version": pinned_version(modules, module, "helm.sh/helm/v4")}
    else:
        version = pinned_version(modules, module, "k8s.io/kubernetes")
        major, minor, _ = version.removeprefix("v").split(".", 2)
        stamps = {
            f"k8s.io/{package}.{key}": value
            for package in ("component-base/version", "client-go/pkg/version")
            for key, value in (("gitVersion", version), ("gitMajor", major), ("gitMinor", minor))
        }
    link = " ".join(["-s", "-w", *(f"-X {key}={value}" for key, value in stamps.items())])
    return ["-trimpath", "-buildvcs=false", "-ldflags", link]


def pinned_version(modules: Path, module: str, dependency: str) -> str:
    """Read the version of a dependency from a module's go.mod."""
    found = re.search(
        rf"^\s*(?:require )?{re.escape(dependency)} (v\S+)", (modules / module / "go.mod").read_text(), re.M
    )
    if not found:
        raise LocalClusterError(f"{modules / module / 'go.mod'} does not require {dependency}")
    return found[1]


def _tool(name: str) -> Tool:
    if name not in TOOLS:
        raise LocalClusterError(f"unknown tool {name!r}; there are: {', '.join(TOOLS)}")
    return TOOLS[name]


def _build_one(tool: Tool, directory: Path, modules: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".build-", dir=directory) as scratch:
        target = Path(scratch) / tool.name
        command = ["go", "build", *build_flags(modules, tool.module), "-o", str(target), tool.package]
        # Politely: a cold build takes every core for minutes.
        command.insert(0, "nice")
        environment = {"CGO_ENABLED": "0", "GOWORK": "off"}
        run(command, timeout=BUILD_TIMEOUT, cwd=modules / tool.module, env=environment)
        target.rename(directory / tool.name)
