"""What a task says besides its output, by files and by the SDK, against a real runner."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.unit.runner_process import SLEEP, Agent, Factory, RunnerProcess, alone, python, runners, shell

from taskmaster_worker.runner.context_server import CONNECTIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODULE = """
import asyncio, multiprocessing, os, socket, sys, threading, time
from taskmaster_worker import Cancelled, CheckpointError, Fail, RetryAfter, context, task

def reports(times):
    for number in range(times):
        context.progress(number + 1, times, f"step \\x1b[1m{number + 1}")

def saves(values):
    for value in values:
        context.checkpoint(value)
    return context.last_checkpoint

def saves_badly(value):
    try:
        context.checkpoint(value)
    except CheckpointError as error:
        return str(error)

def saves_from_threads_and_forks():
    threads = [threading.Thread(target=context.checkpoint, args=(f"thread {n}",)) for n in range(4)]
    context.checkpoint("main")
    for thread in threads:
        thread.start()
    forks = [multiprocessing.get_context("fork").Process(target=context.checkpoint, args=(f"fork {n}",)) for n in "ab"]
    for fork in forks:
        fork.start()
    for one in (*threads, *forks):
        one.join()
    return [fork.exitcode for fork in forks]

def knows():
    context.logger.info("this is %s", context.name)
    return [context.name, context.namespace, context.uid, context.attempt, context.cancelled,
            context.last_checkpoint, context.dependencies]

def connected():
    os.chdir(os.path.dirname(os.environ["TASK_CONTEXT_SOCKET"]))  # where its name is short
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("context")
    return connection

def babbles():
    for data in (b"\\0\\0\\0\\x02[]", b"\\xff" * 4, b"\\0\\0\\0\\x15" + b'{"progress": "wrong"}'):
        with connected() as connection:
            connection.sendall(data)
            if data.endswith(b"]"):
                connection.recv(1)
    context.progress(7)

def connects(times):
    held = [connected() for _ in range(times)]
    print("ready", len(held))
    held.clear()
    context.checkpoint("afterwards")

class Temporary(ConnectionError):
    pass

def raises(kind):
    raise {"temporary": Temporary("t"), "later": RetryAfter(2.1, "busy"), "never": Fail("no use")}[kind]

@task
def cleans_up():
    try:
        print("ready")
        time.sleep(1000)
    except Cancelled:
        context.checkpoint("saved")
        print("cleaned up", context.cancelled)
        raise

@task
def insists():
    try:
        context.checkpoint("first")
    except Cancelled:
        try:
            context.checkpoint("second")
        except CheckpointError as error:
            return str(error)

@task
async def cleans_up_async():
    try:
        print("ready")
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        print("cleaned up", context.cancelled)
        raise

@task(cancel="flag")
def looks():
    print("ready")
    while not context.cancelled:
        time.sleep(0.01)
    return "stopped itself"

@task(cancel="flag")
async def looks_async():
    print("ready")
    while not context.cancelled:
        await asyncio.sleep(0.01)
    return "stopped itself"

@task
def has_children():
    children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        print("ready")
        time.sleep(1000)
    except Cancelled:
        for child in children:
            child.join()
        print("children", [child.exitcode for child in children])

@task
def typed(count: int, when: "float" = 0.0):
    return count
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunnerProcess]:
    async with runners(tmp_path_factory.mktemp("kept"), {"jobs": MODULE}) as make:
        yield await make()


@pytest_asyncio.fixture(loop_scope="module")
async def runner(kept: RunnerProcess) -> AsyncIterator[RunnerProcess]:
    async with alone(kept):
        yield kept


@pytest_asyncio.fixture(loop_scope="module")
async def agent(runner: RunnerProcess) -> Agent:
    return await runner.connect()


@pytest_asyncio.fixture(loop_scope="module")
async def make_runner(tmp_path: Path) -> AsyncIterator[Factory]:
    async with runners(tmp_path, {"jobs": MODULE}) as make:
        yield make


