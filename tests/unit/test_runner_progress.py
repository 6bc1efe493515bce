"""Progress: what counts as such, how often it is passed on, and a task without a context socket."""

from __future__ import annotations

import select
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster_worker.runner import task_context
from taskmaster_worker.runner.messages import ProgressValue
from taskmaster_worker.runner.progress import INTERVAL_SECONDS, ProgressGate, parse_progress
from taskmaster_worker.runner.spec import Spec
from taskmaster_worker.sdk.wire import LARGEST_PROGRESS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, {}),
        ({"current": 0, "total": LARGEST_PROGRESS}, {"current": 0, "total": LARGEST_PROGRESS}),
        ({"current": None, "more": 1}, {}),
        ({"message": "\x1b[1mx\ud800" + "y" * 300}, {"message": "x?" + "y" * 254}),
    ],
    ids=["empty", "bounds", "null", "message"],
)
def test_progress_is_made_safe_and_bounded(value: Any, expected: Any) -> None:
    assert parse_progress(value) == expected


@pytest.mark.parametrize(
    "value", [[], {"current": -1}, {"total": LARGEST_PROGRESS + 1}, {"current": True}, {"message": 1}]
)
def test_what_is_no_progress_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="progress"):
        parse_progress(value)


@given(steps=st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=50))
def test_few_values_pass_and_the_last_one_always(steps: list[float]) -> None:
    sent: list[tuple[float, ProgressValue]] = []
    now = 0.0
    gate = ProgressGate(lambda value: sent.append((now, value)))
    for number, step in enumerate(steps):
        while gate.due <= now + step:
            step -= gate.due - now
            now = gate.due
            gate.tick(now)
        now += step
        gate.offer({"current": number}, now)
    times = [time for time, _ in sent]
    assert all(later - earlier >= INTERVAL_SECONDS * 0.999 for earlier, later in pairwise(times))
    gate.finish()
    assert sent[-1][1] == {"current": len(steps) - 1}


def test_where_no_socket_can_be_made_the_log_says_so_and_the_files_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(task_context, "ContextServer", refuse)
    told: list[dict[str, Any]] = []
    spec = Spec(
        run={"command": ["true"]},
        env={},
        workingDir="",
        directory=str(tmp_path),
        dependencies={},
        checkpoint=None,
        memoryBytes=None,
    )
    context = task_context.TaskContext(spec, select.poll(), told.append)
    assert "no socket: Operation not permitted" in told.pop()["note"]
    assert "TASK_CONTEXT_SOCKET" not in context.variables
    Path(context.variables["TASK_CHECKPOINT_FILE"]).write_text("[1]")
    context.finish()
    assert told == [{"checkpoint": [1], "sequence": 1}]
