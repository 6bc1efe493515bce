"""Listing children (the kernel's own list and the scan of /proc agree), and telling all of a tree to end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from taskmaster_worker.runner.descendants import children, children_by_scan


async def test_both_ways_to_list_children_agree() -> None:
    processes = [await asyncio.create_subprocess_exec("sleep", "100") for _ in range(3)]
    try:
        pids = {process.pid for process in processes}
        assert pids <= set(children(os.getpid()))
        assert set(children_by_scan(os.getpid())) == set(children(os.getpid()))
    finally:
        for process in processes:
            process.kill()
            await process.wait()


def test_process_that_is_gone_has_no_children() -> None:
    assert children(2**22 + 1) == []


ORPHANED_BY_THE_SIGNAL = """
import os, signal, subprocess
from taskmaster_worker.runner import descendants, kernel

signal.alarm(20)
kernel.become_subreaper()
parent = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; exec sleep 1000"], stdout=subprocess.PIPE, text=True)
child = int(parent.stdout.readline())
send = descendants.send

def send_and_see_it_die(pid, number):
    send(pid, number)
    while pid == parent.pid and open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass

descendants.send = send_and_see_it_die
descendants.terminate_all()
print(parent.wait(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_is_asked_to_end_although_its_parent_dies_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHANED_BY_THE_SIGNAL], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout.split() == ["-15", "-15"], done.stderr
