"""Times as they stand in a status."""

from collections.abc import Iterable
from datetime import datetime

from tests.e2e.cluster import Object


def seconds_between(first: str, second: str) -> float:
    """Return the seconds from one time to another."""
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()


def most_at_once(tasks: Iterable[Object]) -> int:
    """Return how many slots were taken at most at a time by the processes of attempts, as their workers recorded it."""
    events: list[tuple[str, int]] = []
    for task in tasks:
        slots = task["spec"].get("resources", {}).get("slots", 1)
        for attempt in task["status"].get("attempts", ()):
            # Times of the API all have the same form, so that they compare as texts; an end comes before a start.
            events += [(attempt["startTime"], slots), (attempt["endTime"], -slots)]
    most = taken = 0
    for _, change in sorted(events):
        taken += change
        most = max(most, taken)
    return most
