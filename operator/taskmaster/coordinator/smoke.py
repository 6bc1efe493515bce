"""`helm test`: submits a Task as a user would, and waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from taskmaster.api import names
from taskmaster.core.phase import TERMINAL
from taskmaster.kube.api import Api, Object
from taskmaster.kube.errors import NotFound
from taskmaster.kube.resource import TASKS

POLL_SECONDS: Final = 0.5


async def run(api: Api, namespace: str, *, timeout_seconds: float = 120.0) -> str:
    """Return an empty text when the Task succeeded, else what went wrong. The Task is deleted in any case."""
    created = await api.create(
        TASKS,
        namespace,
        {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"generateName": "smoke-test-", "namespace": namespace},
            "spec": {
                "description": "submitted by helm test",
                "run": {"command": ["python3", "-c", "print('hello')"]},
                "timeouts": {"attemptSeconds": 30},
                "ttlSecondsAfterFinished": 300,
            },
        },
    )
    name = created["metadata"]["name"]
    try:
        status = await _wait(api, namespace, name, time.monotonic() + timeout_seconds)
    finally:
        with contextlib.suppress(NotFound):
            await api.delete(TASKS, namespace, name)
    phase = status.get("phase", "Pending")
    if phase == "Succeeded":
        return ""
    return (
        f"Task {name} is {phase} ({status.get('reason') or 'no reason yet'}): {status.get('message') or 'no message'}"
    )


async def _wait(api: Api, namespace: str, name: str, deadline: float) -> Object:
    while True:
        task = await api.get(TASKS, namespace, name)
        status: Object = task.get("status", {})
        if status.get("phase") in TERMINAL or time.monotonic() > deadline:
            return status
        await asyncio.sleep(POLL_SECONDS)
