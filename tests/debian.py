"""Programs of Debian that the tests use: found, installed where the user may, or named."""

from __future__ import annotations

import shutil
from functools import cache

from firmware import debian

_PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "chromium": "chromium",
}


@cache
def program(name: str) -> str:
    """The path of `name`. Raises RuntimeError: when it is absent and cannot be installed by this user."""
    package = _PACKAGES[name]
    if shutil.which(name) is None:
        debian.install([package])
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing; on Debian or Ubuntu: {debian.install_command([package])}")
    return found
