"""`run.http`: requests made by the agent, against a real server on this machine."""

import asyncio
import base64
import logging
import socket
from datetime import datetime
from typing import Any

import pytest
from aiohttp import web
from tests.unit.agent_site import always, answer_ok, http, over, site
from tests.unit.agent_worker import NAMESPACE, Stage, until, wall_clock, working

from taskmaster.api.patches import Ended
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster.kube.resource import SECRETS
from taskmaster_worker.agent.http_answer import BODY_BYTES
from taskmaster_worker.agent.http_calls import HTTPCalls

pytestmark = pytest.mark.looptime

TOKEN = "s3cr3t-t0ken"


async def test_a_request_is_made_by_the_agent_and_its_answer_is_the_result() -> None:
    async with site() as there, working() as on:
        headers = [
            {"name": "X-One", "value": "1"},
            {"name": "X-One", "value": "2"},
            {"name": "User-Agent", "value": "me"},
        ]
        call = http(f"{there.url}/x?y=1", method="POST", headers=headers, body='{"a": "ü"}')
        on.submit("a", **call)
        status = await over(on)
        assert status["result"] == {
            "status": 200,
            "headers": {"content-type": "application/json; charset=utf-8"},
            "body": {"path": "/x"},
        }
        assert (status["reason"], "startTime" in status, "exitCode" in status) == ("Completed", True, False)
        (request,) = there.asked
        assert (request.method, request.path_qs) == ("POST", "/x?y=1")
        assert request.headers.getall("X-One") == ["1", "2"]
        assert request.headers.getall("User-Agent") == ["me"]
        assert "Content-Type" not in request.headers
        assert there.bodies == ['{"a": "ü"}'.encode()]
        assert on.runner.frames == {}
        assert len(on.status_writes()) == 1


async def test_redirects_are_answers() -> None:
    async with site() as there, working() as on:
        there.answer = always(status=302, headers={"Location": "/elsewhere"})
        on.submit("a", **http(there.url, expectStatus=[302]))
        status = await over(on)
        assert status["result"]["headers"]["location"] == "/elsewhere"
        assert len(there.asked) == 1


async def test_nothing_of_one_request_reaches_the_next() -> None:
    async with site() as there, working() as on:
        there.answer = always(headers={"Set-Cookie": "who=a"})
        for name in ("a", "b"):
            on.submit(name, **http(there.url))
            await over(on, name)
        assert "Cookie" not in there.asked[1].headers


async def test_an_unexpected_status_fails_and_waits_for_as_long_as_the_server_says() -> None:
    async with site() as there, working() as on:
        there.answer = always(status=429, text="slow down", headers={"Retry-After": "70"})
        on.submit("a", **http(there.url), retry={"backoff": {"initialSeconds": 1}})
        status = await over(on, phase="Pending")
        record = status["attempts"][-1]
        assert (record["outcome"], record["reason"], record["message"]) == (
            "Failed",
            "HTTPStatus",
            "HTTP status 429: slow down",
        )
        waits = datetime.fromisoformat(status["notBeforeTime"]) - datetime.fromisoformat(record["endTime"])
        assert waits.total_seconds() == 70


async def test_a_rule_may_match_the_status() -> None:
    async with site() as there, working() as on:
        there.answer = always(status=404, headers={"Retry-After": "5"})
        rule = {"name": "not-there", "onHTTPStatuses": [404], "action": "Fail"}
        on.submit("a", **http(there.url), retry={"rules": [rule]})
        status = await over(on, phase="Failed")
        assert status["reason"] == "RuleMatched"


async def test_no_more_than_a_mebibyte_is_read() -> None:
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            sent += 65_536

    async with site() as there, working() as on:
        there.answer = endless
        on.submit("a", **http(there.url))
        status = await over(on)
        assert status["result"]["bodyBytes"] == BODY_BYTES
        assert "body" not in status["result"]
        assert sent < 64 * BODY_BYTES, "only what the buffers of sockets take"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("http://127.0.0.1:1/", "Cannot connect to host 127.0.0.1:1", id="refused"),
        pytest.param("http://[::1/", "InvalidUrl", id="no url"),
    ],
)
async def test_no_answer_is_a_failure_that_is_tried_again(url: str, says: str) -> None:
    async with working() as on:
        on.submit("a", **http(url), retry={"limit": 1})
        status = await over(on, phase="Pending")
        record = status["attempts"][-1]
        assert record["reason"] == "RequestFailed"
        assert says.lower() in record["message"].lower()


