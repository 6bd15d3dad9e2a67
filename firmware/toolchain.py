"""Builds the board's firmware, its simulator, and the portable core of the firmware for a PC.

Each program is built into `var/firmware/<hash>/`. The hash is computed from the sources.
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
# Sizes of the flash memory and the RAM of an ATmega2560.
FLASH_BYTES, RAM_BYTES = 262_144, 8192
ARDUINO = Path("/usr/share/arduino/hardware/arduino/avr")
# The boot loader that a Mega 2560 has when it is sold.
BOOT_LOADER = ARDUINO / "bootloaders/stk500v2/stk500boot_v2_mega2560.hex"

# The packages that build the firmware for a board.
AVR_PACKAGES = ("gcc-avr", "binutils-avr", "avr-libc")
# All packages that build and simulate the firmware.
DEBIAN_PACKAGES = ("gcc", "g++", "libc6-dev", *AVR_PACKAGES, "libsimavr-dev", "arduino-core-avr")
# The programs and files of each package. If all of them exist, the package is installed.
_CONTENTS: dict[str, tuple[str, ...]] = {
    "gcc": ("gcc",),
    "g++": ("g++",),
    "libc6-dev": ("/usr/include/pty.h",),
    "gcc-avr": ("avr-g++",),
    "binutils-avr": ("avr-size",),
    "avr-libc": ("/usr/lib/avr/include/avr/io.h",),
    "libsimavr-dev": ("/usr/include/simavr/sim_avr.h",),
    "avrdude": ("avrdude",),
    "arduino-core-avr": (str(ARDUINO / "cores/arduino/Arduino.h"), str(BOOT_LOADER)),
}

# The source files that access the Mega's registers. All others are the portable core.
HARDWARE = ("hardware", "link", "memory", "reset_marks", "sensors", "servo")
AVR_FLAGS = (
    *("-mmcu=atmega2560", "-DF_CPU=16000000UL", "-std=gnu++11", "-Os", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-fno-exceptions", "-fno-threadsafe-statics", "-ffunction-sections", "-fdata-sections", "-flto", "-Wl,--gc-sections"),
)
# The flags for C++ and for the linker from platform.txt of the Arduino core, with all warnings switched on.
ARDUINO_FLAGS = (
    *("-g", "-Os", "-Wall", "-Wextra", "-std=gnu++11", "-fpermissive", "-fno-exceptions", "-ffunction-sections", "-fdata-sections"),
    *("-fno-threadsafe-statics", "-Wno-error=narrowing", "-flto", "-fuse-linker-plugin", "-Wl,--gc-sections"),
)
_CPP_ONLY_FLAGS = (
    "-std=gnu++11",
    "-fpermissive",
    "-fno-exceptions",
    "-fno-threadsafe-statics",
    "-Wno-error=narrowing",
    "-Wl,--gc-sections",
)
PC_FLAGS = ("-std=gnu++11", "-g", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


class ToolchainError(CastlineError):
    """A compiler or library is missing, or a source file does not compile. The message says what to do."""


def missing_packages(packages: Sequence[str] = DEBIAN_PACKAGES) -> list[str]:
    """Returns the names in `packages` that are not installed on this machine."""
    return [name for name in packages if not all(shutil.which(item) or Path(item).exists() for item in _CONTENTS[name])]


@cache
def ensure_installed(packages: tuple[str, ...] = DEBIAN_PACKAGES) -> None:
    """Installs the packages that are missing.

    Raises ToolchainError if packages are still missing afterwards. The message has the command that installs them.
    """
    missing = missing_packages(packages)
    if not missing:
        return
    debian.install(missing)
    if missing := missing_packages(packages):
        raise ToolchainError(
            f"the tools that build the firmware are missing; on Debian or Ubuntu, install them with: {debian.install_command(missing)}"
        )


def core_sources() -> list[Path]:
    """Returns the C++ files of the portable core."""
    return sorted(path for path in SORTER.glob("*.cpp") if path.stem not in HARDWARE)


def build_firmware(*defines: str, sketch: Path = SORTER) -> Path:
    """Builds the firmware for the Mega with avr-g++ alone and returns the ELF file.

    `defines` are macros for the compiler, such as `CASTLINE_CLOCK_START_US=1`. `sketch` is the folder with the sources.
    """
    ensure_installed(AVR_PACKAGES)
    sources = [*sorted(sketch.glob("*.cpp")), ROOT / "plain_main.cpp"]
    flags = [*AVR_FLAGS, *(f"-D{define}" for define in defines)]
    # The sketch sorter.ino comes last. g++ needs `-x c++` to read it as C++, and applies this option to all later files too.
    return _build("sorter.elf", ["avr-g++", *flags], sources, ["-x", "c++", str(sketch / "sorter.ino")], sketch.glob("*"))


def build_arduino_firmware(sketch: Path = SORTER) -> Path:
    """Builds the firmware as the Arduino IDE does, with the Arduino core, and returns the ELF file.

    `sketch` is the folder with the sources. Raises ToolchainError if the compiler has an error or a warning.
    """
    ensure_installed()
    core = ARDUINO / "cores/arduino"
    board = ["-mmcu=atmega2560", "-DF_CPU=16000000L", "-DARDUINO=10819", "-DARDUINO_AVR_MEGA2560", "-DARDUINO_ARCH_AVR"]
    includes = [f"-I{core}", f"-I{ARDUINO / 'variants/mega'}"]
    common = [*ARDUINO_FLAGS, "-Werror", *board, *includes]
    c_only = [flag for flag in common if flag not in _CPP_ONLY_FLAGS]
    objects = [_build(f"{name}.o", ["avr-gcc", *c_only, "-c"], [core / f"{name}.c"]) for name in ("wiring", "hooks")]
    sources = [*sorted(sketch.glob("*.cpp")), core / "main.cpp", *objects]
    return _build(
        "arduino.elf", ["avr-g++", *common], sources, ["-include", "Arduino.h", "-x", "c++", str(sketch / "sorter.ino")], sketch.glob("*")
    )


def build_runner() -> Path:
    """Builds the program that runs the firmware in libsimavr."""
    ensure_installed()
    sources = sorted(SIMULATOR.glob("*.c"))
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/simavr"]
    return _build("runner", ["gcc", *flags], sources, ["-lsimavr", "-lutil"], SIMULATOR.glob("*.[ch]"))


def build_pc_board(*flags: str) -> Path:
    """Builds a program for this PC from the part of the firmware that needs no Arduino.

    If no `flags` are given, the sanitizers of the compiler are on.
    """
    ensure_installed()
    sources = [*core_sources(), SORTER / "tests/pc_board.cpp"]
    return _build("pc_board", ["g++", *PC_FLAGS, *(flags or SANITIZERS)], sources, [], SORTER.rglob("*"))


def build_unit_tests(*flags: str) -> Path:
    """Builds the unit tests of the portable core. The program returns 0 if all tests pass."""
    ensure_installed()
    sources = [*core_sources(), *sorted((SORTER / "tests").glob("test_*.cpp"))]
    return _build("unit_tests", ["g++", *PC_FLAGS, *(flags or SANITIZERS)], sources, [], SORTER.rglob("*"))


def build_for_coverage(folder: Path) -> tuple[Path, Path]:
    """Builds two programs for this PC into `folder`: the unit tests, and the firmware without register access. Both record coverage."""
    ensure_installed()
    tests = SORTER / "tests"
    programs = {"unit_tests": sorted(tests.glob("test_*.cpp")), "pc_board": [tests / "pc_board.cpp"]}
    for name, sources in programs.items():
        (folder / name).mkdir()
        command = ["g++", *PC_FLAGS, "-O0", "--coverage", *map(str, [*core_sources(), *sources]), "-o", name]
        _run_compiler(name, command, folder / name)
    return folder / "unit_tests/unit_tests", folder / "pc_board/pc_board"


def build_hex_image() -> Path:
    """Builds the firmware as an Intel HEX file, which avrdude can write to a board."""
    elf = build_firmware()
    image = elf.with_suffix(".hex")
    _run_compiler(image.name, ["avr-objcopy", "-O", "ihex", "-R", ".eeprom", str(elf), str(image)], elf.parent)
    return image


def memory_use(elf: Path) -> tuple[int, int]:
    """Returns how many bytes of flash and of RAM a firmware needs. The RAM of the stack is not included."""
    report = subprocess.run(["avr-size", "-A", elf], capture_output=True, text=True, check=True).stdout
    section = {words[0]: int(words[1]) for line in report.splitlines() if len(words := line.split()) == 3 and words[1].isdigit()}
    flash = section.get(".text", 0) + section.get(".data", 0)
    return flash, sum(section.get(name, 0) for name in (".data", ".bss", ".noinit"))


def _build(
    name: str, compiler: Sequence[str], sources: Sequence[Path], last_arguments: Sequence[str] = (), dependencies: Iterable[Path] = ()
) -> Path:
    """Builds the program `name` and returns its path. Returns the earlier build if sources, dependencies and arguments are the same."""
    digest = hashlib.sha256("\0".join([*compiler, *map(str, sources), *last_arguments]).encode())
    for path in sorted({*sources, *(path for path in dependencies if path.is_file())}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    built = BUILDS.absolute() / digest.hexdigest()[:16] / name
    if built.exists():
        return built
    built.parent.mkdir(parents=True, exist_ok=True)
    staged = built.with_name(f"{name}.{os.getpid()}")
    _run_compiler(name, [*compiler, *map(str, sources), *last_arguments, "-o", str(staged)], built.parent)
    staged.replace(built)
    return built


def _run_compiler(name: str, command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        raise ToolchainError(f"{name} does not compile; the compiler's output ends with:\n{done.stderr[-4000:]}")
