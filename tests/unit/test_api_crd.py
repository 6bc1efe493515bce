"""The schemas that users meet: up to date, described, and bounded everywhere."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskmaster.api import crd
from taskmaster.api.rules import ALWAYS_MUTABLE_SPEC_FIELDS
from taskmaster.core.phase import Phase

CRDS = Path(__file__).parents[2] / "crds"
Schema = dict[str, Any]

FREE_FORM = {
    "Task.spec.args",
    "Task.spec.run.python.args",
    "Task.status.checkpoint.data",
    "Task.status.resolvedRun.run.python.args",
    "Task.status.result",
    "TaskSchedule.spec.taskTemplate.spec.args",
    "TaskSchedule.spec.taskTemplate.spec.run.python.args",
    "TaskTemplate.spec.parameters",
    "TaskTemplate.spec.task.run.python.args",
    "WorkerPool.spec.template.affinity",
    "WorkerPool.spec.template.tolerations[]",
    "WorkerPool.spec.template.topologySpreadConstraints[]",
}
"""What a schema cannot bound; nothing else may be unbounded."""


@functools.cache
def definitions() -> list[Schema]:
    return crd.all_crds()


@functools.cache
def rendered() -> dict[str, str]:
    return crd.files()


def of(kind: str) -> Schema:
    (definition,) = (each for each in definitions() if each["spec"]["names"]["kind"] == kind)
    return root(definition)


def root(definition: Schema) -> Schema:
    schema: Schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def walk(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(f"{path}.{name}", child)
    if isinstance(schema.get("items"), dict):
        yield from walk(f"{path}[]", schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(f"{path}{{}}", schema["additionalProperties"])


@functools.cache
def nodes() -> list[tuple[str, Schema]]:
    return [
        (path, schema)
        for definition in definitions()
        for half in ("spec", "status")
        for path, schema in walk(f"{definition['spec']['names']['kind']}.{half}", root(definition)["properties"][half])
    ]


def test_files_are_what_the_models_say() -> None:
    assert {path.name: path.read_text() for path in CRDS.glob("*.yaml")} == rendered(), "run `make crds`"


def test_check_names_the_stale_file_and_writing_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crd, "files", rendered)

    def main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["crd", *arguments, str(tmp_path / "crds")])
        return crd.main()

    assert main() == 0
    (tmp_path / "crds" / "tasks.yaml").write_text("stale")
    assert main("--check") == 1
    said = capsys.readouterr().err
    assert "tasks.yaml is out of date" in said
    assert "workerpools.yaml" not in said
    assert main() == 0
    assert main("--check") == 0


def test_every_field_is_described() -> None:
    silent = [path for path, schema in nodes() if path[-1] not in "]}" and len(schema.get("description", "")) < 8]
    assert silent == [], "`kubectl explain` has nothing to say about them"


def bounded(schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return "maxLength" in schema
    match schema.get("type"):
        case "string":
            return "maxLength" in schema or "enum" in schema
        case "integer":
            return "minimum" in schema and "maximum" in schema
        case "array":
            return "maxItems" in schema
        case "object":
            return "properties" in schema or "maxProperties" in schema
        case other:
            return other == "boolean"


def test_every_field_is_bounded_but_for_the_free_form_ones() -> None:
    assert {path for path, schema in nodes() if not bounded(schema)} == FREE_FORM


def test_free_form_fields_are_those_we_know() -> None:
    assert {path for path, schema in nodes() if schema.get("x-kubernetes-preserve-unknown-fields")} == FREE_FORM


def test_schemas_are_structural() -> None:
    for path, schema in nodes():
        assert not {"$ref", "$defs", "title", "oneOf", "allOf", "not"} & set(schema), path
        assert "type" in schema or path in FREE_FORM or schema["x-kubernetes-int-or-string"], path
        assert set(schema.get("required", ())) <= set(schema.get("properties", ())), path


def test_names_are_camel_case_and_times_say_their_form() -> None:
    for path, schema in nodes():
        for name, child in schema.get("properties", {}).items():
            assert name[0].islower(), path
            assert "_" not in name, path
            if name.endswith("Time"):
                assert child["format"] == "date-time", path
            if name.endswith("Seconds"):
                assert child["type"] == "integer", path


def test_fields_for_which_a_queue_may_give_the_default_have_none_in_the_schema() -> None:
    spec = of("Task")["properties"]["spec"]
    for branch in ("retry", "timeouts", "ttlSecondsAfterFinished"):
        assert [path for path, schema in walk(branch, spec["properties"][branch]) if "default" in schema] == []


def test_new_task_needs_no_write_for_its_status() -> None:
    assert of("Task")["properties"]["status"]["default"] == {"phase": "Pending", "attempt": 0}


@pytest.mark.parametrize("definition", definitions()[1:], ids=lambda each: each["spec"]["names"]["kind"])
def test_what_lives_long_waits_for_its_first_observation(definition: Schema) -> None:
    assert root(definition)["properties"]["status"]["default"] == {"observedGeneration": 0}


def rules_below(schema: Schema) -> dict[str, list[Schema]]:
    return {
        path: each["x-kubernetes-validations"] for path, each in walk("", schema) if "x-kubernetes-validations" in each
    }


def test_the_spec_of_a_task_has_the_same_rules_wherever_it_stands() -> None:
    of_tasks = rules_below(of("Task")["properties"]["spec"])
    schedule = of("TaskSchedule")["properties"]["spec"]["properties"]["taskTemplate"]["properties"]["spec"]
    assert of_tasks == rules_below(schedule)
    template = of("TaskTemplate")["properties"]["spec"]["properties"]["task"]
    assert {path: rules for path, rules in of_tasks.items() if path} == rules_below(template)


def test_what_a_task_is_made_of_is_checked_alike_in_its_template() -> None:
    spec = of("Task")["properties"]["spec"]["properties"]
    template = of("TaskTemplate")["properties"]["spec"]["properties"]["task"]["properties"]
    resolved = of("Task")["properties"]["status"]["properties"]["resolvedRun"]["properties"]

    def bounds(name: str, fields: Schema) -> dict[str, Schema]:
        said = ("description", "properties", "items", "x-kubernetes-validations", "additionalProperties")
        return {path: {key: each[key] for key in each if key not in said} for path, each in walk(name, fields[name])}

    for name in template:
        differing = {path for path, each in bounds(name, template).items() if each != bounds(name, spec).get(path)}
        assert differing == ({"run.http.url"} if name == "run" else set())
    for name in ("run", "env", "workingDir"):
        assert bounds(name, resolved) == bounds(name, spec)


@pytest.mark.parametrize("definition", definitions(), ids=lambda each: each["spec"]["names"]["kind"])
def test_paths_of_columns_and_selectable_fields_exist(definition: Schema) -> None:
    version = definition["spec"]["versions"][0]
    kind = definition["spec"]["names"]["kind"]
    known = {path.removeprefix(kind): schema for path, schema in walk(kind, root(definition))}
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"].partition("[?")[0]
        assert path in known or path == ".metadata.creationTimestamp"
    for field in version.get("selectableFields", ()):
        assert known[field["jsonPath"]]["type"] in ("string", "boolean")
    assert len(version.get("selectableFields", ())) <= 8
    scale = version["subresources"].get("scale", {})
    assert all(path in known for path in scale.values())


COLUMNS = {
    "Task": (
        "PHASE QUEUE PRIORITY WORKER ATTEMPT REASON AGE",
        "NODE STARTED COMPLETED MESSAGE",
    ),
    "TaskQueue": (
        "WEIGHT PENDING RUNNING OLDEST PAUSED STATUS AGE",
        "MAX-RUNNING RATE PER-SECONDS BLOCKERS",
    ),
    "TaskTemplate": ("DESCRIPTION STATUS AGE", "MESSAGE"),
}
"""Those of `kubectl get`, and what `-o wide` adds."""


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_are_those_that_people_are_promised(kind: str) -> None:
    (definition,) = (each for each in definitions() if each["spec"]["names"]["kind"] == kind)
    by_width: dict[int, list[str]] = {0: [], 1: []}
    for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]:
        by_width[column["priority"]].append(column["name"].upper())
    assert tuple(" ".join(names) for names in by_width.values()) == COLUMNS[kind]


def test_no_rule_uses_the_optional_syntax() -> None:
    """It makes the cost that the API server estimates a hundred times too high."""
    rules = [
        rule["rule"]
        for definition in definitions()
        for _, schema in walk("", root(definition))
        for rule in schema.get("x-kubernetes-validations", ())
    ]
    assert rules
    assert not [rule for rule in rules if "?." in rule or "orValue" in rule]


def test_every_spec_field_is_either_frozen_after_the_first_assignment_or_named_as_mutable() -> None:
    rule = of("Task")["x-kubernetes-validations"][0]["rule"]
    fields = of("Task")["properties"]["spec"]["properties"]
    frozen = {name for name in fields if f"self.spec.{name})" in rule}
    assert frozen == set(fields) - set(ALWAYS_MUTABLE_SPEC_FIELDS)


def test_phases_of_the_schema_are_those_of_the_core() -> None:
    phase = of("Task")["properties"]["status"]["properties"]["phase"]
    assert phase["enum"] == [str(each) for each in Phase]
    assert all(str(each) in phase["description"] for each in Phase)


def test_files_say_that_they_are_generated() -> None:
    for text in rendered().values():
        assert text.startswith("# Generated")
        assert yaml.safe_load(text)["kind"] == "CustomResourceDefinition"
