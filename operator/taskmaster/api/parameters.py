"""What the arguments of a template must look like: its `parameters`, a JSON Schema written by a user.

Draft 2020-12 by the library jsonschema, less what a coordinator cannot afford on somebody else's word:

- Nothing is fetched: a `$ref` leads to a place of the same schema, such as `#/$defs/size`, or the schema is refused.
- Regular expressions are RE2's, as everywhere in Kubernetes. Python's own can take exponential time.
- The work is bounded, not only the size: references can double it with each line. See `json_schema.STEPS`.
- Some keywords are refused: `unevaluatedProperties` and `unevaluatedItems` are evaluated by the library outside of that
  bound, `$id` and `$schema` below the root would make it leave our keywords for its own, `$dynamicRef` hides where it
  leads.

`format` is an annotation, as the draft has it. The functions are total: whatever JSON they are given, they answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import re2

from taskmaster.api import json_schema
from taskmaster.api.json_values import Problem, check_size, nesting, path_of, shown

MAX_BYTES: Final = 16_384
"""The size of a schema, and of arguments, as JSON."""
MAX_NESTING: Final = 32
"""How deep arguments may be nested."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFUSED: Final = ("$id", "$schema", "$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties")
_SCHEMA: Final = (
    *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"),
)
_SCHEMAS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED_SCHEMAS: Final = ("$defs", "dependentSchemas", "patternProperties", "properties")

Schema = dict[str, Any]
Place = tuple[str, ...]


def check_schema(parameters: Any) -> Problem | None:
    """Return what is wrong with the `parameters` of a template, and where; None if they will do."""
    if not isinstance(parameters, Mapping):
        return Problem(f"parameters: {shown(parameters)} is not a JSON Schema, which is an object")
    if problem := check_size("parameters", parameters, MAX_BYTES):
        return problem
    dialect = parameters.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.removesuffix("#") != DIALECT:
        return Problem(f"parameters.$schema: {shown(dialect)} is not {DIALECT}, the one that is known here")
    if parameters.get("type", "object") != "object":
        return Problem(f'parameters.type: {shown(parameters["type"])} is not "object", and arguments are one')
    schema = _root(parameters)
    return json_schema.schema_problem(schema, "parameters") or _check_keywords(schema) or _check_defaults(schema)


def complete(parameters: Mapping[str, Any] | None, args: Any) -> dict[str, Any] | Problem:
    """Return the arguments with the defaults of top-level properties filled in, or what is wrong with them.

    The schema must have passed `check_schema`.
    """
    if not isinstance(args, Mapping):
        return Problem(f"args: {shown(args)} is not an object")
    if problem := check_size("args", args, MAX_BYTES):
        return problem
    if nesting(args) > MAX_NESTING:
        return Problem(f"args: they are nested more than {MAX_NESTING} levels deep")
    schema = _root(parameters or {})
    whole = _defaults(schema) | dict(args)
    return json_schema.value_problem(schema, whole, "args") or whole


def declared(parameters: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the arguments that a schema knows."""
    properties = (parameters or {}).get("properties")
    return list(properties) if isinstance(properties, Mapping) else []


def _root(parameters: Mapping[str, Any]) -> Schema:
    return {key: value for key, value in parameters.items() if key not in ("$id", "$schema")}


def _subschemas(schema: Schema) -> Iterator[tuple[Place, Any]]:
    """Yield each schema within a valid schema, itself included, with its place."""
    found: list[tuple[Place, Any]] = [((), schema)]
    while found:
        place, each = found.pop()
        yield place, each
        if not isinstance(each, Mapping):
            continue
        found += [((*place, key), each[key]) for key in _SCHEMA if key in each]
        for key in _SCHEMAS:
            found += [((*place, key, str(number)), child) for number, child in enumerate(each.get(key, ()))]
        for key in _NAMED_SCHEMAS:
            found += [((*place, key, name), child) for name, child in each.get(key, {}).items()]


def _check_keywords(schema: Schema) -> Problem | None:
    """Find what is valid in JSON Schema and cannot be used here."""
    places = dict(_subschemas(schema))
    for place, each in places.items():
        if not isinstance(each, Mapping):
            continue
        where = path_of("parameters", place)
        for keyword in _REFUSED:
            if keyword in each:
                return Problem(f"{where}.{keyword}: this keyword cannot be used here")
        if "$ref" in each and _target(each["$ref"]) not in places:
            return Problem(
                f"{where}.$ref: {shown(each['$ref'])} is no schema in this one; nothing is fetched, "
                "so put it under $defs and refer to #/$defs/NAME"
            )
        for keyword, pattern in _patterns(each):
            try:
                json_schema.regular_expression(pattern)
            except re2.error as error:
                return Problem(f"{where}.{keyword}: {shown(pattern)} is no regular expression of RE2: {_text(error)}")
    return None


def _text(error: re2.error) -> str:
    (said,) = error.args
    return said.decode() if isinstance(said, bytes) else str(said)


def _patterns(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "pattern" in schema:
        yield "pattern", schema["pattern"]
    for pattern in schema.get("patternProperties", ()):
        yield "patternProperties", pattern


def _target(reference: str) -> Place | None:
    """Return the place that a reference leads to, if it is of a form that can only lead into the schema."""
    if reference == "#":
        return ()
    if not reference.startswith("#/") or "%" in reference:
        return None
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in reference.removeprefix("#/").split("/"))


def _defaults(schema: Schema) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {
        name: each["default"] for name, each in properties.items() if isinstance(each, Mapping) and "default" in each
    }


def _check_defaults(schema: Schema) -> Problem | None:
    for name, default in _defaults(schema).items():
        where = path_of("parameters", ("properties", name, "default"))
        if nesting(default) >= MAX_NESTING:
            return Problem(f"{where}: it is nested more than {MAX_NESTING - 1} levels deep")
        if problem := json_schema.value_problem(schema, default, where, part=schema["properties"][name]):
            return problem
    return None
