"""What Helm makes of the chart: names, rights, security settings, and what must never be rendered."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "taskmaster"
LOW_RATE_KINDS = ("taskqueues", "taskschedules", "tasktemplates", "workerpools")
Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


def run_helm(helm: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(helm), "template", "taskmaster", str(CHART), "--namespace=taskmaster-system", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture(scope="module")
def render(helm: Path) -> Render:
    def call(*options: str) -> Objects:
        done = run_helm(helm, *options)
        assert done.returncode == 0, done.stderr
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return call


@pytest.fixture(scope="module")
def default(render: Render) -> Objects:
    return render("--set=metrics.serviceMonitor.enabled=true")


def of_kind(objects: Objects, kind: str) -> Objects:
    return [each for each in objects if each["kind"] == kind]


def named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pod_specs(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in objects:
        match each["kind"]:
            case "Deployment" | "Job":
                yield each["metadata"]["name"], each["spec"]["template"]["spec"]
            case "Pod":
                yield each["metadata"]["name"], each["spec"]


def rights(role: dict[str, Any]) -> dict[str, set[str]]:
    """Return the verbs by resource, with the names in brackets where a rule has some."""
    result: dict[str, set[str]] = {}
    for rule in role["rules"]:
        suffix = f"[{','.join(rule['resourceNames'])}]" if "resourceNames" in rule else ""
        for resource in rule["resources"]:
            result.setdefault(resource + suffix, set()).update(rule["verbs"])
    return result


def crd_names() -> list[str]:
    return [yaml.safe_load(path.read_text())["metadata"]["name"] for path in sorted((CHART / "crds").glob("*.yaml"))]


def environment(objects: Objects) -> dict[str, Any]:
    (operator,) = of_kind(objects, "Deployment")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value") for each in container["env"]}


def test_pods_keep_the_restricted_pod_security_standard(default: Objects) -> None:
    specs = dict(pod_specs(default))
    assert set(specs) == {"taskmaster-operator", "taskmaster-crds", "taskmaster-smoke-test"}
    for spec in specs.values():
        pod = spec["securityContext"]
        assert (pod["runAsNonRoot"], pod["seccompProfile"]["type"]) == (True, "RuntimeDefault")
        assert pod["runAsUser"] > 0
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}


def test_no_pool_has_replicas_and_nothing_has_a_finalizer(default: Objects) -> None:
    (pool,) = of_kind(default, "WorkerPool")
    assert pool["spec"] == {"slots": 4}
    assert pool["metadata"]["namespace"] == "taskmaster-system"
    assert [each["metadata"]["name"] for each in default if "finalizers" in each["metadata"]] == []


def test_no_role_has_a_wildcard_or_more_than_get_of_secrets(default: Objects) -> None:
    roles = of_kind(default, "ClusterRole") + of_kind(default, "Role")
    assert len(roles) >= 6
    for role in roles:
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in words
            assert {"events", "escalate", "impersonate"}.isdisjoint(words)
            if "secrets" in rule["resources"]:
                assert (role["metadata"]["name"], rule["verbs"]) == ("taskmaster-operator", ["get"])


def test_without_value_from_nobody_touches_secrets_or_roles(render: Render) -> None:
    for role in [each for each in render("--set=valueFrom.enabled=false") if each["kind"] in ("ClusterRole", "Role")]:
        granted = set(rights(role))
        assert {"secrets", "configmaps", "roles"}.isdisjoint(granted), role["metadata"]["name"]
        assert "delete" not in rights(role).get("rolebindings", ())


def test_a_worker_can_do_no_more_than_report(default: Objects) -> None:
    assert rights(named(default, "ClusterRole", "taskmaster-worker")) == {
        "tasks": {"get", "list", "watch"},
        "tasks/status": {"patch"},
        "leases": {"get", "create", "patch"},
    }


def test_the_operator_has_exactly_these_rights(default: Objects) -> None:
    assert rights(named(default, "ClusterRole", "taskmaster-operator")) == {
        f"customresourcedefinitions[{','.join(crd_names())}]": {"get"},
        "tasks": {"get", "list", "watch", "create", "delete"},
        "tasks/status": {"get", "patch"},
        **{kind: {"get", "list", "watch"} for kind in LOW_RATE_KINDS},
        **{f"{kind}/status": {"get", "patch"} for kind in LOW_RATE_KINDS},
        "deployments": {"get", "list", "watch", "create", "patch"},
        "pods": {"get", "list", "watch"},
        "leases": {"get", "list", "watch", "patch"},
        "serviceaccounts": {"get", "create", "patch"},
        "serviceaccounts[taskmaster-worker]": {"delete"},
        "roles": {"get", "create", "patch", "delete"},
        "rolebindings": {"get", "create", "patch", "delete"},
        "rolebindings[taskmaster-worker]": {"delete"},
        "clusterroles[taskmaster-worker]": {"bind", "get"},
        "secrets": {"get"},
        "configmaps": {"get"},
    }
    assert rights(named(default, "Role", "taskmaster-election")) == {
        "leases": {"create"},
        "leases[taskmaster-coordinator]": {"get", "patch"},
        "deployments[taskmaster-operator]": {"get"},
    }


def test_people_see_every_kind_edit_all_but_pools_and_never_write_a_status(default: Objects) -> None:
    kinds = {"tasks", *LOW_RATE_KINDS}
    writes = {"create", "update", "patch", "delete", "deletecollection"}
    assert rights(named(default, "ClusterRole", "taskmaster-view")) == {
        kind: {"get", "list", "watch"} for kind in kinds
    }
    assert rights(named(default, "ClusterRole", "taskmaster-edit")) == dict.fromkeys(kinds - {"workerpools"}, writes)
    assert rights(named(default, "ClusterRole", "taskmaster-admin")) == {
        "workerpools": writes,
        "workerpools/scale": {"get", "update", "patch"},
    }


def test_the_upgrade_of_crds_is_limited_to_our_own(default: Objects) -> None:
    role = named(default, "ClusterRole", "taskmaster-crds")
    assert rights(role) == {f"customresourcedefinitions[{','.join(crd_names())}]": {"get", "create", "patch"}}
    hooks = [each for each in default if each["metadata"]["name"] == "taskmaster-crds"]
    assert {each["metadata"]["annotations"]["helm.sh/hook"] for each in hooks} == {"pre-upgrade"}
    assert all("hook-succeeded" in each["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for each in hooks)


def test_the_operator_is_told_the_names_of_what_the_chart_made(default: Objects) -> None:
    told = environment(default)
    named(default, "ClusterRole", told["TASKMASTER_WORKER_CLUSTERROLE"])
    named(default, "Deployment", told["TASKMASTER_OWNER_DEPLOYMENT"])
    assert told["TASKMASTER_LEASE_NAME"] == "taskmaster-coordinator"
    assert told["TASKMASTER_WORKER_IMAGE"].startswith("taskmaster-worker:")


def test_watched_namespaces_get_roles_of_their_own(render: Render) -> None:
    objects = render("--set=watchNamespaces={team-a,team-b}")
    cluster_wide = rights(named(objects, "ClusterRole", "taskmaster-operator"))
    assert cluster_wide == {
        f"customresourcedefinitions[{','.join(crd_names())}]": {"get"},
        "clusterroles[taskmaster-worker]": {"get"},
    }
    roles = [each for each in of_kind(objects, "Role") if each["metadata"]["name"] == "taskmaster-operator"]
    assert [each["metadata"]["namespace"] for each in roles] == ["team-a", "team-b"]
    assert environment(objects)["TASKMASTER_NAMESPACES"] == "team-a,team-b"
    assert [each["metadata"]["namespace"] for each in of_kind(objects, "WorkerPool")] == ["team-a"]


def test_a_digest_wins_over_a_tag(render: Render) -> None:
    digest = f"sha256:{'0' * 64}"
    objects = render("--set=image.tag=1.2.3", f"--set=image.digest={digest}")
    images = {container["image"] for _, spec in pod_specs(objects) for container in spec["containers"]}
    assert images == {f"taskmaster-operator@{digest}"}


def test_pools_can_be_added_and_taken_away(render: Render) -> None:
    objects = render("--set-json=workerPools.default=null", '--set-json=workerPools.gpu={"slots":2,"namespace":"ml"}')
    (pool,) = of_kind(objects, "WorkerPool")
    assert (pool["metadata"]["name"], pool["metadata"]["namespace"], pool["spec"]) == ("gpu", "ml", {"slots": 2})


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        pytest.param("--set=replcas=3", "replcas", id="a misspelt key"),
        pytest.param("--set=workerPools.default.replicas=3", "replicas", id="replicas of a pool"),
    ],
)
def test_unknown_values_are_refused(helm: Path, option: str, complaint: str) -> None:
    done = run_helm(helm, option)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_pool_outside_of_the_watched_namespaces_is_refused(helm: Path) -> None:
    done = run_helm(helm, "--set=watchNamespaces={team-a}", "--set=workerPools.default.namespace=team-b")
    assert done.returncode != 0
    assert 'namespace "team-b" is not among watchNamespaces' in done.stderr


def test_a_cluster_that_is_too_old_is_refused(helm: Path) -> None:
    done = run_helm(helm, "--kube-version=1.30.0")
    assert done.returncode != 0
    assert "kubeVersion" in done.stderr
