"""Values that a Task takes from Secrets and ConfigMaps (`valueFrom`), read when an attempt starts.

Only names that the WorkerPool lists are read. A value is handed to the task or sent in the request, and appears nowhere
else: nothing here puts one into a log or a message.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskmaster.core.reason import EndReason
from taskmaster.kube.errors import Forbidden
from taskmaster.kube.resource import CONFIGMAPS, SECRETS, Object, Resource
from taskmaster_worker.agent.identity import Settings
from taskmaster_worker.agent.reader import Reader, UnresolvedError


@dataclass(frozen=True, slots=True)
class Reference:
    """One key of one Secret or ConfigMap of the worker's namespace."""

    resource: Resource
    name: str
    key: str
    optional: bool

    @property
    def place(self) -> str:
        """The object, for people."""
        return f"{self.resource.kind} {self.name}"


Values = Mapping[Reference, str | None]
"""What was read; None for what is optional and not there."""


def references(run: Mapping[str, Any], env: Iterable[Mapping[str, Any]]) -> list[Reference]:
    """Return what a Task wants to have read: for its environment, and for the headers of its request.

    Raises:
        KeyError: a source is of a kind that this version does not know.
    """
    headers = (run.get("http") or {}).get("headers")
    named = [*env, *(headers or ())]
    return [_reference(entry["valueFrom"]) for entry in named if entry.get("valueFrom")]


def filled(named: Iterable[Mapping[str, Any]], values: Values) -> list[dict[str, Any]]:
    """Return the entries, each with a `value`; one whose optional source is not there is left out."""
    entries = []
    for entry in named:
        source = entry.get("valueFrom")
        value = values[_reference(source)] if source else entry.get("value") or ""
        if value is not None:
            entries.append({**entry, "value": value})
    return entries


class Sources:
    """Reads what may be read."""

    def __init__(self, reader: Reader, settings: Settings) -> None:
        self._reader = reader
        self._pool = settings.pool
        self._listed = {
            SECRETS: (settings.secret_names, "secretNames"),
            CONFIGMAPS: (settings.config_map_names, "configMapNames"),
        }

    async def read(self, wanted: Sequence[Reference]) -> Values:
        """Return the values as they are now, however long the API server takes to answer.

        Raises:
            UnresolvedError: one of them may not be read, or is not there.
        """
        for reference in wanted:
            names, field = self._listed[reference.resource]
            if reference.name not in names:
                message = f"{reference.place} is not listed in {field} of WorkerPool {self._pool}"
                raise UnresolvedError(EndReason.SECRET_FORBIDDEN, message, final=True)
        objects = {}
        for place, reference in {reference.place: reference for reference in wanted}.items():
            objects[place] = await self._object(reference)
        return {reference: _value(reference, objects[reference.place]) for reference in wanted}

    async def _object(self, reference: Reference) -> Object | None:
        try:
            return await self._reader.get(reference.resource, reference.name)
        except Forbidden:
            message = (
                f"the API server does not let this worker read {reference.place}, although WorkerPool {self._pool} "
                f"lists it: the Role taskmaster-worker-{self._pool} or its RoleBinding is missing"
            )
            raise UnresolvedError(EndReason.SECRET_FORBIDDEN, message) from None


def _reference(source: Mapping[str, Any]) -> Reference:
    secret = source.get("secretKeyRef")
    selector = secret or source["configMapKeyRef"]
    resource = SECRETS if secret else CONFIGMAPS
    return Reference(resource, selector["name"], selector["key"], selector.get("optional", False))


def _value(reference: Reference, obj: Object | None) -> str | None:
    data = {} if obj is None else obj.get("data") or {}
    if reference.key in data:
        return _decoded(reference, data[reference.key])
    if reference.optional:
        return None
    missing = "does not exist" if obj is None else f"has no key {reference.key}"
    raise UnresolvedError(EndReason.SECRET_NOT_FOUND, f"{reference.place} {missing}")


def _decoded(reference: Reference, stored: str) -> str:
    if reference.resource is not SECRETS:
        return stored
    try:
        return base64.b64decode(stored, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        message = f"key {reference.key} of {reference.place} is not text in UTF-8"
        raise UnresolvedError(EndReason.SECRET_NOT_FOUND, message) from None
