"""Image archives (OCI image layout in a tar file), written without a container engine."""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write(path: Path, layer: Path, *, reference: str, entrypoint: Sequence[str] = ()) -> None:
    """Write an image of one layer.

    Args:
        path: the archive to make.
        layer: an uncompressed tar file of the image's whole file system.
        reference: the image's name with its tag.
        entrypoint: what its containers run.
    """
    digest = _digest_of(layer)
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint)} if entrypoint else {},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [{"created_by": "taskmaster local cluster"}],
    }
    with tarfile.open(path, "w") as archive:
        archive.add(layer, _blob(digest))
        kind = "application/vnd.oci.image"
        layer_entry = _descriptor(f"{kind}.layer.v1.tar", digest, layer.stat().st_size)
        config_entry = _add_json(archive, f"{kind}.config.v1+json", config)
        manifest: dict[str, Any] = {"schemaVersion": 2, "config": config_entry, "layers": [layer_entry]}
        manifest_entry = _add_json(archive, f"{kind}.manifest.v1+json", manifest)
        names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
        index = {"schemaVersion": 2, "manifests": [{**manifest_entry, "annotations": names}]}
        _add(archive, "index.json", json.dumps(index).encode())
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def write_single_file(path: Path, binary: Path, *, reference: str, entrypoint: str) -> None:
    """Write an image that contains nothing but one static binary."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        layer = Path(scratch) / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            archive.add(binary, entrypoint.lstrip("/"), filter=_plain)
        write(path, layer, reference=reference, entrypoint=[entrypoint])


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    # The same binary shall always make the same image.
    member.mtime = 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755
    return member


def _add_json(archive: tarfile.TarFile, media_type: str, value: object) -> dict[str, Any]:
    content = json.dumps(value).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _add(archive, _blob(digest), content)
    return _descriptor(media_type, digest, len(content))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
