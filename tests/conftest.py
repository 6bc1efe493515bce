"""For all tests: no event loop is current until a test has one.

Otherwise pytest-asyncio's look for a current loop makes Python 3.11 create one that nobody closes, and its
ResourceWarning fails whichever test happens to run when it is collected.
"""

import asyncio

asyncio.set_event_loop(None)
