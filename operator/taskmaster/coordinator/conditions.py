"""The condition Ready of our long-lived kinds: one shape, and a transition time that only a transition changes."""

from __future__ import annotations

from typing import Any, Final

from taskmaster.api.times import to_wire
from taskmaster.core.task import Instant

MESSAGE_CHARACTERS: Final = 1_024

Object = dict[str, Any]


def ready_of(obj: Object) -> Object:
    """Return the condition Ready as it stands in an object; empty if there is none."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "Ready"), {})


def ready(obj: Object, *, holds: bool, reason: str, message: str, now: Instant) -> Object:
    """Return the condition Ready as it should stand in an object."""
    old, word = ready_of(obj), "True" if holds else "False"
    return {
        "type": "Ready",
        "status": word,
        "reason": reason,
        "message": message[:MESSAGE_CHARACTERS],
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == word else to_wire(now),
        "observedGeneration": obj["metadata"]["generation"],
    }
