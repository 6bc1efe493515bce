"""The chart's files among themselves; what Helm renders from them is tested with Helm, in the integration tests."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "taskmaster"
TEMPLATES = sorted(path for path in (CHART / "templates").rglob("*") if path.is_file())

# Objects whose keys the user makes up.
FREE = ("workerPools", "commonLabels", "podAnnotations", "podLabels", "nodeSelector", "affinity", "resources")
# Known to the schema and without a default.
WITHOUT_DEFAULT = {"global"}


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        found: dict[str, Any] = schema()["definitions"][node["$ref"].removeprefix("#/definitions/")]
        return found
    return node


def paths_of_schema(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, child in node.get("properties", {}).items():
        path = f"{prefix}{key}"
        if resolved(child).get("properties") and key not in FREE:
            yield from paths_of_schema(resolved(child), f"{path}.")
        else:
            yield path


def paths_of_values(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, child in node.items():
        path = f"{prefix}{key}"
        if isinstance(child, dict) and child and key not in FREE:
            yield from paths_of_values(child, f"{path}.")
        else:
            yield path


def changed(path: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(values())
    node = result
    *parents, last = path.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    return result


def test_the_default_values_keep_the_schema() -> None:
    jsonschema.validate(values(), schema())


def test_every_key_of_the_schema_has_a_default_value() -> None:
    assert set(paths_of_schema(schema())) - set(paths_of_values(values())) - WITHOUT_DEFAULT == set()


def test_the_schema_refuses_unknown_keys_on_every_level() -> None:
    def loose(node: dict[str, Any], path: str) -> Iterator[str]:
        if "properties" in node and node.get("additionalProperties") is not False:
            yield path
        for key, child in node.get("properties", {}).items():
            if isinstance(child, dict):
                yield from loose(resolved(child), f"{path}.{key}")

    assert list(loose(schema(), "values")) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("replcas", 2, id="a misspelt key"),
        pytest.param("image.tagg", "1", id="a misspelt key of an image"),
        pytest.param("image.tag", "bad tag", id="a tag with a space"),
        pytest.param("image.digest", "sha256:123", id="a cut digest"),
        pytest.param("replicas", -1, id="fewer than no operators"),
        pytest.param("logLevel", "debug", id="an unknown log level"),
        pytest.param("workerPools.default.replicas", 3, id="replicas of a pool, which belong to kubectl scale"),
        pytest.param("workerPools.default.slots", 0, id="a pool without slots"),
        pytest.param("workerPools.Bad_Name", {"slots": 1}, id="a name that is none in Kubernetes"),
        pytest.param("liveness.workerLeaseSeconds", 0, id="a Lease of no duration"),
        pytest.param("watchNamespaces", "team-a", id="a string for a list"),
        pytest.param("valueFrom.enabled", "yes", id="a string for a truth value"),
        pytest.param("valueFrom.secretNames", ["token"], id="names of Secrets, which belong to a pool"),
    ],
)
def test_the_schema_refuses(path: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(path, value), schema())


def test_a_pool_can_be_taken_away() -> None:
    jsonschema.validate(changed("workerPools.default", None), schema())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_use_only_values_that_exist(path: Path) -> None:
    known = set(paths_of_values(values()))
    used = set(re.findall(r"\.Values\.([A-Za-z.]+[A-Za-z])", path.read_text()))
    assert {name for name in used if not any(f"{key}.".startswith(f"{name}.") for key in known)} == set()


def test_every_value_is_used_by_a_template() -> None:
    text = "".join(path.read_text() for path in TEMPLATES)
    used = set(re.findall(r"\.Values\.([A-Za-z.]+[A-Za-z])", text))
    # A template that is handed `.Values.image` uses all of it.
    unused = {key for key in paths_of_values(values()) if not any(f"{key}.".startswith(f"{name}.") for name in used)}
    assert unused == set()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_templates_ask_for_no_finalizer(path: Path) -> None:
    assert "finalizers" not in path.read_text()


def test_every_value_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    # An explanation may stand above a group of neighbours, so look up to the nearest blank line.
    unexplained = []
    for number, line in enumerate(lines):
        if re.match(r"[a-zA-Z]", line):
            start = max((n for n in range(number) if not lines[n].strip()), default=0)
            end = next((n for n in range(number, len(lines)) if not lines[n].strip()), len(lines))
            if not any(text.lstrip().startswith("#") for text in lines[start:end]):
                unexplained.append(line)
    assert unexplained == []


def test_the_chart_ships_the_generated_crds() -> None:
    generated = {path.name: path.read_text() for path in (REPOSITORY / "crds").glob("*.yaml")}
    shipped = {path.name: path.read_text() for path in (CHART / "crds").glob("*.yaml")}
    assert generated, "crds/ is empty"
    assert shipped == generated, "run `make crds`"
