"""The documents say what the code does: generated sections, names, links, commands, and the objects they show.

Sections between `<!-- NAME -->` and `<!-- end -->` that are listed in `GENERATED` come from the code; after a change
write them with `.venv/bin/python -m tests.unit.test_docs`.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, get_args, get_origin, get_type_hints

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from tests.builders import EPOCH, assignment, task_object, worker
from tests.protocol import EVENTS, Event, last_seen
from tests.sim.json_patch import apply_json_patch, apply_merge_patch

from taskmaster.api import decode, names
from taskmaster.api.times import to_wire
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.metrics import RequestMetrics, StateCollector, TaskMetrics, leader_gauge
from taskmaster.coordinator.pools import PoolController
from taskmaster.coordinator.templates import judged
from taskmaster.coordinator.value_access import ValueAccess
from taskmaster.core.phase import SUCCESSORS, TERMINAL, Phase
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.retry import Outcome
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import Unprocessable
from taskmaster_worker.agent.metrics import AgentMetrics
from taskmaster_worker.runner import messages

Object = dict[str, Any]
Rows = list[str]

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])
LONGEST_DECISION = 60


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@functools.cache
def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text()


def section(name: str, text: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert found, f"no section {name}"
    return found[1]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(name: str, text: str) -> list[list[str]]:
    """Return the body of the table in a section."""
    lines = [line for line in section(name, text).splitlines() if line.startswith("|")]
    return [cells(line) for line in lines[2:]]


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def blocks(text: str, language: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield found[1]


# ---- what is generated


def documented_members(path: str, enum: str) -> list[tuple[str, str]]:
    """Return the value of each member of an enum with the docstring that follows it."""
    body = next(
        node.body for node in ast.parse(text_of(path)).body if isinstance(node, ast.ClassDef) and node.name == enum
    )
    members: list[tuple[str, str]] = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            docstring = (
                after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            )
            members.append((str(node.value.value), " ".join(str(docstring).split())))
    return members


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> Rows:
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *body)]


def meanings(path: str, enum: str, header: str) -> Rows:
    return table([header, "meaning"], [[f"`{word}`", meaning] for word, meaning in documented_members(path, enum)])


def successors() -> Rows:
    def cell(old: Phase, new: Phase) -> str:
        return ("·" if new is old else "yes") if new in SUCCESSORS[old] else ""

    body = [[f"**{old}**", *(cell(old, new) for new in Phase)] for old in Phase]
    return table(["from \\ to", *Phase], body)


def in_phase(phase: Phase) -> Object:
    """Return a Task that got there by an attempt; Skipped is the one phase to which none leads."""
    made = task_object()
    made["status"] |= {"phase": phase.value, "runNumber": 1}
    if phase not in (Phase.PENDING, Phase.SKIPPED):
        made["status"] |= {"attempt": 1, "assignment": assignment()}
    if phase in TERMINAL:
        made["status"]["completionTime"] = to_wire(EPOCH + 50)
    return made


def consequence(event: Event, seen: Phase, met: Phase) -> str:
    """Apply a write that was decided on one phase to a Task in another."""
    before = in_phase(met)
    patch = event.make(last_seen(decode.task(before), seen, worker()), worker())
    if isinstance(patch, MergePatch):
        if patch.body["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            return "`version`"
        after = apply_merge_patch(before, patch.body)
    else:
        try:
            after = apply_json_patch(before, patch.ops)
        except Unprocessable:
            return "`test`"
    changed = {key for key in after["status"] if after["status"][key] != before["status"].get(key)}
    phase, next_run = Phase(after["status"]["phase"]), after["status"]["runNumber"] == 2
    if met in TERMINAL and changed - {"observedGeneration"} and not (phase is Phase.PENDING and next_run):
        return "`rule`"
    return str(phase) if phase in SUCCESSORS[met] else "`rule`"


def events() -> Rows:
    body = []
    for event in EVENTS:
        outcomes = {tuple(consequence(event, seen, met) for met in Phase) for seen in event.seen}
        assert len(outcomes) == 1, f"{event.label} does not depend on the phase alone"
        body.append([event.label, event.where, *next(iter(outcomes))])
    return table(["write", "decided on", *Phase], body)


def metrics_of(registry: CollectorRegistry) -> Rows:
    body = {}
    for collector in registry._collector_to_names:
        for family in collector.collect():
            if family.name.startswith("taskmaster_") and not family.name.endswith("_created"):
                body[family.name] = metric_row(collector, family)
    return table(["metric", "type", "labels", "meaning"], [body[name] for name in sorted(body)])


def metric_row(collector: object, family: Metric) -> list[str]:
    labels = collector._labelnames if isinstance(collector, MetricWrapperBase) else family._labelnames  # type: ignore[attr-defined]
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return [f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation]


def coordinator_metrics() -> Rows:
    registry = CollectorRegistry()
    RequestMetrics(registry)
    TaskMetrics(registry)
    leader_gauge(registry)
    state = StateCollector()
    state.cache = Cache(wake=lambda: None)
    registry.register(state)
    return metrics_of(registry)


def agent_metrics() -> Rows:
    counted = AgentMetrics(clock=lambda: 0.0)
    counted.show_slots(1, running=lambda: 0, taken=lambda: 0)
    return metrics_of(counted.registry)


FRAMES: tuple[tuple[str, type[Any]], ...] = (
    ("agent", messages.AgentHello),
    ("agent", messages.Start),
    ("agent", messages.Stop),
    ("agent", messages.Checkpointed),
    ("runner", messages.RunnerHello),
    ("runner", messages.Started),
    ("runner", messages.Progress),
    ("runner", messages.Checkpoint),
    ("runner", messages.Stalled),
    ("runner", messages.Exit),
)


def frames() -> Rows:
    body = []
    for sender, frame in FRAMES:
        (kind,) = get_args(get_type_hints(frame)["type"])
        members = get_type_hints(frame, include_extras=True)
        shown = [
            f"(`{name}`)" if get_origin(hint) is NotRequired else f"`{name}`"
            for name, hint in members.items()
            if name != "type"
        ]
        meaning = " ".join((frame.__doc__ or "").split())
        body.append([sender, f"`{kind}`", ", ".join(shown), meaning])
    return table(["from", "type", "members (optional ones)", "meaning"], body)


REASONS = "operator/taskmaster/core/reason.py"
GENERATED: dict[tuple[str, str], Callable[[], Rows]] = {
    ("docs/state-machine.md", "phases"): lambda: meanings("operator/taskmaster/core/phase.py", "Phase", "phase"),
    ("docs/state-machine.md", "successors"): successors,
    ("docs/state-machine.md", "events"): events,
    ("docs/state-machine.md", "pending-reasons"): lambda: meanings(REASONS, "PendingReason", "reason"),
    ("docs/state-machine.md", "end-reasons"): lambda: meanings(REASONS, "EndReason", "reason"),
    ("docs/architecture.md", "frames"): frames,
    ("docs/metrics.md", "coordinator"): coordinator_metrics,
    ("docs/metrics.md", "agent"): agent_metrics,
}


@pytest.mark.parametrize(("document", "name"), GENERATED, ids=lambda value: str(value))
def test_generated_sections_are_what_the_code_says(document: str, name: str) -> None:
    assert section(name, text_of(document)).splitlines() == GENERATED[document, name](), (
        "run `.venv/bin/python -m tests.unit.test_docs`"
    )


# ---- tables that are written by hand


def test_every_write_of_the_protocol_is_in_the_tables() -> None:
    tree = ast.parse(text_of("operator/taskmaster/api/patches.py"))
    writes = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert {event.write for event in EVENTS} == writes
    assert {words(row[0])[0] for row in rows("writes", text_of("docs/guarantees.md"))} == writes | {"delete"}


def test_the_diagram_shows_every_move_and_no_other() -> None:
    (diagram,) = blocks(text_of("docs/state-machine.md"), "mermaid")
    drawn = set(re.findall(r"^ +(\w+) --> (\w+): ", diagram, re.MULTILINE))
    assert drawn == {(old, new) for old in Phase for new in SUCCESSORS[old] - {old}}


def test_every_outcome_is_charged_as_the_table_says() -> None:
    charged = {words(row[0])[0]: words(row[1]) for row in rows("outcomes", text_of("docs/state-machine.md"))}
    assert set(charged) == set(Outcome)
    assert charged == {
        "Succeeded": [],
        "Failed": ["failures"],
        "WorkerLost": ["workerLosses"],
        "Interrupted": ["interruptions"],
        "Released": [],
        "Suspended": [],
        "Cancelled": [],
    }


def test_every_condition_is_described() -> None:
    described = re.findall(r"^\| `(\w+)` \|", text_of("docs/state-machine.md").rsplit("## Conditions", 1)[1], re.M)
    written = re.findall(r'_condition\("(\w+)"', text_of("operator/taskmaster/api/patches.py"))
    assert set(described) == set(written)


@functools.cache
def crd(kind: str) -> Object:
    loaded = yaml.safe_load(text_of(f"crds/{kind.lower()}s.yaml"))
    schema: Object = loaded["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def leaves(schema: Object, *, depth: int, prefix: str = "") -> Iterator[tuple[str, Object]]:
    for name, child in schema.get("properties", {}).items():
        if child.get("properties") and depth > 1 and name not in ("script", "python"):
            yield from leaves(child, depth=depth - 1, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def test_the_readme_explains_every_field_of_a_task_with_its_default() -> None:
    explained = {words(row[0])[0]: row[1].strip("`") for row in rows("fields", text_of("README.md"))}
    fields = dict(leaves(crd("Task")["properties"]["spec"], depth=4))
    retry, timeouts = BUILT_IN.retry, BUILT_IN.timeouts
    built_in = {
        "timeouts.attemptSeconds": timeouts.attempt_seconds,
        "timeouts.graceSeconds": timeouts.grace_seconds,
        "retry.limit": retry.limit,
        "retry.workerLossLimit": retry.worker_loss_limit,
        "retry.interruptionLimit": retry.interruption_limit,
        "retry.backoff.initialSeconds": retry.backoff.initial_seconds,
        "retry.backoff.factor": retry.backoff.factor,
        "retry.backoff.maxSeconds": retry.backoff.max_seconds,
        "retry.backoff.jitter": retry.backoff.jitter,
    }
    defaults = {name: built_in.get(name, schema.get("default", "")) for name, schema in fields.items()}
    assert explained == {
        name: json.dumps(default) if isinstance(default, bool) else str(default) for name, default in defaults.items()
    }


def test_the_readme_names_how_long_finished_tasks_are_kept() -> None:
    (row,) = [row for row in rows("fields", text_of("README.md")) if "ttlSecondsAfterFinished" in row[0]]
    assert f"{BUILT_IN.ttl.succeeded_seconds} after success, {BUILT_IN.ttl.failed_seconds} otherwise" in row[2]


def value_paths(node: Object, prefix: str = "") -> Iterator[str]:
    for key, child in node.items():
        path = f"{prefix}{key}"
        if isinstance(child, dict) and child and path not in ("workerPools", "resources"):
            yield from value_paths(child, f"{path}.")
        else:
            yield path


def test_every_field_of_a_schedule_is_documented_with_its_default() -> None:
    explained = {words(row[0])[0]: row[1].strip("`") for row in rows("schedule-fields", text_of("docs/schedules.md"))}
    fields = crd("TaskSchedule")["properties"]["spec"]["properties"]
    assert set(explained) == set(fields)
    defaults = {name: str(field["default"]) for name, field in fields.items() if "default" in field}
    assert {name: default for name, default in explained.items() if default} == {
        **defaults, "suspend": "false", "timeZone": "UTC",
    }  # fmt: skip


def test_every_reason_of_a_schedule_is_documented() -> None:
    explained = {word for row in rows("schedule-reasons", text_of("docs/schedules.md")) for word in words(row[0])}
    parts = (text_of(f"operator/taskmaster/coordinator/{name}.py") for name in ("schedules", "schedule_status"))
    given = {word for text in parts for word in re.findall(r'(?:Refused\(|return )"([A-Z]\w+)"', text)}
    assert given == explained


def test_every_value_of_the_chart_is_documented_and_no_other() -> None:
    values = yaml.safe_load(text_of("charts/taskmaster/values.yaml"))
    documented = [word for row in rows("values", text_of("docs/operations.md")) for word in words(row[0])]
    assert sorted(documented) == sorted(value_paths(values))


def test_every_reason_of_a_worker_pool_is_documented() -> None:
    modules = [sys.modules[each.__module__].__file__ for each in (PoolController, ValueAccess)]
    source = "".join(text_of(str(Path(file or "").relative_to(REPOSITORY))) for file in modules)
    given = set(re.findall(r'Refused\(\s*"(\w+)"', source)) | set(re.findall(r'"(Workers\w+)"', source))
    assert {words(row[0])[0] for row in rows("pool-reasons", text_of("docs/operations.md"))} == given
    assert len(given) > 3


@functools.cache
def known_metrics() -> set[str]:
    found: set[str] = set()
    for line in [*coordinator_metrics()[2:], *agent_metrics()[2:]]:
        (name, *_), kind = words(line), cells(line)[1]
        found |= {name, *([f"{name}_{end}" for end in ("bucket", "sum", "count")] if kind == "histogram" else [])}
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_metric_that_is_named_exists(path: Path) -> None:
    environment = re.compile(r"taskmaster_worker\b(?!_)|taskmaster_worker\.")
    named = set(re.findall(r"\btaskmaster_[a-z_]+[a-z]\b", environment.sub("", path.read_text())))
    assert named - known_metrics() == set()


# ---- names, links, commands


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.MULTILINE))
    code = "\n".join(
        [*blocks(path.read_text(), "sh"), *words(re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M))]
    )
    named = set(re.findall(r"\bmake (?:-s )?([a-z][a-z0-9-]*)", code))
    assert named - targets == set()


def test_the_quick_start_has_exactly_two_set_up_commands() -> None:
    quick_start = text_of("README.md").split("## Quick start", 1)[1].split("\n## ", 1)[0]
    first = next(blocks(quick_start, "sh"))
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_path_that_is_named_exists(path: Path) -> None:
    tops = "operator|worker-image|charts|crds|tests|tools|examples|bench|docs|requirements"
    for word in " ".join(words(path.read_text())).split():
        if re.fullmatch(rf"(?:{tops})/[\w./-]*", word):
            assert (REPOSITORY / word).exists(), word


@functools.cache
def known_tests() -> set[str]:
    sources = (file.read_text() for file in (REPOSITORY / "tests").rglob("test_*.py"))
    return {name for source in sources for name in re.findall(r"\bdef (test_\w+)\(", source)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_every_test_that_is_named_exists(path: Path) -> None:
    named = {word for word in words(path.read_text()) if re.fullmatch(r"test_\w+", word)}
    assert named - known_tests() == set()


# ---- objects


def strict(schema: Object) -> Object:
    """Return a schema that refuses unknown fields, as `kubectl` has the API server do."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return schema
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: strict(child) for name, child in schema["properties"].items()}
        result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = strict(schema["items"])
    return result


