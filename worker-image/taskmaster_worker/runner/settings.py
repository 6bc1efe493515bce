"""What the runner is told by its environment, and what it passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_SOCKET = "/run/taskmaster/runner.sock"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one runner; `task_environment` is where every task's environment starts."""

    socket: str
    agent_uid: int | None
    preload: tuple[str, ...]
    task_environment: Mapping[str, str]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        ValueError: TASKMASTER_AGENT_UID is not a number.
    """
    agent_uid = environment.get("TASKMASTER_AGENT_UID", "")
    if agent_uid and not agent_uid.isdecimal():
        raise ValueError(f"TASKMASTER_AGENT_UID is not a user id: {agent_uid!r}")
    return Settings(
        socket=environment.get("TASKMASTER_RUNNER_SOCKET") or DEFAULT_SOCKET,
        agent_uid=int(agent_uid) if agent_uid else None,
        preload=tuple(filter(None, map(str.strip, environment.get("TASKMASTER_PRELOAD", "").split(",")))),
        task_environment={
            "PATH": _DEFAULT_PATH,
            "HOME": "/tmp",
            **{name: value for name, value in environment.items() if not name.startswith("TASKMASTER_")},
        },
    )
