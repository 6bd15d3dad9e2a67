"""Checks firmware in Intel HEX format before a board is flashed, and finds the firmware that is shipped with Castline."""

from __future__ import annotations

import hashlib
from pathlib import Path

from streams.errors import CastlineError

# The release puts the firmware and its checksum here. A checkout of the source has no such files.
SHIPPED = Path(__file__).parent / "shipped" / "castline-mega2560.hex"
# The boot loader of a Mega occupies the flash from this address on.
BOOT_LOADER_AT = 0x3E000
# Every firmware of Castline contains these names of commands. A file without them is another program.
MARK = b"HELLO CONFIGURE COMMIT SHOW PING"


class HexImageError(CastlineError):
    """The error for a file that must not be written to a board. The message says why, and what to do."""


def checksum_file(image: Path) -> Path:
    """Returns the path of the checksum file that belongs to `image`. The checksum file has the format of the program sha256sum."""
    return image.with_name(image.name + ".sha256")


def write_checksum(image: Path) -> None:
    """Writes the checksum of the firmware file `image` into a file in the same folder."""
    checksum_file(image).write_text(f"{hashlib.sha256(image.read_bytes()).hexdigest()}  {image.name}\n")


def check_image(image: Path) -> int:
    """Checks that `image` is a whole firmware of Castline, and returns its size in bytes.

    If a file with a checksum lies beside `image`, the checksum is compared too. Raises HexImageError if the file must not be flashed.
    """
    try:
        data = image.read_bytes()
    except OSError as error:
        raise HexImageError(f"Cannot read the firmware {image}: {error}. Check the path.") from error
    expected = checksum_file(image)
    if expected.is_file() and expected.read_text().split(" ")[0] != hashlib.sha256(data).hexdigest():
        raise _refusal(image, f"Its checksum is not the one in {expected.name}, so the file was changed or damaged")
    memory = _read_records(image, data)
    if MARK not in memory:
        raise _refusal(image, "It is not the firmware of Castline, but another program")
    return len(memory)


def _refusal(image: Path, reason: str) -> HexImageError:
    return HexImageError(f"The file {image} was not written to the board. {reason}. Use the firmware of a release of Castline.")


def _read_records(image: Path, data: bytes) -> bytes:
    """Returns the bytes of an image that begins at address 0 and has no gaps.

    Each record has a length, an address, a type, data, and a checksum. The sum of all bytes of a record is 0, modulo 256.
    """
    lines = data.split()
    if not lines:
        raise _refusal(image, "It is empty")
    memory = bytearray()
    base = 0
    for number, line in enumerate(lines, 1):
        record = _read_record(image, number, line)
        address, kind, content = base + int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        match kind:
            case 0 if address != len(memory):
                raise _refusal(image, f"Line {number} leaves a gap in the program, so a part of the file is missing")
            case 0 if address + len(content) > BOOT_LOADER_AT:
                raise _refusal(image, f"Line {number} would overwrite the boot loader of the board")
            case 0:
                memory += content
            case 1:
                return bytes(memory)
            case 2 | 4:
                base = int.from_bytes(content, "big") << (4 if kind == 2 else 16)
    raise _refusal(image, "Its last record is missing, so the file is not complete")


def _read_record(image: Path, number: int, line: bytes) -> bytes:
    try:
        record = bytes.fromhex(line.removeprefix(b":").decode("ascii"))
    except ValueError:
        record = b""
    if not line.startswith(b":") or len(record) < 5 or len(record) != record[0] + 5 or sum(record) % 256:
        raise _refusal(image, f"Line {number} is no valid record of the format Intel HEX, so the file is damaged or of another format")
    return record
