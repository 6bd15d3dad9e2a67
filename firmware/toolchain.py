"""Compilers for the board's firmware, the simulator and the core on a PC: found, installed where the user may, or named.

What is built lies in `var/firmware/<hash>/`, one folder for each state of the sources, so an old program is never run for a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from firmware import debian
from streams.errors import CastlineError

ROOT = Path(__file__).parent
SORTER = ROOT / "sorter"
SIMULATOR = ROOT / "simulator"
BUILDS = Path("var/firmware")
FLASH_BYTES, RAM_BYTES = 262_144, 8192  # of an ATmega2560
ARDUINO = Path("/usr/share/arduino/hardware/arduino/avr")

DEBIAN_PACKAGES = ("gcc", "g++", "libc6-dev", "gcc-avr", "binutils-avr", "avr-libc", "libsimavr-dev", "arduino-core-avr")
# What each of them is recognised by.
_FOUND_BY: dict[str, tuple[str, ...]] = {
    "gcc": ("gcc",),
    "g++": ("g++",),
    "libc6-dev": ("/usr/include/pty.h",),
    "gcc-avr": ("avr-g++",),
    "binutils-avr": ("avr-size",),
    "avr-libc": ("/usr/lib/avr/include/avr/io.h",),
    "libsimavr-dev": ("/usr/include/simavr/sim_avr.h",),
    "arduino-core-avr": (str(ARDUINO / "cores/arduino/Arduino.h"),),
}

# The portable core; the rest of the sketch speaks to the Mega's registers.
HARDWARE = ("hardware", "link", "memory", "sensors", "servo")
AVR_FLAGS = (
    *("-mmcu=atmega2560", "-DF_CPU=16000000UL", "-std=gnu++11", "-Os", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-fno-exceptions", "-fno-threadsafe-statics", "-ffunction-sections", "-fdata-sections", "-flto", "-Wl,--gc-sections"),
)
PC_FLAGS = ("-std=gnu++11", "-g", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


class ToolchainError(CastlineError):
    """A compiler or library is missing, or does not take the sources. The message says what to do."""


def missing(packages: Sequence[str] = DEBIAN_PACKAGES) -> list[str]:
    """Those of `packages` whose contents are not on this machine."""
    return [name for name in packages if not all(shutil.which(mark) or Path(mark).exists() for mark in _FOUND_BY[name])]


@cache
def ensure(packages: tuple[str, ...] = DEBIAN_PACKAGES) -> None:
    """Installs what is missing by apt-get where the user may.

    Raises ToolchainError: naming the packages, when the user may not or it did not work.
    """
    absent = missing(packages)
    if not absent:
        return
    debian.install(absent)
    if absent := missing(packages):
        raise ToolchainError(f"the firmware's tools are missing; on Debian or Ubuntu: {debian.by_hand(absent)}")


def core_sources() -> list[Path]:
    """The C++ files that contain nothing of the Mega."""
    return sorted(path for path in SORTER.glob("*.cpp") if path.stem not in HARDWARE)


def firmware(*defines: str) -> Path:
    """The firmware for the Mega in ELF format, built with plain avr-g++; `defines` like `CASTLINE_CLOCK_START_US=1`."""
    ensure()
    sources = [*sorted(SORTER.glob("*.cpp")), ROOT / "plain_main.cpp"]
    flags = [*AVR_FLAGS, *(f"-D{define}" for define in defines)]
    # The sketch itself comes last: `-x c++` holds for all that follows it.
    return _build("sorter.elf", ["avr-g++", *flags], sources, ["-x", "c++", str(SORTER / "sorter.ino")], SORTER.glob("*"))


def arduino_firmware() -> Path:
    """The same sketch as the Arduino IDE builds it: with the Arduino core around it."""
    ensure()
    core = ARDUINO / "cores/arduino"
    # The core's own warnings are not ours; avr-gcc 5.4 lacks a macro that its headers want.
    common = [flag for flag in AVR_FLAGS if flag not in ("-Wall", "-Wextra", "-Werror")]
    common += ["-DARDUINO=10819", "-DARDUINO_AVR_MEGA2560", "-DARDUINO_ARCH_AVR", "-DDECIMAL_DIG=__DECIMAL_DIG__"]
    common += [f"-I{core}", f"-I{ARDUINO / 'variants/mega'}"]
    c_only = [flag for flag in common if flag not in ("-std=gnu++11", "-fno-threadsafe-statics", "-Wl,--gc-sections")]
    objects = [_build(f"{name}.o", ["avr-gcc", *c_only, "-c"], [core / f"{name}.c"]) for name in ("wiring", "hooks")]
    sources = [*sorted(SORTER.glob("*.cpp")), core / "main.cpp", *objects]
    return _build(
        "arduino.elf", ["avr-g++", *common], sources, ["-include", "Arduino.h", "-x", "c++", str(SORTER / "sorter.ino")], SORTER.glob("*")
    )


def runner() -> Path:
    """The program that executes the firmware in libsimavr."""
    ensure()
    sources = sorted(SIMULATOR.glob("*.c"))
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/simavr"]
    return _build("runner", ["gcc", *flags], sources, ["-lsimavr", "-lutil"], SIMULATOR.glob("*.[ch]"))


def pc_board(*flags: str) -> Path:
    """The core on a PC behind the runner's control channel, with sanitizers unless other `flags` are given."""
    ensure()
    sources = [*core_sources(), SORTER / "tests/pc_board.cpp"]
    return _build("pc_board", ["g++", *PC_FLAGS, *(flags or SANITIZERS)], sources, [], SORTER.rglob("*"))


