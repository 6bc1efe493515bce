"""Tasks that depend on others: when they start, and what they are given."""

import json
from pathlib import Path

import pytest
from tests.e2e.cluster import Cluster
from tests.e2e.objects import attempts, phase, shell

pytestmark = pytest.mark.timeout(300)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dependencies.yaml"
DIAMOND = ("numbers", "sum", "largest", "report")


def test_the_example_hands_results_on(cluster: Cluster) -> None:
    cluster.delete(*(f"task/{name}" for name in DIAMOND))
    cluster.kubectl("apply", "-f", EXAMPLE)
    numbers, total, largest, report = cluster.finished(*DIAMOND)
    assert [phase(each) for each in (numbers, total, largest, report)] == ["Succeeded"] * 4
    assert [each["status"]["result"] for each in (numbers, total, largest)] == [[3, 7, 5], 15, 7]
    assert report["status"]["result"] == {"sum": 15, "largest": 7}
    # Times of the API all have the same form, so that they compare as texts.
    began = {each["metadata"]["name"]: attempts(each)[0]["startTime"] for each in (numbers, total, largest, report)}
    for parent, child in (("numbers", "sum"), ("numbers", "largest"), ("sum", "report"), ("largest", "report")):
        assert began[parent] < began[child]


def test_tasks_without_a_result_are_null_and_a_failure_may_be_waited_for(cluster: Cluster) -> None:
    names = ("silent", "broken", "cleaner")
    cluster.delete(*(f"task/{name}" for name in names))
    after = [{"name": "silent"}, {"name": "broken", "condition": "Failed"}]
    cluster.apply(
        shell("cleaner", 'cat "$TASK_DEPENDENCIES_FILE"', dependsOn=after),
        shell("silent", "true"),
        shell("broken", "exit 3", retry={"limit": 0}),
    )
    silent, broken, cleaner = cluster.finished(*names)
    assert [phase(each) for each in (silent, broken, cleaner)] == ["Succeeded", "Failed", "Succeeded"]
    assert json.loads(cleaner["status"]["logTail"]) == {"silent": None, "broken": None}
