"""Values of Secrets and ConfigMaps, which reach the Task and nothing else; and HTTP requests."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.e2e.cluster import SYSTEM_NAMESPACE, Cluster, Object
from tests.e2e.jobs import PORT
from tests.e2e.objects import attempts, call, config_map, holder, phase, request, secret, shell, spent
from tests.e2e.release import OPERATOR_PODS
from tests.e2e.space import Space
from tests.e2e.times import seconds_between

pytestmark = pytest.mark.timeout(240)

PASSWORD = "correct-horse-battery-staple"
SETTING = "blue-green-and-red"
HASH = 'for value in "$PASSWORD" "$SETTING" "$NOTHING"; do printf %s "$value" | sha256sum | cut -c1-64; done'
SOON = {"limit": 40, "backoff": {"initialSeconds": 1, "factor": 1, "jitter": "None"}}


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    objects = (secret("known", password=PASSWORD), secret("unlisted", password=PASSWORD))
    settings = config_map("settings", colour=SETTING)
    lists = {"secretNames": ["known", "later"], "configMapNames": ["settings"]}
    with Space.made(cluster, "values", *objects, settings, replicas=2, slots=8, **lists) as made:
        yield made


def env(name: str, source: str, obj: str, key: str, *, optional: bool = False) -> Object:
    """A variable with a `valueFrom`."""
    return {"name": name, "valueFrom": {source: {"name": obj, "key": key, "optional": optional}}}


def digest(text: str) -> str:
    """The same as the Task prints."""
    return hashlib.sha256(text.encode()).hexdigest()


def test_values_reach_the_task_and_nothing_else(space: Space) -> None:
    variables = [
        env("PASSWORD", "secretKeyRef", "known", "password"),
        env("SETTING", "configMapKeyRef", "settings", "colour"),
        env("NOTHING", "configMapKeyRef", "settings", "no-such-key", optional=True),
    ]
    space.apply(shell("hashes", HASH, env=variables, retry={"limit": 0}))
    space.apply(shell("fails", "sleep 1; exit 1", env=variables, retry={"limit": 0}))
    hashes, fails = space.finished("hashes", "fails")
    assert hashes["status"]["logTail"].split() == [digest(PASSWORD), digest(SETTING), digest("")]
    operators = ("-n", SYSTEM_NAMESPACE, "-l", OPERATOR_PODS, "--tail=-1")
    places = [json.dumps([hashes, fails]), space.cluster.kubectl("logs", *operators)]
    for worker in space.workers():
        places += [space.log(worker, "agent"), space.log(worker, "runner")]
        path = f"/api/v1/namespaces/{space.name}/pods/{worker}:8081/proxy/metrics"
        places.append(space.cluster.kubectl("get", "--raw", path))
    assert digest(PASSWORD) in "".join(places)
    for place in places:
        assert PASSWORD not in place
        assert SETTING not in place


def test_what_the_pool_does_not_list_is_forbidden_for_good(space: Space) -> None:
    space.apply(
        shell("forbidden", "true", env=[env("A", "secretKeyRef", "unlisted", "password")], retry=SOON),
        shell("forbidden-map", "true", env=[env("A", "configMapKeyRef", "kube-root-ca.crt", "ca.crt")], retry=SOON),
    )
    for refused, name in zip(
        space.finished("forbidden", "forbidden-map"), ("unlisted", "kube-root-ca.crt"), strict=True
    ):
        status = refused["status"]
        assert (status["phase"], status["reason"], status["attempt"]) == ("Failed", "SecretForbidden", 1)
        assert name in status["message"]
        assert not status.get("deadLettered")


def test_a_missing_secret_is_looked_for_until_it_is_there(space: Space) -> None:
    space.apply(shell("early", HASH, env=[env("PASSWORD", "secretKeyRef", "later", "password")], retry=SOON))
    space.apply(
        shell("no-key", "true", env=[env("A", "secretKeyRef", "known", "no-such-key")], retry={"limit": 0}),
    )
    space.reach("attempts[0].reason", "SecretNotFound", "early")
    space.apply(secret("later", password=PASSWORD))
    early, no_key = space.finished("early", "no-key")
    assert phase(early) == "Succeeded"
    assert digest(PASSWORD) in early["status"]["logTail"]
    *before, _ = attempts(early)
    assert {(each["outcome"], each["reason"]) for each in before} == {("Failed", "SecretNotFound")}
    assert "later" in before[0]["message"]
    assert (phase(no_key), no_key["status"]["reason"]) == ("Failed", "SecretNotFound")
    assert "no-such-key" in no_key["status"]["message"]


@dataclass(frozen=True)
class Server:
    """Where a Task answers HTTP requests."""

    space: Space
    url: str


@pytest.fixture(scope="module")
def server(space: Space) -> Server:
    space.apply(call("server", "serve"))
    space.reach("phase", "Running", "server")
    pod = space.cluster.get(f"pod/{holder(space.task('server'))}", namespace=space.name)
    return Server(space, f"http://{pod['status']['podIP']}:{PORT}")


def test_requests_are_made_and_their_answer_is_the_result(server: Server) -> None:
    space = server.space
    headers = [
        {"name": "content-type", "value": "text/plain"},
        {"name": "authorization", "valueFrom": {"secretKeyRef": {"name": "known", "key": "password"}}},
    ]
    posted = {"method": "POST", "body": "some words", "headers": headers}
    space.apply(
        request("posts", f"{server.url}/echo?a=1", http=posted),
        request("finds-nothing", f"{server.url}/404", http={"expectStatus": [404]}),
    )
    posts, finds_nothing = space.finished("posts", "finds-nothing")
    assert (phase(posts), posts["status"]["result"]["status"]) == ("Succeeded", 200)
    said = posts["status"]["result"]["body"]
    assert (said["method"], said["body"], said["query"]) == ("POST", "some words", {"a": ["1"]})
    assert said["headers"]["content-type"] == "text/plain"
    # The server repeats what it has heard, and how that is hashed.
    assert (said["headers"]["authorization"], said["digest"]) == ("[hidden]", digest(PASSWORD))
    assert PASSWORD not in json.dumps(posts)
    assert finds_nothing["status"]["result"] == {"status": 404, "headers": {}, "body": "you asked for /404"}


def test_unexpected_answers_are_failures_with_their_status(server: Server) -> None:
    space = server.space
    rules = [{"name": "not-there", "onHTTPStatuses": [404], "action": "Fail"}]
    space.apply(
        request("unexpected", f"{server.url}/500", retry={"limit": 0}),
        request("ruled", f"{server.url}/404", retry={"limit": 5, "rules": rules}),
        request("nobody", server.url.replace(str(PORT), "9"), retry={"limit": 0}),
        request(
            "busy",
            f"{server.url}/busy?busy",
            retry={"limit": 1, "backoff": {"initialSeconds": 3_600, "maxSeconds": 3_600}},
        ),
    )
    unexpected, ruled, nobody, busy = space.finished("unexpected", "ruled", "nobody", "busy")
    assert (phase(unexpected), unexpected["status"]["reason"], spent(unexpected)) == ("Failed", "HTTPStatus", (1, 0, 0))
    assert "500" in unexpected["status"]["message"]
    assert (phase(ruled), ruled["status"]["reason"], ruled["status"]["attempt"]) == ("Failed", "RuleMatched", 1)
    assert ruled["status"]["message"].startswith("retry rule not-there: ")
    assert (phase(nobody), nobody["status"]["reason"]) == ("Failed", "RequestFailed")
    first, second = attempts(busy)
    assert (phase(busy), first["reason"]) == ("Succeeded", "HTTPStatus")
    assert seconds_between(first["endTime"], second["startTime"]) >= 3


def test_requests_end_in_time_and_when_they_are_cancelled(server: Server) -> None:
    space = server.space
    space.apply(
        request("slow", f"{server.url}/slow", http={"timeoutSeconds": 1}, retry={"limit": 0}),
        request("stopped", f"{server.url}/slow"),
    )
    space.reach("phase", "Running", "stopped")
    space.edit("stopped", cancel=True)
    slow, stopped = space.finished("slow", "stopped")
    assert (phase(slow), slow["status"]["reason"]) == ("Failed", "RequestFailed")
    assert (phase(stopped), attempts(stopped)[0]["outcome"]) == ("Cancelled", "Cancelled")
    space.edit("server", cancel=True)
    space.finished("server")
    space.is_idle()
