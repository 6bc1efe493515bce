from tests.builders import EPOCH

from taskmaster.api.times import to_wire
from taskmaster.coordinator.health import Health
from taskmaster.core.task import Instant


class Clock:
    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> Instant:
        return Instant(self.now)


def test_process_is_ready_when_every_part_is_well() -> None:
    health = Health(clock=Clock())
    assert health.ready
    health.report("tasks")
    health.report("leases", "not listed yet")
    assert not health.ready
    health.report("leases")
    assert health.ready


def test_body_says_which_part_is_not_well_and_since_when() -> None:
    clock = Clock()
    health = Health(clock=clock)
    health.report("tasks")
    clock.now += 5
    health.report("leases", "no answer")
    assert health.body() == {
        "ready": False,
        "parts": {
            "leases": {"ready": False, "since": to_wire(EPOCH + 5), "message": "no answer"},
            "tasks": {"ready": True, "since": to_wire(EPOCH)},
        },
    }


def test_since_moves_only_when_a_part_turns_well_or_ill() -> None:
    clock = Clock()
    health = Health(clock=clock)
    for second, trouble, since in ((0, "a", 0), (1, "b", 0), (2, "", 2), (3, "", 2), (4, "c", 4)):
        clock.now = EPOCH + second
        health.report("tasks", trouble)
        part = health.body()["parts"]["tasks"]  # type: ignore[index]
        assert part["since"] == to_wire(EPOCH + since)
        assert part.get("message", "") == trouble


def test_part_that_has_ended_says_nothing() -> None:
    health = Health(clock=Clock())
    health.report("kopf", "starting")
    health.forget("kopf")
    health.forget("kopf")
    assert health.ready
    assert health.body() == {"ready": True, "parts": {}}
