"""The installed CRDs: are they new enough, and how to bring them up to date.

Helm never upgrades what is in a chart's `crds/`, so a pre-upgrade hook applies them; where somebody upgraded without
it, the operator must not work against a schema that drops its fields.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import yaml

from taskmaster.api import names
from taskmaster.kube.api import Api, ApplyPatch, Object
from taskmaster.kube.errors import ApiError, Forbidden, NotFound
from taskmaster.kube.resource import CRDS

logger = logging.getLogger(__name__)

CHECK_SECONDS: Final = 5.0
"""Between two looks at CRDs that will not do."""

FIELD_MANAGER: Final = "helm"
"""Helm's own: it applies the CRDs at each installation, and would meet another manager's fields as conflicts."""

PLURALS = ("tasks", "taskqueues", "taskschedules", "tasktemplates", "workerpools")
REMEDY = (
    "run `kubectl apply --server-side --force-conflicts --field-manager=helm -f crds/` from the release's sources, "
    "or `helm upgrade` with its hooks enabled"
)


async def trouble(api: Api) -> str:
    """Return what is wrong with the installed CRDs, with the command that mends it; empty if they will do."""
    for plural in PLURALS:
        name = f"{plural}.{names.GROUP}"
        try:
            crd = await api.get(CRDS, None, name)
        except NotFound:
            return f"the CRD {name} is not installed: {REMEDY}"
        except Forbidden:
            logger.warning("may not read CRDs, so their version is not checked", extra={"crd": name})
            continue
        found = crd["metadata"].get("annotations", {}).get(names.SCHEMA_REVISION_ANNOTATION, "0")
        if not found.isdecimal() or int(found) < names.SCHEMA_REVISION:
            return f"the CRD {name} has schema revision {found} and {names.SCHEMA_REVISION} is needed: {REMEDY}"
    return ""


async def wait(api: Api, report: Callable[[str], None]) -> None:
    """Return when the installed CRDs will do; report what is wrong with them until then, and an empty text at last."""
    while True:
        try:
            problem = await trouble(api)
        except ApiError as error:
            problem = f"cannot read the CRDs: {error}"
        report(problem)
        if not problem:
            return
        logger.error("the installed CRDs will not do", extra={"problem": problem})
        await asyncio.sleep(CHECK_SECONDS)


def read(directory: Path) -> list[Object]:
    """Return the CRDs in the files of a directory."""
    return [yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*.yaml"))]


async def apply(api: Api, crds: Sequence[Object]) -> list[str]:
    """Apply CRDs, never replacing a newer one by an older; return the names of those written."""
    applied = []
    for crd in crds:
        name = crd["metadata"]["name"]
        ours = int(crd["metadata"]["annotations"][names.SCHEMA_REVISION_ANNOTATION])
        try:
            found = await api.get(CRDS, None, name)
        except NotFound:
            found = {"metadata": {}}
        revision = found["metadata"].get("annotations", {}).get(names.SCHEMA_REVISION_ANNOTATION, "0")
        if revision.isdecimal() and int(revision) > ours:
            logger.info("CRD is newer than ours, left alone", extra={"crd": name, "revision": revision})
            continue
        await api.patch(CRDS, None, name, ApplyPatch(crd, FIELD_MANAGER))
        applied.append(name)
    return applied
