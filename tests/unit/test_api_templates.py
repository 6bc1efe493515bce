"""Templates: arguments judged by a schema, put in their places, and no input that is not answered."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.test_api_crd import walk

from taskmaster.api import decode
from taskmaster.api.crd import tasktemplate_crd
from taskmaster.api.json_schema import STEPS
from taskmaster.api.json_values import MESSAGE_CHARACTERS
from taskmaster.api.models.taskstatus import ResolvedRun
from taskmaster.api.templates import Problem, check_places, check_schema, resolve
from taskmaster.core.requirements import Operator, Requirement
from taskmaster.core.template import Template

Object = dict[str, Any]

ECHO: Object = {"command": ["echo", "$(args.x)"]}


def schema(x: Any = None, **more: Any) -> Object:
    """A schema of one argument, x."""
    return {"type": "object", "properties": {} if x is None else {"x": x}, **more}


def template(run: Any = ECHO, *, parameters: Any = None, problem: str = "", **task: Any) -> Template:
    spec = {"task": {"run": run, **task}, **({} if parameters is None else {"parameters": parameters})}
    return Template("convert", spec=spec, problem=problem)


def message(found: Object | Problem | None) -> str:
    assert isinstance(found, Problem), found
    return found.message


def run(found: Object | Problem) -> Object:
    assert isinstance(found, dict), found
    return dict(found["run"])


# ---- what a template says


def test_a_template_is_decoded_with_the_defaults_that_it_gives() -> None:
    spec = {
        "task": {
            "run": ECHO,
            "resources": {"slots": 2, "memoryMiB": 64},
            "requires": {"matchLabels": {"gpu": "true"}},
            "retry": {"limit": 1},
            "ttlSecondsAfterFinished": 7,
        }
    }
    found = decode.template({"metadata": {"name": "t"}, "spec": spec})
    assert (found.name, found.slots, found.ttl_seconds, found.overrides.limit) == ("t", 2, 7, 1)
    assert found.requires == (Requirement("gpu", Operator.IN, ("true",)),)
    assert (found.problem, found.spec) == ("", spec)


def test_a_template_that_says_nothing_overrides_nothing() -> None:
    found = decode.template({"metadata": {"name": "t"}, "spec": {"task": {"run": ECHO}}})
    assert (found.slots, found.requires, found.ttl_seconds, found.overrides) == (
        None,
        None,
        None,
        Template("").overrides,
    )


# ---- schemas

BAD_SCHEMAS: list[tuple[str, Any, str]] = [
    ("no object", [], "parameters: [] is not a JSON Schema, which is an object"),
    ("not an object of arguments", {"type": "string"}, 'parameters.type: "string" is not "object"'),
    ("another draft", {"$schema": "http://json-schema.org/draft-07/schema#"}, "parameters.$schema: "),
    ("a dialect that is no text", {"$schema": 7}, "parameters.$schema: 7 is not"),
    ("a misspelt type", schema({"type": "int"}), 'parameters.properties.x.type: "int" is none of "array", "boolean"'),
    ("a list for an object", {"properties": []}, "parameters.properties: [] is not an object"),
    ("a text for a list", {"required": "x"}, 'parameters.required: "x" is not an array'),
    ("a negative length", schema({"minLength": -1}), "parameters.properties.x.minLength: -1 is less than 0"),
    ("an address to fetch", schema({"$ref": "https://example.com/s"}), "nothing is fetched"),
    ("a file to read", schema({"$ref": "file:///etc/passwd"}), "nothing is fetched"),
    ("a place that is not there", schema({"$ref": "#/$defs/no"}), 'x.$ref: "#/$defs/no" is no schema in this one'),
    ("a place that is no schema", schema({"const": {"$ref": "#"}, "$ref": "#/properties/x/const"}), "is no schema in"),
    ("an anchor", schema({"$ref": "#a"}, **{"$defs": {"a": {"$anchor": "a"}}}), '"#a" is no schema in this one'),
    ("an encoded place", schema({"$ref": "#/%24defs/a"}, **{"$defs": {"a": {}}}), "is no schema in this one"),
    (
        "another base",
        schema({"$id": "https://example.com/"}),
        "parameters.properties.x.$id: this keyword cannot be used",
    ),
    (
        "another dialect within",
        schema({"$schema": "http://json-schema.org/draft-07/schema#"}),
        "x.$schema: this keyword",
    ),
    ("a dynamic reference", schema({"$dynamicRef": "#"}), "$dynamicRef: this keyword cannot be used"),
    ("what is left over", {"unevaluatedProperties": False}, "parameters.unevaluatedProperties: this keyword cannot"),
    ("deep inside", schema({"anyOf": [{}, {"items": {"$ref": "x"}}]}), "parameters.properties.x.anyOf.1.items.$ref:"),
    ("no regular expression", schema({"pattern": "(a"}), 'x.pattern: "(a" is no regular expression of RE2: missing )'),
    (
        "one that only Python knows",
        schema({"pattern": "(?=a)"}),
        "is no regular expression of RE2: invalid perl operator",
    ),
    ("a name that is none", {"patternProperties": {"[": {}}}, 'parameters.patternProperties: "[" is no regular expr'),
    ("a default that does not fit", schema({"type": "integer", "default": "b"}), 'x.default: "b" is not an integer'),
    (
        "a default that does not fit a reference",
        schema({"$ref": "#/$defs/a", "default": 5}, **{"$defs": {"a": {"type": "string"}}}),
        "parameters.properties.x.default: 5 is not a string",
    ),
    ("too large", schema({"description": "x" * 16_384}), "bytes of JSON are more than 16384"),
]


@pytest.mark.parametrize(
    ("parameters", "expected"), [each[1:] for each in BAD_SCHEMAS], ids=[e[0] for e in BAD_SCHEMAS]
)
def test_a_bad_schema_is_refused_with_the_place_of_the_fault(parameters: Any, expected: str) -> None:
    assert expected in message(check_schema(parameters))


GOOD_SCHEMAS: list[tuple[str, Any]] = [
    ("nothing", {}),
    ("its own dialect", {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/me"}),
    ("references", schema({"$ref": "#/$defs/a~1b"}, **{"$defs": {"a/b": {"type": "string"}}})),
    (
        "recursion over a list",
        schema({"$ref": "#/$defs/tree"}, **{"$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}}),
    ),
    (
        "names of keywords as names of arguments",
        {"properties": {"$ref": {"type": "string"}, "$id": True, "pattern": {}}},
    ),
    ("keywords in data", schema({"enum": [{"$ref": "https://example.com"}], "examples": [{"$id": 5}]})),
    ("regular expressions that Python does not know", schema({"pattern": r"^\pL+\z"})),
    ("unknown words", schema({"format": "date", "x-mine": 5})),
]


@pytest.mark.parametrize("parameters", [each[1] for each in GOOD_SCHEMAS], ids=[each[0] for each in GOOD_SCHEMAS])
def test_a_good_schema_is_taken(parameters: Any) -> None:
    assert check_schema(parameters) is None


# ---- arguments

BAD_ARGS: list[tuple[Object, Any, str]] = [
    (schema({"type": "integer"}), {"x": "big"}, 'spec.args.x: "big" is not an integer'),
    (schema({"type": "integer"}), {"x": True}, "spec.args.x: true is not an integer"),
    (schema({"type": ["string", "null"]}), {"x": 5}, "spec.args.x: 5 is not a string or null"),
    (schema({"type": "array", "items": {"type": "object"}}), {"x": [{}, 5]}, "spec.args.x[1]: 5 is not an object"),
    (schema({"enum": ["a", 1]}), {"x": "b"}, 'spec.args.x: "b" is none of "a", 1'),
    (schema({"const": {"a": 1}}), {"x": "b"}, 'spec.args.x: "b" is not {"a":1}'),
    (schema({"minimum": 3}), {"x": 2}, "spec.args.x: 2 is less than 3"),
    (schema({"exclusiveMaximum": 3}), {"x": 3}, "spec.args.x: 3 is not less than 3"),
    (schema({"multipleOf": 3}), {"x": 4}, "spec.args.x: 4 is not a multiple of 3"),
    (schema({"maxLength": 1}), {"x": "ab"}, 'spec.args.x: "ab" is longer than 1 characters'),
    (schema({"pattern": "^[a-z]+$"}), {"x": "A"}, 'spec.args.x: "A" does not match "^[a-z]+$"'),
    (schema({"uniqueItems": True}), {"x": [1, {"a": 1}, 1.0]}, 'spec.args.x: [1,{"a":1},1.0] has the same item twice'),
    (schema({"minItems": 1}), {"x": []}, "spec.args.x: [] has fewer than 1 items"),
    (schema({"anyOf": [{"type": "string"}, {"minimum": 5}]}), {"x": 1}, "spec.args.x: 1 is not a string and 1 is less"),
    (schema({"oneOf": [{}, {}]}), {"x": 1}, "spec.args.x: 1 does not fit exactly one of the schemas of oneOf"),
    (schema({"not": {}}), {"x": 1}, "spec.args.x: 1 is what must not be"),
    (schema({"prefixItems": [False]}), {"x": [1]}, "spec.args.x: 1 is not allowed"),
    (schema(False), {"x": 1}, "spec.args.x: not allowed"),
    (schema({}, required=["x"]), {}, "spec.args.x: required"),
    (schema({}, additionalProperties=False), {"y": 1}, "spec.args.y: unknown; there are x"),
    ({"patternProperties": {"^n": {"type": "integer"}}}, {"n1": "a"}, 'spec.args.n1: "a" is not an integer'),
    (
        {"patternProperties": {"^n": {}}, "additionalProperties": {"type": "string"}},
        {"n1": 1, "m": 1},
        "spec.args.m: 1 is not a string",
    ),
    ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, 'spec.args: "ab" is longer than 1 characters'),
    ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, 'spec.args: {"a":1} lacks what it has to come with'),
    ({"minProperties": 1}, None, "spec.args: {} has fewer than 1 members"),
    (schema(), [1], "spec.args: [1] is not an object"),
    (schema(), {"x": "y" * 16_384}, "bytes of JSON are more than 16384"),
]


@pytest.mark.parametrize(("parameters", "args", "expected"), BAD_ARGS, ids=[str(each[0])[:60] for each in BAD_ARGS])
def test_bad_arguments_are_refused_with_the_path_the_value_and_what_is_expected(
    parameters: Object, args: Any, expected: str
) -> None:
    assert check_schema(parameters) is None
    assert expected in message(resolve(template({"command": ["true"]}, parameters=parameters), args))


def test_the_first_three_faults_are_told() -> None:
    parameters = {"properties": {name: {"type": "integer"} for name in "abcde"}}
    said = message(resolve(template({"command": ["true"]}, parameters=parameters), dict.fromkeys("abcde", "no")))
    assert said.split("; ") == [
        'spec.args.a: "no" is not an integer',
        'args.b: "no" is not an integer',
        'args.c: "no" is not an integer',
    ]


def test_messages_are_bounded() -> None:
    parameters = {"properties": {name * 200: {"enum": [name * 900]} for name in "abc"}}
    args = {name * 200: "x" * 5_000 for name in "abc"}
    assert len(message(resolve(template({"command": ["true"]}, parameters=parameters), args))) <= MESSAGE_CHARACTERS


def test_defaults_of_top_level_properties_are_filled_in() -> None:
    parameters = schema({"type": "integer", "default": 7}, required=["x"])
    assert run(resolve(template(parameters=parameters), None))["command"] == ["echo", "7"]
    assert run(resolve(template(parameters=parameters), {"x": 8}))["command"] == ["echo", "8"]


def test_without_parameters_any_arguments_will_do() -> None:
    assert run(resolve(template(), {"x": [1, 2], "y": None}))["command"] == ["echo", "[1,2]"]


def test_deep_arguments_are_refused_before_anything_walks_them() -> None:
    deep: Any = 1
    for _ in range(33):
        deep = [deep]
    assert "more than 32 levels" in message(resolve(template(), {"x": deep}))
    for _ in range(5_000):
        deep = [deep]
    assert "cannot be written as JSON" in message(resolve(template(), {"x": deep}))


# ---- work


def doubling(lines: int) -> Object:
    """A schema that doubles the work with each line."""
    names = {f"a{line}": {"allOf": [{"$ref": f"#/$defs/a{line + 1}"}] * 2} for line in range(lines)}
    return {"$ref": "#/$defs/a0", "$defs": {**names, f"a{lines}": {}}}


EXPENSIVE: list[tuple[str, Object, Any]] = [
    ("references that double the work", doubling(60), {}),
    ("an enum per item", schema({"items": {"enum": [f"v{n}" for n in range(1_500)]}}), {"x": ["v1499"] * 1_500}),
    (
        "patterns per name",
        {"patternProperties": {f"^{n}": {} for n in range(1_000)}},
        {str(number): 1 for number in range(1_000)},
    ),
    (
        "a long list again and again",
        schema({"allOf": [{"items": {}}] * 900}),
        {"x": [0] * 8_000},
    ),
]


@pytest.mark.parametrize(("parameters", "args"), [each[1:] for each in EXPENSIVE], ids=[each[0] for each in EXPENSIVE])
def test_work_is_bounded_whatever_the_schema(parameters: Object, args: Any) -> None:
    assert check_schema(parameters) is None
    started = time.process_time()
    assert f"more than {STEPS} steps" in message(resolve(template({"command": ["true"]}, parameters=parameters), args))
    assert time.process_time() - started < 2  # a tenth of it where nothing else runs; unbounded it would be hours


@pytest.mark.parametrize("parameters", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, schema({"$ref": "#/properties/x"})])
def test_a_schema_that_refers_to_itself_without_end_is_told_from_one_that_fits(parameters: Object) -> None:
    assert check_schema(parameters) is None
    assert "refers to itself without end" in message(resolve(template(parameters=parameters), {"x": 1}))


def test_a_regular_expression_takes_linear_time() -> None:
    parameters = schema({"pattern": "^(a+)+$"})
    started = time.process_time()
    assert "does not match" in message(resolve(template(parameters=parameters), {"x": "a" * 10_000 + "b"}))
    assert time.process_time() - started < 1


def test_a_list_of_thousands_is_still_judged() -> None:
    parameters = schema({"items": {"type": "integer"}, "uniqueItems": True})
    assert check_schema(parameters) is None
    assert run(resolve(template(parameters=parameters), {"x": list(range(3_000))}))


def test_what_is_referred_to_cannot_leave_our_keywords() -> None:
    """The library chooses another validator, with Python's regular expressions, where a schema names a dialect."""
    parameters = {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"x": {"$ref": "#/$defs/a"}}}
    parameters["$defs"] = {"a": {"pattern": r"^\pL+\z"}}
    assert run(resolve(template(parameters=parameters), {"x": "é"}))
    assert "does not match" in message(resolve(template(parameters=parameters), {"x": "5"}))


