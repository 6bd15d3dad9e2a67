"""Runs a command so that the kernel kills its process (SIGKILL) when the parent process dies. Linux only.

With SIGTERM, a process that is slow to stop would still hold its port. With `preexec_fn`, Python code could hang between fork and exec.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def bound_command(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns a command for `subprocess` that runs `command` and makes the kernel kill it when this process dies.

    The thread that starts the command must live as long as this process.
    """
    return [sys.executable, "-S", __file__, str(os.getpid()), *(os.fspath(word) for word in command)]


def _launch(parent: int, command: list[str]) -> None:
    """Replaces this process by `command`. If the program cannot be run, prints the reason and ends with exit status 127."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # If the parent died before the call of prctl, the kernel sends no signal. So this process ends itself.
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"Cannot run {command[0]}: {error.strerror}.", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    _launch(int(sys.argv[1]), sys.argv[2:])