async def test_a_server_that_speaks_no_tls_or_hangs_up_is_no_answer() -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with site() as there, working() as on:
        there.answer = hang_up
        on.submit("a", **http(there.url), retry={"limit": 0})
        on.submit("b", **http(there.url.replace("http:", "https:")), retry={"limit": 0})
        for name in ("a", "b"):
            assert (await over(on, name, phase="Failed"))["reason"] == "RequestFailed"


async def test_an_answer_that_takes_too_long_is_no_answer() -> None:
    async with site() as there, working() as on:
        there.answer = there.never
        on.submit("a", **http(there.url, timeoutSeconds=30), retry={"limit": 0})
        await until(lambda: on.phase("a") == "Failed", seconds=40)
        status = on.status("a")
        assert (status["reason"], status["message"]) == (
            "RequestFailed",
            "no answer within run.http.timeoutSeconds = 30 s",
        )
        assert on.clock() >= 30


async def test_a_request_is_bounded_by_the_time_of_the_attempt() -> None:
    async with site() as there, working() as on:
        there.answer = there.never
        on.submit("a", **http(there.url), timeouts={"attemptSeconds": 30}, retry={"limit": 0})
        await until(lambda: on.phase("a") == "Running", seconds=5)
        await until(lambda: on.phase("a") == "Failed", seconds=40)
        assert on.status("a")["reason"] == "TimedOut"


@pytest.mark.parametrize(
    ("ask", "phase", "outcome"),
    [({"cancel": True}, "Cancelled", "Cancelled"), ({"suspend": True}, "Pending", "Suspended")],
)
async def test_a_stop_interrupts_a_request(ask: dict[str, bool], phase: str, outcome: str) -> None:
    async with site() as there, working(slots=1) as on:
        there.answer = there.never
        on.submit("a", **http(there.url))
        await until(lambda: len(there.asked) == 1)
        on.edit("a", **ask)
        status = await over(on, phase=phase)
        assert status["attempts"][-1]["outcome"] == outcome
        there.answer = answer_ok
        on.submit("b", **http(there.url))
        await over(on, "b")


async def test_a_drain_interrupts_a_request() -> None:
    async with site() as there, working(drain_seconds=0) as on:
        there.answer = there.never
        on.submit("a", **http(there.url))
        await until(lambda: len(there.asked) == 1)
        on.worker.terminate()
        status = await over(on, phase="Pending")
        assert status["attempts"][-1]["outcome"] == "Interrupted"


async def test_a_request_that_is_taken_away_is_interrupted_and_its_slot_free() -> None:
    async with site() as there, working(slots=1) as on:
        there.answer = there.never
        on.submit("a", **http(there.url))
        await until(lambda: len(there.asked) == 1)
        on.requeue("a")
        await until(lambda: on.worker.attempts.running == 0)
        await on.worker.attempts.empty.wait()
        assert on.status_writes() == []


async def test_a_request_under_way_survives_the_loss_of_the_runner() -> None:
    async with site() as there, working() as on:
        go_on = asyncio.Event()

        async def late(request: web.BaseRequest) -> web.StreamResponse:
            await go_on.wait()
            return web.Response(text="here")

        there.answer = late
        on.submit("a", **http(there.url))
        process = on.submit("b")
        await until(lambda: len(there.asked) == 1 and process in on.runner.frames)
        on.runner.away = True
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("b") == "Pending")
        on.submit("c", **http(there.url))
        await until(lambda: on.phase("c") == "Pending")
        assert len(there.asked) == 1, "none is begun without a runner"
        go_on.set()
        status = await over(on)
        assert status["result"]["body"] == "here"
        assert "runnerDeaths" not in status


async def test_a_request_holds_a_slot() -> None:
    async with site() as there, working(slots=1) as on:
        there.answer = there.never
        on.submit("a", **http(there.url))
        await until(lambda: len(there.asked) == 1)
        on.submit("b", **http(there.url))
        await until(lambda: on.phase("b") == "Pending")
        assert on.status("b")["attempts"][-1]["outcome"] == "Released"


