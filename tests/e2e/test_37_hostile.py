"""Tasks that break every rule: each ends as it should, its slot is free, nothing of it is left, others are unharmed."""

import signal
from collections.abc import Iterator

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import attempts, is_finished, phase, shell, spent, task
from tests.e2e.processes import Node
from tests.e2e.space import Space

pytestmark = pytest.mark.timeout(300)

IDLE_PROCESSES = 3
"""In a runner container without Tasks: the runner and its two fork servers."""

ONCE = {"limit": 0}
NUMBERS = range(1, 65)
NOT_DEADLY = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),  # in a session without a terminal
    *(32, 33),  # the C library's own
}
BOMB = "bomb() { bomb | bomb & }; bomb"
FLOOD_BYTES = 100_000_000


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    # As much memory as its slots need, and one processor, so that the rest of the machine can go on beside a bomb.
    limits = {"memory": "640Mi", "cpu": "1"}
    template = {"resources": {"requests": {"cpu": "10m"}, "limits": limits}}
    with Space.made(cluster, "hostile", replicas=2, slots=32, drainSeconds=1, template=template) as made:
        yield made


@pytest.fixture
def calm(space: Space, node: Node) -> Iterator[None]:
    yield
    assert_calm(space, node)


def assert_calm(space: Space, node: Node) -> None:
    """Every slot is free, Tasks run, and no process of any is left."""
    space.has_workers(2)
    space.cluster.delete("task/normal", namespace=space.name)
    space.apply(task("normal", "true"))
    (normal,) = space.finished("normal")
    assert (phase(normal), spent(normal)) == ("Succeeded", (0, 0, 0))
    space.is_idle()
    for worker in space.workers():
        node.wait_for_processes(IDLE_PROCESSES, space.name, worker, "runner", seconds=5)


def neighbours(space: Space, source: str) -> list[str]:
    """Start Tasks on all workers, and wait until they run."""
    names = [f"neighbour-{number}" for number in range(4)]
    space.cluster.delete(*(f"task/{name}" for name in names), namespace=space.name)
    space.apply(*(shell(name, source) for name in names))
    space.reach("phase", "Running", *names)
    return names


@pytest.mark.usefixtures("calm")
def test_every_exit_code_and_signal_is_recorded(space: Space) -> None:
    quick = {"attemptSeconds": 3, "graceSeconds": 1}
    codes = {f"code-{number}": shell(f"code-{number}", f"exit {number}", retry=ONCE) for number in NUMBERS}
    signals = {
        f"signal-{number}": shell(f"signal-{number}", f"kill -{number} $$", retry=ONCE, timeouts=quick)
        for number in NUMBERS
    }
    names = [*codes, *signals]
    with space.watching() as watch:
        space.apply(*codes.values(), *signals.values())
        ended = watch.until(lambda seen: all(is_finished(seen.get(name, {})) for name in names), 90, "all ends")
    for number in NUMBERS:
        code, killed = ended[f"code-{number}"], ended[f"signal-{number}"]
        assert (phase(code), code["status"]["reason"], code["status"]["exitCode"]) == ("Failed", "ExitCode", number)
        (record,) = attempts(killed)
        found = (killed["status"]["reason"], record.get("exitCode"), record.get("signal"))
        if number in NOT_DEADLY:
            assert found == ("Completed", 0, None), number
        elif number == signal.SIGSTOP:
            assert found[0] == "TimedOut"
        else:
            assert found == ("Signal", None, number)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("prefix", ["", "trap '' TERM; "], ids=["plain", "ignoring-SIGTERM"])
def test_a_fork_bomb_ends_in_time(space: Space, prefix: str) -> None:
    names = neighbours(space, "sleep 9")
    newcomers = [f"newcomer-{number}" for number in range(8)]
    space.cluster.delete("task/bomb", *(f"task/{name}" for name in newcomers), namespace=space.name)
    bounds = {"attemptSeconds": 3, "graceSeconds": 1}
    space.apply(shell("bomb", f"{prefix}{BOMB}; exec sleep 300", retry=ONCE, timeouts=bounds))
    space.reach("attempt", 1, "bomb")
    space.apply(*(task(name, "sleep", "1", retry=ONCE) for name in newcomers))
    (bomb,) = space.finished("bomb")
    assert (phase(bomb), bomb["status"]["reason"], spent(bomb)) == ("Failed", "TimedOut", (1, 0, 0))
    assert "Cannot fork" in bomb["status"]["logTail"]
    # What came meanwhile and found no process left has lost nothing by it.
    for newcomer in space.finished(*newcomers):
        assert (phase(newcomer), spent(newcomer)) == ("Succeeded", (0, 0, 0)), newcomer["status"]
    assert_unharmed(space, names)


