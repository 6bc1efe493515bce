"""What people and Makefiles type. Values go to stdout, everything said about the way there to stderr."""

import argparse
import contextlib
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from localcluster import images, requirements, tools
from localcluster.commands import say
from localcluster.errors import LocalClusterError


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except LocalClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m localcluster", description="A Kubernetes cluster without Docker.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    verb = verbs.add_parser("tools", help="build the pinned tools; prints the directory they are in")
    verb.add_argument("--only", default="", metavar="NAME,...", help=f"some of: {', '.join(tools.TOOLS)}")
    verb.set_defaults(run=_tools)

    verb = verbs.add_parser("control-plane", help="run etcd, apiserver and controller manager until interrupted")
    verb.add_argument("--dir", type=Path, help="where its files go (a temporary directory by default)")
    verb.add_argument("--no-controller-manager", action="store_true")
    verb.set_defaults(run=_control_plane)

    verb = verbs.add_parser("requirements", help="check what a node cluster needs, install missing Debian packages")
    verb.set_defaults(run=lambda _: requirements.ensure())

    verb = verbs.add_parser("ensure", help="make sure that a node cluster runs: keep, start again, or replace it")
    verb.add_argument("--name", default="taskmaster")
    verb.set_defaults(run=_ensure)

    verb = verbs.add_parser("leftovers", help="list what is left of a node cluster; fails if there is anything")
    verb.add_argument("name")
    verb.set_defaults(run=_leftovers)

    image = verbs.add_parser("image", help="container images").add_subparsers(required=True, metavar="COMMAND")
    verb = image.add_parser("build", help="build a Dockerfile on a Debian base; prints the archive's path")
    verb.add_argument("--tag", required=True, metavar="NAME:TAG")
    verb.add_argument("--file", required=True, type=Path, metavar="DOCKERFILE")
    verb.add_argument("--context", type=Path, default=Path())
    verb.add_argument("--input", nargs="+", action="extend", default=[], metavar="PATH", help="what it may copy")
    verb.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    verb.set_defaults(run=_image_build)
    return top


def _tools(options: argparse.Namespace) -> None:
    names = [name for name in options.only.split(",") if name]
    print(tools.build(names))


def _control_plane(options: argparse.Namespace) -> None:
    # Only this command needs the `cryptography` package.
    from localcluster.controlplane import ControlPlane

    # Both signals arrive as KeyboardInterrupt, at any moment, and leave through the context manager.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bin_dir = tools.build(tools.CONTROL_PLANE)
    with tempfile.TemporaryDirectory(prefix="control-plane-") as scratch:
        started = time.monotonic()
        directory = options.dir or Path(scratch)
        with ControlPlane(directory, controller_manager=not options.no_controller_manager, bin_dir=bin_dir) as plane:
            say(f"Control plane ready after {time.monotonic() - started:.1f} s at {plane.server}")
            print(plane.kubeconfig, flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    signal.pause()


def _ensure(options: argparse.Namespace) -> None:
    from localcluster.cluster import Cluster

    Cluster(options.name).ensure()


def _leftovers(options: argparse.Namespace) -> None:
    from localcluster.leftovers import leftovers

    found = leftovers(options.name)
    print("\n".join(found), end="\n" if found else "")
    if found:
        raise LocalClusterError(f"{len(found)} things are left of cluster {options.name!r}")


def _image_build(options: argparse.Namespace) -> None:
    dockerfile = options.file if options.file.exists() else options.context / options.file
    if not dockerfile.exists():
        raise LocalClusterError(f"there is no {options.file}")
    recipe = images.Recipe(
        reference=options.tag,
        dockerfile=dockerfile.resolve(),
        context=options.context.resolve(),
        inputs=tuple(options.input) or (".",),
        arguments=dict(argument.split("=", 1) for argument in options.build_arg),
    )
    print(images.build(recipe))
