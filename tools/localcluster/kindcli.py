"""kind's command line, as far as tools that drive kind use it.

Verbs, flags, outputs and exit codes are kind's, so that one test suite runs with either. Flags about things that a
local cluster does not have (node images, configurations) are accepted and said to have no effect.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from localcluster import images, kubeconfig, paths, tools
from localcluster.cluster import Cluster, existing
from localcluster.commands import say
from localcluster.errors import LocalClusterError
from localcluster.layout import context_of

DEFAULT_NAME = "kind"


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except LocalClusterError as error:
        say(f"ERROR: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="kind", description="Local Kubernetes clusters without Docker, run like kind.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")
    named = _flags(("--name", {"default": DEFAULT_NAME}))
    config = _flags(("--kubeconfig", {"type": Path, "default": None}))

    get = verbs.add_parser("get").add_subparsers(required=True, metavar="WHAT")
    _verb(get, "clusters", _get_clusters)
    _verb(get, "nodes", _get_nodes, named)
    internal = _flags(("--internal", {"action": "store_true"}))
    _verb(get, "kubeconfig", _get_kubeconfig, named, internal)

    create = verbs.add_parser("create").add_subparsers(required=True, metavar="WHAT")
    extra = _flags(
        ("--image", {}),
        ("--config", {}),
        ("--wait", {}),
        ("--retain", {"action": "store_true"}),
    )
    _verb(create, "cluster", _create, named, config, extra)

    delete = verbs.add_parser("delete").add_subparsers(required=True, metavar="WHAT")
    _verb(delete, "cluster", _delete, named, config)

    load = verbs.add_parser("load").add_subparsers(required=True, metavar="WHAT")
    nodes = _flags(("--nodes", {}))
    _verb(load, "docker-image", _load_image, _flags(("what", {"nargs": "+", "metavar": "IMAGE"})), named, nodes)
    _verb(load, "image-archive", _load_archive, _flags(("what", {"nargs": "+", "metavar": "FILE"})), named, nodes)

    export = verbs.add_parser("export").add_subparsers(required=True, metavar="WHAT")
    _verb(export, "kubeconfig", _export_kubeconfig, named, config, internal)
    _verb(export, "logs", _export_logs, _flags(("directory", {"nargs": "?", "type": Path})), named)
    _verb(verbs, "version", _version)
    return top


def _get_clusters(_: argparse.Namespace) -> None:
    clusters = existing()
    print("".join(f"{cluster.name}\n" for cluster in clusters), end="")
    if not clusters:
        say("No kind clusters found.")


def _get_nodes(options: argparse.Namespace) -> None:
    print(Cluster(options.name).layout.spec.node)


def _get_kubeconfig(options: argparse.Namespace) -> None:
    print(Cluster(options.name).layout.kubeconfig("admin").read_text(), end="")


def _create(options: argparse.Namespace) -> None:
    for flag in ("image", "config"):
        if getattr(options, flag):
            say(f"--{flag} has no effect: this cluster runs the Kubernetes that is built into its tools")
    Cluster(options.name).create(retain=options.retain)
    _export_kubeconfig(options)


def _delete(options: argparse.Namespace) -> None:
    cluster = Cluster(options.name)
    say(f'Deleting cluster "{options.name}" ...')
    cluster.delete()
    path = options.kubeconfig or kubeconfig.default_path()
    before = kubeconfig.read(path)
    after = kubeconfig.without(before, context_of(options.name))
    if after != before:
        kubeconfig.write(path, after)


def _export_kubeconfig(options: argparse.Namespace) -> None:
    layout = Cluster(options.name).layout
    path = options.kubeconfig or kubeconfig.default_path()
    kubeconfig.write(path, kubeconfig.merge(kubeconfig.read(path), kubeconfig.read(layout.kubeconfig("admin"))))
    say(f'Set kubectl context to "{layout.spec.context}" in {path}')


def _load_image(options: argparse.Namespace) -> None:
    images.load(Cluster(options.name).init, options.what)


def _load_archive(options: argparse.Namespace) -> None:
    images.load_archives(Cluster(options.name).init, [Path(name) for name in options.what])


def _export_logs(options: argparse.Namespace) -> None:
    cluster = Cluster(options.name)
    source = cluster.layout
    target = (options.directory or Path(f"{options.name}-logs")) / source.spec.node
    shutil.copytree(source.directory / "logs", target, dirs_exist_ok=True)
    if (source.directory / "pods").exists():
        shutil.copytree(source.directory / "pods", target / "pods", dirs_exist_ok=True)
    print(f"Exported logs for cluster {options.name!r} to: {target.parent}")


def _version(_: argparse.Namespace) -> None:
    version = tools.pinned_version(paths.TOOLS, "kubernetes", "k8s.io/kubernetes")
    print(f"kind (local cluster without Docker), Kubernetes {version}")


def _flags(*flags: tuple[str, dict[str, Any]]) -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    for name, settings in flags:
        shared.add_argument(name, **settings)
    return shared


def _verb(group: Any, name: str, run: Callable[[argparse.Namespace], None], *flags: argparse.ArgumentParser) -> None:
    everywhere = _flags(("--quiet", {"action": "store_true"}), ("--verbosity", {}))
    group.add_parser(name, parents=[*flags, everywhere]).set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
