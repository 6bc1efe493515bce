"""Which Tasks of a namespace wait for others, and what has become of those (`spec.dependsOn`).

Everything is judged by the Tasks that are there now, looked up by name: a parent may be created later than its child,
run again, or be deleted and created anew, and each time the verdict is what these Tasks say. A finished Task that has
been asked to run again counts as unfinished at once: else whoever runs a whole chain again would see its end skipped
because its beginning has not been reset yet. A dependency counts until the first assignment of the child; from then on
it is met for good.

Each child keeps what it lacks, so that the end of a parent costs what its children are, however many parents these
have. A verdict is told when it is asked for, and names few of many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from taskmaster.core.cycles import Cycles
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.request import open_request
from taskmaster.core.task import Dependency, DependencyCondition, Task
from taskmaster.core.verdict import MET, NAMED, Cyclic, Met, Moot, Verdict, Waiting, describe

__all__ = ["MET", "Cyclic", "Dependencies", "Met", "Moot", "Verdict", "Waiting", "describe", "named_by"]


class _Lack(Enum):
    """Why a dependency is not met."""

    MISSING = auto()
    UNFINISHED = auto()
    ENDED_OTHERWISE = auto()


@dataclass(slots=True)
class _Child:
    """A Task whose dependencies count."""

    name: str
    wants: dict[str, DependencyCondition]
    lacks: dict[str, _Lack] = field(default_factory=dict)
    moot: int = 0
    """How many parents have ended otherwise."""

    def learn(self, parent: str, lack: _Lack | None) -> bool:
        """Take note of how a dependency stands; return whether that is new."""
        before = self.lacks.get(parent)
        if lack is before:
            return False
        self.moot += (lack is _Lack.ENDED_OTHERWISE) - (before is _Lack.ENDED_OTHERWISE)
        if lack is None:
            del self.lacks[parent]
        else:
            self.lacks[parent] = lack
        return True


class Dependencies:
    """The Tasks of one namespace, and who depends on whom."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._children: dict[str, _Child] = {}
        """Those whose dependencies count, by uid."""
        self._dependents: dict[str, set[str]] = {}
        """Uids of the unfinished Tasks that name a Task, by its name."""
        self._causes: dict[str, str] = {}
        """What began the chain in which a Skipped Task was skipped, by its uid."""
        self._cycles = Cycles(needs=self._needs, needed_by=self._needed_by)
        self._told = 0

    @property
    def visited(self) -> int:
        """Edges looked at so far because something about another Task than their child had changed."""
        return self._told + self._cycles.visited

    def put(self, task: Task) -> set[str]:
        """Take a Task as it is now; return the uids of the unfinished Tasks whose verdict may have changed.

        That a parent which has not ended goes on to another phase is no change.
        """
        old, changed = self._tasks.get(task.name), set[str]()
        if old is not None and old.uid != task.uid:
            # Created anew; the deletion of its predecessor may be seen later, or only now.
            changed |= self._take_out(old)
            old = None
        self._tasks[task.name] = task
        if old is not None and old.run_number != task.run_number:
            self._causes.pop(task.uid, None)
        changed |= self._follow(old, task)
        if old is None or _end(old) is not _end(task):
            changed |= self._tell(task.name)
        return changed

    def remove(self, task: Task) -> set[str]:
        """Forget a Task that was deleted; returns what `put` does. Its namesake, if there is one by now, stays."""
        current = self._tasks.get(task.name)
        return set() if current is None or current.uid != task.uid else self._take_out(current)

    def named(self, name: str) -> Task | None:
        """Return the Task of a name."""
        return self._tasks.get(name)

    def needed(self, name: str) -> bool:
        """Whether an unfinished Task names this one, so that its record has to be kept: the child may be reading it."""
        return name in self._dependents

    def judge(self, uid: str) -> Verdict:
        """Tell how a Task stands.

        A cycle comes first: it is a mistake that a person has to put right, and then everything may look different.
        """
        child = self._children.get(uid)
        if child is None or not child.lacks:
            return MET
        if (path := self._cycles.cycle(child.name)) is not None:
            return Cyclic(path)
        if child.moot:
            return Moot(self._why_moot(child))
        first = list(islice(child.lacks.items(), NAMED))
        unfinished = tuple(name for name, lack in first if lack is _Lack.UNFINISHED)
        return Waiting(
            missing=tuple(name for name, lack in first if lack is _Lack.MISSING),
            unfinished=unfinished,
            phases=tuple(_phase(self._tasks[name]) for name in unfinished),
            unmet=len(child.lacks),
            total=len(child.wants),
        )

    def _follow(self, old: Task | None, new: Task) -> set[str]:
        """Keep the edges of a Task as a child."""
        names, before = named_by(new), () if old is None else named_by(old)
        counts = bool(names) and new.phase is Phase.PENDING and new.attempt == 0
        if names == before and counts == (new.uid in self._children):
            return set()
        changed = set() if old is None else self._unfollow(old)
        for each in names:
            self._dependents.setdefault(each.name, set()).add(new.uid)
        if counts:
            child = _Child(new.name, {each.name: each.condition for each in names})
            for name, condition in child.wants.items():
                child.learn(name, _lack(self._tasks.get(name), condition))
            self._children[new.uid] = child
            changed |= self._uids(self._cycles.add(new.name))
        if _end(new) is None:
            changed.add(new.uid)
        return changed

    def _unfollow(self, task: Task) -> set[str]:
        changed = self._uids(self._cycles.discard(task.name))
        self._children.pop(task.uid, None)
        for each in named_by(task):
            dependents = self._dependents[each.name]
            dependents.discard(task.uid)
            if not dependents:
                del self._dependents[each.name]
        return changed

    def _take_out(self, task: Task) -> set[str]:
        changed = self._unfollow(task)
        del self._tasks[task.name]
        self._causes.pop(task.uid, None)
        return changed | self._tell(task.name)

    def _tell(self, name: str) -> set[str]:
        """Tell the children of a Task how it stands; return those for which that is new."""
        task, changed = self._tasks.get(name), set[str]()
        for uid in self._dependents.get(name, ()):
            self._told += 1
            child = self._children.get(uid)
            if child is not None and child.learn(name, _lack(task, child.wants[name])):
                changed.add(uid)
        return changed

    def _why_moot(self, child: _Child) -> str:
        name = next(name for name, lack in child.lacks.items() if lack is _Lack.ENDED_OTHERWISE)
        wanted = "have failed" if child.wants[name] is DependencyCondition.FAILED else "have succeeded"
        cause = self._cause(self._tasks[name])
        return f'needs "{name}" to {wanted}, but it {_ended(self._tasks[name])}{cause and f" because {cause}"}'

    def _cause(self, task: Task) -> str:
        """Return what began the chain at the end of which a Task was skipped; empty if that was no chain.

        It is remembered, so that a chain is not followed once for each of its Tasks, and outlives the Task that began.
        """
        first, chain = task, set[str]()
        while _skipped(task) and task.uid not in self._causes and task.uid not in chain:
            chain.add(task.uid)
            culprits = (self._culprit(each) for each in task.depends_on)
            task = next((each for each in culprits if each is not None), task)
        if task.uid not in self._causes and (task is first or _skipped(task)):
            # Nothing began it, or what did is gone or not seen yet: nothing to be remembered.
            return "" if task is first else _ending(task)
        cause = self._causes.get(task.uid) or _ending(task)
        self._causes |= dict.fromkeys(chain, cause)
        return cause

    def _culprit(self, dependency: Dependency) -> Task | None:
        parent = self._tasks.get(dependency.name)
        return parent if _lack(parent, dependency.condition) is _Lack.ENDED_OTHERWISE else None

    def _needs(self, name: str) -> Collection[str]:
        child = self._children.get(self._tasks[name].uid)
        return () if child is None else child.wants

    def _needed_by(self, name: str) -> Iterator[str]:
        children = (self._children.get(uid) for uid in self._dependents.get(name, ()))
        return (child.name for child in children if child is not None)

    def _uids(self, names: Iterable[str]) -> set[str]:
        return {self._tasks[name].uid for name in names}


def named_by(task: Task) -> tuple[Dependency, ...]:
    """Return what an unfinished Task depends on; a finished one needs nothing any more."""
    return () if _end(task) is not None else task.depends_on


def _end(task: Task) -> Phase | None:
    """Return how a Task has ended; None if it has not, or is about to run again."""
    return task.phase if task.finished and open_request(task) is None else None


def _phase(task: Task) -> Phase:
    return Phase.PENDING if task.finished else task.phase


def _lack(parent: Task | None, condition: DependencyCondition) -> _Lack | None:
    if parent is None:
        return _Lack.MISSING
    if (end := _end(parent)) is None:
        return _Lack.UNFINISHED
    met = condition is DependencyCondition.FINISHED or condition.value == end.value
    return None if met else _Lack.ENDED_OTHERWISE


def _skipped(task: Task) -> bool:
    return task.phase is Phase.SKIPPED and task.reason == EndReason.DEPENDENCY_FAILED


def _ending(task: Task) -> str:
    """Say how a finished Task has ended."""
    return f'"{task.name}" {_ended(task)}'


def _ended(task: Task) -> str:
    return f"{'has' if task.phase in (Phase.SUCCEEDED, Phase.FAILED) else 'was'} {task.phase}"
