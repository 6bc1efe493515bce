"""Finding the callable that `run.python.callable` names.

Every way to get it wrong raises the exception that Python itself would raise, since retry rules name exception types,
with a message for the author of the Task rather than of the module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def load(reference: str) -> Callable[..., Any]:
    """Import `package.module` and return the attribute `function` (dots allowed) of `package.module:function`.

    Raises:
        ValueError: the reference has not this form.
        ModuleNotFoundError: the module, or one that it imports, does not exist.
        AttributeError: the module has no such attribute.
        TypeError: the attribute cannot be called.
        Exception: whatever the module's own code raises on import.
    """
    module_name, colon, path = reference.partition(":")
    if not (colon and path and module_name) or module_name.startswith("."):
        raise ValueError(f"callable {reference!r} is not of the form 'package.module:function'")
    target: Any = _import(module_name)
    for name in path.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            raise AttributeError(f"callable {reference!r}: {_describe(target)} has no attribute {name!r}") from None
    if not callable(target):
        raise TypeError(f"callable {reference!r} is of type {type(target).__name__} and cannot be called")
    return target  # type: ignore[no-any-return]


def _import(name: str) -> Any:
    importlib.invalidate_caches()  # what was mounted or updated since the fork server started is to be found
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            path = ", ".join(place for place in sys.path if place)
            message = (
                f"no module named {error.name!r}: is it in the worker image or mounted under /app? Searched: {path}"
            )
            raise ModuleNotFoundError(message, name=error.name) from None
        raise


def _describe(target: object) -> str:
    name = getattr(target, "__name__", type(target).__name__)
    return f"{type(target).__name__} {name!r}"
