"""The runner as a real process, spoken to in frames: what tasks report, and that nothing of them ever survives."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from tests.unit.runner_process import SLEEP, TIMEOUT, Agent, Factory, RunnerProcess, alone, python, runners, shell

from taskmaster_worker.runner.frames import encode

pytestmark = pytest.mark.asyncio(loop_scope="module")

IGNORES_TERM = {"command": ["sh", "-c", "trap '' TERM; echo ignoring; while :; do sleep 1; done"]}
# A daemon: forks twice, leads a session of its own, ignores SIGTERM, closes its output.
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.closerange(0, 3)
        open(sys.argv[1], "w").write("up")
        time.sleep(1000)
    os._exit(0)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.005)
print("daemon is up", flush=True)
if sys.argv[2] == "stay":
    time.sleep(1000)
"""
MODULE = """
import asyncio, os, sys, time

class Broken(Exception):
    pass

class Nested:
    @staticmethod
    def seven():
        return 7

def add(left, right=1):
    return left + right

async def later(value):
    await asyncio.sleep(0)
    return {"value": value}

def fails(text="no such row"):
    raise Broken(text)

def leaves(code):
    sys.exit(code)

def prints():
    print("out ümlaut")
    print("err", file=sys.stderr)

def environment():
    return {name: os.environ.get(name) for name in ("TASK_NAME", "TASK_ATTEMPT", "EXTRA", "TASKMASTER_PRELOAD")}

def hangs():
    print("ready")
    time.sleep(1000)

def threads():
    import threading
    threading.Thread(target=lambda: (time.sleep(0.05), print("thread done"))).start()

def returns_set():
    return {1}

def returns_large():
    return "\\\\" * 40000

def returns_backslashes():
    return "\\\\" * 16000

def crashes():
    os.kill(os.getpid(), 11)

number = 5
"""
MODULES = {"jobs": MODULE, "needs_more": "import not_installed_anywhere\n", "bad_syntax": "def (:\n"}


def furnished(directory: Path) -> Path:
    (directory / "daemon.py").write_text(DAEMON)
    (directory / "data").write_text("no program")
    (directory / "no_format").write_text("neither ELF nor #!")
    (directory / "no_format").chmod(0o755)
    return directory


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunnerProcess]:
    async with runners(furnished(tmp_path_factory.mktemp("kept")), MODULES) as make:
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
    async with runners(furnished(tmp_path), MODULES) as make:
        yield make


@pytest_asyncio.fixture(loop_scope="module")
async def own(make_runner: Factory) -> RunnerProcess:
    return await make_runner()


@pytest_asyncio.fixture(loop_scope="module")
async def own_agent(own: RunnerProcess) -> Agent:
    return await own.connect()


def daemon(runner: RunnerProcess, then: str) -> dict[str, Any]:
    (runner.directory / "up").unlink(missing_ok=True)
    return {"command": [sys.executable, str(runner.directory / "daemon.py"), str(runner.directory / "up"), then]}


class End(NamedTuple):
    """What to run, and what the exit frame has to say: texts as parts (the tail as a whole), None as absent or null."""

    run: dict[str, Any]
    expected: dict[str, Any]
    name: str


