"""Frames of the gate protocol: `start seq name fields*CRC` and a newline. See firmware/PROTOCOL.md, "Frames"."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

LONGEST = 80
LONGEST_COMMAND = 60
COMMAND, ANSWER, EVENT = ">", "<", "!"

_SHAPE = re.compile(r"([><!])([0-9a-f]{2}) ([A-Z]+)((?: [A-Za-z0-9_.-]+)*)")
_PRINTABLE = range(0x20, 0x7F)


def crc16(data: bytes) -> int:
    """CRC-16/IBM-3740: polynomial 0x1021, initial value 0xFFFF, nothing reflected, no final xor."""
    return binascii.crc_hqx(data, 0xFFFF)


@dataclass(frozen=True)
class Frame:
    """One line of the protocol. `start` is `>`, `<` or `!`; `seq` is 0..255."""

    start: str
    seq: int
    name: str
    fields: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """What the checksum covers."""
        return " ".join((f"{self.start}{self.seq:02x}", self.name, *self.fields))

    def encode(self) -> bytes:
        """The bytes on the wire, newline included.

        Raises ValueError: when the frame would be too long or of a wrong shape.
        """
        body = self.body.encode("ascii")
        frame = b"%b*%04X\n" % (body, crc16(body))
        longest = LONGEST_COMMAND if self.start == COMMAND else LONGEST
        if len(frame) > longest:
            raise ValueError(f"expected a frame of at most {longest} bytes, found {len(frame)}: {self.body}")
        if not _SHAPE.fullmatch(self.body):
            raise ValueError(f"expected a frame of the protocol's shape, found {self.body!r}")
        return frame


def parse(line: bytes) -> Frame | None:
    """The frame in `line` (without newline), None when its checksum or shape is wrong."""
    body, star, crc = line.rpartition(b"*")
    if not star or crc != b"%04X" % crc16(body):
        return None
    match = _SHAPE.fullmatch(body.decode("ascii", "replace"))
    if match is None:
        return None
    return Frame(match[1], int(match[2], 16), match[3], tuple(match[4].split()))


class Deframer:
    """Turns bytes as they come into frames of the wanted directions; what is damaged is dropped and counted.

    A start character begins anew wherever it stands, so a damaged newline costs no second frame.
    """

    def __init__(self, starts: str) -> None:
        self._starts = starts.encode()
        self._line = bytearray()
        self._open = False
        self.good = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The whole frames that `data` completes."""
        frames = []
        for byte in data:
            if byte in self._starts:
                self._drop()
                self._open = True
                self._line.append(byte)
            elif byte == 0x0A:
                if self._open and (frame := parse(bytes(self._line.removesuffix(b"\r")))) is not None:
                    self.good += 1
                    frames.append(frame)
                    self._open = False
                self._drop()
            elif self._open:
                self._line.append(byte)
                if (byte not in _PRINTABLE and byte != 0x0D) or len(self._line) > LONGEST:
                    self._drop()
        return frames

    def _drop(self) -> None:
        if self._open:
            self.damaged += 1
        self._open = False
        self._line.clear()
