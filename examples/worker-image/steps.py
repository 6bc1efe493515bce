"""Functions for Tasks. Called directly, as tests do, they are plain functions."""

import asyncio
import time

from taskmaster_worker import Fail, RetryAfter, context, task


@task
def sum_of_squares(count: int, seconds_per_step: float = 0.1) -> dict[str, int]:
    """Add up in steps, each of them saved: an attempt goes on where the last one was when it ended."""
    if count < 0:
        raise Fail("count is negative: no retry would help")
    done = context.last_checkpoint or {"steps": 0, "total": 0}
    for step in range(done["steps"] + 1, count + 1):
        time.sleep(seconds_per_step)
        done = {"steps": step, "total": done["total"] + step * step}
        context.checkpoint(done)
        context.progress(step, count, f"added the square of {step}")
    context.logger.info("all %d steps are done", count)
    return {"total": done["total"]}


@task
async def fetch_all(names: list[str], ready: bool = True) -> dict[str, int]:
    """Do several things at a time; a stop cancels all of them."""
    if not ready:
        raise RetryAfter(60, "the source is not ready")
    lengths = await asyncio.gather(*(fetch(name) for name in names))
    return dict(zip(names, lengths, strict=True))


async def fetch(name: str) -> int:
    """Stand for a request."""
    await asyncio.sleep(0.1)
    return len(name)
