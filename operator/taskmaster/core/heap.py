"""A priority queue whose items can change their key or leave, in O(log n).

`heapq` cannot remove from the middle, so an entry that is no longer current stays until it surfaces (the standard
library's documentation calls this lazy deletion). When more than half of the heap is stale it is rebuilt, which bounds
memory by twice the number of items and costs O(1) amortised.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

K = TypeVar("K", int, float, tuple[float, int], tuple[float, float, int])

_SLACK: Final = 64


class KeyedHeap(Generic[K]):
    """Items (strings) ordered by key, the smallest first; each item is in it at most once."""

    def __init__(self) -> None:
        self._keys: dict[str, K] = {}
        self._heap: list[tuple[K, str]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: str) -> bool:
        return item in self._keys

    def key_of(self, item: str) -> K | None:
        """Return the key of an item; None if it is not here."""
        return self._keys.get(item)

    def put(self, item: str, key: K) -> None:
        """Add an item, or change the key of one that is here."""
        if self._keys.get(item) == key:
            return
        self._keys[item] = key
        heapq.heappush(self._heap, (key, item))
        self._compact()

    def discard(self, item: str) -> None:
        """Remove an item, if it is here."""
        if self._keys.pop(item, None) is not None:
            self._compact()

    def first(self) -> tuple[K, str] | None:
        """Return the smallest key and its item; None when empty."""
        while self._heap:
            key, item = self._heap[0]
            if self._keys.get(item) == key:
                return key, item
            heapq.heappop(self._heap)
        return None

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._keys) + _SLACK:
            self._heap = [(key, item) for item, key in self._keys.items()]
            heapq.heapify(self._heap)
