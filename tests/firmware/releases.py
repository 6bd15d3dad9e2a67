"""The firmware and the host of release 0.1.0, for tests of old boards and old hosts."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from firmware import toolchain
from firmware.protocol import Frame, parse_frame

_FOLDER = Path(__file__).with_name("releases")
# The number of settings that release 0.1.0 knew. Later settings stand behind them in the table.
KEYS_0_1_0 = 24


def old_firmware(folder: Path) -> Path:
    """Returns the firmware of release 0.1.0 as an ELF file in `folder`, for the AVR simulator."""
    toolchain.ensure_installed(toolchain.AVR_PACKAGES)
    elf = folder / "castline-0.1.0.elf"
    rename = ".sec1=.text,contents,alloc,load,readonly,code"
    command = ["avr-objcopy", "-I", "ihex", "-O", "elf32-avr", "--rename-section", rename, _FOLDER / "castline-0.1.0.hex", elf]
    subprocess.run(list(map(str, command)), check=True)
    return elf


def recorded_session() -> list[tuple[int, str | Frame]]:
    """Returns what a host of release 0.1.0 sent, and how inputs of lane 1 changed, each with its time in milliseconds.

    An input is given as text, such as `eye1 0`.
    """
    session: list[tuple[int, str | Frame]] = []
    for line in (_FOLDER / "host-0.1.0.session").read_text().splitlines():
        if found := re.fullmatch(r"(\d+) @ (\w+ [01])", line):
            session.append((int(found[1]), found[2]))
        elif found := re.fullmatch(r"(\d+) (>.*)", line):
            frame = parse_frame(found[2].encode())
            assert frame is not None, line
            session.append((int(found[1]), frame))
    return session
