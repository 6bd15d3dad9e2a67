"""A child process that does not outlive its parent, even when the parent is killed."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec nothing may take a lock.
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel sends the child SIGTERM when the thread that started it ends. Linux only.

    Start children from a thread that lives as long as the process.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
