"""`@task`: marks a function as one that Taskmaster calls with the Task's arguments and stops in an orderly way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

Cancel = Literal["raise", "flag"]
F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__taskmaster_cancel__"


@overload
def task(function: F, /) -> F: ...


@overload
def task(*, cancel: Cancel = "raise") -> Callable[[F], F]: ...


def task(function: F | None = None, /, *, cancel: Cancel = "raise") -> F | Callable[[F], F]:
    """Mark a function, synchronous or not; it stays what it was, so tests call it as before.

    As a Task, its arguments are validated by its annotations before the call. A stop raises `Cancelled` in a
    synchronous function and cancels the asyncio task of an asynchronous one; with `cancel="flag"` it only sets
    `context.cancelled`.

    Raises:
        TypeError: it cannot be marked.
        ValueError: `cancel` is neither.
    """
    if cancel not in ("raise", "flag"):
        raise ValueError(f"cancel is 'raise' or 'flag', not {cancel!r}")

    def mark(function: F) -> F:
        if isinstance(function, staticmethod | classmethod) or not callable(function):
            raise TypeError(f"@task marks functions, not a {type(function).__name__}: put it next to the function")
        setattr(function, _MARK, cancel)
        return function

    return mark if function is None else mark(function)


def cancel_mode(function: Callable[..., Any]) -> Cancel | None:
    """Return how a marked function is stopped; None if it is not marked."""
    mode = getattr(function, _MARK, None)
    return mode if mode in ("raise", "flag") else None
