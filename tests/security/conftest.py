"""Folders and processes that a second Unix account can try to read."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The user id of `nobody` on Linux. It owns no files and belongs to no other group.
STRANGER = 65534
StrangerRuns = Callable[..., "subprocess.CompletedProcess[str]"]
AskStranger = Callable[[Callable[[], object]], object]
_FORK = multiprocessing.get_context("fork")


@contextmanager
def make_open_folder() -> Iterator[Path]:
    """Makes a folder that every user of this machine can enter, unlike `tmp_path` and perhaps TMPDIR. The umask is 022, the usual one."""
    umask = os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="castline-open-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    os.umask(umask)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of `make_open_folder`."""
    with make_open_folder() as folder:
        yield folder


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


@pytest.fixture
def ask_stranger() -> AskStranger:
    """Calls a function as the user `nobody`, in a forked process, and returns its answer. Needs the rights of root, which CI has.

    The process has the modules of this one in its memory, because `nobody` may not be allowed to read this Python.
    """
    if os.geteuid() != 0:
        pytest.fail("This test calls a function as a second Unix account. Run it as root.")

    def ask(question: Callable[[], object]) -> object:
        receiver, sender = _FORK.Pipe(duplex=False)

        def answer() -> None:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            try:
                sender.send(question())
            except Exception as error:  # noqa: BLE001  the test decides which errors are right
                sender.send(error)

        child = _FORK.Process(target=answer)
        child.start()
        sender.close()
        found = receiver.recv()
        child.join()
        return found

    return ask
