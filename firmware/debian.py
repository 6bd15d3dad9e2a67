"""Installs Debian packages with apt-get. A lock file lets only one process install at a time, because a second apt-get would fail."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_APT_GET_INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")


def install(packages: Sequence[str]) -> None:
    """Tries to install `packages`. The caller must check afterwards whether they are installed.

    Does nothing if the user is not root or if there is no apt-get.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with (Path(tempfile.gettempdir()) / "castline-apt-get.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["apt-get", "update", "--quiet"], env=environment, capture_output=True, check=False)
        subprocess.run([*_APT_GET_INSTALL, *packages], env=environment, capture_output=True, check=False)


def install_command(packages: Sequence[str]) -> str:
    """Returns the command by which a person can install `packages`."""
    return f"sudo {' '.join(_APT_GET_INSTALL)} {' '.join(packages)}"
