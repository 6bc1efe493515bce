"""Calling a callable with the Task's arguments, synchronous or not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any


def call(function: Callable[..., Any], arguments: Mapping[str, Any], *, reference: str) -> Any:
    """Call `function(**arguments)`; a coroutine is run to its end in an event loop of its own.

    Arguments are compared with the signature first, so that a misspelt one is told apart from a TypeError inside the
    function.

    Raises:
        TypeError: the arguments do not fit the signature.
        Exception: whatever the function raises.
    """
    _check(function, arguments, reference)
    value = function(**arguments)
    if isinstance(value, Coroutine):
        return asyncio.run(value)
    return asyncio.run(_await(value)) if inspect.isawaitable(value) else value


def _check(function: Callable[..., Any], arguments: Mapping[str, Any], reference: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(sorted(arguments)) or "none"
        raise TypeError(f"run.python.args do not fit {reference}{signature}: {error} (given: {given})") from None


async def _await(value: Any) -> Any:
    return await value
