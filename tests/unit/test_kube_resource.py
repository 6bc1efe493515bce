import pytest

from taskmaster.kube.resource import CRDS, LEASES, NAMESPACES, PODS, TASKS, Resource


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (TASKS, (None,), "/apis/taskmaster.dev/v1alpha1/tasks"),
        (TASKS, ("n",), "/apis/taskmaster.dev/v1alpha1/namespaces/n/tasks"),
        (TASKS, ("n", "a", "status"), "/apis/taskmaster.dev/v1alpha1/namespaces/n/tasks/a/status"),
        (PODS, ("n", "a"), "/api/v1/namespaces/n/pods/a"),
        (PODS, (None,), "/api/v1/pods"),
        (NAMESPACES, (None, "n"), "/api/v1/namespaces/n"),
        (
            CRDS,
            (None, "tasks.taskmaster.dev"),
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tasks.taskmaster.dev",
        ),
        (PODS, ("n", "../secrets/x"), "/api/v1/namespaces/n/pods/..%2Fsecrets%2Fx"),
    ],
)
def test_path(resource: Resource, arguments: tuple[str | None, ...], path: str) -> None:
    assert resource.path(*arguments) == path


@pytest.mark.parametrize(
    ("resource", "arguments"),
    [
        pytest.param(NAMESPACES, ("n",), id="namespace of what has none"),
        pytest.param(TASKS, (None, "a"), id="name without namespace"),
        pytest.param(TASKS, ("n", ""), id="empty name would be the collection"),
        pytest.param(TASKS, ("", "a"), id="empty namespace"),
        pytest.param(TASKS, ("n", None, "status"), id="subresource of a collection"),
    ],
)
def test_path_that_does_not_exist_is_refused(resource: Resource, arguments: tuple[str | None, ...]) -> None:
    with pytest.raises(ValueError, match=resource.plural):
        resource.path(*arguments)


def test_api_version_of_the_core_group_has_no_group() -> None:
    assert (PODS.api_version, LEASES.api_version) == ("v1", "coordination.k8s.io/v1")
