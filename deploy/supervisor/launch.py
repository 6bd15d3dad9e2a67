"""Becomes the command given, bound to the life of the process that started it.

Called as `python -S launch.py PARENT COMMAND...`: the kernel kills this process when the thread that started it ends, so
a supervisor that is killed leaves no worker behind. An own step before exec, not subprocess' preexec_fn, because Python code
between fork and exec may hang in a parent with threads. SIGKILL and not SIGTERM: a worker that ignores SIGTERM would
survive, and being killed costs a worker of ours nothing but repeats. Linux only.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def launch(parent: int, command: list[str]) -> None:
    """Never returns: exec, or exit status 127 with a sentence."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before prctl: then nobody is left to kill us.
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"expected a program at {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
