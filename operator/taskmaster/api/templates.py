"""What a Task with a template comes to: its arguments, judged by the template's schema, in their places.

`$(args.NAME)` in a string of the template stands for an argument: a string as it is, any other JSON as compact JSON. As
in a Pod, `$$` stands for one `$`, so `$$(args.NAME)` is that text. Nothing is substituted in a script, where it would
be code; a Python function gets the arguments as they are.

The result is pinned in `status.resolvedRun` at the first assignment, so an edit of the template changes no Task that
has begun. All functions are total: what cannot be used is a `Problem`, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from pydantic import ValidationError

from taskmaster.api.json_values import Problem, check_size, nesting
from taskmaster.api.models.taskstatus import ResolvedRun
from taskmaster.api.parameters import check_schema, complete, declared
from taskmaster.core.template import Template

MAX_BYTES: Final = 65_536
"""The size of a resolved run as JSON."""
MAX_NESTING: Final = 64
NAMES_SHOWN: Final = 10

Object = dict[str, Any]
Rewrite = Callable[[str, str], str]
"""From where a string stands, and the string, to what takes its place."""

_REFERENCE: Final = re.compile(r"(?<!\$)(\$++)\(args\.([^()$]{1,256})\)")
"""Possessive, and without the characters that it begins with, so that no text takes more than linear time."""

__all__ = ["Problem", "check_places", "check_schema", "resolve"]


class _Unfit(Exception):
    """An argument stands where it cannot."""


def check_places(spec: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with the places of arguments in a template, whose schema is valid; None if they will do."""
    parameters = spec.get("parameters")
    known = declared(parameters)
    closed = isinstance(parameters, Mapping) and parameters.get("additionalProperties") is False

    def look(where: str, text: str) -> str:
        for dollars, name in _REFERENCE.findall(text):
            if closed and len(dollars) % 2 and name not in known:
                raise _Unfit(_unknown(f"task.{where}", name, known))
        return text

    try:
        _rewritten(spec.get("task"), look)
    except _Unfit as problem:
        return Problem(str(problem))
    return None


def resolve(template: Template, args: Any) -> Object | Problem:
    """Return `status.resolvedRun` for a Task with these arguments (None: it has none), or why there can be none."""
    if template.refusal:
        return Problem(template.refusal)
    parameters, task = template.spec.get("parameters"), template.spec.get("task")
    given = complete(parameters, {} if args is None else args)
    if isinstance(given, Problem):
        return Problem(f"spec.{given.message}")
    try:
        resolved = _rewritten(task, _Substitution(given, declared(parameters)))
    except _Unfit as problem:
        return Problem(f"in the TaskTemplate {template.name}, {problem}")
    if isinstance(python := _object(resolved.get("run")).get("python"), dict):
        python["args"] = _object(python.get("args")) | given
    return _trouble(resolved) or resolved


class _Substitution:
    """Puts arguments in their places, as long as that does not become too much."""

    def __init__(self, args: Mapping[str, Any], declared: list[str]) -> None:
        self._args = args
        self._declared = declared
        self._room = MAX_BYTES

    def __call__(self, where: str, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            dollars, name = found.groups()
            kept = "$" * (len(dollars) // 2)
            if len(dollars) % 2 == 0:
                return f"{kept}(args.{name})"
            put = self._text(where, name)
            self._room -= len(put)
            if self._room < 0:
                raise _Unfit(f"task.{where}: with the arguments in their places it has more than {MAX_BYTES} bytes")
            return kept + put

        return _REFERENCE.sub(value, text)

    def _text(self, where: str, name: str) -> str:
        if name in self._args:
            value = self._args[name]
            return value if isinstance(value, str) else orjson.dumps(value).decode()
        if name in self._declared:
            raise _Unfit(f"task.{where}: args.{name} has neither a value nor a default")
        raise _Unfit(_unknown(f"task.{where}", name, sorted({*self._declared, *self._args})))


def _unknown(where: str, name: str, known: list[str]) -> str:
    others = f"there are {', '.join(known[:NAMES_SHOWN])}" if known else "there are no arguments"
    more = ", ..." if len(known) > NAMES_SHOWN else ""
    return f"{where}: args.{name} is unknown; {others}{more}"


def _rewritten(task: Any, rewrite: Rewrite) -> Object:
    """Return what a template runs, with each string where an argument may stand rewritten.

    What has another shape than a template is left as it is.

    Raises:
        _Unfit: an argument stands where it cannot.
    """
    task = _object(task)
    resolved: Object = {"run": _rewritten_run(_object(task.get("run")), rewrite)}
    if "env" in task:
        resolved["env"] = _rewritten_values("env", task["env"], rewrite)
    if "workingDir" in task:
        resolved["workingDir"] = _rewritten_text("workingDir", task["workingDir"], rewrite)
    if "memoryMiB" in (resources := _object(task.get("resources"))):
        resolved["memoryMiB"] = resources["memoryMiB"]
    return resolved


def _rewritten_run(run: Object, rewrite: Rewrite) -> Object:
    for dollars, name in _REFERENCE.findall(str(_object(run.get("script")).get("source", ""))):
        if len(dollars) % 2:
            raise _Unfit(
                f"task.run.script.source: $(args.{name}) is not substituted in a script, where its value would be "
                f"code; give an environment variable of task.env the value $(args.{name}), and use that"
            )
    if isinstance(run.get("command"), list):
        words = enumerate(run["command"])
        run["command"] = [_rewritten_text(f"run.command[{number}]", word, rewrite) for number, word in words]
    if isinstance(run.get("python"), dict):
        run["python"] = dict(run["python"])
    if isinstance(run.get("http"), dict):
        call = run["http"] = dict(run["http"])
        for field in ("url", "body"):
            if field in call:
                call[field] = _rewritten_text(f"run.http.{field}", call[field], rewrite)
        if "headers" in call:
            call["headers"] = _rewritten_values("run.http.headers", call["headers"], rewrite)
    return run


def _rewritten_values(where: str, items: Any, rewrite: Rewrite) -> Any:
    if not isinstance(items, list):
        return items
    return [
        {**item, "value": _rewritten_text(f"{where}[{number}].value", item["value"], rewrite)}
        if isinstance(item, dict) and "value" in item
        else item
        for number, item in enumerate(items)
    ]


def _rewritten_text(where: str, text: Any, rewrite: Rewrite) -> Any:
    return rewrite(where, text) if isinstance(text, str) else text


def _object(value: Any) -> Object:
    return dict(value) if isinstance(value, Mapping) else {}


def _trouble(resolved: Object) -> Problem | None:
    """Return why the API server would not take a resolved run, or the worker not run it."""
    if problem := check_size("what the Task comes to", resolved, MAX_BYTES):
        return problem
    if nesting(resolved) > MAX_NESTING:
        return Problem(f"what the Task comes to is nested more than {MAX_NESTING} levels deep")
    try:
        ResolvedRun.model_validate(resolved)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return Problem(f"what the Task comes to cannot be used: {where}: {first['msg']}")
    return None
