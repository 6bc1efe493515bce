"""Kubeconfig files: written for one user, merged into a user's own file the way kind does it.

Credentials are embedded, so that a file can be copied and outlives nothing but its cluster. Merging replaces the
entries of the same name and keeps everything else, including fields that this module knows nothing about.
"""

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from localcluster.certificates import KeyPair
from localcluster.errors import LocalClusterError

Config = dict[str, Any]
SECTIONS = ("clusters", "users", "contexts")


def client(name: str, *, server: str, authority: Path, credentials: KeyPair | str) -> Config:
    """Describe one cluster, one user (a client certificate, or a bearer token) and the context that joins them."""
    user = {"token": credentials} if isinstance(credentials, str) else _certificate_user(credentials)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": _embedded(authority)}},
        ],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def merge(existing: Config, added: Config) -> Config:
    """Return `existing` with the entries of `added` in it, and its current context."""
    merged = {"apiVersion": "v1", "kind": "Config", "preferences": {}, **existing}
    for section in SECTIONS:
        names = {entry["name"] for entry in added[section]}
        kept = [entry for entry in existing.get(section) or [] if entry["name"] not in names]
        merged[section] = kept + added[section]
    merged["current-context"] = added["current-context"]
    return merged


def without(existing: Config, name: str) -> Config:
    """Return `existing` without the entries called `name`; unset the current context if it was that one."""
    left = dict(existing)
    for section in SECTIONS:
        left[section] = [entry for entry in existing.get(section) or [] if entry["name"] != name]
    if existing.get("current-context") == name:
        left["current-context"] = ""
    return left


def read(path: Path) -> Config:
    """Read a file; a missing or empty one is an empty configuration.

    Raises:
        LocalClusterError: it is not a kubeconfig.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise LocalClusterError(f"{path} is not valid YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise LocalClusterError(f"{path} is not a kubeconfig")
    return content or {}


def write(path: Path, config: Config) -> Path:
    """Replace a file in one step, readable by its owner only."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp's files are 0600 already.
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "w") as stream:
        yaml.safe_dump(config, stream, sort_keys=False)
    Path(scratch).rename(path)
    return path


def default_path() -> Path:
    """Return the file that kubectl would write to."""
    first = next(filter(None, os.environ.get("KUBECONFIG", "").split(":")), "")
    return Path(first) if first else Path.home() / ".kube" / "config"


def _certificate_user(pair: KeyPair) -> dict[str, str]:
    return {"client-certificate-data": _embedded(pair.certificate), "client-key-data": _embedded(pair.key)}


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
