"""Settings of the coordinator, read once from the environment at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class BadSetting(ValueError):
    """A setting cannot be used; the message names it and says what is expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this coordinator was started. Durations are seconds."""

    identity: str
    namespace: str
    watch_namespaces: tuple[str, ...]
    """Empty: all namespaces."""
    worker_image: str
    worker_image_pull_policy: str
    worker_cluster_role: str
    worker_lease_seconds: int
    worker_renew_seconds: int
    lease_name: str
    election_lease_seconds: int
    owner_deployment: str
    http_host: str
    http_port: int
    log_level: str


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        BadSetting: a value is missing or not of its form.
    """
    host, _, port = environ.get("TASKMASTER_HTTP_ADDRESS", "0.0.0.0:8080").rpartition(":")
    settings = Settings(
        identity=_required(environ, "POD_NAME"),
        namespace=_required(environ, "POD_NAMESPACE"),
        watch_namespaces=tuple(filter(None, (environ.get("TASKMASTER_NAMESPACES", "")).replace(" ", "").split(","))),
        worker_image=environ.get("TASKMASTER_WORKER_IMAGE", "taskmaster-worker"),
        worker_image_pull_policy=environ.get("TASKMASTER_WORKER_IMAGE_PULL_POLICY", "IfNotPresent"),
        worker_cluster_role=environ.get("TASKMASTER_WORKER_CLUSTERROLE", "taskmaster-worker"),
        worker_lease_seconds=_whole(environ, "TASKMASTER_WORKER_LEASE_SECONDS", 45),
        worker_renew_seconds=_whole(environ, "TASKMASTER_WORKER_RENEW_SECONDS", 10),
        lease_name=environ.get("TASKMASTER_LEASE_NAME", "taskmaster-coordinator"),
        election_lease_seconds=_whole(environ, "TASKMASTER_ELECTION_LEASE_SECONDS", 15),
        owner_deployment=environ.get("TASKMASTER_OWNER_DEPLOYMENT", ""),
        http_host=host,
        http_port=_number(port, "the port of TASKMASTER_HTTP_ADDRESS", 0),
        log_level=environ.get("TASKMASTER_LOG_LEVEL", "INFO").upper(),
    )
    if settings.worker_renew_seconds * 2 > settings.worker_lease_seconds:
        raise BadSetting(
            "TASKMASTER_WORKER_RENEW_SECONDS must be at most half of TASKMASTER_WORKER_LEASE_SECONDS, "
            "so that one late renewal does not cost a worker its tasks"
        )
    return settings


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise BadSetting(f"{name} must be set (the chart does so by the downward API)")
    return value


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    return _number(environ.get(name, str(default)), name, 1)


def _number(text: str, name: str, minimum: int) -> int:
    if not text.isdecimal() or int(text) < minimum:
        raise BadSetting(f"{name} must be a whole number of at least {minimum}, not {text!r}")
    return int(text)
