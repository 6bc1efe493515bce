"""Which kind of cluster to use: CLUSTER=auto|kind|local|existing.

`auto` prefers kind where a Docker engine answers, because that is what most people know, and never takes `existing`:
nobody should find test objects in a cluster because of where kubectl happened to point.
"""

import enum
import os
import shutil

from localcluster.commands import run
from localcluster.errors import LocalClusterError


class Choice(enum.StrEnum):
    """A kind of cluster."""

    KIND = "kind"
    LOCAL = "local"
    EXISTING = "existing"


def choose(value: str | None = None) -> Choice:
    """Return the cluster that `value` (by default the environment's CLUSTER) asks for.

    Raises:
        LocalClusterError: it is none of the four words.
    """
    asked = value or os.environ.get("CLUSTER") or "auto"
    if asked == "auto":
        return Choice.KIND if shutil.which("kind") and docker_runs() else Choice.LOCAL
    try:
        return Choice(asked)
    except ValueError:
        raise LocalClusterError(f"CLUSTER={asked} is none of auto, kind, local, existing") from None


def docker_runs() -> bool:
    """Return whether a Docker engine answers; the client alone is not enough."""
    try:
        run(["docker", "info"], timeout=20)
    except LocalClusterError:
        return False
    return True
