"""Where things are kept.

Caches can be deleted at any time and cost only time to make again; state belongs to one cluster and goes with it.
Both live outside of the source tree, so that a clean checkout starts as fast as a used one. The environment is read
at every call, so that tests and tools can point one process somewhere else.
"""

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
TOOLS = SOURCE.parent
REPOSITORY = TOOLS.parent


def cache(*parts: str) -> Path:
    """Return a path below this project's cache directory; nothing is created."""
    return _home("XDG_CACHE_HOME", ".cache").joinpath(*parts)


def state(*parts: str) -> Path:
    """Return a path below this project's state directory; nothing is created."""
    return _home("XDG_STATE_HOME", ".local/state").joinpath(*parts)


def _home(variable: str, default: str) -> Path:
    # The XDG specification asks to ignore relative values.
    value = os.environ.get(variable, "")
    base = Path(value) if value.startswith("/") else Path.home() / default
    return base / "taskmaster"
