"""Calling a callable with the Task's arguments, synchronous or not, marked by `@task` or not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from taskmaster_worker.sdk import arguments as checks
from taskmaster_worker.sdk.cancellation import cancellation
from taskmaster_worker.sdk.task import cancel_mode


def call(function: Callable[..., Any], arguments: Mapping[str, Any], *, reference: str) -> Any:
    """Call `function(**arguments)`; a coroutine is run to its end in an event loop of its own.

    Arguments are compared with the signature first, so that a misspelt one is told apart from a TypeError inside the
    function; those of a marked function are validated as well.

    Raises:
        ArgumentsError: the arguments do not fit a marked function.
        TypeError: the arguments do not fit the signature.
        Cancelled: a stop has arrived.
        Exception: whatever the function raises.
    """
    match cancel_mode(function):
        case None:
            checks.check(function, arguments, reference)
            return _run(function(**arguments))
        case "flag":
            arguments = checks.validated(function, arguments, reference)
            with cancellation.noting():
                return _run(function(**arguments))
        case "raise":
            arguments = checks.validated(function, arguments, reference)
            with cancellation.raising():
                value = function(**arguments)
            return asyncio.run(cancellation.cancelling(value)) if inspect.isawaitable(value) else value


def _run(value: Any) -> Any:
    if isinstance(value, Coroutine):
        return asyncio.run(value)
    return asyncio.run(_await(value)) if inspect.isawaitable(value) else value


async def _await(value: Any) -> Any:
    return await value
