"""Cycles are those that a search of the whole graph finds, where searches are long enough to be given up on the way."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from taskmaster.core.cycles import BACK_EDGES, Cycles

Graph = dict[str, dict[str, None]]


class Site:
    """A graph that changes, and the cycles as they are told."""

    def __init__(self) -> None:
        self.graph: Graph = {}
        self.cycles = Cycles(needs=lambda name: self.graph[name], needed_by=self.needed_by)
        self.told: set[str] = set()

    def needed_by(self, name: str) -> list[str]:
        return [child for child, needs in self.graph.items() if name in needs]

    def put(self, name: str, needs: dict[str, None]) -> None:
        self.drop(name)
        self.graph[name] = needs
        self.told |= self.cycles.add(name)

    def drop(self, name: str) -> None:
        if name in self.graph:
            self.told |= self.cycles.discard(name) | {name}
            del self.graph[name]


def components(graph: Graph) -> dict[str, frozenset[str]]:
    """What depends on itself, each with those that it shares cycles with; by Kosaraju's two passes."""
    order, seen = list[str](), set[str]()
    for start in graph:
        stack = [(start, iter(graph[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            for need in stack[-1][1]:
                if need in graph and need not in seen:
                    seen.add(need)
                    stack.append((need, iter(graph[need])))
                    break
            else:
                order.append(stack.pop()[0])
    children: dict[str, list[str]] = {name: [] for name in graph}
    for name, needs in graph.items():
        for need in needs.keys() & graph.keys():
            children[need].append(name)
    found: dict[str, frozenset[str]] = {}
    for root in reversed(order):
        if root in found:
            continue
        members, left = {root}, [root]
        while left:
            for child in children[left.pop()]:
                if child not in found and child not in members:
                    members.add(child)
                    left.append(child)
        found |= dict.fromkeys(members, frozenset(members))
    return {name: members for name, members in found.items() if len(members) > 1 or name in graph[name]}


def near(number: int, random: Random) -> int:
    return number - 1


def behind(number: int, random: Random) -> int:
    return number - random.randint(1, 3)


def below(number: int, random: Random) -> int:
    return random.randrange(number) if number else -1


@pytest.mark.parametrize("parent", [near, behind, below])
@pytest.mark.parametrize("seed", range(4))
def test_cycles_are_those_of_a_search_of_everything(parent: Callable[[int, Random], int], seed: int) -> None:
    size, random, site = 4 * BACK_EDGES, Random(seed), Site()
    before: dict[str, tuple[str, ...] | None] = {}
    sizes = set()
    # At first everything arrives, in any order; then some is edited or deleted, and edges lead back now and then.
    for step, number in enumerate([*random.sample(range(size), size), *random.choices(range(size), k=size)]):
        name = f"n{number}"
        needs = {f"n{parent(number, random)}": None for _ in range(random.randint(1, 3))}
        if step >= size and random.random() < 0.2:
            needs[f"n{random.randrange(size)}"] = None
        if step >= size and random.random() < 0.1:
            site.drop(name)
        else:
            site.put(name, needs)
        if step % 16 and step != size - 1:
            continue
        expected = components(site.graph)
        now = {each: site.cycles.cycle(each) for each in site.graph}
        assert {each for each, path in now.items() if path} == expected.keys()
        for each, path in now.items():
            if path is not None:
                assert each in path
                assert path[0] == path[-1] == min(path)
                assert len(set(path)) == len(path) - 1
                assert set(path) <= expected[each]
                assert all(need in site.graph[who] for who, need in pairwise(path))
        assert {each for each, path in now.items() if path != before.get(each)} <= site.told
        before, site.told = now, set()
        sizes.add(len(expected))
    assert 0 in sizes
    assert max(sizes) > 10, "no cycle of some size came about: this tests nothing"
