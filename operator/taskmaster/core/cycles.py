"""Finds Tasks that depend on themselves, when the last edge of a cycle arrives.

A topological order is kept, not as positions but as *levels*: the level of a Task is at least that of each Task that it
needs. Only an edge that contradicts the levels may close a cycle. Then a search goes back, among Tasks of the same
level and for `BACK_EDGES` edges at most, and what comes after the edge is lifted, which finds the cycle if there is
one. This is the incremental cycle detection for sparse graphs by Bender, Fineman, Gilbert and Tarjan ("A New Approach
to Incremental Cycle Detection and Related Problems", ACM Transactions on Algorithms 12, 2016, section 2), whose bound
holds in any order of arrival. A Task that nobody needs yet cannot close a cycle, so nothing is searched when parents
are created before children.

The Tasks of a cycle, and of cycles that share Tasks with it, become one node: a *knot*. So the order stays one, however
many cycles there are. When anything about a Task of a knot changes, the knot is undone, and the others are put in anew.

Nothing recurses: chains may be deep.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

BACK_EDGES: Final = 64
"""Edges that a search goes back. The optimum is the root of the number of edges, and it is flat."""


@dataclass(slots=True, eq=False)
class _Node:
    """A Task, or a knot of several."""

    names: list[str]
    level: int = 0
    children: set[_Node] = field(default_factory=set)
    """Those that need it."""
    peers: set[_Node] = field(default_factory=set)
    """Those that it needs and that have its level."""
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Within a knot: a cycle through each Task, as far as it was asked for."""


class Cycles:
    """The Tasks of one namespace that wait for others, by name.

    `needs` tells which names a Task needs, `needed_by` who needs a name. What `needs` says about a Task must not change
    between its `add` and its `discard`.
    """

    def __init__(self, *, needs: Callable[[str], Collection[str]], needed_by: Callable[[str], Iterable[str]]) -> None:
        self._needs = needs
        self._needed_by = needed_by
        self._nodes: dict[str, _Node] = {}
        self.visited = 0
        """Edges visited by searches so far."""

    def add(self, name: str) -> set[str]:
        """Add a Task; return the names of those that are on a cycle now and were on another or none."""
        self._nodes[name] = node = _Node([name])
        for parent in self._parents(node):
            self._link(parent, node)
        changed = {name} if name in self._needs(name) else set()
        for child in self._needed_by(name):
            node, other = self._nodes[name], self._nodes.get(child)
            if other is not None and other is not node and not self._link(node, other):
                changed |= self._tie(node, other)
        return changed

    def discard(self, name: str) -> set[str]:
        """Forget a Task, if it is here; return the names of the others whose cycle has changed or is open now."""
        node = self._nodes.get(name)
        if node is None:
            return set()
        self._take_out(node)
        changed = set(node.names)
        for other in node.names:
            if other != name:
                changed |= self.add(other)
        return changed - {name}

    def cycle(self, name: str) -> tuple[str, ...] | None:
        """Return a cycle that a Task is on, each name followed by one that it needs; the last is the first again.

        Tasks that share a cycle are told the same one, as far as one can be: it begins with its smallest name.
        """
        node = self._nodes.get(name)
        if node is None:
            return None
        if name in self._needs(name):
            return (name, name)
        if len(node.names) == 1:
            return None
        if name not in node.paths:
            path = self._way_round(name, node)
            for each in path:
                node.paths.setdefault(each, path)
        return node.paths[name]

    def _link(self, before: _Node, after: _Node) -> bool:
        """Let one node come before another; return False, and do not, if that would close a cycle."""
        if after in before.children:
            return True
        if not after.children:
            if before.level > after.level:
                after.level = before.level
                after.peers.clear()
        elif before.level >= after.level and self._closes(before, after):
            return False
        before.children.add(after)
        if before.level == after.level:
            after.peers.add(before)
        return True

    def _closes(self, before: _Node, after: _Node) -> bool:
        """Whether `before` comes after `after`; if not, `after` and what follows it are lifted above `before`."""
        seen, searched_all = self._search_back(before)
        if after in seen:
            return True
        level = before.level
        if not searched_all:
            seen, level = {before}, level + 1
        if level == after.level:
            return False
        closes = False
        after.level = level
        after.peers.clear()
        lifted = [after]
        # Even when a cycle is found the levels are put right: the order without the new edge goes on to be used.
        while lifted:
            node = lifted.pop()
            for child in node.children:
                self.visited += 1
                closes = closes or child in seen
                if child.level < node.level:
                    child.level = node.level
                    child.peers.clear()
                    lifted.append(child)
                if child.level == node.level:
                    child.peers.add(node)
        return closes

    def _search_back(self, start: _Node) -> tuple[set[_Node], bool]:
        """Return what comes before a node in its level, and whether that is all of it."""
        seen, left, edges = {start}, [start], 0
        while left:
            for peer in left.pop().peers:
                self.visited += 1
                edges += 1
                if edges > BACK_EDGES:
                    return seen, False
                if peer not in seen:
                    seen.add(peer)
                    left.append(peer)
        return seen, True

    def _tie(self, before: _Node, after: _Node) -> set[str]:
        """Make one knot of everything on the ways from `after` to `before`; return the names in it."""
        members = self._between(after, before)
        knot = _Node(sorted(name for node in members for name in node.names))
        parents = {parent for node in members for parent in self._parents(node)} - members
        children = {child for node in members for child in node.children} - members
        for node in members:
            self._take_out(node)
        self._nodes |= dict.fromkeys(knot.names, knot)
        # No way leads from the knot back to it, or it would be in it: none of these closes a cycle.
        for parent in parents:
            self._link(parent, knot)
        for child in children:
            self._link(knot, child)
        return set(knot.names)

    def _between(self, first: _Node, last: _Node) -> set[_Node]:
        reached: dict[_Node, list[_Node]] = {first: []}
        left = [first]
        while left:
            node = left.pop()
            for child in node.children:
                self.visited += 1
                if child not in reached:
                    reached[child] = []
                    left.append(child)
                reached[child].append(node)
        between, left = {last}, [last]
        while left:
            for node in reached[left.pop()]:
                if node not in between:
                    between.add(node)
                    left.append(node)
        return between

    def _way_round(self, name: str, knot: _Node) -> tuple[str, ...]:
        """Return a shortest cycle through a Task of a knot."""
        needed_by: dict[str, str] = {}
        left = deque([name])
        while name not in needed_by:
            current = left.popleft()
            for need in self._needs(current):
                self.visited += 1
                if need not in needed_by and self._nodes.get(need) is knot:
                    needed_by[need] = current
                    left.append(need)
        path = [needed_by[name]]
        while path[-1] != name:
            path.append(needed_by[path[-1]])
        path.reverse()
        first = path.index(min(path))
        return (*path[first:], *path[: first + 1])

    def _parents(self, node: _Node) -> set[_Node]:
        """Return the nodes that a node needs."""
        found = (self._nodes.get(need) for name in node.names for need in self._needs(name))
        return {parent for parent in found if parent is not None and parent is not node}

    def _take_out(self, node: _Node) -> None:
        for parent in self._parents(node):
            parent.children.discard(node)
        for child in node.children:
            child.peers.discard(node)
        for name in node.names:
            del self._nodes[name]
