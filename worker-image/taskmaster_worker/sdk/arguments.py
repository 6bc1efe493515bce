"""The Task's arguments against the function's signature and, for a marked function, its annotations.

pydantic does the validation where it is installed. It is imported only for a value that needs it: one whose type is
exactly the annotation is what pydantic would return.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any

from taskmaster_worker.sdk.errors import ArgumentsError

_PLAIN = (str, int, float, bool)
_SHOWN_CHARACTERS = 60
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Annotations:
    """A holder of one annotation, in the form that `typing.get_type_hints` takes."""

    def __init__(self, annotation: Any) -> None:
        self.__annotations__ = {"it": annotation}


def check(function: Callable[..., Any], arguments: Mapping[str, Any], reference: str) -> None:
    """Compare arguments with the signature.

    Raises:
        TypeError: they do not fit.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = ", ".join(sorted(arguments)) or "none"
        raise TypeError(f"run.python.args do not fit {reference}{signature}: {error} (given: {given})") from None


def validated(function: Callable[..., Any], arguments: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Return the arguments as the function's annotations want them.

    Raises:
        ArgumentsError: some do not fit; one line for each.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    named = {parameter.name: parameter for parameter in parameters if parameter.kind in _BY_NAME}
    others = next((parameter for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD), None)
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    values: dict[str, Any] = {}
    problems = [
        f"{name}: is missing" for name, one in named.items() if one.default is one.empty and name not in arguments
    ]
    for name, value in arguments.items():
        if (parameter := named.get(name, others)) is None:
            problems.append(f"{name}: the function has no such argument")
        else:
            values[name], refusals = _validated(name, value, parameter.annotation, namespace)
            problems += refusals
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ArgumentsError(f"run.python.args do not fit {reference}{signature}:\n{lines}")
    return values


def _validated(name: str, value: Any, annotation: Any, namespace: dict[str, Any]) -> tuple[Any, list[str]]:
    if annotation is inspect.Parameter.empty:
        return value, []
    try:
        hint = typing.get_type_hints(_Annotations(annotation), namespace, include_extras=True)["it"]
    except Exception as error:
        return value, [f"{name}: its annotation cannot be read: {type(error).__name__}: {error}"]
    if hint is Any or (hint in _PLAIN and type(value) is hint):
        return value, []
    try:
        import pydantic
    except ImportError:
        return value, []
    try:
        return pydantic.TypeAdapter(hint).validate_json(json.dumps(value)), []
    except pydantic.ValidationError as error:
        return value, [_line(name, detail) for detail in error.errors(include_url=False)]
    except pydantic.errors.PydanticUserError as error:
        reason = str(error).partition("\n")[0]
        return value, [f"{name}: no JSON can be made into {inspect.formatannotation(hint)}: {reason}"]


def _line(name: str, detail: Mapping[str, Any]) -> str:
    place = ".".join(map(str, (name, *detail["loc"])))
    given = repr(detail["input"])
    shown = given if len(given) <= _SHOWN_CHARACTERS else f"{given[:_SHOWN_CHARACTERS]}..."
    return f"{place}: {detail['msg']} (given: {shown})"
