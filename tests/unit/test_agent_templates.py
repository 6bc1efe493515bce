"""Tasks made of a template: an attempt runs what the coordinator found that to be, in place of the spec's own words."""

from typing import Any

import pytest
from tests.unit.agent_site import over, site
from tests.unit.agent_worker import Stage, until, working
from tests.unit.test_agent_sources import LISTED, secret

pytestmark = pytest.mark.looptime

TEMPLATE: dict[str, Any] = {"run": None, "templateRef": {"name": "resize"}, "args": {"id": 42}}
CALL = {"python": {"callable": "media:resize", "args": {"id": 42}}}
PASSWORD = {"valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}


def submit(on: Stage, name: str, resolved: Any, **spec: Any) -> str:
    """Assign a Task with what its template came to, which the coordinator writes at the same time."""
    on.create(name, **TEMPLATE, **spec)
    on.write_status(name, [{"op": "add", "path": "/status/resolvedRun", "value": resolved}])
    return on.assign(name)


async def test_an_attempt_is_made_of_what_the_template_came_to() -> None:
    async with working() as on:
        env = [{"name": "SIZE", "value": "64"}, {"name": "EMPTY"}]
        resolved = {"run": CALL, "env": env, "workingDir": "/data", "memoryMiB": 3}
        attempt = submit(on, "a", resolved)
        await until(lambda: attempt in on.runner.frames)
        assert on.runner.frames[attempt] == {
            "type": "start",
            "id": attempt,
            "task": {"name": "a", "namespace": "team", "uid": attempt.split("/")[0], "attempt": 1},
            "run": CALL,
            "env": {"SIZE": "64", "EMPTY": ""},
            "workingDir": "/data",
            "memoryBytes": 3 * 1024 * 1024,
        }


async def test_nothing_of_the_spec_is_mixed_into_it() -> None:
    async with working() as on:
        spec = {"env": [{"name": "A", "value": "1"}], "workingDir": "/srv", "resources": {"memoryMiB": 7}}
        attempt = submit(on, "a", {"run": CALL}, **spec)
        await until(lambda: attempt in on.runner.frames)
        assert on.runner.frames[attempt].keys() == {"type", "id", "task", "run"}


async def test_it_stays_the_same_for_the_next_attempt() -> None:
    async with working() as on:
        first = submit(on, "a", {"run": CALL}, retry={"backoff": {"initialSeconds": 0}})
        await until(lambda: first in on.runner.frames)
        on.runner.exit(first, code=1)
        await until(lambda: on.phase("a") == "Pending")
        assert on.status("a")["resolvedRun"] == {"run": CALL}
        second = on.assign("a")
        await until(lambda: second in on.runner.frames)
        assert on.runner.frames[second]["run"] == CALL


async def test_values_from_elsewhere_are_read_for_it() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"p4ss")
        attempt = submit(on, "a", {"run": CALL, "env": [{"name": "PASSWORD", **PASSWORD}]})
        await until(lambda: attempt in on.runner.frames)
        assert on.runner.frames[attempt]["env"] == {"PASSWORD": "p4ss"}


async def test_a_request_of_a_template_is_made_by_the_agent() -> None:
    async with site() as there, working(**LISTED) as on:
        secret(on, password=b"p4ss")
        submit(on, "a", {"run": {"http": {"url": there.url, "headers": [{"name": "X-Key", **PASSWORD}]}}})
        await over(on)
        assert on.runner.frames == {}
        assert [request.headers["X-Key"] for request in there.asked] == ["p4ss"]


async def test_without_it_the_attempt_ends_with_a_record_that_says_so() -> None:
    async with working() as on:
        on.create("a", **TEMPLATE, retry={"limit": 0})
        on.assign("a")
        await until(lambda: on.phase("a") == "Failed")
        status = on.status("a")
        assert status["reason"] == "StartFailed"
        assert "spec.templateRef is set, but status.resolvedRun does not say what that comes to" in status["message"]
        assert on.worker.attempts.slots_taken == 0


@pytest.mark.parametrize("resolved", [{}, {"run": None}, {"run": CALL, "env": [{"value": "1"}]}], ids=str)
async def test_one_that_is_not_whole_ends_with_a_record(resolved: Any) -> None:
    async with working() as on:
        submit(on, "a", resolved, retry={"limit": 0})
        await until(lambda: on.phase("a") == "Failed")
        assert on.status("a")["reason"] == "StartFailed"
        assert on.runner.frames == {}
