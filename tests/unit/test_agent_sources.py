"""Values from Secrets and ConfigMaps: who may read what, what becomes of a missing one, and that none is ever told."""

import asyncio
import base64
import logging
from typing import Any

import pytest
from prometheus_client import generate_latest
from tests.sim.memory_api import Call, Fault
from tests.unit.agent_worker import NAMESPACE, Stage, until, working

from taskmaster.kube.errors import ApiError, Forbidden, ServerError, TooManyRequests, Unanswered, Unauthorized
from taskmaster.kube.resource import CONFIGMAPS, SECRETS, TASKS, Object, Resource

pytestmark = pytest.mark.looptime

LISTED = {"secret_names": frozenset({"db", "absent"}), "config_map_names": frozenset({"settings"})}
PASSWORD = "p4ssw0rd-ünd-möre"
NO_RETRY = {"retry": {"limit": 0}}


def secret(on: Stage, name: str = "db", **data: bytes) -> None:
    _put(on, SECRETS, name, {key: base64.b64encode(value).decode() for key, value in data.items()})


def config_map(on: Stage, name: str = "settings", **data: str) -> None:
    _put(on, CONFIGMAPS, name, data)


def _put(on: Stage, resource: Resource, name: str, data: dict[str, str]) -> None:
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "data": data}
    on.server.create(resource, NAMESPACE, body, client="user")


def variable(name: str, source: str, obj: str, key: str, **more: Any) -> Object:
    return {"name": name, "valueFrom": {source: {"name": obj, "key": key, **more}}}


def password(**more: Any) -> list[Object]:
    return [variable("PASSWORD", "secretKeyRef", "db", "password", **more)]


def reads(on: Stage) -> list[tuple[str, str]]:
    return [(call.resource.kind, call.name) for call in on.api.calls if call.resource in (SECRETS, CONFIGMAPS)]


async def ended(on: Stage, name: str = "a") -> tuple[str, str]:
    await until(lambda: on.phase(name) in ("Failed", "Pending") and bool(on.status(name).get("attempts")))
    record = on.status(name)["attempts"][-1]
    assert record["outcome"] == "Failed"
    return record["reason"], record["message"]


async def test_values_reach_the_process() -> None:
    async with working(**LISTED) as on:
        secret(on, password=PASSWORD.encode(), user=b"joe\n")
        config_map(on, colour="blue")
        env = [
            {"name": "PLAIN", "value": "1"},
            *password(),
            variable("USER_NAME", "secretKeyRef", "db", "user"),
            variable("COLOUR", "configMapKeyRef", "settings", "colour"),
        ]
        attempt = on.submit("a", env=env)
        await until(lambda: attempt in on.runner.frames)
        expected = {"PLAIN": "1", "PASSWORD": PASSWORD, "USER_NAME": "joe\n", "COLOUR": "blue"}
        assert on.runner.frames[attempt]["env"] == expected
        assert sorted(reads(on)) == [("ConfigMap", "settings"), ("Secret", "db")], "each object once"


async def test_they_are_read_anew_for_every_attempt() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"old")
        one = on.submit("a", env=password())
        await until(lambda: one in on.runner.frames)
        on.runner.exit(one, code=1)
        await until(lambda: on.phase("a") == "Pending")
        on.server.delete(SECRETS, NAMESPACE, "db")
        secret(on, password=b"new")
        two = on.assign("a")
        await until(lambda: two in on.runner.frames)
        assert on.runner.frames[two]["env"] == {"PASSWORD": "new"}


async def test_a_task_without_sources_starts_without_a_read() -> None:
    async with working(**LISTED) as on:
        attempt = on.submit("a", env=[{"name": "PLAIN", "value": "1"}])
        await until(lambda: attempt in on.runner.frames)
        assert reads(on) == []


@pytest.mark.parametrize("there", [False, True], ids=["no object", "no key"])
async def test_what_is_optional_may_be_missing(there: bool) -> None:
    async with working(**LISTED) as on:
        if there:
            secret(on, other=b"x")
        attempt = on.submit("a", env=[*password(optional=True), {"name": "PLAIN", "value": "1"}])
        await until(lambda: attempt in on.runner.frames)
        assert on.runner.frames[attempt]["env"] == {"PLAIN": "1"}