def validator(schema: Object) -> Validator:
    made = validator_for(schema, default=Draft202012Validator)
    made.check_schema(schema)
    return made(schema)


@functools.cache
def chart_values() -> Validator:
    return validator(json.loads(text_of("charts/taskmaster/values.schema.json")))


@functools.cache
def pool_spec() -> Validator:
    return validator(strict(crd("WorkerPool")["properties"]["spec"]))


@functools.cache
def whole(kind: str) -> Validator:
    schema = strict(crd(kind))
    schema["properties"]["metadata"] = {"type": "object"}
    return validator(schema)


def check(obj: Object) -> None:
    """Check an object, or (without a kind) values of the chart."""
    if "kind" not in obj:
        chart_values().validate(obj)
        for each in obj.get("workerPools", {}).values():
            pool_spec().validate({key: value for key, value in each.items() if key != "namespace"})
        return
    if not obj["apiVersion"].startswith(f"{names.GROUP}/"):
        return
    whole(obj["kind"]).validate(obj)
    if obj["kind"] == "Task":
        assert ("run" in obj["spec"]) != ("templateRef" in obj["spec"])
        assert len(obj["spec"].get("run", ["templateRef"])) == 1
    if obj["kind"] == "TaskTemplate":
        assert judged(obj)[1:] == ("Valid", "Tasks can be made of it")


