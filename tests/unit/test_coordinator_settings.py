import pytest

from taskmaster.coordinator.settings import BadSetting, from_environment

REQUIRED = {"POD_NAME": "coordinator-1", "POD_NAMESPACE": "taskmaster"}


def test_defaults_are_those_of_the_design() -> None:
    found = from_environment(REQUIRED)
    assert (found.identity, found.namespace, found.watch_namespaces) == ("coordinator-1", "taskmaster", ())
    assert (found.worker_lease_seconds, found.worker_renew_seconds, found.election_lease_seconds) == (45, 10, 15)
    assert (found.lease_name, found.worker_cluster_role) == ("taskmaster-coordinator", "taskmaster-worker")
    assert (found.http_host, found.http_port, found.owner_deployment) == ("0.0.0.0", 8080, "")
    assert (found.worker_image, found.worker_image_pull_policy) == ("taskmaster-worker", "IfNotPresent")
    assert found.log_level == "INFO"


def test_everything_can_be_set() -> None:
    found = from_environment(
        REQUIRED
        | {
            "TASKMASTER_NAMESPACES": "a, b,,c",
            "TASKMASTER_WORKER_IMAGE": "registry/worker:1",
            "TASKMASTER_WORKER_IMAGE_PULL_POLICY": "Never",
            "TASKMASTER_WORKER_CLUSTERROLE": "role",
            "TASKMASTER_WORKER_LEASE_SECONDS": "9",
            "TASKMASTER_WORKER_RENEW_SECONDS": "2",
            "TASKMASTER_LEASE_NAME": "lease",
            "TASKMASTER_ELECTION_LEASE_SECONDS": "5",
            "TASKMASTER_OWNER_DEPLOYMENT": "me",
            "TASKMASTER_HTTP_ADDRESS": "127.0.0.1:0",
            "TASKMASTER_LOG_LEVEL": "debug",
        }
    )
    assert found.watch_namespaces == ("a", "b", "c")
    assert (found.worker_image, found.worker_image_pull_policy) == ("registry/worker:1", "Never")
    assert (found.worker_cluster_role, found.lease_name, found.owner_deployment) == ("role", "lease", "me")
    assert (found.worker_lease_seconds, found.worker_renew_seconds, found.election_lease_seconds) == (9, 2, 5)
    assert (found.http_host, found.http_port, found.log_level) == ("127.0.0.1", 0, "DEBUG")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"POD_NAME": ""}, "POD_NAME"),
        ({"POD_NAMESPACE": ""}, "POD_NAMESPACE"),
        ({"TASKMASTER_WORKER_LEASE_SECONDS": "soon"}, "TASKMASTER_WORKER_LEASE_SECONDS .* not 'soon'"),
        ({"TASKMASTER_WORKER_LEASE_SECONDS": ""}, "TASKMASTER_WORKER_LEASE_SECONDS"),
        ({"TASKMASTER_ELECTION_LEASE_SECONDS": "0"}, "TASKMASTER_ELECTION_LEASE_SECONDS .* at least 1"),
        ({"TASKMASTER_WORKER_RENEW_SECONDS": "-1"}, "TASKMASTER_WORKER_RENEW_SECONDS"),
        ({"TASKMASTER_WORKER_RENEW_SECONDS": "1.5"}, "TASKMASTER_WORKER_RENEW_SECONDS"),
        ({"TASKMASTER_WORKER_RENEW_SECONDS": "23"}, "at most half"),
        ({"TASKMASTER_HTTP_ADDRESS": "0.0.0.0"}, "TASKMASTER_HTTP_ADDRESS"),
        ({"TASKMASTER_HTTP_ADDRESS": "0.0.0.0:http"}, "TASKMASTER_HTTP_ADDRESS"),
    ],
)
def test_setting_that_cannot_be_used_is_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named):
        from_environment(REQUIRED | changes)


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_missing_setting_is_named(missing: str) -> None:
    with pytest.raises(BadSetting, match=missing):
        from_environment({name: value for name, value in REQUIRED.items() if name != missing})
