from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.builders import NAMESPACE, pool_object

from taskmaster.api import names
from taskmaster.api.models.workerpool import WorkerPoolSpec
from taskmaster.coordinator import worker_objects
from taskmaster.coordinator.settings import from_environment
from taskmaster_worker.agent.identity import from_environment as agent_settings

Object = dict[str, Any]

SETTINGS = from_environment({"POD_NAME": "c", "POD_NAMESPACE": "taskmaster", "TASKMASTER_WORKER_IMAGE": "worker:1"})
ROLE = {"metadata": {"name": "taskmaster-worker", "uid": "uid-of-role"}}


def built(**spec: Any) -> Object:
    pool = pool_object("media", **spec)
    return worker_objects.deployment(pool, WorkerPoolSpec.model_validate(pool["spec"]), SETTINGS)


def pod(**template: Any) -> Object:
    spec: Object = built(template=template)["spec"]["template"]["spec"]
    return spec


def container(name: str, **template: Any) -> Object:
    (found,) = (each for each in pod(**template)["containers"] if each["name"] == name)
    result: Object = found
    return result


def env(name: str, **template: Any) -> dict[str, str]:
    variables = container(name, **template)["env"]
    assert len({each["name"] for each in variables}) == len(variables), "the last of two would win"
    return {each["name"]: each.get("value", "") for each in variables}


def all_containers(**template: Any) -> list[Object]:
    spec = pod(**template)
    return [*spec["initContainers"], *spec["containers"]]


@pytest.mark.parametrize("each", all_containers(), ids=lambda each: str(each["name"]))
def test_every_container_meets_the_restricted_pod_security_standard(each: Object) -> None:
    context = each["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] >= 10_000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["readOnlyRootFilesystem"] is True
    assert "privileged" not in context


def test_pod_shares_nothing_with_its_node() -> None:
    spec = pod()
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(spec)
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


def test_agent_and_runner_are_different_users() -> None:
    agent, runner = container("agent"), container("runner")
    assert agent["securityContext"]["runAsUser"] != runner["securityContext"]["runAsUser"]
    assert env("agent")["TASKMASTER_RUNNER_UID"] == str(runner["securityContext"]["runAsUser"])
    assert env("runner")["TASKMASTER_AGENT_UID"] == str(agent["securityContext"]["runAsUser"])


def test_only_the_agent_has_the_token() -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    tokens = {volume["name"] for volume in spec["volumes"] if "projected" in volume}
    assert tokens == {"taskmaster-token"}
    holders = [each["name"] for each in all_containers() if tokens & {mount["name"] for mount in each["volumeMounts"]}]
    assert holders == ["agent"]


@pytest.mark.parametrize("volume", ["taskmaster-token", "taskmaster-run", "taskmaster-runner", "nobody"])
def test_template_may_only_mount_its_own_volumes(volume: str) -> None:
    spec = WorkerPoolSpec.model_validate({"template": {"volumeMounts": [{"name": volume, "mountPath": "/stolen"}]}})
    assert f'"{volume}"' in worker_objects.trouble(spec)


def test_template_that_mounts_its_own_volumes_is_fine() -> None:
    template = {
        "volumes": [{"name": "code", "configMap": {"name": "code"}}],
        "volumeMounts": [{"name": "code", "mountPath": "/app"}],
    }
    assert worker_objects.trouble(WorkerPoolSpec.model_validate({"template": template})) == ""
    assert worker_objects.trouble(WorkerPoolSpec()) == ""


@pytest.mark.parametrize("volume", ["taskmaster-token", "taskmaster-anything"])
def test_names_of_our_volumes_are_reserved(volume: str) -> None:
    spec = WorkerPoolSpec.model_validate({"template": {"volumes": [{"name": volume, "emptyDir": {}}]}})
    assert f'"{volume}"' in worker_objects.trouble(spec)


@pytest.mark.parametrize("name", ["TASKMASTER_RUNNER_SOCKET", "TASKMASTER_AGENT_UID", "TASKMASTER_PRELOAD"])
def test_environment_of_the_pool_cannot_override_ours(name: str) -> None:
    assert env("runner", env=[{"name": name, "value": "evil"}])[name] == env("runner")[name]


def test_environment_of_the_pool_reaches_the_runner_and_not_the_agent() -> None:
    variables = [{"name": "HOME", "value": "/home/me"}, {"name": "MODE", "value": "fast"}]
    found = env("runner", env=variables)
    assert (found["HOME"], found["MODE"]) == ("/home/me", "fast")
    assert "MODE" not in env("agent", env=variables)


def test_python_path_of_the_pool_does_not_hide_the_runner() -> None:
    assert env("runner")["PYTHONPATH"] == "/opt/taskmaster/runner:/app"
    found = env("runner", env=[{"name": "PYTHONPATH", "value": "/data/lib"}])
    assert found["PYTHONPATH"] == "/opt/taskmaster/runner:/data/lib"


def test_agent_knows_who_and_where_it_is() -> None:
    found = built(slots=7, drainSeconds=12)["spec"]["template"]["spec"]
    agent = next(each for each in found["containers"] if each["name"] == "agent")
    paths = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in agent["env"] if "valueFrom" in each}
    assert paths == {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
        "NODE_NAME": "spec.nodeName",
    }
    values = {each["name"]: each["value"] for each in agent["env"] if "value" in each}
    assert values["TASKMASTER_POOL"] == "media"
    assert values["TASKMASTER_SLOTS"] == "7"
    assert values["TASKMASTER_DRAIN_SECONDS"] == "12"
    assert (values["TASKMASTER_LEASE_SECONDS"], values["TASKMASTER_RENEW_SECONDS"]) == ("45", "10")
    assert found["terminationGracePeriodSeconds"] > 12 + 20


