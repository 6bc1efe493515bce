"""From a pydantic model to the structural schema of a CRD.

Kubernetes accepts a small part of JSON Schema: no references, no `anyOf` with null, a type everywhere. Optional fields
are simply not required.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_DROPPED = ("title", "$defs", "discriminator", "propertyNames")


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model, with every reference inlined."""
    root = model.model_json_schema(by_alias=True)
    schema: Schema = _convert(root, root.get("$defs", {}))
    return schema


def _convert(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_convert(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        # What stands beside a reference (the field's own description) wins over what it refers to.
        return _convert({**definitions[node["$ref"].rsplit("/", 1)[-1]], **_without(node, "$ref")}, definitions)
    if "anyOf" in node:
        (option,) = (option for option in node["anyOf"] if option.get("type") != "null")
        return _convert({**option, **_without(node, "anyOf")}, definitions)
    schema: Schema = {}
    for key, value in node.items():
        if key in _DROPPED or (key == "default" and value is None):
            continue
        if key == "patternProperties":
            # The keys of a map cannot have a pattern here; a rule may say what they must be like.
            (values,) = value.values()
            schema["additionalProperties"] = _convert(values, definitions)
        elif key == "properties":
            schema[key] = {name: _convert(child, definitions) for name, child in value.items()}
        elif key == "description":
            schema[key] = " ".join(value.split())
        elif key != "required" or value:
            schema[key] = _convert(value, definitions)
    if schema.get("type") == "integer":
        schema["format"] = "int32" if schema.get("maximum", 2**63) < 2**31 else "int64"
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.pop("additionalProperties", None)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return schema


def _without(node: Schema, key: str) -> Schema:
    return {name: value for name, value in node.items() if name != key}
