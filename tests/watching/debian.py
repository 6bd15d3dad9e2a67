"""Prometheus and Alertmanager of Debian: found, installed where the user may, or named."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

_PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}


@cache
def program(name: str) -> str:
    """The path of `name`. Raises RuntimeError: when it is absent and cannot be installed by this user."""
    package = _PROGRAMS[name]
    call = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    if shutil.which(name) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "--quiet"], env=environment, capture_output=True, check=False)
        subprocess.run(call, env=environment, capture_output=True, check=False)
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing; on Debian or Ubuntu: sudo {' '.join(call)}")
    return found
