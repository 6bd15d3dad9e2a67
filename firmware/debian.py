"""Installs Debian packages with apt-get, if the user may. A lock keeps two processes apart, because a second apt-get would fail."""

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
    """Tries to install `packages`; the caller must check whether they are there afterwards.

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
    """Returns the command with which a person installs `packages`."""
    return f"sudo {' '.join(_APT_GET_INSTALL)} {' '.join(packages)}"