@pytest_asyncio.fixture(loop_scope="module")
async def own(make_runner: Factory) -> RunnerProcess:
    return await make_runner()


@pytest_asyncio.fixture(loop_scope="module")
async def own_agent(own: RunnerProcess) -> Agent:
    return await own.connect()


async def acknowledge(agent: Agent, attempt_id: str, error: str = "") -> None:
    """Answer each checkpoint of an attempt until it is over."""
    answered: list[int] = []

    def news() -> list[dict[str, Any]]:
        return agent.told("exit", attempt_id) or agent.told("checkpoint", attempt_id)[len(answered) :]

    while not agent.told("exit", attempt_id):
        await agent.news(lambda: bool(news()))
        for frame in agent.told("checkpoint", attempt_id)[len(answered) :]:
            answer = {"type": "checkpointed", "id": attempt_id, "sequence": frame["sequence"]}
            agent.send({**answer, "error": error} if error else answer)
            answered.append(frame["sequence"])


async def test_progress_is_told_seldom_but_the_last_one_always(agent: Agent) -> None:
    frame = await agent.run(python("jobs:reports", times=20000))
    progress = [one["progress"] for one in agent.told("progress", frame["id"])]
    assert progress[-1] == {"current": 20000, "total": 20000, "message": "step 20000"}
    assert len(progress) < 2000
    assert agent.frames[-1]["type"] == "exit"


async def test_each_checkpoint_is_acknowledged_before_the_call_returns(agent: Agent) -> None:
    values = [{"step": 1}, "ü" * 8191, [None, 1.5]]
    attempt_id = agent.start(python("jobs:saves", values=values))
    for number, value in enumerate(values, 1):
        await agent.news(lambda: len(agent.told("checkpoint", attempt_id)) == number)  # noqa: B023 - awaited here
        frame = agent.told("checkpoint", attempt_id)[-1]
        assert frame == {"type": "checkpoint", "id": attempt_id, "sequence": number, "data": value}
        assert not agent.told("exit", attempt_id)
        agent.send({"type": "checkpointed", "id": attempt_id, "sequence": number})
    assert (await agent.exit(attempt_id))["result"] == [None, 1.5]


async def test_a_checkpoint_that_the_agent_refuses_raises(agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:saves_badly", value=1))
    await acknowledge(agent, attempt_id, error="the API server said no")
    assert (await agent.exit(attempt_id))["result"] == "the API server said no"


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "None is no checkpoint"), ("x" * 16383, "larger than the 16384"), (2**63, "64 bits")]
)
async def test_a_bad_checkpoint_never_leaves_the_attempt(agent: Agent, value: Any, reason: str) -> None:
    frame = await agent.run(python("jobs:saves_badly", value=value))
    assert reason in frame["result"]
    assert agent.told("checkpoint", frame["id"]) == []


