"""What the API says of itself: every field has a text, every kind its short name, its category and its columns."""

import json
from collections.abc import Iterator

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import API_VERSION

pytestmark = pytest.mark.timeout(120)

KINDS = {
    "Task": ("tasks", "tk"),
    "TaskQueue": ("taskqueues", "tq"),
    "TaskSchedule": ("taskschedules", "tks"),
    "TaskTemplate": ("tasktemplates", "tkt"),
    "WorkerPool": ("workerpools", "wp"),
}
COLUMNS = {
    "tk": ["NAME", "PHASE", "QUEUE", "PRIORITY", "WORKER", "ATTEMPT", "REASON", "AGE"],
    "tq": ["NAME", "WEIGHT", "PENDING", "RUNNING", "OLDEST", "PAUSED", "STATUS", "AGE"],
    "tks": ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE"],
    "tkt": ["NAME", "DESCRIPTION", "STATUS", "AGE"],
    "wp": ["NAME", "DESIRED", "READY", "BUSY", "SLOTS", "USED", "AGE"],
}
OF_KUBERNETES = ("apiVersion", "kind", "metadata")


def fields(schema: Object, path: str) -> Iterator[tuple[str, str]]:
    """Every field below a schema of OpenAPI, and what is said of it."""
    for name, each in schema.get("properties", {}).items():
        if path.count(".") or name not in OF_KUBERNETES:
            yield f"{path}.{name}", each.get("description", "")
            yield from fields(each, f"{path}.{name}")
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            yield from fields(schema[inner], path)


def test_kubectl_explain_has_a_text_for_every_field_of_every_kind(cluster: Cluster) -> None:
    # This document is what `kubectl explain` prints parts of.
    document = json.loads(cluster.kubectl("get", "--raw", f"/openapi/v3/apis/{API_VERSION}"))
    schemas = {}
    for schema in document["components"]["schemas"].values():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            if kind["group"] == "taskmaster.dev" and not kind["kind"].endswith("List"):
                schemas[kind["kind"]] = schema
    assert set(schemas) == set(KINDS)
    said = {path: text for kind, schema in schemas.items() for path, text in fields(schema, kind)}
    assert len(said) > 300
    assert {path: text for path, text in said.items() if len(text) < 8} == {}
    assert all(len(schema["description"]) > 20 for schema in schemas.values())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tq.spec.rateLimit", "perSeconds\t<integer>"),
        ("tq.spec.rateLimit", "How many attempts may start in a time"),
        ("tq.spec.weight", "share of the slots when queues compete"),
        ("tks.spec.concurrencyPolicy", "ENUM: Allow Forbid Replace Enqueue"),
        ("tks.spec.everySeconds", "Occur each so many seconds"),
        ("tkt.spec.parameters", "JSON Schema"),
        ("tk.spec.concurrency.onConflict", "ReplacePending"),
        ("tk.spec.requires.matchExpressions.operator", "DoesNotExist"),
        ("wp.spec.labels", "spec.requires"),
    ],
)
def test_kubectl_explain_by_short_names(cluster: Cluster, path: str, words: str) -> None:
    assert " ".join(words.split()) in " ".join(cluster.kubectl("explain", path).split())


def test_kinds_have_short_names_a_category_and_columns(cluster: Cluster, tenant: str) -> None:
    run = {"run": {"command": ["true"]}}
    specs: dict[str, Object] = {
        "Task": {**run, "suspend": True},
        "TaskQueue": {},
        "TaskSchedule": {"schedule": "@yearly", "taskTemplate": {"spec": run}},
        "TaskTemplate": {"task": run},
        "WorkerPool": {"replicas": 0},
    }
    metadata = {"name": "one"}
    objects = [
        {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec} for kind, spec in specs.items()
    ]
    cluster.apply(*objects, namespace=tenant)
    names = {f"{kind.lower()}.taskmaster.dev/one" for kind in KINDS}
    assert set(cluster.kubectl("get", "taskmaster", "-n", tenant, "-o", "name").split()) == names
    plurals = ",".join(plural for plural, _ in KINDS.values())
    assert set(cluster.kubectl("get", plurals, "-n", tenant, "-o", "name").split()) == names
    for _, short in KINDS.values():
        header, row = cluster.kubectl("get", short, "-n", tenant).splitlines()
        assert header.split() == COLUMNS[short]
        assert row.startswith("one ")
