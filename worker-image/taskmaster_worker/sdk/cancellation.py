"""SIGTERM as a marked function meets it: raised into it, or noted.

Only the process that was told so behaves like this. A fork of it (`multiprocessing`) goes back to the default and ends;
SIGTERM is blocked across the fork, since what arrived before the child has gone back would be lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from taskmaster_worker.sdk.errors import Cancelled

MESSAGE = "the attempt is being stopped"


class Cancellation:
    """Whether a stop has arrived. There is one per process, `cancellation`."""

    def __init__(self) -> None:
        self.received = False
        self._handler: Any = None
        self._thread = threading.local()
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._reset)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise `Cancelled` at the first SIGTERM within the block, in the main thread."""
        with self._handled(_raise):
            yield

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Only note a SIGTERM within the block."""
        with self._handled(lambda: None):
            yield

    async def cancelling(self, awaitable: Awaitable[Any]) -> Any:
        """Await, and cancel the current asyncio task at the first SIGTERM."""
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        assert current is not None

        loop.add_signal_handler(signal.SIGTERM, lambda: self._arrived(lambda: current.cancel(MESSAGE)))
        self._handler = signal.getsignal(signal.SIGTERM)
        try:
            return await awaitable
        finally:
            if signal.getsignal(signal.SIGTERM) is self._handler:
                loop.remove_signal_handler(signal.SIGTERM)
            self._handler = None

    @contextmanager
    def _handled(self, react: Callable[[], None]) -> Iterator[None]:
        def handle(number: int, frame: object) -> None:
            self._arrived(react)

        self._handler = handle
        signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) is handle:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._handler = None

    def _arrived(self, react: Callable[[], object]) -> None:
        if not self.received:
            self.received = True
            react()

    def _block(self) -> None:
        if self._handler is not None:
            self._thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def _unblock(self) -> None:
        if (mask := self._thread.__dict__.pop("mask", None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _reset(self) -> None:
        if self._handler is not None and signal.getsignal(signal.SIGTERM) is self._handler:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._handler = None
        self._unblock()


def _raise() -> None:
    raise Cancelled(MESSAGE)


cancellation = Cancellation()
