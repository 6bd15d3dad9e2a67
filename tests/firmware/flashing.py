"""Writes firmware to a simulated Mega through its stock boot loader, with the real program avrdude."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from firmware import toolchain
from firmware.simulator.avr import RealTimeBoard

# The boot loader waits 0.84 s for avrdude. A busy machine may need longer to start it, so the simulation is slow until avrdude has begun.
_SLOW, _FAST, _NORMAL = 0.1, 4.0, 1.0


def flash(board: RealTimeBoard, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Runs a command `castline board flash ...` in `folder`, and returns its output. Fails if the command fails."""
    toolchain.ensure_installed(("avrdude",))
    board.set_speed(_SLOW)
    board.poll()
    process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    output, has_begun = b"", False
    while process.poll() is None:
        board.poll_for(0.1)
        with suppress(BlockingIOError):
            output += os.read(process.stdout.fileno(), 65536)
        if not has_begun and b"ready to accept instructions" in output:
            has_begun = True
            board.set_speed(_FAST)
    output += process.stdout.read() or b""
    process.stdout.close()
    board.set_speed(_NORMAL)
    board.poll()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text
