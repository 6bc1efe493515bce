"""Times as they stand in a status."""

from datetime import datetime


def seconds_between(first: str, second: str) -> float:
    """Return the seconds from one time to another."""
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()
