"""One running process: in a session of its own, bound to our life, its output read line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

_LAUNCH = Path(__file__).with_name("launch.py")
_LAST_LINES = 40


class Running:
    """A process from its start to its burial. Start it from the main thread: it dies with the thread that started it.

    `say` gets every line that it prints, from a thread.
    """

    def __init__(self, command: Sequence[str], say: Callable[[str], None]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("expected processes to be started from the main thread, they die with the thread that starts them")
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops the others in their order.
        self._child = subprocess.Popen(
            [sys.executable, "-S", str(_LAUNCH), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._say = say
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._first: list[str] = []
        assert self._child.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._child.stdout,), name=f"output {self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def has_printed(self, start: str) -> bool:
        """Whether one of the first lines began with `start`."""
        return any(line.startswith(start) for line in self._first)

    def last_words(self) -> str:
        """The last line printed, `nothing` where there was none."""
        return self._last[-1] if self._last else "nothing"

    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal it died of. When it has ended, what is left of its session's group is killed."""
        if self._child.returncode is not None:
            return self._child.returncode
        # The dead leader is looked at before it is reaped: until then its group id cannot belong to a stranger.
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            return None
        self._signal_group(signal.SIGKILL)
        status = self._child.wait()
        self._reader.join(1)  # its last words
        return status

    def terminate(self) -> None:
        """SIGTERM to the process alone: it stops its own children."""
        if self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and everything below it."""
        if self._child.returncode is None:
            # Asked before: once it is dead, nobody knows any more whose children they were.
            below = psutil.Process(self.pid).children(recursive=True)
            self._signal_group(signal.SIGKILL)
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def signal(self, signum: int) -> None:
        """Any other signal, to the process alone."""
        if self._child.returncode is None:
            self._child.send_signal(signum)

    def _signal_group(self, signum: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                if len(self._first) < _LAST_LINES:
                    self._first.append(line)
                self._last.append(line)
                self._say(line)
