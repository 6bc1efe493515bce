"""How this machine reaches package indexes, made available to image builds and to nothing after them.

A company's machine has its own CA bundle and its own index, in pip's settings or in the environment. Builds see them
as read-only mounts: no setting becomes a layer, an environment variable or a line of history of the image.
"""

import configparser
import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import run

BUNDLE_IN_IMAGE = "/etc/ssl/certs/ca-certificates.crt"
SYSTEM_BUNDLE = Path(BUNDLE_IN_IMAGE)
KEYS = ("extra-index-url", "find-links", "index-url", "no-index", "proxy", "retries", "timeout", "trusted-host")
# Docker and buildah know these build arguments without an ARG line, and leave them out of the image.
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class BuildSettings:
    """What a build needs of the machine.

    Attributes:
        pip_config: the text of a pip.conf.
        bundle: the machine's CA certificates, if it has any.
        directories: local directories that pip looks for packages in.
        proxies: build arguments.
    """

    pip_config: str
    bundle: Path | None
    directories: tuple[Path, ...]
    proxies: Mapping[str, str]


def collect(*, links: str, environment: Mapping[str, str] = os.environ) -> BuildSettings:
    """Read the machine's settings.

    Args:
        links: directory of the build below which pip finds a copy of each local package directory, by its number.
        environment: variables to take into account.
    """
    listed = ""
    if pip := shutil.which("pip3") or shutil.which("pip"):
        listed = run([pip, "config", "list"], timeout=60, check=False)
    settings = parse_pip_settings(listed, environment)
    candidates = [settings.pop("cert", ""), environment.get("SSL_CERT_FILE", ""), str(SYSTEM_BUNDLE)]
    bundle = next((Path(name) for name in candidates if name and Path(name).is_file()), None)
    directories: list[Path] = []
    if "find-links" in settings:
        settings["find-links"] = " ".join(_relocate(settings["find-links"].split(), links, directories))
    chosen = {key: settings[key] for key in KEYS if key in settings}
    if bundle:
        chosen["cert"] = BUNDLE_IN_IMAGE
    return BuildSettings(
        pip_config=_render(chosen),
        bundle=bundle,
        directories=tuple(directories),
        proxies={name: environment[name] for name in PROXIES if environment.get(name)},
    )


def parse_pip_settings(listed: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Combine the output of `pip config list` with PIP_* variables, which win."""
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        found = re.fullmatch(r"(?:global|install|:env:)\.([\w-]+)='(.*)'", line.strip())
        if found:
            settings[_key(found[1])] = found[2].replace("\\n", "\n")
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            settings[_key(name.removeprefix("PIP_"))] = value
    return settings


def _relocate(words: Iterable[str], links: str, directories: list[Path]) -> Iterator[str]:
    for word in words:
        path = Path(word.removeprefix("file://"))
        if not path.is_absolute():
            yield word
        elif path.is_dir():
            yield f"{links}/{len(directories)}"
            directories.append(path)


def _key(name: str) -> str:
    plain = name.lower().replace("_", "-")
    return "timeout" if plain == "default-timeout" else plain


def _render(settings: Mapping[str, str]) -> str:
    # No interpolation: an index's URL may contain percent signs.
    parser = configparser.ConfigParser(interpolation=None)
    parser["global"] = {key: "\n".join(value.split()) for key, value in settings.items()}
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()