def shown_objects() -> Iterator[tuple[str, Object]]:
    for path in DOCUMENTS:
        for number, block in enumerate(blocks(path.read_text(), "yaml")):
            for obj in filter(None, yaml.safe_load_all(block)):
                yield f"{relative(path)}-{number}", obj
    for path in sorted((REPOSITORY / "examples").rglob("*.yaml")):
        for obj in filter(None, yaml.safe_load_all(path.read_text())):
            yield relative(path), obj


@pytest.mark.parametrize("obj", [pytest.param(obj, id=name) for name, obj in shown_objects()])
def test_objects_that_are_shown_are_what_the_api_server_takes(obj: Object) -> None:
    check(obj)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": {"run": {"command": ["true"]}, "canceled": True}},
        {"spec": {"run": {"command": []}}},
        {"spec": {"run": {}}},
        {"spec": {"run": {"command": ["true"]}, "priority": 5_000}},
        {"spec": {}},
    ],
    ids=str,
)
def test_objects_that_the_api_server_would_refuse_are_found(wrong: Object) -> None:
    refused = {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "it"}, **wrong}
    with pytest.raises((ValidationError, AssertionError)):
        check(refused)


# ---- decisions, and what must not be written


def test_there_are_decisions_in_one_row_of_numbers() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    assert len(DECISIONS) >= 8


