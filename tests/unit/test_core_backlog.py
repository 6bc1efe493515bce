from dataclasses import replace

from tests.builders import EPOCH, task

from taskmaster.api.times import to_wire
from taskmaster.core.backlog import Backlog
from taskmaster.core.task import Instant, Task

NOW = Instant(EPOCH)
SOON = Instant(EPOCH + 10)
LATER = Instant(EPOCH + 20)


def delayed(name: str, until: float, **spec: int) -> Task:
    return task(name, status={"notBeforeTime": to_wire(until)}, **spec)


def drained(backlog: Backlog) -> list[str]:
    names = []
    while (found := backlog.pop()) is not None:
        names.append(found.name)
    return names


def put(backlog: Backlog, *tasks: Task, now: Instant = NOW) -> None:
    for each in tasks:
        backlog.put(each, now=now)


def test_higher_priority_comes_first_and_may_be_negative() -> None:
    backlog = Backlog()
    put(backlog, task("low", priority=-5), task("middle"), task("high", priority=5))
    assert drained(backlog) == ["high", "middle", "low"]


def test_equals_come_in_the_order_of_their_creation_whatever_order_they_were_seen_in() -> None:
    backlog = Backlog()
    put(backlog, task("second", created=EPOCH + 1), task("third", created=EPOCH + 2), task("first", created=EPOCH))
    assert drained(backlog) == ["first", "second", "third"]


def test_tasks_of_the_same_second_come_in_the_order_they_were_first_seen_in() -> None:
    backlog = Backlog()
    put(backlog, task("z"), task("a"), task("m"))
    assert drained(backlog) == ["z", "a", "m"]


def test_newer_version_keeps_its_place_among_equals() -> None:
    backlog = Backlog()
    put(backlog, task("first"), task("second"), task("third"))
    put(backlog, replace(task("first"), resource_version="2000"))
    assert drained(backlog) == ["first", "second", "third"]


def test_priority_edit_moves_a_task_and_moving_back_restores_its_place() -> None:
    backlog = Backlog()
    put(backlog, task("first"), task("second"), task("third"))
    put(backlog, task("second", priority=1))
    assert backlog.head() == task("second", priority=1)
    put(backlog, task("second"))
    assert drained(backlog) == ["first", "second", "third"]


def test_delayed_task_is_counted_but_not_offered_before_its_time() -> None:
    backlog = Backlog()
    put(backlog, delayed("later", LATER), delayed("soon", SOON))
    assert len(backlog) == 2
    assert backlog.next_due() == SOON
    backlog.wake(now=Instant(SOON - 0.001))
    assert backlog.head() is None
    backlog.wake(now=SOON)
    assert drained(backlog) == ["soon"]
    assert backlog.next_due() == LATER
    backlog.wake(now=Instant(LATER + 100))
    assert drained(backlog) == ["later"]
    assert backlog.next_due() is None


def test_awoken_task_takes_the_place_of_its_priority_and_age() -> None:
    backlog = Backlog()
    put(backlog, delayed("delayed", SOON), task("younger", created=EPOCH + 1), task("urgent", priority=1))
    backlog.wake(now=SOON)
    assert drained(backlog) == ["urgent", "delayed", "younger"]


def test_delay_that_is_over_does_not_delay() -> None:
    backlog = Backlog()
    put(backlog, delayed("t", NOW))
    assert drained(backlog) == ["t"]


def test_caller_may_hold_a_task_back_for_longer_than_its_own_delay() -> None:
    backlog = Backlog()
    backlog.put(task("t"), now=NOW, until=SOON)
    assert (backlog.head(), backlog.next_due()) == (None, SOON)
    backlog.put(delayed("t", LATER), now=NOW, until=SOON)
    assert backlog.next_due() == LATER
    backlog.put(delayed("t", SOON), now=NOW, until=LATER)
    assert backlog.wake(now=SOON) == []
    assert backlog.wake(now=LATER) == [delayed("t", SOON)]
    assert backlog.pop() == delayed("t", SOON), "the Task itself is not changed"


def test_task_may_become_delayed_and_be_released_again() -> None:
    backlog = Backlog()
    put(backlog, task("t"))
    put(backlog, delayed("t", SOON))
    assert (backlog.head(), len(backlog), backlog.next_due()) == (None, 1, SOON)
    put(backlog, task("t"))
    assert (len(backlog), backlog.next_due()) == (1, None)
    assert drained(backlog) == ["t"]


def test_discarded_task_is_gone_from_both_heaps() -> None:
    backlog = Backlog()
    put(backlog, task("ready"), delayed("delayed", SOON))
    for uid in ("uid-of-ready", "uid-of-delayed", "uid-of-nobody"):
        backlog.discard(uid)
    assert len(backlog) == 0
    assert "uid-of-ready" not in backlog
    assert backlog.next_due() is None
    backlog.wake(now=LATER)
    assert backlog.pop() is None