@pytest.mark.parametrize(
    ("there", "says"), [(False, "Secret db does not exist"), (True, "Secret db has no key password")]
)
async def test_what_is_missing_fails_the_attempt_which_is_tried_again(there: bool, says: str) -> None:
    async with working(**LISTED) as on:
        if there:
            secret(on, other=b"x")
        attempt = on.submit("a", env=password())
        assert await ended(on) == ("SecretNotFound", says)
        assert on.phase("a") == "Pending"
        assert on.status("a")["failures"] == 1
        assert attempt not in on.runner.frames


@pytest.mark.parametrize("stored", [b"\xff\xfe", b"half \xc3"])
async def test_a_secret_that_is_not_text_is_a_clear_failure(stored: bytes) -> None:
    async with working(**LISTED) as on:
        secret(on, password=stored)
        on.submit("a", env=password())
        assert await ended(on) == ("SecretNotFound", "key password of Secret db is not text in UTF-8")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            variable("X", "secretKeyRef", "other", "password"),
            "Secret other is not listed in secretNames of WorkerPool pool",
        ),
        (
            variable("X", "configMapKeyRef", "db", "x"),
            "ConfigMap db is not listed in configMapNames of WorkerPool pool",
        ),
        (
            variable("X", "secretKeyRef", "other", "password", optional=True),
            "Secret other is not listed in secretNames of WorkerPool pool",
        ),
    ],
)
async def test_what_the_pool_does_not_list_is_never_read_and_not_tried_again(entry: Object, says: str) -> None:
    async with working(**LISTED) as on:
        secret(on, name="other", password=b"x")
        secret(on, password=b"x")
        on.submit("a", env=[*password(), entry])
        assert await ended(on) == ("SecretForbidden", says)
        assert on.phase("a") == "Failed"
        assert not on.status("a").get("deadLettered")
        assert reads(on) == []


async def test_a_missing_role_is_named_and_tried_again() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"x")
        on.api.faults = lambda call: Fault(before=Forbidden("secrets is forbidden")) if reading(call) else None
        on.submit("a", env=password())
        reason, message = await ended(on)
        assert reason == "SecretForbidden"
        assert "the Role taskmaster-worker-pool" in message
        assert on.phase("a") == "Pending"


@pytest.mark.parametrize(
    "error",
    [Unanswered("refused"), ServerError("etcd"), TooManyRequests("later"), Unauthorized("expired")],
    ids=["no answer", "5xx", "429", "401"],
)
async def test_a_server_that_does_not_answer_is_asked_until_it_does(error: ApiError) -> None:
    async with working(slots=1, **LISTED) as on:
        secret(on, password=PASSWORD.encode())
        on.api.faults = lambda call: Fault(before=error) if reading(call) else None
        attempt = on.submit("a", env=password())
        await asyncio.sleep(600)
        assert on.phase("a") == "Assigned"
        assert 30 < len(reads(on)) < 100
        assert on.worker.attempts.running == 1, "it holds its slot"
        assert on.metric("taskmaster_worker_attempts_running") == 1
        on.api.faults = lambda call: None
        await until(lambda: attempt in on.runner.frames)


async def test_while_values_are_read_the_slot_is_taken() -> None:
    async with working(slots=1, **LISTED) as on:
        on.api.faults = unreadable
        on.submit("a", env=password())
        await asyncio.sleep(1)
        second = on.submit("b")
        await until(lambda: on.phase("b") == "Pending")
        assert on.status("b")["attempts"][-1]["message"] == "the worker was full"
        assert second not in on.runner.frames


@pytest.mark.parametrize(("ask", "phase"), [({"cancel": True}, "Cancelled"), ({"suspend": True}, "Pending")])
async def test_a_stop_ends_the_reading_at_once_and_frees_the_slot(ask: dict[str, bool], phase: str) -> None:
    async with working(slots=1, **LISTED) as on:
        on.api.faults = unreadable
        attempt = on.submit("a", env=password())
        await asyncio.sleep(30)
        on.edit("a", **ask)
        await until(lambda: on.phase("a") == phase, seconds=0.5)
        assert on.status("a")["attempts"][-1]["outcome"] in ("Cancelled", "Suspended")
        asked = len(reads(on))
        on.api.faults = lambda call: None
        second = on.submit("b")
        await until(lambda: second in on.runner.frames)
        await asyncio.sleep(60)
        assert len(reads(on)) == asked
        assert attempt not in on.runner.frames
        assert on.runner.stops == []


async def test_the_time_of_the_attempt_runs_while_values_are_read() -> None:
    async with working(**LISTED) as on:
        on.api.faults = unreadable
        on.submit("a", env=password(), timeouts={"attemptSeconds": 60}, **NO_RETRY)
        await asyncio.sleep(59)
        assert on.phase("a") == "Assigned"
        await asyncio.sleep(2)
        assert await ended(on) == ("TimedOut", "ran longer than timeouts.attemptSeconds = 60 s")


