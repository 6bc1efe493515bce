"""Listing children: the kernel's own list and the scan of /proc agree."""

from __future__ import annotations

import asyncio
import os

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
