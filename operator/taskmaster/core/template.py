"""What a TaskTemplate asks for, as decisions see it.

What it runs is left as it stands on the wire: only `taskmaster.api.templates` looks into it, once per Task, when the
Task is assigned for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskmaster.core.policy import SAYS_NOTHING, Overrides
from taskmaster.core.requirements import Requirements


@dataclass(frozen=True, slots=True)
class Template:
    """One TaskTemplate."""

    name: str
    overrides: Overrides = SAYS_NOTHING
    """Defaults for the policies of its Tasks, before those of their queue."""
    slots: int | None = None
    """How many slots an attempt takes, where the Task does not say."""
    requires: Requirements | None = None
    """What the labels of a worker must be like, where the Task does not say."""
    ttl_seconds: int | None = None
    """How long a finished Task is kept, where the Task does not say."""
    problem: str = ""
    """Why no Task can be made of it; empty if one can."""
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The spec as it stands on the wire."""

    @property
    def refusal(self) -> str:
        """What is said to a Task that names it; empty if it can be used."""
        return f"the TaskTemplate {self.name} cannot be used: {self.problem}" if self.problem else ""
