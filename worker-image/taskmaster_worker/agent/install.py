"""Installs the runner where the runner container sees it: only packages that need nothing but the standard library.

The bytecode is compiled as well, for runner images with the agent's version of Python: the place is mounted read-only.
"""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

import taskmaster_worker

PACKAGES: Final = ("runner", "sdk")


def install_runner(directory: Path) -> None:
    """Copy the packages into `directory/taskmaster_worker`; what an earlier release left there is replaced.

    Raises:
        OSError: the directory cannot be written.
    """
    source = Path(taskmaster_worker.__file__).parent
    target = directory / "taskmaster_worker"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copyfile(source / "__init__.py", target / "__init__.py")
    for package in PACKAGES:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(str(target), quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
