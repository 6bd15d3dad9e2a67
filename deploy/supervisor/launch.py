"""Runs a command in a child process that the kernel kills with SIGKILL when the parent process dies. Linux only.

SIGTERM would not be enough, because a slow child could still hold its port. The argument `preexec_fn` of `subprocess` is not used, because
it can hang.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def bound_command(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns a command for `subprocess` that runs `command`. The kernel kills `command` when this process dies.

    The kernel also kills `command` when the thread ends that has started it. So use a thread that lives as long as this process.
    """
    return [sys.executable, "-S", __file__, str(os.getpid()), *(os.fspath(word) for word in command)]


def _launch(parent: int, command: list[str]) -> None:
    """Replaces this process by `command`. If the program cannot be run, prints the reason and ends with exit status 127."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # If the parent died before prctl() was called, the kernel sends this process no signal. So this process ends itself.
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"Cannot run {command[0]}: {error.strerror}.", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    _launch(int(sys.argv[1]), sys.argv[2:])
