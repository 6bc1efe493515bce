"""Tasks that are made of a template: what they come to, what cannot be, and what stays as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import API_VERSION, condition, phase

pytestmark = pytest.mark.timeout(300)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "template.yaml"


def template(name: str, *command: str, **spec: Any) -> Object:
    """A TaskTemplate of a command."""
    whole = {"task": {"run": {"command": list(command)}}, **spec}
    return {"apiVersion": API_VERSION, "kind": "TaskTemplate", "metadata": {"name": name}, "spec": whole}


def of_template(name: str, of: str, **args: Any) -> Object:
    """A Task that is made of a template."""
    spec = {"templateRef": {"name": of}, "args": args}
    return {"apiVersion": API_VERSION, "kind": "Task", "metadata": {"name": name}, "spec": spec}


def edit(cluster: Cluster, task: str, **spec: Any) -> None:
    cluster.kubectl("patch", "task", task, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_the_example_says_hello(cluster: Cluster) -> None:
    cluster.delete("task/greet-ada", "task/greet-all", "tasktemplate/greet")
    cluster.kubectl("apply", "-f", EXAMPLE)
    cluster.wait("condition=Ready", "tasktemplate/greet")
    ada, everybody = cluster.finished("greet-ada", "greet-all")
    assert [phase(each) for each in (ada, everybody)] == ["Succeeded"] * 2
    assert ada["status"]["logTail"] == "Hello, Ada $(date)!\n" * 2  # an argument is never code
    assert everybody["status"]["logTail"] == "Hello, everybody!\n"
    assert ada["status"]["resolvedRun"]["run"]["command"][-1] == "Ada $(date)"
    assert ada["status"]["resolvedRun"]["env"] == [{"name": "TIMES", "value": "2"}]
    columns = cluster.kubectl("get", "tkt", "greet").splitlines()
    assert columns[0].split() == ["NAME", "DESCRIPTION", "STATUS", "AGE"]
    assert " Valid " in columns[1]


def test_arguments_that_do_not_fit_wait_until_they_are_mended(cluster: Cluster) -> None:
    cluster.delete("task/sized", "tasktemplate/sized")
    parameters = {"properties": {"size": {"type": "integer"}}, "required": ["size"]}
    cluster.apply(of_template("sized", "sized", size="big"))
    cluster.wait("jsonpath={.status.reason}=TemplateNotFound", "task/sized", seconds=90)
    cluster.apply(template("sized", "echo", "$(args.size)", parameters=parameters))
    cluster.wait("jsonpath={.status.reason}=InvalidSpec", "task/sized", seconds=90)
    assert 'args.size: "big" is not an integer' in cluster.get("task/sized")["status"]["message"]
    edit(cluster, "sized", args={"size": 5})
    (mended,) = cluster.finished("sized")
    assert (phase(mended), mended["status"]["logTail"]) == ("Succeeded", "5\n")


def test_a_task_that_has_begun_keeps_what_it_came_to(cluster: Cluster) -> None:
    cluster.delete("task/kept", "tasktemplate/edited")
    cluster.apply(template("edited", "echo", "before", "$(args.x)"), of_template("kept", "edited", x=1))
    cluster.finished("kept")
    cluster.apply(template("edited", "echo", "after", "$(args.x)"))
    edit(cluster, "kept", retryRequest="1")
    cluster.wait("jsonpath={.status.runNumber}=2", "task/kept")
    (kept,) = cluster.finished("kept")
    assert kept["status"]["logTail"] == "before 1\n"


def test_a_schema_that_is_none_is_named_until_it_is_mended(cluster: Cluster) -> None:
    cluster.delete("task/of-bad", "tasktemplate/bad")
    cluster.apply(template("bad", "echo", "$(args.x)", parameters={"properties": {"x": {"type": "int"}}}))
    cluster.wait("condition=Ready=false", "tasktemplate/bad")
    ready = condition(cluster.get("tasktemplate/bad"), "Ready")
    assert ready["reason"] == "InvalidSchema"
    assert "spec.parameters.properties.x.type" in ready["message"]
    cluster.apply(of_template("of-bad", "bad", x=1))
    cluster.wait("jsonpath={.status.reason}=InvalidSpec", "task/of-bad")
    said = cluster.get("task/of-bad")["status"]["message"]
    assert said.startswith("the TaskTemplate bad cannot be used: parameters.properties.x.type: ")
    cluster.apply(template("bad", "echo", "$(args.x)", parameters={"properties": {"x": {"type": "integer"}}}))
    (mended,) = cluster.finished("of-bad")
    assert (phase(mended), mended["status"]["logTail"]) == ("Succeeded", "1\n")
    assert condition(cluster.get("tasktemplate/bad"), "Ready")["reason"] == "Valid"
