"""Folders and processes that a second Unix account can try to read."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The user id of `nobody` on Linux. It owns no files and belongs to no other group.
STRANGER = 65534
StrangerRuns = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine can enter, unlike `tmp_path` and perhaps TMPDIR. The umask is 022, the usual one."""
    umask = os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="castline-open-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    os.umask(umask)


@pytest.fixture
def as_stranger() -> StrangerRuns:
    """Runs a shell command as the user `nobody` and returns its result. Needs the rights of root, which CI has."""
    if os.geteuid() != 0:
        pytest.fail("This test runs a command as a second Unix account. Run it as root.")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", script],
            user=STRANGER,
            group=STRANGER,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run