async def test_threads_and_forks_have_the_same_context(agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:saves_from_threads_and_forks"))
    await acknowledge(agent, attempt_id)
    assert (await agent.exit(attempt_id))["result"] == [0, 0]
    frames = agent.told("checkpoint", attempt_id)
    assert {frame["data"] for frame in frames} == {"main", *(f"thread {n}" for n in range(4)), "fork a", "fork b"}
    assert [frame["sequence"] for frame in frames] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_task_knows_what_it_was_given(agent: Agent) -> None:
    given = {"checkpoint": {"step": 3}, "dependencies": {"before": [1, "ü"]}}
    frame = await agent.run(python("jobs:knows"), **given)
    assert frame["result"] == ["name", "space", "uid", 1, False, {"step": 3}, {"before": [1, "ü"]}]
    assert frame["tail"] == "this is name\n"
    assert (await agent.run(python("jobs:knows")))["result"][-2:] == [None, {}]
    frame = await agent.run(shell("cat $TASK_CHECKPOINT_FILE $TASK_DEPENDENCIES_FILE"), **given)
    assert frame["tail"] == '{"step":3}{"before":[1,"ü"]}'
    assert (await agent.run(shell("test -e $TASK_CHECKPOINT_FILE || cat $TASK_DEPENDENCIES_FILE")))["tail"] == "{}"
    assert not any(agent.told("checkpoint", frame["id"]) for frame in agent.frames if "id" in frame)


async def test_any_program_can_use_the_context(agent: Agent) -> None:
    source = "from taskmaster_worker import context; context.progress(1, 2); context.checkpoint(context.attempt)"
    attempt_id = agent.start({"script": {"interpreter": "/usr/bin/env python3", "source": source}})
    await acknowledge(agent, attempt_id)
    assert (await agent.exit(attempt_id))["exitCode"] == 0
    assert agent.told("progress", attempt_id)[-1]["progress"] == {"current": 1, "total": 2}
    assert agent.told("checkpoint", attempt_id)[-1]["data"] == 1


async def test_files_are_noticed_while_the_task_runs_and_once_more_at_its_end(agent: Agent, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    source = """
        echo '{"current": 1, "later": 0, "total": null}' > $TASK_PROGRESS_FILE; echo [1] > $TASK_CHECKPOINT_FILE
        read line < fifo
        echo '{"current": 2, "message": "end"}' > $TASK_PROGRESS_FILE; echo [2] > $TASK_CHECKPOINT_FILE
    """
    attempt_id = agent.start(shell(source), workingDir=str(tmp_path))
    assert (await agent.frame("progress", attempt_id))["progress"] == {"current": 1}
    assert (await agent.frame("checkpoint", attempt_id))["data"] == [1]
    await asyncio.to_thread((tmp_path / "fifo").write_text, "go\n")
    await agent.exit(attempt_id)
    assert agent.told("progress", attempt_id)[-1]["progress"] == {"current": 2, "message": "end"}
    checkpoints = [(frame["sequence"], frame["data"]) for frame in agent.told("checkpoint", attempt_id)]
    assert checkpoints == [(1, [1]), (2, [2])]
    assert agent.frames[-1]["type"] == "exit"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("printf '{\"current\": ' > $TASK_PROGRESS_FILE", "content of $TASK_PROGRESS_FILE: not valid JSON"),
        ("echo '{\"current\": -1}' > $TASK_PROGRESS_FILE", "current of progress is not an integer"),
        ("echo '{\"total\": true}' > $TASK_PROGRESS_FILE", "total of progress is not an integer"),
        ("echo '{\"message\": 1}' > $TASK_PROGRESS_FILE", "message of progress is not a string"),
        ("echo [] > $TASK_PROGRESS_FILE", "progress is not an object"),
        ("mkdir $TASK_PROGRESS_FILE", "$TASK_PROGRESS_FILE is not a regular file"),
        ("echo nul > $TASK_CHECKPOINT_FILE", "content of $TASK_CHECKPOINT_FILE: not valid JSON"),
        ("head -c 20000 /dev/zero | tr '\\0' 1 > $TASK_CHECKPOINT_FILE", "larger than the 16384 bytes"),
        ("ln -s /etc/passwd $TASK_CHECKPOINT_FILE", "$TASK_CHECKPOINT_FILE cannot be read"),
    ],
)
async def test_a_bad_file_is_told_in_the_log_and_fails_nothing(
    runner: RunnerProcess, agent: Agent, source: str, reason: str
) -> None:
    frame = await agent.run(shell(source))
    assert (frame["exitCode"], frame["tail"]) == (0, "")
    await runner.printed(reason)
    (line,) = [line for line in runner.lines if reason in line["message"]]
    assert (line["stream"], line["attempt"], line["uid"]) == ("runner", 1, "uid")
    assert not agent.told("progress", frame["id"]) + agent.told("checkpoint", frame["id"])


