"""Tells the cache about TaskTemplates, and their authors whether they can be used.

A template is judged when it changes, not when a Task needs it: so its author sees the fault, and its Tasks wait with
the same words. Its status is written only when that differs from what it says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from taskmaster.api import decode, templates
from taskmaster.coordinator import conditions
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.core.task import Instant
from taskmaster.core.template import Template
from taskmaster.kube.api import Api, MergePatch
from taskmaster.kube.errors import ApiError, NotFound
from taskmaster.kube.informer import Delta
from taskmaster.kube.resource import TASKTEMPLATES

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0
"""Before a status that could not be written is tried again."""

Key = tuple[str, str]
Object = dict[str, Any]


class TemplateController:
    """Keeps the cache's templates and the status of all TaskTemplates."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        *,
        may_write: Callable[[], bool],
        wall_clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        self._api = api
        self._cache = cache
        self._may_write = may_write
        self._wall_clock = wall_clock
        self._templates: dict[Key, Object] = {}
        self._reasons: dict[Key, tuple[str, str]] = {}
        """What there is to say about each: a typed word, and a text."""
        self._unsaid: set[Key] = set()
        self._changed = asyncio.Event()

    def on_deltas(self, deltas: Sequence[Delta[Object]]) -> None:
        """Take the deltas of the TaskTemplate informer."""
        for delta in deltas:
            if (obj := delta.new or delta.old) is not None:
                self.template_changed(obj, delta.new is None)

    def template_changed(self, obj: Object, deleted: bool) -> None:
        """Take note of a TaskTemplate."""
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if deleted:
            for kept in (self._templates, self._reasons):
                kept.pop(key, None)
            self._unsaid.discard(key)
            self._cache.template_changed(*key, None)
            return
        known = self._templates.get(key)
        self._templates[key] = obj
        if known is None or known["spec"] != obj["spec"]:
            template, reason, message = judged(obj)
            self._reasons[key] = (reason, message)
            self._cache.template_changed(*key, template)
        self._unsaid.add(key)
        self._changed.set()

    async def run(self) -> None:
        """Write each status that does not say what there is to say, until cancelled."""
        while True:
            await changed_or_due(self._changed, RETRY_SECONDS if self._unsaid else None)
            if not self._may_write():
                continue
            for key in sorted(self._unsaid):
                await self._write_status(key)

    async def _write_status(self, key: Key) -> None:
        obj = self._templates.get(key)
        if obj is None:
            self._unsaid.discard(key)
            return
        status = self._status(obj, *self._reasons[key])
        if status != obj.get("status", {}):
            try:
                await self._api.patch(TASKTEMPLATES, *key, MergePatch({"status": status}), subresource="status")
            except NotFound:
                pass
            except ApiError as error:
                logger.info("status of a template not written", extra={"template": "/".join(key), "error": str(error)})
                return
        if self._templates.get(key) is obj:
            self._unsaid.discard(key)

    def _status(self, obj: Object, reason: str, message: str) -> Object:
        now = self._wall_clock()
        condition = conditions.ready(obj, holds=reason == "Valid", reason=reason, message=message, now=now)
        return {"observedGeneration": obj["metadata"]["generation"], "conditions": [condition]}


def judged(obj: Object) -> tuple[Template, str, str]:
    """Return a template as decisions see it, with a word and a text about whether it can be used."""
    try:
        template = decode.template(obj)
    except (KeyError, ValueError) as error:
        problem = f"this version of Taskmaster cannot read it: {error!r}"[:900]
        return Template(obj["metadata"]["name"], problem=problem), "InvalidTemplate", problem
    if "parameters" in template.spec and (found := templates.check_schema(template.spec["parameters"])):
        return replace(template, problem=found.message), "InvalidSchema", f"spec.{found.message}"
    if found := templates.check_places(template.spec):
        return replace(template, problem=found.message), "InvalidTemplate", f"spec.{found.message}"
    return template, "Valid", "Tasks can be made of it"
