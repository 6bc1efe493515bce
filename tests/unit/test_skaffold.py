"""skaffold.yaml, checked without Skaffold: against the rules of its schema, the chart's values and the Dockerfiles."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "taskmaster"


def record(*required: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object that refuses unknown keys, as Skaffold's does."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
RELEASE = record(
    "name",
    **dict.fromkeys(("name", "chartPath", "remoteChart", "namespace", "repo", "version"), TEXT),
    **dict.fromkeys(("createNamespace", "wait", "skipTests", "skipBuildDependencies", "upgradeOnChange"), FLAG),
    **dict.fromkeys(("setValues", "setValueTemplates", "setFiles"), TEXTS),
    valuesFiles={"type": "array", "items": TEXT},
)
# The part of docs-v2/content/en/schemas/v4beta13.json of GoogleContainerTools/skaffold that this file may use.
RULES = record(
    "apiVersion",
    "kind",
    apiVersion={"const": "skaffold/v4beta13"},
    kind={"const": "Config"},
    metadata=record(name=TEXT, labels=TEXTS, annotations=TEXTS),
    build=record(
        tagPolicy={"type": "object", "minProperties": 1, "maxProperties": 1, "properties": {"inputDigest": {}}},
        artifacts={
            "type": "array",
            "items": record(
                "image",
                image=TEXT,
                context=TEXT,
                docker=record(dockerfile=TEXT, target=TEXT, buildArgs=TEXTS, noCache=FLAG),
            ),
        },
        local=record(push=FLAG, useBuildkit=FLAG, useDockerCLI=FLAG, tryImportMissing=FLAG),
    ),
    deploy=record(helm=record(releases={"type": "array", "items": RELEASE})),
)


@pytest.fixture(scope="module")
def skaffold() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "skaffold.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def release(skaffold: dict[str, Any]) -> dict[str, Any]:
    (only,) = skaffold["deploy"]["helm"]["releases"]
    loaded: dict[str, Any] = only
    return loaded


def test_it_keeps_the_rules_of_the_schema(skaffold: dict[str, Any]) -> None:
    jsonschema.validate(skaffold, RULES)


def test_the_rules_refuse_a_misspelt_key(skaffold: dict[str, Any]) -> None:
    (release,) = skaffold["deploy"]["helm"]["releases"]
    misspelt = {**skaffold, "deploy": {"helm": {"releases": [{**release, "chartpath": "charts/taskmaster"}]}}}
    with pytest.raises(jsonschema.ValidationError, match="chartpath"):
        jsonschema.validate(misspelt, RULES)


def test_every_path_exists(skaffold: dict[str, Any], release: dict[str, Any]) -> None:
    dockerfiles = [
        REPOSITORY / each["context"] / each["docker"]["dockerfile"] for each in skaffold["build"]["artifacts"]
    ]
    assert [
        path for path in [*dockerfiles, REPOSITORY / release["chartPath"] / "Chart.yaml"] if not path.is_file()
    ] == []


def test_both_images_are_built(skaffold: dict[str, Any]) -> None:
    built = {each["image"]: each["docker"]["dockerfile"] for each in skaffold["build"]["artifacts"]}
    assert built == {"taskmaster-operator": "operator/Dockerfile", "taskmaster-worker": "worker-image/Dockerfile"}


def test_every_value_that_it_sets_is_a_value_of_the_chart(release: dict[str, Any]) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    for key, value in {**release["setValueTemplates"], **release["setValues"]}.items():
        path = key.split(".")
        parent = values
        for name in path[:-1]:
            assert name in parent, f"{key} is not in values.yaml"
            parent = parent[name]
        parent[path[-1]] = re.sub(r"\{\{.*\}\}", "something", value)
    jsonschema.validate(values, schema)


def test_every_template_names_an_image_that_is_built(skaffold: dict[str, Any], release: dict[str, Any]) -> None:
    images = {each["image"].replace("-", "_") for each in skaffold["build"]["artifacts"]}
    names = [
        re.fullmatch(r"\{\{\.IMAGE_(REPO|TAG)_([a-z_]+)\}\}", value) for value in release["setValueTemplates"].values()
    ]
    assert {name[2] for name in names if name} == images
    assert all(names)


def test_its_image_names_are_those_of_the_charts_values(skaffold: dict[str, Any]) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    repositories = {values["image"]["repository"], values["worker"]["image"]["repository"]}
    assert {each["image"] for each in skaffold["build"]["artifacts"]} == repositories