def unit_tests(*flags: str) -> Path:
    """The unit tests of the core, a program that returns 0 when all pass."""
    ensure()
    sources = [*core_sources(), *sorted((SORTER / "tests").glob("test_*.cpp"))]
    return _build("unit_tests", ["g++", *PC_FLAGS, *(flags or SANITIZERS)], sources, [], SORTER.rglob("*"))


def for_coverage(folder: Path) -> tuple[Path, Path]:
    """Unit tests and the core behind the control channel, built into `folder` so that gcov can tell what they have run."""
    ensure()
    tests = SORTER / "tests"
    programs = {"unit_tests": sorted(tests.glob("test_*.cpp")), "pc_board": [tests / "pc_board.cpp"]}
    for name, sources in programs.items():
        (folder / name).mkdir()
        call = ["g++", *PC_FLAGS, "-O0", "--coverage", *map(str, [*core_sources(), *sources]), "-o", name]
        _call(name, call, folder / name)
    return folder / "unit_tests/unit_tests", folder / "pc_board/pc_board"


def hex_image() -> Path:
    """The firmware as avrdude takes it."""
    elf = firmware()
    image = elf.with_suffix(".hex")
    _call(image.name, ["avr-objcopy", "-O", "ihex", "-R", ".eeprom", str(elf), str(image)], elf.parent)
    return image


def sizes(elf: Path) -> tuple[int, int]:
    """Bytes of flash and of RAM that a firmware takes before it runs."""
    report = subprocess.run(["avr-size", "-A", elf], capture_output=True, text=True, check=True).stdout
    section = {words[0]: int(words[1]) for line in report.splitlines() if len(words := line.split()) == 3 and words[1].isdigit()}
    flash = section.get(".text", 0) + section.get(".data", 0)
    return flash, sum(section.get(name, 0) for name in (".data", ".bss", ".noinit"))


def _build(name: str, compiler: Sequence[str], sources: Sequence[Path], tail: Sequence[str] = (), looked_at: Iterable[Path] = ()) -> Path:
    """The program `name`, from the cache when nothing that it is made of has changed."""
    digest = hashlib.sha256("\0".join([*compiler, *map(str, sources), *tail]).encode())
    for path in sorted({*sources, *(path for path in looked_at if path.is_file())}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    built = BUILDS.absolute() / digest.hexdigest()[:16] / name
    if built.exists():
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    partial = built.with_name(f"{name}.{os.getpid()}")
    call = [*compiler, *map(str, sources), *tail, "-o", str(partial)]
    _call(name, call, built.parent)
    partial.replace(built)
    return built


def _call(name: str, call: Sequence[str], folder: Path) -> None:
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        raise ToolchainError(f"{name} cannot be built:\n{done.stderr[-4000:]}")
