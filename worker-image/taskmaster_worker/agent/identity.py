"""Who this worker is: settings from the environment, and the life that its agent is living.

A pod may see several lives of its agent: a restarted process, or one whose Lease was taken over. Each has its own
incarnation, and only the incarnation that an attempt was assigned to may run it or write about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from taskmaster.core.task import Holder


class BadSetting(ValueError):
    """A setting cannot be used; the message names it and says what is expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this agent was started. Durations are seconds."""

    pod_name: str
    pod_uid: str
    namespace: str
    node: str
    pool: str
    slots: int
    runner_socket: str
    runner_uid: int | None
    """User id that the runner must have; None: any."""
    lease_seconds: int
    renew_seconds: int
    drain_seconds: int
    http_host: str
    http_port: int
    log_level: str
    secret_names: frozenset[str] = frozenset()
    """Secrets that Tasks of the pool may use."""
    config_map_names: frozenset[str] = frozenset()
    """ConfigMaps that Tasks of the pool may use."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the pool says about its workers: `spec.requires` of Tasks is compared with it, and with the pool's name."""
    queues: frozenset[str] = frozenset()
    """The queues that the pool serves; empty: all."""


class Life:
    """The present life of the agent."""

    def __init__(self, settings: Settings, *, new_incarnation: Callable[[], str] = lambda: str(uuid4())) -> None:
        self._settings = settings
        self._new_incarnation = new_incarnation
        self.holder = self._fresh()

    @property
    def incarnation(self) -> str:
        """What tells this life from others of the same pod."""
        return self.holder.incarnation

    def begin_anew(self) -> None:
        """Become another incarnation: the present one was declared dead."""
        self.holder = self._fresh()

    def _fresh(self) -> Holder:
        return Holder(self._settings.pod_name, self._settings.pod_uid, self._new_incarnation())


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        BadSetting: a value is missing or not of its form.
    """
    host, _, port = environ.get("TASKMASTER_HTTP_ADDRESS", "0.0.0.0:8081").rpartition(":")
    runner_uid = environ.get("TASKMASTER_RUNNER_UID", "")
    settings = Settings(
        pod_name=_required(environ, "POD_NAME"),
        pod_uid=_required(environ, "POD_UID"),
        namespace=_required(environ, "POD_NAMESPACE"),
        node=environ.get("NODE_NAME", ""),
        pool=_required(environ, "TASKMASTER_POOL"),
        slots=_whole(environ, "TASKMASTER_SLOTS", 1),
        runner_socket=environ.get("TASKMASTER_RUNNER_SOCKET", "/run/taskmaster/runner.sock"),
        runner_uid=_number(runner_uid, "TASKMASTER_RUNNER_UID", 0) if runner_uid else None,
        lease_seconds=_whole(environ, "TASKMASTER_LEASE_SECONDS", 45),
        renew_seconds=_whole(environ, "TASKMASTER_RENEW_SECONDS", 10),
        drain_seconds=_whole(environ, "TASKMASTER_DRAIN_SECONDS", 30, minimum=0),
        http_host=host,
        http_port=_number(port, "the port of TASKMASTER_HTTP_ADDRESS", 0),
        log_level=environ.get("TASKMASTER_LOG_LEVEL", "INFO").upper(),
        secret_names=_names(environ, "TASKMASTER_SECRET_NAMES"),
        config_map_names=_names(environ, "TASKMASTER_CONFIG_MAP_NAMES"),
        labels=_labels(environ, "TASKMASTER_LABELS"),
        queues=_queues(environ, "TASKMASTER_QUEUES"),
    )
    if settings.renew_seconds * 2 > settings.lease_seconds:
        raise BadSetting(
            "TASKMASTER_RENEW_SECONDS must be at most half of TASKMASTER_LEASE_SECONDS, "
            "so that one late renewal does not cost the worker its tasks"
        )
    if settings.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise BadSetting(f"TASKMASTER_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not {settings.log_level!r}")
    return settings


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise BadSetting(f"{name} must be set (the worker's Deployment does so)")
    return value


def _names(environ: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(word.strip() for word in environ.get(name, "").split(",") if word.strip())


def _labels(environ: Mapping[str, str], name: str) -> Mapping[str, str]:
    given = _json(environ, name, "{}")
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise BadSetting(f'{name} must be a JSON object of strings, such as {{"gpu": "true"}}, not {environ[name]!r}')
    return given


def _queues(environ: Mapping[str, str], name: str) -> frozenset[str]:
    given = _json(environ, name, "[]")
    if not isinstance(given, list) or not all(isinstance(queue, str) and queue for queue in given):
        raise BadSetting(f'{name} must be a JSON list of names, such as ["media"], not {environ[name]!r}')
    return frozenset(given)


def _json(environ: Mapping[str, str], name: str, default: str) -> Any:
    text = environ.get(name) or default
    try:
        return orjson.loads(text)
    except ValueError as error:
        raise BadSetting(f"{name} must be JSON, not {text!r}: {error}") from error


def _whole(environ: Mapping[str, str], name: str, default: int, *, minimum: int = 1) -> int:
    return _number(environ.get(name, str(default)), name, minimum)


def _number(text: str, name: str, minimum: int) -> int:
    if not text.isdecimal() or int(text) < minimum:
        raise BadSetting(f"{name} must be a whole number of at least {minimum}, not {text!r}")
    return int(text)
