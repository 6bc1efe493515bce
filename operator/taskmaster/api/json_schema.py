"""The validator of `parameters`: jsonschema's for draft 2020-12, with bounded work and with messages for users.

Each evaluation of a keyword takes a step, and more where it looks at long lists; when `STEPS` are used up the value is
refused. Keywords that look at names or texts by regular expressions are our own, with RE2. What the library says about
a value, in terms of Python, is said in terms of JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import orjson
import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from taskmaster.api.json_values import Problem, path_of, shown

STEPS: Final = 10_000
"""How many keywords may be evaluated for one value: about a tenth of a second."""
ERRORS_SHOWN: Final = 3
VALUES_SHOWN: Final = 20

Schema = Mapping[str, Any]
Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]

_steps: ContextVar[int] = ContextVar("steps")


class _TooMuchWork(Exception):
    """All steps are used up."""


def schema_problem(schema: Schema, root: str) -> Problem | None:
    """Return why something is no JSON Schema; None if it is one."""
    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    try:
        error = best_match(meta.iter_errors(schema))
    except RecursionError:
        return Problem(f"{root}: it is nested too deeply")
    return Problem(_said(error, root)) if error is not None else None


def value_problem(schema: Schema, value: Any, root: str, *, part: Schema | None = None) -> Problem | None:
    """Return what is wrong with a value, the first few errors; None if it fits.

    Args:
        schema: what references lead into.
        value: what is judged, whose nesting is bounded.
        root: what the value is called.
        part: the schema that it has to fit, if that is not `schema`.
    """
    validator = _Validator(dict(schema), registry=Registry())
    spent = _steps.set(0)
    try:
        errors = validator.descend(value, part) if part is not None else validator.iter_errors(value)
        said = [_said(error, root) for error in islice(errors, ERRORS_SHOWN)]
    except _TooMuchWork:
        return Problem(f"{root}: judging it by the schema takes more than {STEPS} steps; make either of them simpler")
    except RecursionError:
        return Problem(f"{root}: the schema refers to itself without end, or the value is nested too deeply for it")
    except Exception as error:  # A fault of the library must cost one Task, not the coordinator.
        return Problem(f"{root}: it cannot be judged by the schema: {error!r}")
    finally:
        _steps.reset(spent)
    return Problem("; ".join(dict.fromkeys(said))) if said else None


@lru_cache(maxsize=1_024)
def regular_expression(pattern: str) -> Any:
    """Compile a regular expression.

    Raises:
        re2.error: it is none of RE2.
    """
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


# ---- keywords


def _spend(steps: int) -> None:
    spent = _steps.get() + steps
    if spent > STEPS:
        raise _TooMuchWork
    _steps.set(spent)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, Mapping | list) else len(value) // 16 if isinstance(value, str) else 0


def _counted(keyword: Keyword) -> Keyword:
    def evaluate(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterable[ValidationError] | None:
        _spend(1 + _length(wanted) // 16 + _length(value) // 4)
        return keyword(validator, wanted, value, schema)

    return evaluate


def _pattern(validator: Any, pattern: str, value: Any, schema: Schema) -> Iterator[ValidationError]:
    if isinstance(value, str) and not regular_expression(pattern).search(value):
        yield ValidationError("")


def _pattern_properties(validator: Any, patterns: Schema, value: Any, schema: Schema) -> Iterator[ValidationError]:
    if isinstance(value, Mapping):
        _spend(len(patterns) * len(value) // 4)
        for pattern, wanted in patterns.items():
            for name in value:
                if regular_expression(pattern).search(name):
                    yield from validator.descend(value[name], wanted, path=name)


def _additional_properties(validator: Any, wanted: Any, value: Any, schema: Schema) -> Iterator[ValidationError]:
    if not isinstance(value, Mapping):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    _spend(len(patterns) * len(value) // 4)
    for name in value:
        if name in known or any(regular_expression(pattern).search(name) for pattern in patterns):
            continue
        if wanted is False:
            yield ValidationError(f"unknown; there are {', '.join(sorted(known))}" if known else "unknown", path=[name])
        else:
            yield from validator.descend(value[name], wanted, path=name)


def _properties(validator: Any, properties: Schema, value: Any, schema: Schema) -> Iterator[ValidationError]:
    # The library's own does not say which property it is that may not be there.
    for name, wanted in properties.items() if isinstance(value, Mapping) else ():
        if name in value and wanted is False:
            yield ValidationError("not allowed", path=[name])
        elif name in value:
            yield from validator.descend(value[name], wanted, path=name)


def _required(validator: Any, names: list[str], value: Any, schema: Schema) -> Iterator[ValidationError]:
    if isinstance(value, Mapping):
        for name in names:
            if name not in value:
                yield ValidationError("required", path=[name])


def _unique_items(validator: Any, wanted: bool, value: Any, schema: Schema) -> Iterator[ValidationError]:
    if wanted and isinstance(value, list):
        _spend(len(value))
        # In JSON Schema 1.0 is 1; the library compares each item with each other.
        items = (int(item) if isinstance(item, float) and item.is_integer() else item for item in value)
        if len({orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in items}) < len(value):
            yield ValidationError("")


_OWN: Final[dict[str, Keyword]] = {
    "additionalProperties": _additional_properties,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "properties": _properties,
    "required": _required,
    "uniqueItems": _unique_items,
}
_KEYWORDS: Final = {**Draft202012Validator.VALIDATORS, **_OWN}
_Validator: Final = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {name: _counted(keyword) for name, keyword in _KEYWORDS.items() if keyword is not None}
)


# ---- messages

_TYPES: Final = {"array": "an array", "integer": "an integer", "null": "null", "object": "an object"}
_SAID: Final[dict[str, str]] = {
    "const": "is not {}",
    "contains": "lacks the items that it has to contain, or has too many of them",
    "dependentRequired": "lacks what it has to come with: {}",
    "exclusiveMaximum": "is not less than {}",
    "exclusiveMinimum": "is not greater than {}",
    "maxItems": "has more than {} items",
    "maxLength": "is longer than {} characters",
    "maxProperties": "has more than {} members",
    "maximum": "is greater than {}",
    "minItems": "has fewer than {} items",
    "minLength": "is shorter than {} characters",
    "minProperties": "has fewer than {} members",
    "minimum": "is less than {}",
    "multipleOf": "is not a multiple of {}",
    "not": "is what must not be",
    "oneOf": "does not fit exactly one of the schemas of oneOf",
    "pattern": "does not match {}",
    "uniqueItems": "has the same item twice",
}


def _said(error: ValidationError, root: str) -> str:
    return f"{path_of(root, error.absolute_path)}: {_judgement(error)}"


def _judgement(error: ValidationError) -> str:
    what = shown(error.instance)
    keyword: Any = error.validator
    wanted: Any = error.validator_value
    match keyword:
        case "type":
            types = wanted if isinstance(wanted, list) else [wanted]
            return f"{what} is not {' or '.join(_TYPES.get(each, f'a {each}') for each in types)}"
        case "enum":
            return f"{what} is none of {', '.join(shown(each) for each in islice(wanted, VALUES_SHOWN))}"
        case "anyOf" if error.context:
            reasons = dict.fromkeys(_inner(each) for each in error.context)
            return " and ".join(islice(reasons, ERRORS_SHOWN))
        case None:
            return f"{what} is not allowed"
        case str() if keyword in _SAID:
            return f"{what} {_SAID[keyword].format(shown(wanted))}"
    return error.message


def _inner(error: ValidationError) -> str:
    where = path_of("", error.relative_path)
    return f"{where}: {_judgement(error)}" if where else _judgement(error)