@pytest.mark.usefixtures("calm")
def test_a_fork_bomb_that_its_first_process_leaves_behind_ends_at_once(space: Space) -> None:
    space.apply(shell("left-behind", BOMB, retry=ONCE))
    (left,) = space.finished("left-behind")
    assert (phase(left), spent(left)) == ("Succeeded", (0, 0, 0))


@pytest.mark.usefixtures("calm")
def test_a_memory_hog_is_stopped_by_its_own_limit(space: Space) -> None:
    hog = "import os, time; os.fork() or os.setsid(); held = bytearray(b'x') * (64 * 2**20); time.sleep(60)"
    names = neighbours(space, "sleep 5")
    space.apply(task("hog", "python3", "-c", hog, resources={"memoryMiB": 96}, retry=ONCE))
    (ended,) = space.finished("hog")
    assert (phase(ended), ended["status"]["reason"], spent(ended)) == ("Failed", "OutOfMemory", (1, 0, 0))
    assert_unharmed(space, names)


@pytest.mark.usefixtures("calm")
def test_floods_and_binary_output_do_no_harm(space: Space) -> None:
    line = "7" * 1_000
    names = neighbours(space, "sleep 5")
    space.apply(
        shell("flood", f"yes {line} | head -c {FLOOD_BYTES}; echo; echo the end"),
        shell("one-line", f"head -c {FLOOD_BYTES} /dev/zero | tr '\\0' x; echo; echo the end"),
        shell("binary", "head -c 300000 /dev/urandom; exit 3", retry=ONCE),
    )
    flood, one_line, binary = space.finished("flood", "one-line", "binary", seconds=120)
    for ended in (flood, one_line):
        assert (phase(ended), spent(ended)) == ("Succeeded", (0, 0, 0))
        assert ended["status"]["logTail"].endswith("\nthe end\n")
    assert (binary["status"]["reason"], binary["status"]["exitCode"]) == ("ExitCode", 3)
    for ended in (flood, one_line, binary):
        tail = ended["status"]["logTail"]
        assert 2_000 < len(tail.encode()) <= 4_096
        assert all(letter.isprintable() or letter in "\n\t\ufffd" or ord(letter) > 127 for letter in tail)
    assert_unharmed(space, names)


@pytest.mark.usefixtures("calm")
def test_nothing_outlives_its_task(space: Space, node: Node) -> None:
    leave = "(setsid sleep 98765432 >&- 2>&- &); (setsid sh -c 'sleep 98765432 & sleep 98765432' &); exec >&- 2>&-"
    refuse = f"trap '' TERM HUP INT; {leave}"
    bounds = {"attemptSeconds": 2, "graceSeconds": 1}
    space.apply(
        shell("leaves", leave),
        shell("leaves-stubbornly", refuse),
        shell("stays", f"{refuse}; while :; do sleep 98765432; done", retry=ONCE, timeouts=bounds),
    )
    leaves, leaves_stubbornly, stays = space.finished("leaves", "leaves-stubbornly", "stays")
    assert (phase(leaves), phase(leaves_stubbornly)) == ("Succeeded", "Succeeded")
    assert (phase(stays), stays["status"]["reason"]) == ("Failed", "TimedOut")
    node.wait_gone("98765432", seconds=5)


def test_a_task_that_kills_its_runner_is_found_out(cluster: Cluster, node: Node) -> None:
    # Many small processes, so that the kernel's choice is the runner also where it does not take the whole container.
    small = "import signal; held = bytearray(b'x') * (4 * 2**20); signal.pause()"
    killer = f'while :; do python3 -I -S -c "{small}" & sleep 0.05; done'
    template = {"resources": {"limits": {"memory": "192Mi"}}}
    with Space.made(cluster, "killers", replicas=2, slots=4, template=template) as space:
        names = neighbours(space, 'test "$TASK_ATTEMPT" -gt 1 || sleep 300')
        space.apply(shell("killer", killer, retry={"limit": 0, "backoff": {"initialSeconds": 0}}))
        (ended,) = space.finished("killer", seconds=120)
        status = ended["status"]
        assert (status["phase"], status["reason"], status["deadLettered"]) == ("Failed", "RunnerKilled", True)
        assert (spent(ended), status["runnerDeaths"]) == ((0, 3, 0), 3)
        assert [each["outcome"] for each in attempts(ended) if each["outcome"] != "Released"] == ["WorkerLost"] * 3
        harmed: list[Object] = space.finished(*names)
        for neighbour in harmed:
            assert (phase(neighbour), neighbour["status"].get("failures", 0)) == ("Succeeded", 0)
            assert neighbour["status"]["workerLosses"] in (1, 2)
        assert_calm(space, node)


def assert_unharmed(space: Space, names: list[str]) -> None:
    """Neighbours ended well at their first attempt, and nothing was charged to them."""
    for neighbour in space.finished(*names):
        assert (phase(neighbour), neighbour["status"]["attempt"]) == ("Succeeded", 1)
        assert spent(neighbour) == (0, 0, 0)
