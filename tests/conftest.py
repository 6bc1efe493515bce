"""For all tests: which event loop is current, what moving virtual time costs, and what hypothesis minds.

No event loop is current until a test has one. Otherwise pytest-asyncio's look for a current loop makes Python 3.11
create one that nobody closes, and its ResourceWarning fails whichever test happens to run when it is collected.

Virtual time moves as soon as nothing is ready. By default `looptime` lets the loop run 42 times in vain before each
move, which is most of what a simulation of hours costs and changes nothing: callbacks that are ready run before the
loop looks for a timer, data on a local socket is readable once it is sent, and for threads it waits in real time.

Hypothesis minds no wall-clock time (an example's deadline, the speed of drawing one): on a busy machine that is a
matter of luck. What a test promises about cost it counts.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, settings

asyncio.set_event_loop(None)

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("looptime"):
            item.add_marker(pytest.mark.looptime(noop_cycles=0))