COMMANDS = [
    End(shell("exit 0"), {"exitCode": 0, "signal": None}, name="success"),
    End(shell("exit 65"), {"exitCode": 65, "signal": None}, name="exit code"),
    End(shell("kill -KILL $$"), {"exitCode": None, "signal": 9}, name="signal"),
    End({"command": ["nope-7"]}, {"exitCode": 127, "startError": "command not found: nope-7"}, name="not found"),
    End({"command": ["/nope/x"]}, {"exitCode": 127, "startError": "command not found: /nope/x"}, name="no path"),
    End({"command": ["./data"]}, {"exitCode": 126, "startError": "permission denied"}, name="not executable"),
    End({"command": ["/tmp"]}, {"exitCode": 126, "startError": "is a directory"}, name="directory"),
    End({"command": ["./no_format"]}, {"exitCode": 126, "startError": "#! line"}, name="no format"),
    End({"command": []}, {"exitCode": 127, "startError": "command is empty"}, name="empty"),
    End({"command": ["true", "a\0b"]}, {"exitCode": 126, "startError": "null byte"}, name="NUL"),
    End({"command": ["true", "x" * 1_000_000]}, {"exitCode": 126, "startError": "too long"}, name="1 MB argument"),
    End({"command": ["echo", "\ud800"]}, {"exitCode": 126, "startError": "surrogates"}, name="half a character"),
    End(
        {"script": {"interpreter": "/bin/sh", "source": "echo from $TASK_NAME; exit 4"}},
        {"exitCode": 4, "tail": "from name\n"},
        name="script",
    ),
    End(
        {"script": {"interpreter": "/usr/bin/env sh -eu", "source": "false\necho never"}},
        {"exitCode": 1, "tail": ""},
        name="script whose interpreter has arguments",
    ),
    End(
        {"script": {"interpreter": "/no/bash", "source": ""}},
        {"exitCode": 127, "startError": "run.script.interpreter"},
        name="script without interpreter",
    ),
    End(
        shell("echo -n $TASK_NAME $TASK_NAMESPACE $TASK_UID; env | grep TASKMASTER_; cat"),
        {"exitCode": 0, "tail": "name space uid"},
        name="environment and empty input",
    ),
    # Not by a pipeline of the shell, which may still hold the pipe's ends when its first command lists them.
    End(shell("find /proc/$$/fd -mindepth 1 -printf '%f '"), {"tail": "0 1 2 "}, name="no descriptor of ours"),
    End(shell("kill 0"), {"exitCode": None, "signal": 15}, name="signal to the own process group"),
    End(shell("echo out; sleep 0.02; echo err >&2"), {"exitCode": 0, "tail": "out\nerr\n"}, name="both streams"),
    End(
        shell(r"printf '\000\377\033[31mred\033[0m\033]0;title\007\r\nz\342'"),
        {"exitCode": 0, "tail": "\ufffd\ufffdred\nz\ufffd"},
        name="binary output",
    ),
    End(shell('echo \'{"a": [1, "ü"]}\' > $TASK_RESULT_FILE'), {"result": {"a": [1, "ü"]}}, name="result"),
    End(shell(": > $TASK_RESULT_FILE"), {"result": None, "resultError": None}, name="empty result"),
    End(shell("echo nul > $TASK_RESULT_FILE"), {"resultError": "not valid JSON"}, name="invalid result"),
    End(shell("echo NaN > $TASK_RESULT_FILE"), {"resultError": "not valid JSON"}, name="NaN"),
    End(
        shell("head -c 40000 /dev/zero | tr '\\0' 1 > $TASK_RESULT_FILE"),
        {"resultError": "larger than"},
        name="large result",
    ),
    End(shell("mkfifo $TASK_RESULT_FILE"), {"exitCode": 0, "resultError": "regular file"}, name="FIFO as result"),
    End(shell("ln -s /etc/passwd $TASK_RESULT_FILE"), {"resultError": "cannot be read"}, name="link as result"),
    End(shell("mkdir -p $TASK_RESULT_FILE/a/b"), {"resultError": "regular file"}, name="directory as result"),
    End(python("jobs:add", left=1), {"exitCode": 0, "result": 2}, name="callable"),
    End(python("jobs:Nested.seven"), {"exitCode": 0, "result": 7}, name="nested callable"),
    End(python("jobs:later", value=3), {"exitCode": 0, "result": {"value": 3}}, name="async callable"),
    End(python("jobs:leaves", code=0), {"exitCode": 0, "error": None}, name="SystemExit 0"),
    End(python("jobs:leaves", code=42), {"exitCode": 42, "error": None}, name="SystemExit 42"),
    End(python("jobs:leaves", code="why"), {"exitCode": 1, "tail": "why\n"}, name="SystemExit text"),
    End(python("jobs:prints"), {"exitCode": 0, "tail": re.compile("out ümlaut\n")}, name="callable prints"),
    End(python("jobs:threads"), {"exitCode": 0, "tail": "thread done\n"}, name="threads are joined"),
    End(python("jobs:crashes"), {"exitCode": None, "signal": 11}, name="segmentation fault"),
    End(python("jobs:fails"), {"exitCode": 1, "error": ("Broken", "no such row")}, name="exception"),
    End(
        python("jobs:add", lft=1),
        {"exitCode": 1, "error": ("TypeError", "do not fit jobs:add(left, right=1)")},
        name="args",
    ),
    End(python("nix:f"), {"error": ("ModuleNotFoundError", "no module named 'nix'")}, name="no module"),
    End(python("needs_more:f"), {"error": ("ModuleNotFoundError", "not_installed_anywhere")}, name="no dependency"),
    End(python("bad_syntax:f"), {"error": ("SyntaxError", "bad_syntax.py")}, name="syntax error"),
    End(python("jobs:nix"), {"error": ("AttributeError", "no attribute 'nix'")}, name="no attribute"),
    End(python("jobs:number"), {"error": ("TypeError", "cannot be called")}, name="not callable"),
    End(python("jobs"), {"error": ("ValueError", "package.module:function")}, name="no function"),
    End(python("jobs:returns_set"), {"exitCode": 0, "resultError": "not JSON"}, name="set returned"),
    End(python("jobs:returns_large"), {"exitCode": 0, "resultError": "larger than"}, name="large value"),
    End(python("jobs:returns_backslashes"), {"result": "\\" * 16000}, name="value that escapes badly"),
    End(python("jobs:add", left=2**63, right=0), {"resultError": "64 bits"}, name="huge integer"),
    End(python("jobs:fails", text="\x1b[1m\ud800"), {"error": ("Broken", "?")}, name="unprintable message"),
]


