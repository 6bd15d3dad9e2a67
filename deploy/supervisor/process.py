"""Runs one process of the plant in its own session, and reads its output line by line. The process dies if the supervisor dies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

from deploy.supervisor.launch import bound_command
from streams.supervision import SupervisedThread

_LAST_LINES = 40
# A longer line of the output is passed on in pieces, because a line without an end would fill the memory.
_LONGEST_LINE_BYTES = 65_536


class ChildProcess:
    """Starts a process. `on_line` is called in another thread, with each line that the process prints.

    Must be made in the main thread. When the thread that started the process ends, the kernel kills the process.

    Raises OSError if the machine has no room for another process or thread.
    """

    def __init__(self, command: Sequence[str], on_line: Callable[[str], None]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("Start the process from the main thread. The kernel kills a process when the thread that started it ends.")
        # The process gets its own session, so that Ctrl-C reaches only the supervisor. The supervisor then stops the processes in order.
        self._process = subprocess.Popen(
            bound_command(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._on_line = on_line
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._first_lines: list[str] = []
        self._reader = SupervisedThread("output", self._read)
        try:
            self._reader.start()
        except RuntimeError as error:
            self.kill()
            self._process.wait()
            raise OSError(errno.EAGAIN, str(error)) from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_printed(self, start: str) -> bool:
        """Returns whether one of the first 40 lines of the output began with `start`."""
        return any(line.startswith(start) for line in self._first_lines)

    def last_line(self) -> str:
        """Returns the last line of the output, or "nothing" if the process has printed none."""
        return self._last_lines[-1] if self._last_lines else "nothing"

    def exit_status(self) -> int | None:
        """Returns the exit status of the process, or None while the process runs. If signal 9 ended the process, the result is -9.

        When the process has ended, kills the other processes of its process group.
        """
        if self._process.returncode is not None:
            return self._process.returncode
        # Kill the process group before `wait`, because after `wait` a new process can get the same id.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            return None
        self._signal_group(signal.SIGKILL)
        status = self._process.wait()
        self._reader.join(1)  # Wait until the reader thread has read all output, because last_line() needs the last line.
        return status

    def terminate(self) -> None:
        """Sends SIGTERM only to the process itself, because the process stops its own children."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL to the process and to all its descendants."""
        if self._process.returncode is None:
            # List the descendants first, because they cannot be found when the process is dead.
            descendants = psutil.Process(self.pid).children(recursive=True)
            self._signal_group(signal.SIGKILL)
            for process in descendants:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def signal(self, signum: int) -> None:
        """Sends a signal to the process itself, but not to its children."""
        if self._process.returncode is None:
            self._process.send_signal(signum)

    def _signal_group(self, signum: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def _read(self) -> None:
        assert self._process.stdout is not None
        output = self._process.stdout
        while raw := output.readline(_LONGEST_LINE_BYTES):
            line = raw.decode(errors="replace").rstrip()
            if len(self._first_lines) < _LAST_LINES:
                self._first_lines.append(line)
            self._last_lines.append(line)
            self._on_line(line)
        output.close()
