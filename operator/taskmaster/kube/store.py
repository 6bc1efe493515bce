"""Store: what an informer knows, keyed by uid, and the change that each piece of news makes to it.

Plain bookkeeping without I/O. It enforces the informer's rules: what is not newer than the last version heard is a
repeat and makes no change, and an object that was created again under a name ends its namesake first. `version` is
where a watch has to go on.
"""

import logging
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from taskmaster.kube.errors import ApiError
from taskmaster.kube.resource import Object

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Malformed(ApiError):
    """The server sent something that is not an object or not an event."""

    default_reason = "Malformed"


@dataclass(frozen=True, slots=True)
class Delta(Generic[T]):
    """One change: `old` is None for an addition, `new` is None when the object has gone or left the selector."""

    old: T | None
    new: T | None


class _Known(NamedTuple):
    name: str
    version: int


class Store(Generic[T]):
    """`objects` by uid, each as `transform` made it; `skipped` counts those that it could not read."""

    def __init__(self, transform: Callable[[Object], T]) -> None:
        self._transform = transform
        self._known: dict[str, _Known] = {}
        self._uids: dict[str, str] = {}
        self.objects: dict[str, T] = {}
        self.version = 0
        self.skipped = 0

    def hear(self, kind: str, item: Object, deltas: list[Delta[T]]) -> None:
        """Take in one event of a watch and append the changes that it makes.

        Raises:
            Malformed: it is none; nothing was changed.
        """
        if kind == "BOOKMARK":
            self.version = max(self.version, parse_version(_metadata(item).get("resourceVersion")))
            return
        uid, known = _identify(item)
        if known.version <= self.version:
            return
        if kind == "DELETED":
            self._drop(uid, deltas)
        elif kind in ("ADDED", "MODIFIED"):
            self._put(uid, known, item, deltas)
        else:
            raise Malformed(f"unknown event type {kind!r}")
        self.version = known.version

    def listed(self, item: Object, deltas: list[Delta[T]]) -> str:
        """Take in one object of a list, append the changes that it makes and return its uid."""
        uid, known = _identify(item)
        before = self._known.get(uid)
        if before is None or before.version != known.version:
            self._put(uid, known, item, deltas)
        return uid

    def finish_list(self, seen: Set[str], version: int) -> list[Delta[T]]:
        """Drop what was on no page, and go on from the list's version.

        Also if that is lower: after a restore of etcd from a backup versions go back, and the list is what is true.
        """
        deltas: list[Delta[T]] = []
        for uid in [uid for uid in self._known if uid not in seen]:
            self._drop(uid, deltas)
        self.version = version
        return deltas

    def _put(self, uid: str, known: _Known, item: Object, deltas: list[Delta[T]]) -> None:
        if (namesake := self._uids.get(known.name)) is not None and namesake != uid:
            self._drop(namesake, deltas)
        try:
            new = self._transform(item)
        except Exception:
            # Whatever a stranger wrote into an object must not stop the others. An earlier good state of it stays.
            self.skipped += 1
            logger.warning(
                "object skipped: it could not be read",
                extra={"kind": item.get("kind"), "object": known.name},
                exc_info=True,
            )
            return
        self._known[uid] = known
        self._uids[known.name] = uid
        deltas.append(Delta(self.objects.get(uid), new))
        self.objects[uid] = new

    def _drop(self, uid: str, deltas: list[Delta[T]]) -> None:
        if (known := self._known.pop(uid, None)) is not None:
            del self._uids[known.name]
            deltas.append(Delta(self.objects.pop(uid), None))


def parse_version(text: object) -> int:
    """Return a resourceVersion as the number that it is."""
    if isinstance(text, str) and text.isdecimal() and len(text) < 20:
        return int(text)
    raise Malformed(f"resourceVersion {text!r} is not a number")


def _metadata(item: Object) -> Object:
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        raise Malformed("object without metadata")
    return metadata


def _identify(item: Object) -> tuple[str, _Known]:
    try:
        metadata = item["metadata"]
        # Adding strings refuses everything else.
        uid = "" + metadata["uid"]
        name = metadata.get("namespace", "") + "/" + metadata["name"]
        return uid, _Known(name, parse_version(metadata["resourceVersion"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"object without uid or name: {error}") from error