# ---- places

SUBSTITUTED: list[tuple[str, Any, str]] = [
    ("$(args.x)", "a b", "a b"),
    ("-$(args.x)-$(args.x)-", "a", "-a-a-"),
    ("$(args.x)", 5, "5"),
    ("$(args.x)", 1.5, "1.5"),
    ("$(args.x)", True, "true"),
    ("$(args.x)", None, "null"),
    ("$(args.x)", {"a": [1, "é"]}, '{"a":[1,"é"]}'),
    ("$$(args.x)", "a", "$(args.x)"),
    ("$$$(args.x)", "a", "$a"),
    ("$$$$(args.x)", "a", "$$(args.x)"),
    ("$$(args.unknown)", "a", "$(args.unknown)"),
    ("$(args.x)", "$(args.x)", "$(args.x)"),
    ("$(HOME) $x ${args.x} $(args) $(args.", "a", "$(HOME) $x ${args.x} $(args) $(args."),
]


@pytest.mark.parametrize(("text", "value", "expected"), SUBSTITUTED)
def test_a_reference_stands_for_its_argument(text: str, value: Any, expected: str) -> None:
    assert run(resolve(template({"command": [text]}), {"x": value}))["command"] == [expected]


def test_arguments_stand_wherever_there_is_a_string_to_run_with() -> None:
    call = {
        "method": "POST",
        "url": "$(args.x)://host/",
        "headers": [
            {"name": "a", "value": "$(args.x)"},
            {"name": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "body": "<$(args.x)>",
        "timeoutSeconds": 5,
    }
    asked = template(
        {"http": call},
        env=[
            {"name": "A", "value": "$(args.x)"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        workingDir="/srv/$(args.x)",
        resources={"memoryMiB": 64, "slots": 3},
        retry={"limit": 1},
    )
    before = copy.deepcopy(asked.spec)
    assert resolve(asked, {"x": "http"}) == {
        "run": {
            "http": {
                **call,
                "url": "http://host/",
                "headers": [{"name": "a", "value": "http"}, call["headers"][1]],  # type: ignore[index]
                "body": "<http>",
            }
        },
        "env": [{"name": "A", "value": "http"}, before["task"]["env"][1]],
        "workingDir": "/srv/http",
        "memoryMiB": 64,
    }
    assert asked.spec == before


def test_a_python_function_gets_the_arguments_as_they_are_over_those_of_the_template() -> None:
    call = {"python": {"callable": "m:f", "args": {"x": 0, "kept": "$(args.x)"}}}
    asked = template(call, parameters=schema(None, properties={"n": {"default": 3}}))
    assert run(resolve(asked, {"x": [1, {"y": None}]})) == {
        "python": {"callable": "m:f", "args": {"x": [1, {"y": None}], "kept": "$(args.x)", "n": 3}}
    }
    assert call["python"]["args"] == {"x": 0, "kept": "$(args.x)"}


def test_nothing_is_substituted_in_a_script() -> None:
    script = {"script": {"source": "echo $$(args.x) $(date)"}}
    assert run(resolve(template(script), {"x": "a"})) == script


BAD_PLACES: list[tuple[str, Template, Any, str]] = [
    (
        "in a script",
        template({"script": {"source": "rm -r $(args.x)"}}),
        {"x": "/"},
        "in the TaskTemplate convert, task.run.script.source: $(args.x) is not substituted in a script, where its "
        "value would be code; give an environment variable of task.env the value $(args.x), and use that",
    ),
    ("unknown", template({"command": ["$(args.y)"]}), {"x": 1}, "task.run.command[0]: args.y is unknown; there are x"),
    ("unknown and none", template(), {}, "args.x is unknown; there are no arguments"),
    (
        "known and not given",
        template(parameters=schema({})),
        {},
        "task.run.command[1]: args.x has neither a value nor a default",
    ),
    ("too long", template({"command": ["$(args.x)" * 10]}), {"x": "y" * 10_000}, "it has more than 65536 bytes"),
    ("too much", template({"command": ["$(args.x)"] * 10}), {"x": "y" * 10_000}, "it has more than 65536 bytes"),
    ("large as it is", template({"command": ["y" * 70_000]}), {}, "bytes of JSON are more than 65536"),
    (
        "no address",
        template({"http": {"url": "$(args.x)"}}),
        {"x": "ftp://host"},
        "what the Task comes to cannot be used: run.http.url: String should match pattern '^https?://.+$'",
    ),
    (
        "too long a directory",
        template(workingDir="/$(args.x)"),
        {"x": "y" * 4_096},
        "workingDir: String should have at most 4096 characters",
    ),
    (
        "unusable",
        template(problem="parameters: no"),
        {"x": 1},
        "the TaskTemplate convert cannot be used: parameters: no",
    ),
]


@pytest.mark.parametrize(
    ("asked", "args", "expected"), [each[1:] for each in BAD_PLACES], ids=[e[0] for e in BAD_PLACES]
)
def test_what_comes_to_nothing_is_told(asked: Template, args: Any, expected: str) -> None:
    assert expected in message(resolve(asked, args))


def test_faults_of_the_places_are_found_without_any_arguments() -> None:
    closed = schema({}, additionalProperties=False)
    assert "$(args.x) is not substituted" in message(check_places(template({"script": {"source": "$(args.x)"}}).spec))
    asked = template({"command": ["$(args.x)", "$(args.z)"]}, parameters=closed)
    assert message(check_places(asked.spec)) == "task.run.command[1]: args.z is unknown; there are x"
    assert check_places(template({"command": ["$(args.x)", "$$(args.z)"]}, parameters=closed).spec) is None
    assert check_places(template({"command": ["$(args.z)"]}, parameters=schema({})).spec) is None


def test_every_string_of_a_run_is_either_substituted_or_known_not_to_be() -> None:
    """A string that is added to the schema has to be decided about."""
    task = tasktemplate_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "task"
    ]
    strings = {
        path
        for half in ("run", "env", "workingDir")
        for path, each in walk(half, task["properties"][half])
        if each.get("type") == "string" and "enum" not in each and "valueFrom" not in path
    }
    substituted = {
        "run.command[]",
        "run.http.url",
        "run.http.body",
        "run.http.headers[].value",
        "env[].value",
        "workingDir",
    }
    left_alone = {"run.script.source", "run.script.interpreter", "run.python.callable"}
    assert strings - {"env[].name", "run.http.headers[].name"} == substituted | left_alone


@pytest.mark.parametrize("text", ["$" * 200_000, "$(args." * 30_000, "$(args.x" * 20_000, "$$(args.x)" * 6_000])
def test_looking_for_references_takes_linear_time(text: str) -> None:
    started = time.process_time()
    resolve(template({"command": [text]}), {"x": "y"})
    assert time.process_time() - started < 1


# ---- anything

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
KEYWORDS = st.sampled_from(
    [
        *(
            "$ref",
            "$defs",
            "$schema",
            "$id",
            "type",
            "properties",
            "patternProperties",
            "additionalProperties",
            "items",
        ),
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "enum", "const", "default", "required", "pattern"),
        *("multipleOf", "minimum", "maxLength", "minItems", "uniqueItems", "contains", "minContains", "prefixItems"),
        *("propertyNames", "dependentRequired", "dependentSchemas", "format", "x"),
    ]
)
WORDS = st.sampled_from(
    ["#", "#/$defs/x", "#/properties/x", "string", "integer", "object", "array", "^x", "x", "(", ""]
)
SCHEMAS = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.dictionaries(KEYWORDS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)
NAMED = st.fixed_dictionaries({}, optional={"properties": st.dictionaries(st.sampled_from("xy"), SCHEMAS, max_size=2)})
ARGS = JSON | st.dictionaries(st.sampled_from("xyz"), JSON, max_size=3)
TEXTS = st.sampled_from(["$(args.x)", "$$(args.y)", "$(args.nobody)", "plain", "$(args.x"]) | st.text(max_size=8)
RUNS = st.fixed_dictionaries(
    {},
    optional={
        "command": st.lists(TEXTS, max_size=3) | JSON,
        "script": st.fixed_dictionaries({"source": TEXTS}) | JSON,
        "python": st.fixed_dictionaries({"callable": st.just("m:f")}, optional={"args": JSON}) | JSON,
        "http": st.fixed_dictionaries({}, optional={"url": TEXTS, "headers": JSON, "body": TEXTS | JSON}) | JSON,
    },
)
TASKS = st.fixed_dictionaries(
    {"run": RUNS | JSON}, optional={"env": JSON, "workingDir": TEXTS | JSON, "resources": JSON}
)


@settings(max_examples=200)
@given(parameters=SCHEMAS | NAMED | JSON, args=ARGS)
@example(parameters={"properties": {"x": {"multipleOf": 1e-320}}}, args={"x": 1e308})
@example(parameters={"properties": {"x": {"multipleOf": 0.5}}}, args={"x": 2**63})
@example(parameters={"properties": {"x": {"enum": [float("nan")]}}}, args={"x": float("inf")})
def test_any_schema_and_any_arguments_are_answered(parameters: Any, args: Any) -> None:
    assert check_schema(parameters) is None or message(check_schema(parameters))
    if check_schema(parameters) is None:
        found = resolve(template({"command": ["true"]}, parameters=parameters), args)
        assert isinstance(found, Problem) or run(found) == {"command": ["true"]}


@settings(max_examples=200)
@given(task=TASKS | JSON, args=ARGS)
def test_any_template_is_answered_by_a_run_that_the_schema_knows_or_by_a_problem(task: Any, args: Any) -> None:
    asked = Template("t", spec={"task": task})
    check_places(asked.spec)
    found = resolve(asked, args)
    if isinstance(found, Problem):
        assert 0 < len(found.message) <= MESSAGE_CHARACTERS
    else:
        ResolvedRun.model_validate(found)
        assert check_places(asked.spec) is None
