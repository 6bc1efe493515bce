"""Runs tiers of tests one after another, each within a time budget: `python -m testtiers TIER...`, for `make test`.

A tier that cannot run has failed; nothing is skipped quietly. Ends with a table of results and seconds, and one line of
totals in pytest's words.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from images import OPERATOR, REPOSITORY, WORKER
from places import TEST_NAME, KindCluster, LocalCluster, choose
from steps import StepFailed, read, say

STOP_GRACE = 60.0
"""Seconds that a tier over its budget gets to clean up before it is killed; end to end, that is a cluster."""


@dataclass
class Result:
    """How a tier went. `detail` says why it failed where no test did."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything ran and passed."""
        return not self.failed and not self.detail


@dataclass(frozen=True)
class Tier:
    """One tier: what it is called in the table, how long it may take in seconds, and what it does."""

    title: str
    budget: float
    work: Callable[["Session", float], Result]


@dataclass
class Session:
    """What the set-up found out for the tiers after it: their environment and their options of pytest."""

    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    ready: bool = True


def setup_api(session: Session, budget: float) -> Result:
    """Build the programs that the integration tests start."""
    wanted = "etcd,kube-apiserver,kube-controller-manager,kubectl,helm"
    return _attempt(session, lambda: _provide_tools(session, budget, "--only", wanted))


def setup(session: Session, budget: float) -> Result:
    """Build all programs and both images, and install what a node needs of this machine."""

    def work() -> None:
        place = choose(TEST_NAME)
        if not isinstance(place, LocalCluster | KindCluster):
            raise StepFailed("tests make a cluster of their own: CLUSTER must be auto, kind or local")
        place.prepare()
        # Compiling Kubernetes takes the processors and images take the network, so both at once.
        with ThreadPoolExecutor(1) as beside:
            images = beside.submit(lambda: [place.build(image) for image in (OPERATOR, WORKER)])
            _provide_tools(session, budget)
            operator, worker = images.result()
        session.environment |= {"TASKMASTER_OPERATOR_IMAGE": operator, "TASKMASTER_WORKER_IMAGE": worker}
        session.environment["CLUSTER"] = "local" if isinstance(place, LocalCluster) else "kind"
        session.options["tests/e2e"] = [f"--cluster-name={TEST_NAME}", f"--kind-bin={place.kind}"]
        session.options["tests/e2e"] += [
            f"--kind-kubectl-bin={Path(session.environment['TASKMASTER_BIN']) / 'kubectl'}"
        ]

    return _attempt(session, work)


def pytest_tier(*directories: str) -> Callable[[Session, float], Result]:
    """Return the work of a tier: these directories under pytest."""

    def work(session: Session, budget: float) -> Result:
        if not session.ready and directories != ("tests/unit", "tests/sim"):
            return Result(detail="not run: the set-up failed")
        present = [name for name in directories if (REPOSITORY / name).is_dir()]
        options = [option for name in present for option in session.options.get(name, [])]
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.xml"
            # The tiers on a real server share it, and the tests of one process at a time keep its counters readable.
            processes = "2" if directories == ("tests/unit", "tests/sim") else "0"
            command = [sys.executable, "-m", "pytest", f"--numprocesses={processes}", f"--junitxml={report}"]
            command += [*options, *present]
            code = _bounded(command, {**os.environ, **session.environment}, budget)
            result = _count(report) if report.exists() else Result()
        if code is None:
            result.detail = f"stopped: over its budget of {budget:.0f} s"
        elif result.passed + result.failed == 0:
            result.detail = f"no test ran (exit code {code})"
        elif code != 0 and not result.failed:
            result.detail = f"pytest ended with exit code {code}"
        return result

    return work


TIERS = {
    "setup": Tier("set-up", 12 * 60, setup),
    "setup-api": Tier("set-up", 12 * 60, setup_api),
    "unit": Tier("unit and sim", 3 * 60, pytest_tier("tests/unit", "tests/sim")),
    "integration": Tier("integration", 12 * 60, pytest_tier("tests/integration")),
    "e2e": Tier("end to end", 20 * 60, pytest_tier("tests/e2e")),
}


def main(arguments: Sequence[str]) -> int:
    """Run the named tiers and return 0 if all of them passed."""
    parser = argparse.ArgumentParser(prog="testtiers", description="Run tiers of tests, each within its time budget.")
    parser.add_argument("tiers", nargs="+", choices=TIERS, metavar="TIER", help=f"of: {', '.join(TIERS)}")
    parser.add_argument("--started", type=float, help="Unix time at which the set-up began, for its budget and time")
    options = parser.parse_args(arguments)
    session = Session()
    rows: list[tuple[str, Result, float]] = []
    for name in options.tiers:
        tier = TIERS[name]
        spent = max(0.0, time.time() - options.started) if options.started and not rows else 0.0
        started = time.monotonic()
        say(f"==> {tier.title} (at most {tier.budget:.0f} s)")
        result = tier.work(session, tier.budget - spent)
        rows.append((tier.title, result, time.monotonic() - started + spent))
    print(summary(rows), flush=True)
    return 0 if all(result.ok for _, result, _ in rows) else 1


def summary(rows: Sequence[tuple[str, Result, float]]) -> str:
    """Return the table of tiers, and as the last line the totals."""
    lines = ["", f"{'tier':<14}{'result':<9}{'passed':>7}{'failed':>7}{'skipped':>8}{'seconds':>9}"]
    for title, result, seconds in rows:
        word = "ok" if result.ok else "FAILED"
        counts = f"{result.passed:>7}{result.failed:>7}{result.skipped:>8}"
        lines.append(f"{title:<14}{word:<9}{counts}{seconds:>9.0f}  {result.detail}".rstrip())
    passed = sum(result.passed for _, result, _ in rows)
    # A tier that failed without a failed test still counts: the last line must not read as a success.
    failed = sum(result.failed or (0 if result.ok else 1) for _, result, _ in rows)
    skipped = sum(result.skipped for _, result, _ in rows)
    lines += ["", f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")]
    return "\n".join(lines)


def _provide_tools(session: Session, budget: float, *options: str) -> None:
    directory = read([sys.executable, "-m", "localcluster", "tools", *options], timeout=budget).strip()
    session.environment["TASKMASTER_BIN"] = directory


def _attempt(session: Session, work: Callable[[], None]) -> Result:
    try:
        work()
    except StepFailed as failure:
        session.ready = False
        say(f"error: {failure}")
        return Result(detail=str(failure))
    return Result()


def _bounded(command: Sequence[str], environment: dict[str, str], budget: float) -> int | None:
    """Run a command in a process group of its own; return its exit code, or None when it had to be stopped."""
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, start_new_session=True)
    try:
        return process.wait(budget)
    except subprocess.TimeoutExpired:
        # As from a keyboard: pytest then reports, and its fixtures clean up.
        _stop(process)
        return None
    except KeyboardInterrupt:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _count(report: Path) -> Result:
    result = Result()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        failed = number["failures"] + number["errors"]
        result.failed += failed
        result.skipped += number["skipped"]
        result.passed += max(0, number["tests"] - failed - number["skipped"])
    return result


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
