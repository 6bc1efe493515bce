"""The SDK inside of one process: marked functions, their arguments, and what works outside of a Task."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

import taskmaster_worker
from taskmaster_worker import ArgumentsError, Cancelled, CheckpointError, Fail, RetryAfter, context, task
from taskmaster_worker.sdk.calling import call

# asyncio.run leaves no current loop, and nobody would close one that was made for the asking.
asyncio.set_event_loop(None)


class Size(Enum):
    SMALL = "small"


class Item(BaseModel):
    name: str
    price: float = Field(ge=0)


@task
def plain(left: int, right: int = 1) -> int:
    return left + right


@task
def rich(day: date, size: Size, items: list[Item], part: Annotated[float, Field(le=1)] = 0.5) -> Any:
    return day, size, items, part


@task
def open_ended(*, first: bool, **others: int) -> Any:
    return first, others


@task
def untyped(value, other=None):  # type: ignore[no-untyped-def]
    return value


@task
async def later(value: str) -> str:
    await asyncio.sleep(0)
    return value


@task(cancel="flag")
def flagged() -> str:
    return "done"


@task
def unreadable(value: "NoSuchType") -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
    return None


@task
def unmakeable(value: logging.Logger) -> None:
    return None


def invoke(function: Callable[..., Any], **arguments: Any) -> Any:
    return call(function, arguments, reference=f"jobs:{function.__name__}")


def lines(function: Callable[..., Any], **arguments: Any) -> list[str]:
    with pytest.raises(ArgumentsError) as caught:
        invoke(function, **arguments)
    first, *others = str(caught.value).splitlines()
    assert first.startswith(f"run.python.args do not fit jobs:{function.__name__}(")
    return [line.strip() for line in others]


def test_a_marked_function_is_called_directly_as_before() -> None:
    assert plain(1, right=2) == 3
    assert plain("a", "b") == "ab"  # type: ignore[arg-type]
    assert asyncio.run(later("x")) == "x"
    assert plain.__name__ == "plain"


def test_arguments_become_what_the_annotations_say() -> None:
    assert invoke(plain, left="3") == 4
    given = {"day": "2026-01-31", "size": "small", "items": [{"name": "a", "price": "2"}]}
    assert invoke(rich, **given) == (date(2026, 1, 31), Size.SMALL, [Item(name="a", price=2)], 0.5)
    assert invoke(open_ended, first=True, second="2", third=3) == (True, {"second": 2, "third": 3})
    assert invoke(untyped, value={"any": [1]}) == {"any": [1]}
    assert invoke(later, value="x") == "x"
    assert invoke(flagged) == "done"


def test_each_bad_argument_gets_a_line() -> None:
    assert lines(plain, left="three", rigth=1) == [
        "left: Input should be a valid integer, unable to parse string as an integer (given: 'three')",
        "rigth: the function has no such argument",
    ]
    assert lines(plain) == ["left: is missing"]
    found = lines(rich, day="tomorrow", size="large", items=[{"name": "a", "price": -1}], part=2)
    assert [line.split(":")[0] for line in found] == ["day", "size", "items.0.price", "part"]
    assert lines(open_ended, first=True, second="two")[0].startswith("second: Input should be a valid integer")
    assert len(lines(plain, left="x" * 1000)[0]) < 200


def test_an_annotation_that_cannot_be_used_is_told_like_a_bad_argument() -> None:
    assert lines(unreadable, value=1) == [
        "value: its annotation cannot be read: NameError: name 'NoSuchType' is not defined"
    ]
    assert lines(unmakeable, value=1)[0].startswith("value: no JSON can be made into logging.Logger: ")


def test_arguments_of_an_unmarked_function_are_only_compared_with_its_signature() -> None:
    def unmarked(count: int) -> Any:
        return count

    assert invoke(unmarked, count="3") == "3"
    with pytest.raises(TypeError, match="do not fit jobs:unmarked"):
        invoke(unmarked, number=3)


def test_without_pydantic_only_the_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert invoke(plain, left="a", right="b") == "ab"
    assert lines(plain, rigth=1) == ["left: is missing", "rigth: the function has no such argument"]


def test_pydantic_is_loaded_only_for_a_value_that_needs_it() -> None:
    source = (
        "import sys; from taskmaster_worker import task; from taskmaster_worker.sdk.calling import call\n"
        "f = task(lambda n: n); f.__annotations__ = {'n': int}\n"
        "call(f, {'n': 1}, reference='f'); print('pydantic' in sys.modules)\n"
        "call(f, {'n': '1'}, reference='f'); print('pydantic' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", source], text=True).split() == ["False", "True"]


def test_what_cannot_be_marked_is_refused() -> None:
    with pytest.raises(TypeError, match="staticmethod"):
        task(staticmethod(len))
    with pytest.raises(TypeError, match="int"):
        task(3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="'raise' or 'flag'"):
        task(cancel="maybe")  # type: ignore[call-overload]


def test_sigterm_is_raised_once_and_only_within_the_call() -> None:
    source = """
