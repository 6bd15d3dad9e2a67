"""Replaces itself by a command whose process is killed when its parent dies.

Called as `python -S launch.py PARENT_PID COMMAND...`. The kernel sends SIGKILL to the process when the thread that started it ends, so
that a supervisor that is killed leaves no process behind. SIGKILL is used for all processes, the broker included, because a process
that ignores SIGTERM, or takes long to stop, would keep its port and its data folder from the process that replaces it. A killed worker
repeats some work, and a killed broker recovers its logs at the next start; neither loses what was acknowledged.

This is a step of its own before `exec`, and not `preexec_fn` of `subprocess`, because Python code between fork and exec can hang if
the parent has threads. Linux only.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def bound_command(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns the command that runs `command` bound to the life of this process, for `subprocess.Popen` or `subprocess.run`.

    Start it from a thread that lives as long as this process, because the kernel watches the thread.
    """
    return [sys.executable, "-S", __file__, str(os.getpid()), *(os.fspath(word) for word in command)]


def _launch(parent: int, command: list[str]) -> None:
    """Executes `command`. Ends with exit status 127 and a sentence if there is no such program."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before prctl was called; then the kernel sends no signal any more.
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"Cannot run {command[0]}: {error.strerror}.", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    _launch(int(sys.argv[1]), sys.argv[2:])
