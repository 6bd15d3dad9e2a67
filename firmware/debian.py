"""Debian packages, installed by apt-get where the user may: one process at a time, since apt refuses a second one."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

CALL = ("apt-get", "install", "--yes", "--no-install-recommends")


def install(packages: Sequence[str]) -> None:
    """Tries to; who calls looks whether it is there afterwards. Nothing is done for a user who may not, or where there is no apt-get."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with (Path(tempfile.gettempdir()) / "castline-apt-get.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["apt-get", "update", "--quiet"], env=environment, capture_output=True, check=False)
        subprocess.run([*CALL, *packages], env=environment, capture_output=True, check=False)


def by_hand(packages: Sequence[str]) -> str:
    """The command that installs `packages`, for a message."""
    return f"sudo {' '.join(CALL)} {' '.join(packages)}"