async def test_each_kind_of_end_is_reported_as_documented(runner: RunnerProcess, agent: Agent) -> None:
    running = [(case.name, case.expected, agent.start(case.run)) for case in COMMANDS]
    wrong = []
    for name, expected, attempt_id in running:
        frame = await agent.exit(attempt_id)
        for key, value in expected.items():
            match value, frame.get(key):
                case (kind, text), {"type": found, "message": message} if kind == found and text in message:
                    continue
                case re.Pattern(), str(found) if value.search(found):
                    continue
                case str(), str(found) if value == found or (key != "tail" and value in found):
                    continue
                case _, found if found == value and type(found) is type(value):
                    continue
            wrong.append((name, key, frame))
    assert wrong == []
    assert len([frame for frame in agent.frames if frame["type"] == "exit"]) == len(COMMANDS)
    await runner.none_left(runner.tasks)


async def test_traceback_shows_the_users_code_only(agent: Agent) -> None:
    frame = await agent.run(python("jobs:fails"))
    trace = frame["error"]["traceback"]
    assert trace.startswith("Traceback (most recent call last):\n  File ")
    assert "jobs.py" in trace
    assert "taskmaster_worker" not in trace
    assert frame["tail"] == trace


async def test_times_are_rfc3339_with_six_digits_and_in_order(agent: Agent) -> None:
    frame = await agent.run(shell("sleep 0.05"))
    started = await agent.frame("started", frame["id"])
    assert started["startTime"] == frame["startTime"] < frame["endTime"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", frame["endTime"])


async def test_environment_and_directory_of_the_task_are_used(runner: RunnerProcess, agent: Agent) -> None:
    (runner.directory / "bin").mkdir()
    (runner.directory / "bin" / "mine").symlink_to("/bin/pwd")
    env = {"PATH": f"{runner.directory}/bin:/usr/bin:/bin", "EXTRA": "1"}
    frame = await agent.run({"command": ["mine"]}, env=env, workingDir="/usr")
    assert (frame["exitCode"], frame["tail"]) == (0, "/usr\n")
    frame = await agent.run(python("jobs:environment"), env=env)
    assert frame["result"] == {"TASK_NAME": "name", "TASK_ATTEMPT": "2", "EXTRA": "1", "TASKMASTER_PRELOAD": None}


async def test_bad_working_directory_is_a_start_error(agent: Agent) -> None:
    for path, message in (("/x/y", "working directory does not exist: /x/y"), ("/etc/passwd", "Not a directory")):
        for run in (shell("true"), python("jobs:add", left=1)):
            frame = await agent.run(run, workingDir=path)
            assert frame["exitCode"] == 126
            assert message in frame["startError"]


async def test_bad_environment_name_is_a_start_error(agent: Agent) -> None:
    frame = await agent.run(shell("true"), env={"A=B": "1"})
    assert (frame["exitCode"], "'A=B'" in frame["startError"]) == (126, True)


async def test_output_of_any_size_is_drained_and_never_blocks_the_task(runner: RunnerProcess, agent: Agent) -> None:
    loud = agent.start(shell("head -c 100000000 /dev/zero; yes | head -c 10000000; echo; echo the end"))
    quiet = await agent.run(shell("echo quiet"))
    assert quiet["tail"] == "quiet\n"
    frame = await agent.exit(loud)
    assert frame["exitCode"] == 0
    assert frame["tail"].endswith("y\n\nthe end\n")
    assert len(frame["tail"].encode()) <= 4096
    assert any("lines were not printed" in line["message"] for line in runner.lines)


async def test_lines_are_printed_with_the_task_they_came_from(runner: RunnerProcess, agent: Agent) -> None:
    await agent.run(shell("printf 'one\\n\\033[1mtwo'; printf 'three\\n' >&2; head -c 20000 /dev/zero | tr '\\0' x"))
    await runner.printed("xxx")
    fields = {"task": "name", "namespace": "space", "uid": "uid", "attempt": 1}
    assert all(fields.items() <= line.items() for line in runner.lines)
    messages = [(line["stream"], line["message"]) for line in runner.lines]
    assert ("stdout", "one") in messages
    assert ("stderr", "three") in messages
    assert max(len(message) for _, message in messages) <= 16 * 1024
    assert "".join(message for stream, message in messages if stream == "stdout") == "onetwo" + "x" * 20000


async def test_stop_terminates_and_after_the_grace_kills(runner: RunnerProcess, agent: Agent) -> None:
    obeys, ignores, python_task = agent.start(SLEEP), agent.start(IGNORES_TERM), agent.start(python("jobs:hangs"))
    await agent.frame("started", obeys)
    await runner.printed("ready")
    await runner.printed("ignoring")
    await agent.frame("started", python_task)
    for attempt_id in (obeys, ignores, python_task):
        agent.stop(attempt_id, 0.3)
    assert (await agent.exit(obeys))["signal"] == signal.SIGTERM
    assert (await agent.exit(python_task))["signal"] == signal.SIGTERM
    assert (await agent.exit(ignores))["signal"] == signal.SIGKILL
    await runner.none_left(runner.tasks)


async def test_stop_may_be_repeated_with_a_shorter_grace(runner: RunnerProcess, agent: Agent) -> None:
    attempt_id = agent.start(IGNORES_TERM)
    await runner.printed("ignoring")
    agent.stop(attempt_id, 1000)
    agent.stop(attempt_id, 0)
    assert (await agent.exit(attempt_id))["signal"] == signal.SIGKILL


async def test_stop_right_after_start_is_not_lost(agent: Agent) -> None:
    attempts = [agent.start(SLEEP) for _ in range(20)]
    for attempt_id in attempts:
        agent.stop(attempt_id, 1000)
    assert {(await agent.exit(attempt_id))["signal"] for attempt_id in attempts} == {signal.SIGTERM}


async def test_what_still_cleans_up_after_its_parent_keeps_the_grace(agent: Agent, runner: RunnerProcess) -> None:
    child = "trap 'sleep 0.2; echo cleaned up; exit' TERM; echo ready; while :; do sleep 0.05; done"
    attempt_id = agent.start(shell(f'sh -c "{child}" & exec sleep 1000'))
    await runner.printed("ready")
    agent.stop(attempt_id, 10)
    frame = await agent.exit(attempt_id)
    assert frame["signal"] == signal.SIGTERM
    assert "cleaned up" in frame["tail"]


async def test_daemons_end_with_their_task(runner: RunnerProcess, agent: Agent) -> None:
    frame = await agent.run(daemon(runner, "leave"))
    assert frame["exitCode"] == 0
    assert runner.tasks() == {}


async def test_daemons_are_stopped_with_their_task(runner: RunnerProcess, agent: Agent) -> None:
    attempt_id = agent.start(daemon(runner, "stay"))
    await runner.printed("daemon is up")
    assert len(runner.tasks()) == 2
    agent.stop(attempt_id, 0.1)
    assert (await agent.exit(attempt_id))["signal"] == signal.SIGTERM
    assert runner.tasks() == {}


async def test_start_of_a_running_id_and_stop_of_an_unknown_one_are_ignored(
    runner: RunnerProcess, agent: Agent
) -> None:
    attempt_id = agent.start(SLEEP)
    await agent.frame("started", attempt_id)
    agent.start(shell("exit 9"), attempt_id=attempt_id)
    agent.stop("uid/99", 0)
    agent.stop(attempt_id, 0)
    assert (await agent.exit(attempt_id))["signal"] == signal.SIGKILL
    await runner.logged("is running was ignored")
    assert [frame["type"] for frame in agent.frames] == ["hello", "started", "exit"]


async def test_end_of_the_connection_kills_everything(runner: RunnerProcess, agent: Agent) -> None:
    for run in (SLEEP, IGNORES_TERM, daemon(runner, "stay"), python("jobs:hangs")):
        await agent.frame("started", agent.start(run))
    await runner.printed("daemon is up")
    await agent.close()
    await runner.none_left(runner.tasks)
    second = await runner.connect()
    assert (await second.run(shell("true")))["exitCode"] == 0


async def test_second_hello_is_answered_when_the_first_agents_tasks_are_dead(
    runner: RunnerProcess, agent: Agent
) -> None:
    agent.start(daemon(runner, "stay"))
    await runner.printed("daemon is up")
    bystander = await runner.connect(hello=False)
    assert len(runner.tasks()) == 2
    second = await runner.connect()
    assert runner.tasks() == {}
    async with asyncio.timeout(TIMEOUT):
        await agent.closed.wait()
    assert (await second.run(shell("true")))["exitCode"] == 0
    assert not bystander.closed.is_set()


async def test_malformed_frames_close_the_connection(runner: RunnerProcess) -> None:
    for data, reason in (
        (b"GET / HTTP/1.1\r\n\r\n", "longer than"),
        (encode({"type": "start"}), "before hello"),
        (b"\0\0\0\x02[]", "not an object"),
        (b"\0\0\0\x03\xff\xff\xff", "not JSON"),
    ):
        agent = await runner.connect(hello=False)
        agent.send_raw(data)
        async with asyncio.timeout(TIMEOUT):
            await agent.closed.wait()
        await runner.logged(reason)


async def test_other_version_is_answered_and_closed(runner: RunnerProcess) -> None:
    agent = await runner.connect(hello=False)
    agent.send({"type": "hello", "version": 3, "incarnation": "future"})
    assert (await agent.frame("hello"))["version"] == 2
    async with asyncio.timeout(TIMEOUT):
        await agent.closed.wait()


async def test_peer_with_another_user_id_is_refused(make_runner: Factory) -> None:
    runner = await make_runner(TASKMASTER_AGENT_UID=str(os.getuid() + 1))
    agent = await runner.connect(hello=False)
    async with asyncio.timeout(TIMEOUT):
        await agent.closed.wait()
    await runner.logged(f"peer has user id {os.getuid()}")
    assert agent.frames == []


async def test_socket_is_for_owner_and_group_and_a_stale_one_is_replaced(make_runner: Factory) -> None:
    first = await make_runner()
    first.process.kill()
    await first.process.wait()
    assert first.socket.exists()
    second = await make_runner()
    assert second.socket.stat().st_mode & 0o777 == 0o660
    assert (await (await second.connect()).run(shell("true")))["exitCode"] == 0


async def test_killed_runner_takes_everything_with_it(own: RunnerProcess, own_agent: Agent) -> None:
    for run in (SLEEP, IGNORES_TERM, daemon(own, "stay"), python("jobs:hangs")):
        await own_agent.frame("started", own_agent.start(run))
    await own.printed("daemon is up")
    own.process.kill()
    await own.none_left(own.processes)


async def test_runner_killed_while_a_preload_hangs_leaves_nothing(make_runner: Factory, tmp_path: Path) -> None:
    (tmp_path / "app" / "slow.py").write_text("import time; print('importing'); time.sleep(1000)\n")
    runner = await make_runner(TASKMASTER_PRELOAD="slow")
    await runner.connect()
    runner.process.kill()
    await runner.none_left(runner.processes)


@pytest.mark.parametrize("server", ["plain", "python"])
async def test_killed_supervisor_is_reported_and_its_tree_ended(
    own: RunnerProcess, own_agent: Agent, server: str
) -> None:
    attempt_id = own_agent.start(daemon(own, "stay") if server == "plain" else python("jobs:hangs"))
    await own.printed("daemon is up" if server == "plain" else "ready")
    (supervisor,) = own.supervisors(server)
    os.kill(supervisor, signal.SIGKILL)
    frame = await own_agent.exit(attempt_id)
    assert (frame["supervisorLost"], frame["exitCode"], frame["signal"]) == (True, None, None)
    assert frame["startTime"] == (await own_agent.frame("started", attempt_id))["startTime"]
    assert own.tasks() == {}
    assert own.supervisors(server) == []


async def test_killed_supervisor_does_not_disturb_the_others(own: RunnerProcess, own_agent: Agent) -> None:
    first, second = own_agent.start(IGNORES_TERM), own_agent.start(SLEEP)
    await own.printed("ignoring")
    await own_agent.frame("started", second)
    os.kill(own.supervisors("plain")[0], signal.SIGKILL)
    assert (await own_agent.exit(first))["supervisorLost"]
    own_agent.stop(second, 10)
    assert (await own_agent.exit(second))["signal"] == signal.SIGTERM


async def test_stopped_supervisor_cannot_outlive_the_agent(own: RunnerProcess, own_agent: Agent) -> None:
    attempt_id = own_agent.start(SLEEP)
    await own_agent.frame("started", attempt_id)
    os.kill(own.supervisors("plain")[0], signal.SIGSTOP)
    await own_agent.close()
    await own.connect()
    assert own.tasks() == {}


@pytest.mark.parametrize("server", ["plain", "python"])
async def test_killed_zygote_loses_its_attempts_and_is_replaced(
    own: RunnerProcess, own_agent: Agent, server: str
) -> None:
    lost = own_agent.start(daemon(own, "stay") if server == "plain" else python("jobs:hangs"))
    await own.printed("daemon is up" if server == "plain" else "ready")
    other = own_agent.start(python("jobs:hangs") if server == "plain" else SLEEP)
    await own_agent.frame("started", other)
    before = own.zygotes()
    os.kill(before[server], signal.SIGKILL)
    assert (await own_agent.exit(lost))["supervisorLost"]
    assert own.zygotes()[server] != before[server]
    assert (await own_agent.run(shell("true")))["exitCode"] == 0
    assert (await own_agent.run(python("jobs:add", left=1)))["result"] == 2
    own_agent.stop(other, 0)
    assert (await own_agent.exit(other))["signal"] == signal.SIGKILL
    assert own.tasks() == {}


async def test_preloaded_module_is_imported_once_and_a_broken_one_costs_only_its_tasks(
    make_runner: Factory, tmp_path: Path
) -> None:
    (tmp_path / "app" / "warm.py").write_text("import os\nloaded = os.getpid()\ndef where():\n    return loaded\n")
    runner = await make_runner(TASKMASTER_PRELOAD="warm, bad_syntax")
    agent = await runner.connect()
    results = [(await agent.run(python("warm:where")))["result"] for _ in range(2)]
    assert results == [runner.zygotes()["python"]] * 2
    assert (await agent.run(python("bad_syntax:f")))["error"]["type"] == "SyntaxError"
    await runner.logged("preload failed")


async def test_preload_that_crashes_the_interpreter_is_left_out(make_runner: Factory, tmp_path: Path) -> None:
    (tmp_path / "app" / "deadly.py").write_text("import os; os._exit(3)\n")
    runner = await make_runner(TASKMASTER_PRELOAD="deadly")
    agent = await runner.connect()
    await runner.logged("without preloading")
    async with asyncio.timeout(TIMEOUT):
        while "startError" in (frame := await agent.run(python("jobs:add", left=1))):
            assert "does not start" in frame["startError"]
    assert frame["result"] == 2


async def test_users_modules_do_not_shadow_the_runners(make_runner: Factory, tmp_path: Path) -> None:
    for name in ("json", "asyncio", "ctypes", "selectors"):
        (tmp_path / "app" / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    runner = await make_runner()
    runner.silent = False  # of the python fork server, which is the user's as much as ours
    assert (await (await runner.connect()).run(shell("echo fine")))["tail"] == "fine\n"


async def test_terminated_runner_waits_for_its_agent(own: RunnerProcess, own_agent: Agent) -> None:
    attempt_id = own_agent.start(SLEEP)
    await own_agent.frame("started", attempt_id)
    own.process.terminate()
    await own.logged("asked to terminate")
    assert (await own_agent.run(shell("true")))["exitCode"] == 0
    await own_agent.close()
    async with asyncio.timeout(TIMEOUT):
        assert await own.process.wait() == 0
    assert not own.socket.exists()


async def test_200_attempts_run_at_once(runner: RunnerProcess, agent: Agent) -> None:
    attempts = [agent.start(SLEEP) for _ in range(200)]
    for attempt_id in attempts:
        await agent.frame("started", attempt_id)
    for attempt_id in attempts:
        agent.stop(attempt_id, 10)
    assert {(await agent.exit(attempt_id))["signal"] for attempt_id in attempts} == {signal.SIGTERM}
    assert runner.tasks() == {}


async def test_slow_reader_of_the_log_holds_nobody_up(make_runner: Factory) -> None:
    runner = await make_runner()
    agent = await runner.connect()
    reader = runner.process.stdout
    assert reader is not None
    transport: asyncio.ReadTransport = reader._transport  # type: ignore[attr-defined]
    transport.pause_reading()
    attempts = [agent.start(shell("head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000")) for _ in range(3)]
    for attempt_id in attempts:
        assert (await agent.exit(attempt_id))["exitCode"] == 0
    transport.resume_reading()
    await agent.run(shell("echo afterwards"))
    await runner.printed("lines were dropped")
