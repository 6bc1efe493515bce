from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.core.heap import KeyedHeap

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "discard", "first"]), st.sampled_from("abcdef"), st.integers(-3, 3)), max_size=60
)


@given(OPERATIONS)
def test_first_is_the_smallest_key_whatever_came_before(operations: list[tuple[str, str, int]]) -> None:
    heap: KeyedHeap[int] = KeyedHeap()
    model: dict[str, int] = {}
    for operation, item, key in operations:
        match operation:
            case "put":
                heap.put(item, key)
                model[item] = key
            case "discard":
                heap.discard(item)
                model.pop(item, None)
        expected = min(((key, item) for item, key in model.items()), default=None)
        assert heap.first() == expected
        assert len(heap) == len(model)
        assert all((item in heap) == (item in model) for item in "abcdef")


def churn_one_item(heap: KeyedHeap[int]) -> None:
    heap.put("other", -1)
    for key in range(10_000):
        heap.put("one", key)


def add_and_remove_many(heap: KeyedHeap[int]) -> None:
    heap.put("other", -1)
    for number in range(10_000):
        heap.put(f"item-{number}", number)
    for number in range(10_000):
        heap.discard(f"item-{number}")


def add_and_remove_the_same(heap: KeyedHeap[int]) -> None:
    heap.put("other", -1)
    for _ in range(10_000):
        heap.put("one", 1)
        heap.discard("one")


@pytest.mark.parametrize("use", [churn_one_item, add_and_remove_many, add_and_remove_the_same])
def test_entries_that_are_no_longer_current_do_not_pile_up(use: Callable[[KeyedHeap[int]], None]) -> None:
    heap: KeyedHeap[int] = KeyedHeap()
    use(heap)
    assert heap.first() == (-1, "other")
    assert len(heap._heap) <= 2 * len(heap) + 64