def test_images_are_the_users_for_the_runner_and_ours_for_the_rest() -> None:
    images = {each["name"]: (each["image"], each["imagePullPolicy"]) for each in all_containers()}
    assert set(images.values()) == {("worker:1", "IfNotPresent")}
    given = {each["name"]: each for each in all_containers(image="mine:2", imagePullPolicy="Always")}
    assert (given["runner"]["image"], given["runner"]["imagePullPolicy"]) == ("mine:2", "Always")
    assert {given[name]["image"] for name in ("agent", "install-runner")} == {"worker:1"}


def test_template_reaches_the_pod() -> None:
    template: dict[str, Any] = {
        "labels": {"team": "media"},
        "annotations": {"note": "x"},
        "volumes": [{"name": "code", "configMap": {"name": "code", "items": [{"key": "a", "path": "b"}]}}],
        "volumeMounts": [{"name": "code", "mountPath": "/app", "readOnly": True}],
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "nodeSelector": {"gpu": "true"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "high",
        "runtimeClassName": "sandbox",
        "imagePullSecrets": [{"name": "pull"}],
    }
    made = built(template=template)["spec"]["template"]
    assert made["metadata"]["labels"]["team"] == "media"
    assert made["metadata"]["annotations"] == {"note": "x"}
    for name in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        assert made["spec"][name] == template[name]
    for name in ("priorityClassName", "runtimeClassName", "imagePullSecrets"):
        assert made["spec"][name] == template[name]
    runner = next(each for each in made["spec"]["containers"] if each["name"] == "runner")
    assert runner["resources"] == template["resources"]
    assert template["volumes"][0] in made["spec"]["volumes"]
    assert template["volumeMounts"][0] in runner["volumeMounts"]


def test_labels_of_the_template_cannot_take_pods_out_of_the_pool() -> None:
    made = built(template={"labels": {names.POOL_LABEL: "other", "app.kubernetes.io/name": "other"}})["spec"]
    assert made["selector"]["matchLabels"].items() <= made["template"]["metadata"]["labels"].items()


def test_selector_is_what_the_pods_are_labelled_with() -> None:
    parts = dict(part.split("=") for part in worker_objects.selector("media").split(","))
    assert parts == built()["spec"]["selector"]["matchLabels"] == worker_objects.pod_labels("media")


def test_digest_changes_with_the_template_only() -> None:
    def digest(made: Object) -> str:
        return str(made["metadata"]["annotations"][names.TEMPLATE_HASH_ANNOTATION])

    assert digest(built()) == digest(built(replicas=9))
    assert digest(built()) != digest(built(slots=9))
    assert digest(built()) != digest(built(labels={"gpu": "true"})) != digest(built(labels={"gpu": "false"}))
    assert digest(built()) != digest(built(queues=["media"])) != digest(built(queues=["media", "mail"]))
    assert digest(built(queues=["media", "mail"])) == digest(built(queues=["mail", "media"]))
    assert digest(built(labels={"a": "1", "b": "2"})) == digest(built(labels={"b": "2", "a": "1"}))
    assert digest(built(labels={}, queues=[])) == digest(built())
    assert digest(built()) != digest(built(template={"image": "other"}))


def test_all_objects_go_with_an_owner() -> None:
    made = [
        built(),
        worker_objects.service_account(NAMESPACE, ROLE),
        worker_objects.role_binding(NAMESPACE, ROLE),
        offered(secretNames=["token"]),
        worker_objects.value_role_binding(pool_object("media")),
    ]
    for each in made:
        (owner,) = each["metadata"]["ownerReferences"]
        if each["kind"] == "Deployment" or each["metadata"]["name"] == "taskmaster-worker-media":
            assert (owner["kind"], owner["name"], owner["uid"]) == ("WorkerPool", "media", "uid-of-media")
            assert owner["controller"] is True
        else:
            assert (owner["kind"], owner["name"], owner["uid"]) == ("ClusterRole", "taskmaster-worker", "uid-of-role")
        assert "blockOwnerDeletion" not in owner
        assert each["metadata"]["namespace"] == NAMESPACE
        assert "finalizers" not in each["metadata"]


def offered(**spec: Any) -> Object:
    pool = pool_object("media", **spec)
    return worker_objects.value_role(pool, WorkerPoolSpec.model_validate(pool["spec"]))


def test_what_a_pool_offers_may_be_got_by_name_and_nothing_else() -> None:
    role = offered(secretNames=["b", "a"], configMapNames=["c"])
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c"], "verbs": ["get"]},
    ]
    assert role["metadata"]["labels"] == worker_objects.pod_labels("media")


