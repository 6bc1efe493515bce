"""What the SDK and the supervisor agree upon."""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHECKPOINT_BYTES = 16 * 1024
"""Size of a checkpoint as compact JSON in UTF-8."""

LARGEST_PROGRESS = 2**53 - 1
"""Beyond it, a reader that holds numbers as floats would see another one."""

_LONGEST_PATH = 107
"""Bytes of a path that fit into a socket's address."""


@contextlib.contextmanager
def socket_address(path: str) -> Iterator[str]:
    """Give the address of a socket at a path of any length: a long one goes by a descriptor of its directory.

    Raises:
        OSError: the directory of a long path cannot be opened.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
