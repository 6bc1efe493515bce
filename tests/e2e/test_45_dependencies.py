"""Tasks that depend on others: when they start, and what they are given."""

import json
from pathlib import Path

import pytest
from tests.e2e.cluster import Cluster
from tests.e2e.objects import attempts, is_finished, phase, pool, shell

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


LAYERS, WIDTH = 6, 5
BROKEN = "dag-1-2"


def test_a_graph_of_thirty_with_one_failing_branch(cluster: Cluster, tenant: str) -> None:
    parents = graph()
    lost = descendants(parents, BROKEN)
    assert len(parents) == 30
    assert 5 <= len(lost) <= 20, "the branch is a part of the graph"
    tasks = [
        shell(
            name,
            "exit 3" if name == BROKEN else "true",
            retry={"limit": 0},
            dependsOn=[{"name": parent} for parent in parents[name]],
        )
        for name in reversed(parents)
    ]
    cluster.apply(pool("graph", replicas=2, slots=4), namespace=tenant)
    cluster.wait("jsonpath={.status.readyWorkers}=2", "wp/graph", namespace=tenant, seconds=90)
    with cluster.watching("tasks", namespace=tenant) as watch:
        cluster.apply(*tasks, namespace=tenant)
        ended = watch.until(
            lambda seen: len(seen) == len(parents) and all(map(is_finished, seen.values())), 90, "the end of the graph"
        )
        watch.catch_up()
    for name, obj in ended.items():
        status = obj["status"]
        wanted = "Failed" if name == BROKEN else "Skipped" if name in lost else "Succeeded"
        assert (name, phase(obj)) == (name, wanted)
        written = [phase(each) for each in watch.revisions[name] if each is not None]
        if name in lost:
            assert status["reason"] == "DependencyFailed"
            if BROKEN in parents[name]:
                assert status["message"] == f'needs "{BROKEN}" to have succeeded, but it has Failed'
            else:
                assert status["message"].endswith(f'it was Skipped because "{BROKEN}" has Failed')
            # Created and skipped, whatever is above it.
            assert (status["attempt"], written) == (0, ["Pending", "Skipped"])
            continue
        # Created, assigned and finished, with a start report if it ran for a second; nothing for an edge.
        assert [each for each in written if each != "Running"] == ["Pending", "Assigned", wanted]
        for parent in parents[name]:
            assert attempts(ended[parent])[0]["endTime"] <= status["assignment"]["assignedTime"]


def graph() -> dict[str, list[str]]:
    """Layers of Tasks, each of which needs its left neighbour in the layer before and, every other one, the next."""
    parents: dict[str, list[str]] = {}
    for layer in range(LAYERS):
        for place in range(WIDTH):
            above = [place, place + 1] if place % 2 and layer % 2 else [place]
            parents[f"dag-{layer}-{place}"] = [f"dag-{layer - 1}-{each}" for each in above] if layer else []
    return parents


def descendants(parents: dict[str, list[str]], name: str) -> set[str]:
    """All that cannot succeed any more when one does not."""
    found: set[str] = set()
    for child, above in parents.items():  # in which parents come first
        if any(parent == name or parent in found for parent in above):
            found.add(child)
    return found


def test_a_cycle_is_explained_until_an_edit_opens_it(cluster: Cluster, tenant: str) -> None:
    cluster.apply(
        *(shell(name, "true", dependsOn=[{"name": needs}]) for name, needs in ("ab", "bc", "ca")), namespace=tenant
    )
    names = [f"task/{name}" for name in "abc"]
    cluster.wait("jsonpath={.status.reason}=DependencyCycle", *names, namespace=tenant)
    messages = {cluster.get(name, namespace=tenant)["status"]["message"] for name in names}
    paths = {message.partition(": ")[2].partition(";")[0] for message in messages}
    assert paths <= {"a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"}
    cluster.kubectl("patch", "task", "c", "-n", tenant, "--type=merge", "-p", '{"spec": {"dependsOn": []}}')
    cluster.apply(pool("cycle", replicas=1), namespace=tenant)
    for ended in cluster.finished(*"abc", namespace=tenant, seconds=90):
        assert phase(ended) == "Succeeded"


def test_parents_may_come_later_and_run_again(cluster: Cluster) -> None:
    names = ("late-root", "late-middle", "late-leaf")
    root, middle, leaf = names
    cluster.delete(*(f"task/{name}" for name in names))
    cluster.apply(
        shell(leaf, "true", dependsOn=[{"name": middle}]),
        shell(middle, "true", dependsOn=[{"name": root}]),
    )
    cluster.apply(shell(root, 'test "$TASK_ATTEMPT" = 2', retry={"limit": 0}))
    ended = cluster.finished(*names)
    assert [(phase(each), each["status"]["reason"]) for each in ended] == [
        ("Failed", "ExitCode"),
        ("Skipped", "DependencyFailed"),
        ("Skipped", "DependencyFailed"),
    ]
    assert f'it was Skipped because "{root}" has Failed' in ended[2]["status"]["message"]
    for name in names:
        cluster.kubectl("patch", "task", name, "--type=merge", "-p", '{"spec": {"retryRequest": "1"}}')
    cluster.wait("jsonpath={.status.runNumber}=2", *(f"task/{name}" for name in names))
    first, *others = cluster.finished(*names)
    assert [(phase(each), each["status"]["attempt"]) for each in (first, *others)] == [
        ("Succeeded", 2),
        ("Succeeded", 1),
        ("Succeeded", 1),
    ]


def test_a_parent_is_kept_as_long_as_an_unfinished_task_names_it(cluster: Cluster) -> None:
    names = ("kept-parent", "kept-slow", "kept-child")
    cluster.delete(*(f"task/{name}" for name in names))
    result = 'echo 42 > "$TASK_RESULT_FILE"'
    cluster.apply(
        shell("kept-parent", result, ttlSecondsAfterFinished=0),
        shell("kept-slow", "sleep 3", ttlSecondsAfterFinished=0),
        shell(
            "kept-child",
            'cat "$TASK_DEPENDENCIES_FILE"',
            dependsOn=[{"name": "kept-parent"}, {"name": "kept-slow"}],
        ),
    )
    (child,) = cluster.finished("kept-child")
    assert phase(child) == "Succeeded"
    assert json.loads(child["status"]["logTail"]) == {"kept-parent": 42, "kept-slow": None}
    cluster.wait("delete", "task/kept-parent", "task/kept-slow")