# ---- secrets in headers


async def with_token(on: Stage, name: str, url: str, token: str = TOKEN, **spec: Any) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"for-{name}"}}
    data = {"token": base64.b64encode(token.encode()).decode()}
    on.server.create(SECRETS, NAMESPACE, {**body, "data": data}, client="user")
    source = {"secretKeyRef": {"name": f"for-{name}", "key": "token"}}
    header = {"name": "Authorization", "valueFrom": source}
    on.submit(name, **http(url, headers=[header, {"name": "Accept", "value": "text/plain"}]), **spec)


TOKENS = {"secret_names": frozenset({"for-a", "for-b", "for-c"})}


async def test_a_header_may_come_from_a_secret_and_is_told_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        token = request.headers["Authorization"]
        status = 200 if request.path == "/good" else 500
        return web.json_response({"you": token}, status=status, headers={"Location": f"/?{token}"})

    async with site() as there, working(slots=3, **TOKENS) as on:
        there.answer = echo
        await with_token(on, "a", f"{there.url}/good")
        await with_token(on, "b", f"{there.url}/bad", retry={"limit": 0})
        await with_token(on, "c", "http://127.0.0.1:1/", retry={"limit": 0})
        status = await over(on, "a")
        assert there.asked[0].headers["Authorization"] == TOKEN
        assert status["result"]["body"] == {"you": "[hidden]"}
        assert status["result"]["headers"]["location"] == "/?[hidden]"
        assert (await over(on, "b", phase="Failed"))["message"] == 'HTTP status 500: {"you": "[hidden]"}'
        await over(on, "c", phase="Failed")
        told = [str(vars(record)) for record in caplog.records if record.name.startswith("taskmaster")]
        told += [str(write) for write in on.status_writes()]
        assert told
        assert not [text for text in told if TOKEN in text]


async def test_a_value_that_is_no_header_is_named_but_not_told() -> None:
    async with site() as there, working(**TOKENS) as on:
        await with_token(on, "a", there.url, token=f"{TOKEN}\n", retry={"limit": 0})
        status = await over(on, phase="Failed")
        assert status["reason"] == "RequestFailed"
        assert "header Authorization has a line break" in status["message"]
        assert TOKEN not in status["message"]
        assert there.asked == []


# ---- the executor by itself


class Told:
    def __init__(self) -> None:
        self.ended: list[tuple[str, Ended]] = []

    def on_request_started(self, attempt_id: str, started: Instant) -> None:
        pass

    def on_request_ended(self, attempt_id: str, ended: Ended) -> None:
        self.ended.append((attempt_id, ended))


def calls() -> tuple[HTTPCalls, Told]:
    built, told = HTTPCalls(now=lambda: Instant(wall_clock())), Told()
    built.listener = told
    return built, told


def frame(**call: Any) -> Any:
    return {"type": "start", "id": "u/1", "task": {}, "run": {"http": call}}


async def test_a_request_stopped_before_its_first_step_ends_all_the_same() -> None:
    subject, told = calls()
    subject.start(frame(url="http://127.0.0.1:1/"))
    subject.stop("u/1", 5.0)
    subject.stop("u/1", 0.0)
    await until(lambda: len(told.ended) == 1)
    subject.stop("u/1", 0.0)
    assert told.ended[0][1].reason is EndReason.REQUEST_FAILED


async def test_a_bug_ends_the_attempt_and_tells_no_header(caplog: pytest.LogCaptureFixture) -> None:
    subject, told = calls()
    subject.start(
        frame(
            url="http://127.0.0.1:1/",
            headers=[{"name": "A", "value": TOKEN}],
            expectStatus=1,
            body=TOKEN * 2 + 3 * " ",
            timeoutSeconds=TOKEN,
        )
    )
    await until(lambda: len(told.ended) == 1)
    ended = told.ended[0][1]
    assert (ended.outcome, ended.message) == (Outcome.FAILED, "the request cannot be made: TypeError")
    assert TOKEN not in caplog.text


async def test_requests_of_a_process_that_ends_say_nothing() -> None:
    subject, told = calls()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        subject.start(frame(url=f"http://127.0.0.1:{silent.getsockname()[1]}/"))
        (task,) = (task for task in asyncio.all_tasks() if task is not asyncio.current_task())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert told.ended == []