import os, signal
from taskmaster_worker import Cancelled, context, task
from taskmaster_worker.sdk.calling import call

@task
def stopped():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Cancelled:
        os.kill(os.getpid(), signal.SIGTERM)
        return "once"

print(call(stopped, {}, reference="f"), context.cancelled, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""
    assert subprocess.check_output([sys.executable, "-c", source], text=True) == "once True True\n"


def test_a_handler_of_the_function_itself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    @task
    def installs() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    try:
        invoke(installs)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


class TestErrors:
    @pytest.mark.parametrize(("seconds", "whole"), [(0, 0), (1.01, 2), (5, 5)])
    def test_seconds_are_rounded_up(self, seconds: float, whole: int) -> None:
        assert RetryAfter(seconds).seconds == whole

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
    def test_seconds_that_are_no_time_are_refused(self, seconds: float) -> None:
        with pytest.raises(ValueError, match="from 0 on"):
            RetryAfter(seconds)

    def test_they_survive_the_way_between_processes(self) -> None:
        error = pickle.loads(pickle.dumps(RetryAfter(3, "busy")))
        assert (error.seconds, str(error)) == (3, "busy")
        assert str(pickle.loads(pickle.dumps(Fail("no")))) == "no"

    def test_except_exception_does_not_swallow_a_stop(self) -> None:
        assert not issubclass(Cancelled, Exception)
        assert issubclass(ArgumentsError, Fail)


class TestOutsideOfATask:
    @pytest.fixture(autouse=True)
    def _outside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(os.environ):
            if name.startswith("TASK_"):
                monkeypatch.delenv(name)

    def test_what_a_function_calls_does_nothing(self) -> None:
        context.progress(1, 2, "half")
        context.checkpoint({"step": 1})
        assert (context.cancelled, context.last_checkpoint, context.dependencies) == (False, None, {})

    @pytest.mark.parametrize("name", ["name", "namespace", "uid", "attempt"])
    def test_what_only_a_task_has_raises(self, name: str) -> None:
        with pytest.raises(RuntimeError, match="not part of a Task"):
            getattr(context, name)

    def test_mistakes_are_told_all_the_same(self) -> None:
        with pytest.raises(ValueError, match="current"):
            context.progress(-1)
        with pytest.raises(TypeError):
            context.progress(total=1.5)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match="not JSON"):
            context.checkpoint({1, 2})
        with pytest.raises(CheckpointError, match="larger than"):
            context.checkpoint("x" * 16383)

    def test_the_logger_writes_plain_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        context.logger.info("one %d", 1)
        context.logger.debug("two")
        assert capsys.readouterr().err == "one 1\n"

    def test_a_task_without_a_socket_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TASK_UID", "uid")
        with pytest.raises(CheckpointError, match="no context socket"):
            context.checkpoint(1)

    def test_a_socket_that_nobody_listens_on_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.setenv("TASK_CONTEXT_SOCKET", str(tmp_path / "gone"))
        context.progress(1)
        with pytest.raises(CheckpointError, match="does not answer"):
            context.checkpoint(1)


class TestPackage:
    def test_names_are_loaded_when_they_are_asked_for(self) -> None:
        source = (
            "import sys, taskmaster_worker as w; print([m for m in sys.modules if '.sdk' in m]); print(dir(w), w.task)"
        )
        first, second = subprocess.check_output([sys.executable, "-c", source], text=True).splitlines()
        assert first == "[]"
        assert "'RetryAfter'" in second

    def test_every_exported_name_is_there(self) -> None:
        assert [name for name in taskmaster_worker.__all__ if not hasattr(taskmaster_worker, name)] == []
        with pytest.raises(AttributeError, match="no attribute 'nix'"):
            taskmaster_worker.nix  # noqa: B018