@pytest.mark.parametrize("spec", [{}, {"secretNames": []}, {"secretNames": [], "configMapNames": []}], ids=str)
def test_a_rule_without_names_which_would_grant_all_of_them_is_not_made(spec: Object) -> None:
    assert offered(**spec)["rules"] == []
    assert [rule["resources"] for rule in offered(secretNames=["a"], configMapNames=[])["rules"]] == [["secrets"]]


def test_what_a_pool_offers_is_bound_to_the_agents() -> None:
    binding = worker_objects.value_role_binding(pool_object("media"))
    assert binding["metadata"] == offered(secretNames=["a"])["metadata"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", "taskmaster-worker-media")
    assert binding["subjects"] == worker_objects.role_binding(NAMESPACE, ROLE)["subjects"]


def test_agent_knows_what_its_pool_offers_whatever_the_order() -> None:
    def names_of(**spec: Any) -> tuple[str, str]:
        containers = built(**spec)["spec"]["template"]["spec"]["containers"]
        agent = next(each for each in containers if each["name"] == "agent")
        values = {each["name"]: each.get("value") for each in agent["env"]}
        return values["TASKMASTER_SECRET_NAMES"], values["TASKMASTER_CONFIG_MAP_NAMES"]

    assert names_of() == ("", "")
    assert names_of(secretNames=["b", "a"], configMapNames=["c"]) == ("a,b", "c")
    assert names_of(secretNames=["a", "b"], configMapNames=["c"]) == ("a,b", "c")
    assert not any("SECRET_NAMES" in name for name in env("runner"))


def test_agent_knows_the_labels_and_the_queues_of_its_pool() -> None:
    def told(**spec: Any) -> tuple[Mapping[str, str], frozenset[str]]:
        containers = built(**spec)["spec"]["template"]["spec"]["containers"]
        agent = next(each for each in containers if each["name"] == "agent")
        identity = {"POD_NAME": "w", "POD_UID": "u", "POD_NAMESPACE": "n"}
        values = {each["name"]: each["value"] for each in agent["env"] if "value" in each}
        settings = agent_settings({**identity, **values})
        return settings.labels, settings.queues

    assert told() == ({}, frozenset())
    labels = {"example.com/gpu": "a100", "zone": "", "quoted": "x"}
    assert told(labels=labels, queues=["media", "default"]) == (labels, {"media", "default"})
    assert not {"TASKMASTER_LABELS", "TASKMASTER_QUEUES"} & env("runner").keys()


def test_agents_of_a_namespace_may_work_there_and_nowhere_else() -> None:
    binding = worker_objects.role_binding(NAMESPACE, ROLE)
    assert binding["roleRef"]["name"] == "taskmaster-worker"
    (subject,) = binding["subjects"]
    account = worker_objects.service_account(NAMESPACE, ROLE)
    assert (subject["name"], subject["namespace"]) == (account["metadata"]["name"], NAMESPACE)
    assert pod()["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
