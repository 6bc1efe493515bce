"""Credentials: which are found, that a rotated token is noticed, and that no token is printed."""

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from taskmaster.kube import credentials as module
from taskmaster.kube.credentials import Credentials, CredentialsError, TokenFile, load_credentials

CLUSTER = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "SERVICE_ACCOUNT_DIR", tmp_path / "serviceaccount")


def kubeconfig(path: Path, user: Mapping[str, object], **context: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [CLUSTER],
                "users": [{"name": "u", "user": dict(user)}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **context}}],
            }
        )
    )
    return path


async def test_token_file_is_read_again_when_it_may_have_changed(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "token"
    path.write_text("first\n")
    source = TokenFile(path, clock=lambda: now)
    assert await source.authorization() == "Bearer first"
    path.write_text("second\n")
    assert await source.authorization() == "Bearer first"
    now = 10.0
    assert await source.authorization() == "Bearer second"


async def test_refused_token_is_read_again_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    source = TokenFile(path)
    assert await source.authorization() == "Bearer first"
    path.write_text("second")
    source.expire()
    assert await source.authorization() == "Bearer second"


async def test_last_token_serves_while_the_file_is_away_or_empty(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = TokenFile(path)
    with pytest.raises(CredentialsError, match="cannot read the token file"):
        await source.authorization()
    path.write_text("first")
    assert await source.authorization() == "Bearer first"
    for spoil in (lambda: path.write_text(""), path.unlink):
        spoil()
        source.expire()
        assert await source.authorization() == "Bearer first"


async def test_in_cluster_needs_no_kubernetes_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    mounted = tmp_path / "serviceaccount"
    mounted.mkdir()
    (mounted / "token").write_text("secret")
    (mounted / "namespace").write_text("team-a\n")
    (mounted / "ca.crt").write_bytes(certificate())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    credentials = load_credentials()
    assert credentials.server == "https://[fd00::1]:6443"
    assert credentials.namespace == "team-a"
    assert credentials.ssl_context is not None
    assert await credentials.authorization() == "Bearer secret"


async def test_kubeconfig_wins_and_gives_token_and_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    path = kubeconfig(tmp_path / "config", {"token": "abc"}, namespace="team-b")
    credentials = load_credentials(path)
    assert credentials.server == "http://127.0.0.1:1"
    assert credentials.namespace == "team-b"
    assert await credentials.authorization() == "Bearer abc"


async def test_default_kubeconfig_is_found(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config", {"token": "abc"})
    assert await load_credentials(tmp_path / ".kube" / "config").authorization() == "Bearer abc"


async def test_exec_plugin_gives_the_token(tmp_path: Path) -> None:
    version = "client.authentication.k8s.io/v1"
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": {"token": "from-plugin"}})
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\necho '{answer}'\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": version, "command": str(plugin), "interactiveMode": "Never"}}
    assert await load_credentials(kubeconfig(tmp_path / "config", user)).authorization() == "Bearer from-plugin"


async def test_basic_authentication(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", {"username": "u", "password": "p"})
    expected = "Basic " + base64.b64encode(b"u:p").decode()
    assert await load_credentials(path).authorization() == expected


def test_without_any_the_message_says_what_to_do() -> None:
    with pytest.raises(CredentialsError, match="Set KUBECONFIG"):
        load_credentials()


@pytest.mark.parametrize("content", ["", "nonsense: [", "apiVersion: v1\nkind: Config\n"])
def test_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(CredentialsError, match="kubeconfig"):
        load_credentials(path)


def test_kubeconfig_without_the_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(CredentialsError, match="package `kubernetes`"):
        load_credentials(tmp_path / "config")


def test_no_token_is_printed() -> None:
    assert "s3cret" not in repr(Credentials.from_token("http://x", None, "s3cret"))


def certificate() -> bytes:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
