"""The link to the runner, on a real socket with a peer that the test plays."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.unit.agent_worker import until

from taskmaster_worker.agent import runner_link
from taskmaster_worker.agent.runner_link import RunnerLink
from taskmaster_worker.runner.frames import Decoder, FrameError, encode
from taskmaster_worker.runner.messages import PROTOCOL_VERSION, FromRunner, Start

HELLO = {"type": "hello", "version": PROTOCOL_VERSION, "python": "3.11.2", "pid": 1}


class Peer:
    """The other end: answers hello (unless told otherwise) and keeps what it hears."""

    def __init__(self, answer: dict[str, Any] | None) -> None:
        self.answer = answer
        self.heard: list[dict[str, Any]] = []
        self.connections = 0
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        decoder = Decoder()
        while data := await reader.read(65_536):
            for frame in decoder.feed(data):
                self.heard.append(frame)
                if frame["type"] == "hello" and self.answer is not None:
                    self.send(self.answer)
        writer.close()

    def send(self, frame: dict[str, Any]) -> None:
        assert self.writer is not None
        self.writer.write(encode(frame))

    def hang_up(self) -> None:
        assert self.writer is not None
        self.writer.close()


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_frame(self, frame: FromRunner) -> None:
        if frame["type"] == "exit":
            self.told.append(("exit", frame["id"], frame["exitCode"]))
        else:
            self.told.append((frame["type"], frame["id"]))

    def on_ready(self) -> None:
        self.told.append("ready")

    def on_lost(self, reason: str) -> None:
        self.told.append(("lost", reason))


class Setting:
    def __init__(self, link: RunnerLink, peer: Peer, heard: Heard) -> None:
        self.link = link
        self.peer = peer
        self.heard = heard


@asynccontextmanager
async def linked(
    path: Path,
    *,
    answer: dict[str, Any] | None = HELLO,
    uid: int | None = None,
    clock: Callable[[], float] | None = None,
    watchdog_seconds: float = 60.0,
) -> AsyncIterator[Setting]:
    peer, heard = Peer(answer), Heard()
    link = RunnerLink(
        str(path / "s"),
        runner_uid=os.getuid() if uid is None else uid,
        incarnation=lambda: "life-1",
        clock=clock or asyncio.get_running_loop().time,
        random=Random(1),
        watchdog_seconds=watchdog_seconds,
    )
    link.listener = heard
    server = await asyncio.start_unix_server(peer.serve, path / "s")
    task = asyncio.create_task(link.run())
    try:
        yield Setting(link, peer, heard)
    finally:
        task.cancel()
        await asyncio.wait([task])
        if peer.writer is not None:
            peer.writer.close()
        server.close()


def start_frame(attempt_id: str) -> Start:
    return Start(
        type="start",
        id=attempt_id,
        task={"name": "a", "namespace": "n", "uid": "u", "attempt": 1},
        run={"command": ["true"]},
    )


async def test_it_is_ready_once_the_runner_has_answered_hello(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        assert not on.link.ready
        await until(lambda: on.link.ready)
        assert on.heard.told == ["ready"]
        assert on.link.trouble is None
        assert on.peer.heard == [{"type": "hello", "version": PROTOCOL_VERSION, "incarnation": "life-1"}]


async def test_frames_pass_both_ways(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        on.link.start(start_frame("u/1"))
        on.link.stop("u/1", 2.5)
        on.peer.send({"type": "started", "id": "u/1", "startTime": "2026-01-01T00:00:00.000000Z"})
        on.peer.send({"type": "news", "from": "a later version"})
        on.peer.send({"type": "exit", "id": "u/1", "exitCode": 0})
        await until(lambda: len(on.heard.told) == 3)
        assert on.heard.told[1:] == [("started", "u/1"), ("exit", "u/1", 0)]
        await until(lambda: len(on.peer.heard) == 3)
        assert on.peer.heard[1:] == [start_frame("u/1"), {"type": "stop", "id": "u/1", "graceSeconds": 2.5}]


async def test_what_a_task_says_is_passed_on_and_its_checkpoints_answered(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        on.peer.send({"type": "progress", "id": "u/1", "progress": {"current": 1}})
        on.peer.send({"type": "checkpoint", "id": "u/1", "sequence": 1, "data": [1]})
        on.peer.send({"type": "stalled", "id": "u/1"})
        await until(lambda: len(on.heard.told) == 4)
        assert on.heard.told[1:] == [("progress", "u/1"), ("checkpoint", "u/1"), ("stalled", "u/1")]
        on.link.checkpointed("u/1", 1, None)
        on.link.checkpointed("u/1", 2, "no")
        await until(lambda: len(on.peer.heard) == 3)
        assert on.peer.heard[1:] == [
            {"type": "checkpointed", "id": "u/1", "sequence": 1},
            {"type": "checkpointed", "id": "u/1", "sequence": 2, "error": "no"},
        ]


async def test_what_a_task_says_does_not_answer_for_its_runner(tmp_path: Path) -> None:
    now = [0.0]
    async with linked(tmp_path, clock=lambda: now[0], watchdog_seconds=0.01) as on:
        await until(lambda: on.link.ready)
        on.link.start(start_frame("u/1"))
        on.link.stop("u/1", 5.0)
        now[0] = 30.0
        on.peer.send({"type": "progress", "id": "u/1", "progress": {}})
        await until(lambda: len(on.heard.told) == 2)
        now[0] = 36.0
        await until(lambda: ("lost", "the runner does not answer") in on.heard.told)


async def test_a_runner_that_hangs_up_is_lost_and_sought_again(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        on.peer.hang_up()
        await until(lambda: on.peer.connections == 2)
        await until(lambda: on.link.ready)
        assert on.heard.told == ["ready", ("lost", "the runner container died"), "ready"]


async def test_a_reset_ends_the_connection_at_once(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        on.link.reset("declared dead")
        assert not on.link.ready
        await until(lambda: on.link.ready)
        assert on.heard.told == ["ready", ("lost", "declared dead"), "ready"]
        assert [frame["type"] for frame in on.peer.heard] == ["hello", "hello"]


async def test_a_missing_socket_is_waited_for_and_named(tmp_path: Path) -> None:
    link = RunnerLink(
        str(tmp_path / "none"), runner_uid=None, incarnation=lambda: "x", clock=lambda: 7.0, random=Random(1)
    )
    task = asyncio.create_task(link.run())
    await until(lambda: link.trouble is not None and "No such file" in link.trouble.message)
    assert link.trouble is not None
    assert link.trouble.since == 7.0
    task.cancel()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param({"uid": 4_711}, "user id", id="another user"),
        pytest.param({"answer": {**HELLO, "version": 1}}, "version 1", id="another version"),
        pytest.param({"answer": {"type": "exit"}}, "version None", id="not a hello"),
    ],
)
async def test_a_runner_that_is_not_ours_is_not_used(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    async with linked(tmp_path, **options) as on:
        await until(lambda: on.link.trouble is not None and says in on.link.trouble.message)
        assert not on.link.ready
        assert on.heard.told == []
        if "uid" in options:
            assert on.peer.heard == [], "nothing is said to a stranger"


async def test_garbage_ends_the_connection(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        assert on.peer.writer is not None
        on.peer.writer.write(b"\xff\xff\xff\xff")
        await until(lambda: on.peer.connections == 2)
        kind, reason = on.heard.told[1]
        assert (kind, "cannot understand" in reason) == ("lost", True)


async def test_a_frame_without_its_members_ends_the_connection(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        on.peer.send({"type": "exit", "id": "u/1"})
        await until(lambda: on.peer.connections == 2)


async def test_what_is_too_large_for_a_frame_is_refused(tmp_path: Path) -> None:
    async with linked(tmp_path) as on:
        await until(lambda: on.link.ready)
        frame = start_frame("u/1")
        frame["run"] = {"command": ["x" * 5_000_000]}
        with pytest.raises(FrameError):
            on.link.start(frame)
        assert on.link.ready


@pytest.mark.parametrize(
    ("send", "patience"),
    [
        pytest.param(lambda link: link.start(start_frame("u/1")), runner_link.START_SECONDS, id="a start"),
        pytest.param(lambda link: link.stop("u/1", 20), 20 + runner_link.STOP_MARGIN_SECONDS, id="a stop"),
    ],
)
async def test_a_runner_that_does_not_answer_is_given_up(
    tmp_path: Path, send: Callable[[RunnerLink], None], patience: float
) -> None:
    now = 0.0
    async with linked(tmp_path, clock=lambda: now, watchdog_seconds=0.02) as on:
        await until(lambda: on.link.ready)
        send(on.link)
        now = patience - 1
        await asyncio.sleep(0.1)
        assert on.link.ready
        now = patience + 1
        await until(lambda: on.peer.connections == 2)
        assert on.heard.told[1] == ("lost", "the runner does not answer")


async def test_answered_starts_and_stops_are_not_waited_for(tmp_path: Path) -> None:
    now = 0.0
    async with linked(tmp_path, clock=lambda: now, watchdog_seconds=0.02) as on:
        await until(lambda: on.link.ready)
        on.link.start(start_frame("u/1"))
        on.link.start(start_frame("u/2"))
        on.link.stop("u/2", 1)
        on.peer.send({"type": "started", "id": "u/1", "startTime": "2026-01-01T00:00:00.000000Z"})
        on.peer.send({"type": "exit", "id": "u/2", "exitCode": 0})
        await until(lambda: len(on.heard.told) == 3)
        now = 10_000.0
        await asyncio.sleep(0.2)
        assert on.peer.connections == 1