async def test_a_task_that_is_taken_away_while_values_are_read_is_never_begun() -> None:
    async with working(slots=1, **LISTED) as on:
        secret(on, password=b"x")
        on.api.faults = lambda call: Fault(delay=10) if reading(call) else None
        attempt = on.submit("a", env=password())
        await asyncio.sleep(1)
        on.requeue("a")
        await asyncio.sleep(1)
        assert on.worker.attempts.running == 0
        await asyncio.sleep(30)
        assert attempt not in on.runner.frames


async def test_a_runner_lost_meanwhile_costs_nothing() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"x")
        on.api.faults = lambda call: Fault(delay=5) if reading(call) else None
        attempt = on.submit("a", env=password())
        await asyncio.sleep(1)
        on.runner.away = True
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("a") == "Pending")
        assert on.status("a")["attempts"][-1]["outcome"] == "Released"
        assert "runnerDeaths" not in on.status("a")
        assert attempt not in on.runner.frames


async def test_a_runner_that_is_back_in_time_is_used() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"x")
        on.api.faults = lambda call: Fault(delay=5) if reading(call) else None
        attempt = on.submit("a", env=password())
        await asyncio.sleep(1)
        on.runner.reset("the runner container died")
        await until(lambda: attempt in on.runner.frames)
        assert on.runner.hellos == 2


async def test_a_drain_lets_what_reads_go_on_and_then_gives_it_back() -> None:
    async with working(drain_seconds=30, **LISTED) as on:
        on.api.faults = unreadable
        on.submit("a", env=password())
        await asyncio.sleep(1)
        on.worker.terminate()
        await asyncio.sleep(25)
        assert on.phase("a") == "Assigned"
        await until(lambda: on.phase("a") == "Pending", seconds=10)
        assert on.status("a")["attempts"][-1]["outcome"] == "Interrupted"
        assert on.running is not None
        await asyncio.wait([on.running], timeout=10)
        assert on.running.done()


async def test_values_that_make_no_frame_fail_the_attempt_without_being_told() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"x")
        on.runner.start = _refuse  # type: ignore[method-assign]
        on.submit("a", env=password(), **NO_RETRY)
        reason, _ = await ended(on)
        assert reason == "StartFailed"
        assert on.worker.attempts.running == 0


async def test_no_value_is_told_to_anybody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with working(slots=8, **LISTED) as on:
        secret(on, password=PASSWORD.encode(), broken=b"\xff" + PASSWORD.encode())
        failures = [Fault(before=ServerError(PASSWORD)), Fault(before=Unanswered(PASSWORD))]
        on.api.faults = lambda call: failures.pop() if reading(call) and failures else None
        good = on.submit("good", env=password())
        await until(lambda: good in on.runner.frames)
        on.runner.started(good)
        await until(lambda: on.phase("good") == "Running")
        on.runner.exit(good, code=1)
        lost = on.submit("lost", env=password())
        await until(lambda: lost in on.runner.frames)
        on.submit("broken", env=[variable("X", "secretKeyRef", "db", "broken")])
        on.submit("missing", env=[*password(), variable("X", "secretKeyRef", "absent", "x")])
        on.submit("forbidden", env=[*password(), variable("X", "secretKeyRef", "other", "x")])
        header = {**variable("Authorization", "secretKeyRef", "db", "password")}
        on.submit("http", run={"http": {"url": "http://127.0.0.1:9/", "headers": [header]}})
        await until(lambda: all(on.status(name).get("attempts") for name in ("broken", "missing", "forbidden", "http")))
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("lost") == "Pending")
        told = [str(vars(record)) for record in caplog.records]
        told += [str(write) for write in on.status_writes()]
        told += [str(change.after) for change in on.server.history if change.resource is TASKS]
        told.append(generate_latest(on.metrics.registry).decode())
    assert any("cannot be read, trying again" in text for text in told)
    assert not [text for text in told if PASSWORD in text or PASSWORD.encode("unicode_escape").decode() in text]


def reading(call: Call) -> bool:
    return call.resource in (SECRETS, CONFIGMAPS)


def unreadable(call: Call) -> Fault | None:
    return Fault(before=Unanswered("refused")) if reading(call) else None


def _refuse(frame: Any) -> None:
    raise ValueError("too large")
