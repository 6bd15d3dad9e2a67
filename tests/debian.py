"""Finds the Debian programs that the tests use, and installs missing ones if the user may."""

from __future__ import annotations

import shutil
from functools import cache

from firmware import debian

_PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "strace": "strace",
    "chromium": "chromium",
    "nginx": "nginx-light",
}


@cache
def find_program(name: str) -> str:
    """Returns the path of the program `name`. Raises RuntimeError if it is missing and this user cannot install it."""
    package = _PACKAGES[name]
    if shutil.which(name) is None:
        debian.install([package])
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing; on Debian or Ubuntu: {debian.install_command([package])}")
    return found