async def test_a_file_that_is_half_written_at_first_is_tried_again(agent: Agent, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    source = "printf '[1,' > $TASK_CHECKPOINT_FILE; read line < fifo; printf '2]' >> $TASK_CHECKPOINT_FILE"
    attempt_id = agent.start(shell(source), workingDir=str(tmp_path))
    quick = await agent.run(shell("sleep 0.7"))  # as long as it takes to be looked at
    await asyncio.to_thread((tmp_path / "fifo").write_text, "go\n")
    await agent.exit(attempt_id)
    assert [frame["data"] for frame in agent.told("checkpoint", attempt_id)] == [[1, 2]]
    assert quick["exitCode"] == 0


async def test_an_offered_checkpoint_is_not_told_again(agent: Agent) -> None:
    source = "cat $TASK_CHECKPOINT_FILE > copy; cat copy > $TASK_CHECKPOINT_FILE; rm copy"
    frame = await agent.run(shell(source), checkpoint={"a": [1]})
    assert frame["exitCode"] == 0
    assert agent.told("checkpoint", frame["id"]) == []


async def test_nonsense_on_the_socket_costs_only_its_connection(runner: RunnerProcess, agent: Agent) -> None:
    frame = await agent.run(python("jobs:babbles"))
    assert (frame["exitCode"], frame["tail"]) == (0, "")
    assert [one["progress"] for one in agent.told("progress", frame["id"])] == [{"current": 7}]
    await runner.printed("progress was ignored")


async def test_many_connections_are_served(agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:connects", times=CONNECTIONS + 50))
    await acknowledge(agent, attempt_id)
    assert (await agent.exit(attempt_id))["exitCode"] == 0
    assert agent.told("checkpoint", attempt_id)[-1]["data"] == "afterwards"


async def test_the_path_of_the_socket_may_have_any_length(make_runner: Factory, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    agent = await (await make_runner(TMPDIR=str(long))).connect()
    attempt_id = agent.start(python("jobs:saves", values=[1]))
    await acknowledge(agent, attempt_id)
    assert (await agent.exit(attempt_id))["result"] == 1
    assert (await agent.run(python("jobs:reports", times=1)))["exitCode"] == 0
    assert agent.told("progress", "uid/2")[-1]["progress"]["current"] == 1


async def test_silence_is_told_once_and_ends_nothing(agent: Agent) -> None:
    attempt_id = agent.start(SLEEP, stallSeconds=1)
    await agent.frame("stalled", attempt_id)
    second = agent.start(shell("sleep 1.2"), stallSeconds=1)
    assert (await agent.exit(second))["exitCode"] == 0
    assert len(agent.told("stalled", attempt_id)) == len(agent.told("stalled", second)) == 1
    agent.stop(attempt_id, 0)
    assert (await agent.exit(attempt_id))["signal"] == 9


async def test_any_sign_of_life_is_no_stall(agent: Agent) -> None:
    signs = [
        "echo x",
        "printf x >&2",
        "echo $n > $TASK_CHECKPOINT_FILE",
        'echo "{\\"current\\":$n}" > $TASK_PROGRESS_FILE',
    ]
    attempts = [
        agent.start(shell(f"for n in 1 2 3 4 5 6; do {sign}; sleep 0.5; done"), stallSeconds=2) for sign in signs
    ]
    for sign, attempt_id in zip(signs, attempts, strict=True):
        assert (await agent.exit(attempt_id))["exitCode"] == 0, sign
        assert agent.told("stalled", attempt_id) == [], sign


async def test_errors_say_their_types_and_what_they_want(agent: Agent) -> None:
    error = (await agent.run(python("jobs:raises", kind="temporary")))["error"]
    assert error["types"] == ["Temporary", "jobs.Temporary", "ConnectionError", "OSError", "Exception"]
    assert not {"retryAfterSeconds", "final"} & error.keys()
    error = (await agent.run(python("jobs:raises", kind="later")))["error"]
    assert (error["type"], error["message"], error["retryAfterSeconds"]) == ("RetryAfter", "busy", 3)
    assert "taskmaster_worker.RetryAfter" in error["types"]
    error = (await agent.run(python("jobs:raises", kind="never")))["error"]
    assert (error["type"], error["message"], error["final"]) == ("Fail", "no use", True)


async def test_arguments_of_a_marked_function_are_validated(agent: Agent) -> None:
    assert (await agent.run(python("jobs:typed", count="3")))["result"] == 3
    frame = await agent.run(python("jobs:typed", count="three", where=1))
    assert (frame["error"]["type"], frame["error"]["final"]) == ("ArgumentsError", True)
    assert "\n  count: " in frame["error"]["message"]
    assert "\n  where: the function has no such argument" in frame["error"]["message"]


async def test_a_stop_is_raised_into_a_marked_function(runner: RunnerProcess, agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:cleans_up"))
    await runner.printed("ready")
    agent.stop(attempt_id, 10)
    await acknowledge(agent, attempt_id)
    frame = await agent.exit(attempt_id)
    assert (frame["exitCode"], frame["signal"], frame["error"]["type"]) == (1, None, "Cancelled")
    assert "cleaned up True" in frame["tail"]
    assert agent.told("checkpoint", attempt_id)[-1]["data"] == "saved"


async def test_the_answer_to_an_interrupted_checkpoint_is_not_taken_for_the_next_ones(agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:insists"))
    await agent.frame("checkpoint", attempt_id)
    agent.stop(attempt_id, 10)
    await agent.news(lambda: len(agent.told("checkpoint", attempt_id)) == 2)
    agent.send({"type": "checkpointed", "id": attempt_id, "sequence": 1})
    agent.send({"type": "checkpointed", "id": attempt_id, "sequence": 2, "error": "of the second"})
    assert (await agent.exit(attempt_id))["result"] == "of the second"


async def test_a_stop_cancels_a_marked_coroutine(runner: RunnerProcess, agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:cleans_up_async"))
    await runner.printed("ready")
    agent.stop(attempt_id, 10)
    frame = await agent.exit(attempt_id)
    assert (frame["exitCode"], frame["signal"], frame["error"]["type"]) == (1, None, "CancelledError")
    assert "cleaned up True" in frame["tail"]


@pytest.mark.parametrize("function", ["looks", "looks_async"])
async def test_a_stop_only_sets_the_flag_where_that_was_asked_for(
    runner: RunnerProcess, agent: Agent, function: str
) -> None:
    attempt_id = agent.start(python(f"jobs:{function}"))
    await runner.printed("ready")
    agent.stop(attempt_id, 10)
    frame = await agent.exit(attempt_id)
    assert (frame["exitCode"], frame["result"]) == (0, "stopped itself")


async def test_children_of_a_marked_function_are_terminated_as_usual(runner: RunnerProcess, agent: Agent) -> None:
    attempt_id = agent.start(python("jobs:has_children"))
    await runner.printed("ready")
    agent.stop(attempt_id, 10)
    frame = await agent.exit(attempt_id)
    assert (frame["exitCode"], frame["tail"]) == (0, "ready\nchildren [-15, -15]\n")


async def test_a_plain_attempt_is_one_process_and_a_supervisor_of_one_thread(
    own: RunnerProcess, own_agent: Agent
) -> None:
    attempt_id = own_agent.start(SLEEP)
    await own_agent.frame("started", attempt_id)
    (supervisor,) = own.supervisors("plain")
    assert len(os.listdir(f"/proc/{supervisor}/task")) == 1
    # The kernel lets the parent of a spawned process go on before the child shows its own command line.
    await own.until(lambda: list(own.tasks().values()) == ["sleep 1000 "])
    own_agent.stop(attempt_id, 0)
    await own_agent.exit(attempt_id)


async def test_secrets_of_the_environment_are_nowhere_but_in_the_task(runner: RunnerProcess, agent: Agent) -> None:
    secret = "s3cret-value"
    for run in (shell("test $TOKEN = s3cret-value"), python("jobs:knows"), {"command": ["nope"]}):
        await agent.run(run, env={"TOKEN": secret})
    await agent.run(shell("true"), env={"TOKEN": secret + "\0"})
    assert (await agent.run(shell("echo last")))["tail"] == "last\n"
    await runner.printed("last")
    assert secret not in json.dumps([agent.frames, runner.lines, runner.log])