@pytest.mark.parametrize("path", DECISIONS, ids=relative)
def test_a_decision_is_short_and_says_why_and_what_follows(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_DECISION
    assert text.startswith(f"# {int(path.name[:4])}. ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert re.search(r"^Status: (accepted|superseded by \[\d{4}\]\(.+\))$", text, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_lines_are_no_longer_than_a_reader_of_the_source_likes(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 130 and not line.startswith("|")] == []


REGISTRIES = re.compile(
    r"\b(?:quay\.io|ghcr\.io|(?:\w+\.)?gcr\.io|registry\.k8s\.io|public\.ecr\.aws|mcr\.microsoft\.com)\b"
)
MACHINE_PATHS = re.compile(r"(?<![\w.$~-])/(?:root|home/\w+|Users/\w+|work)/[\w.]")


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False, timeout=30)
    found = [name for name in listed.stdout.decode().split("\0") if name]
    for name in found or [relative(path) for path in [*DOCUMENTS, *REPOSITORY.glob("*/**/*.yaml")]]:
        path = REPOSITORY / name
        if path.is_file() and path.suffix != ".sum":
            yield name, path.read_text(errors="replace")


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    allowed = {"/home/me"}  # in a test of HOME
    found = {
        (name, match[0])
        for name, text in tracked_texts()
        for pattern in (REGISTRIES, MACHINE_PATHS)
        for match in pattern.finditer(text)
        if match[0] not in allowed
    }
    assert found == set()


def write() -> None:
    """Write the generated sections."""
    for (document, name), render in GENERATED.items():
        path = REPOSITORY / document
        text = path.read_text()
        old = section(name, text)
        path.write_text(text.replace(f"<!-- {name} -->\n{old}", f"<!-- {name} -->\n" + "\n".join([*render(), ""])))


if __name__ == "__main__":
    write()
