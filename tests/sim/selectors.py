"""Label and field selectors, as far as Taskmaster uses them: equality, inequality, existence; comma is "and"."""

from collections.abc import Callable
from typing import Any

from taskmaster.kube.errors import ApiError
from taskmaster.kube.resource import Object, Resource

Predicate = Callable[[Object], bool]

SELECTABLE = {
    "tasks": {"status.phase", "status.reason", "status.assignment.worker", "status.deadLettered", "spec.queue"},
    "pods": {"spec.nodeName", "status.phase"},
}


def field_predicate(resource: Resource, selector: str) -> Predicate:
    """An absent field is the empty string; a field that is not selectable is a bad request."""
    supported = {"metadata.name", "metadata.namespace"} | SELECTABLE.get(resource.plural, set())
    tests = [_requirement(part, "field") for part in selector.split(",") if part]
    for key, _, _ in tests:
        if key not in supported:
            raise ApiError(f"field label not supported: {key}", status=400, reason="BadRequest")
    return lambda item: all((_field(item, key) == value) is wanted for key, value, wanted in tests)


def label_predicate(selector: str) -> Predicate:
    """`a=b`, `a==b`, `a!=b`, `a`, `!a`."""
    tests: list[Predicate] = []
    for part in (part.strip() for part in selector.split(",") if part.strip()):
        if "=" in part:
            key, value, wanted = _requirement(part, "label")
            tests.append(lambda item, k=key, v=value, w=wanted: (_labels(item).get(k) == v) is w)  # type: ignore[misc]
        elif part.startswith("!"):
            absent = part[1:].strip()
            tests.append(lambda item, k=absent: k not in _labels(item))  # type: ignore[misc]
        else:
            tests.append(lambda item, k=part: k in _labels(item))  # type: ignore[misc]
    return lambda item: all(test(item) for test in tests)


def _requirement(part: str, what: str) -> tuple[str, str, bool]:
    for operator, wanted in (("!=", False), ("==", True), ("=", True)):
        key, found, value = part.partition(operator)
        if found:
            return key.strip(), value.strip(), wanted
    raise ApiError(f"invalid {what} selector {part!r}", status=400, reason="BadRequest")


def _labels(item: Object) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _field(item: Object, path: str) -> str:
    here: Any = item
    for token in path.split("."):
        here = here.get(token) if isinstance(here, dict) else None
    if isinstance(here, bool):
        return "true" if here else "false"
    return "" if here is None else str(here)
