"""The part of the gate protocol that the host and the simulated board share: frames, words and bounds of fields.

A test compares the tables of this module with firmware/PROTOCOL.md.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = 1

# A frame is one line: `start seq name fields*CRC` and a newline.

# Hosts of release 0.1.0 accept frames of at most MAX_FRAME_BYTES_0_1_0 bytes. Their HELLO has no field `confirms`.
MAX_FRAME_BYTES = 84
MAX_FRAME_BYTES_0_1_0 = 80
MAX_COMMAND_BYTES = 60
COMMAND, ANSWER, EVENT = ">", "<", "!"

_SHAPE = re.compile(r"([><!])([0-9a-f]{2}) ([A-Z]+)((?: [A-Za-z0-9_.-]+)*)")
_PRINTABLE = range(0x20, 0x7F)


def crc16(data: bytes) -> int:
    """Returns the checksum CRC-16/IBM-3740: polynomial 0x1021, initial value 0xFFFF, not reflected, no final xor."""
    return binascii.crc_hqx(data, 0xFFFF)


@dataclass(frozen=True)
class Frame:
    """One message of the protocol. `start` is `>` (command), `<` (answer) or `!` (event). `seq` is the sequence number, 0..255."""

    start: str
    seq: int
    name: str
    fields: tuple[str, ...] = ()

    @property
    def body(self) -> str:
        """The text of the frame before the `*`. The checksum is computed from this text."""
        return " ".join((f"{self.start}{self.seq:02x}", self.name, *self.fields))

    def encode(self) -> bytes:
        """Returns the bytes on the wire, with checksum and newline.

        Raises ValueError if the frame is too long or contains characters that the protocol does not allow.
        """
        body = self.body.encode("ascii")
        frame = b"%b*%04X\n" % (body, crc16(body))
        longest = MAX_COMMAND_BYTES if self.start == COMMAND else MAX_FRAME_BYTES
        if len(frame) > longest:
            raise ValueError(f"a frame may have {longest} bytes at most, but this one has {len(frame)}: {self.body}")
        if not _SHAPE.fullmatch(self.body):
            raise ValueError(f"a frame has characters or words that the gate protocol does not allow: {self.body!r}")
        return frame


def parse_frame(line: bytes) -> Frame | None:
    """Parses a line without its newline. Returns None if the checksum is wrong or the line is not a frame."""
    body, star, crc = line.rpartition(b"*")
    if not star or crc != b"%04X" % crc16(body):
        return None
    match = _SHAPE.fullmatch(body.decode("ascii", "replace"))
    if match is None:
        return None
    return Frame(match[1], int(match[2], 16), match[3], tuple(match[4].split()))


class Deframer:
    """Finds the frames in a stream of bytes. Only frames with a start character in `starts` are returned.

    A damaged frame is dropped and counted. A start character always begins a new frame.
    """

    def __init__(self, starts: str) -> None:
        self._starts = starts.encode()
        self._line = bytearray()
        self._is_in_frame = False
        self.good = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Takes the next bytes of the stream. Returns the frames that these bytes complete."""
        frames = []
        for byte in data:
            if byte in self._starts:
                self._end_line()
                self._is_in_frame = True
                self._line.append(byte)
            elif byte == 0x0A:
                if self._is_in_frame and (frame := parse_frame(bytes(self._line.removesuffix(b"\r")))) is not None:
                    self.good += 1
                    frames.append(frame)
                    self._is_in_frame = False
                self._end_line()
            elif self._is_in_frame:
                self._line.append(byte)
                if (byte not in _PRINTABLE and byte != 0x0D) or len(self._line) > MAX_FRAME_BYTES:
                    self._end_line()
        return frames

    def _end_line(self) -> None:
        if self._is_in_frame:
            self.damaged += 1
        self._is_in_frame = False
        self._line.clear()


# The words of the protocol: commands, events, status pages, and the bounds of every field.

# Each command has three entries: its fields, the fields of its answer, and the command that the host must have sent before ("" means none).
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "HELLO": (("version",), ("version", "run", "cause", "lanes", "parts", "events", "window", "grades"), ""),
    "CONFIGURE": (("lane", "key", "value"), ("key", "value"), "hello"),
    "COMMIT": (("lane",), ("digest",), "hello"),
    "SHOW": (("lane", "key"), ("key", "value"), "hello"),
    "PING": (("host_ms",), ("board_ms", "state", "lamp", "tracked", "pending"), ""),
    "SYNC": ((), ("board_ms", "board_us"), ""),
    "VERDICT": (("lane", "run", "part", "verdict", "gate"), ("told",), "commit"),
    "CANCEL": (("lane", "run", "part"), ("told",), "commit"),
    "SEEN": (("lane", "run", "part"), (), "hello"),
    "ACK": (("event",), (), "hello"),
    "STATUS": (("lane", "page"), ("page",), ""),
    "TEST": (("lane", "token", "what"), ("told",), "hello"),
    "CLEAR": (("lane", "code"), ("told",), "hello"),
    "RAISE": (("run",), ("run",), "hello"),
    "SERVO": (("lane", "servo_us"), ("told",), "hello"),
}

EVENTS: dict[str, tuple[str, ...]] = {
    "BOOT": ("version", "run", "cause"),
    "BEAT": ("board_ms", "state", "lamp", "tracked", "pending"),
    "PART": ("lane", "run", "part", "at_ms"),
    "GATE": ("event", "lane", "run", "part", "action", "reason", "moved", "moves", "at_ms", "travel_ms"),
    "FAULT": ("event", "lane", "code", "raised", "detail", "at_ms"),
}

# The optional fields at the end of a frame. The keys are names of events, commands and status pages.
OPTIONAL: dict[str, tuple[str, ...]] = {"GATE": ("gate", "confirmed"), "COMMIT": ("warning",), "eyes": ("belt",)}

# The optional fields at the end of a command. The keys are names of commands.
COMMAND_OPTIONAL: dict[str, tuple[str, ...]] = {"HELLO": ("confirms",)}

# The fields of this host's HELLO. The last field says that the host reads the field `confirmed` of GATE.
HELLO_FIELDS = (VERSION, 1)

_EDGES = ("edges", "edge_ms", "edge_steps", "length_ms", "length_steps")
PAGES: dict[str, tuple[str, ...]] = {
    "line": ("state", "code", "lamp", "tracked"),
    "count": ("parts", "diverted", "passed", "missing", "unmatched", "no_verdict"),
    "gate": ("pulse_us", "position", "moves", "servo_power", "estop"),
    "link": ("good", "damaged", "overrun", "pending", "lost"),
    "eyes": ("eye1", "eye2", "position_steps"),
    "edge1": _EDGES,
    "edge2": _EDGES,
    "chute": ("at_end", "chute_eye", "chute_full", "button", "seen", "unexpected", "unconfirmed"),
    "plant": ("ready", "busy", "valid", "reject", "heartbeat", "fault", "buzzer", "reset", "bypass", "rejects"),
}

# The pages of STATUS that older boards do not know. These boards answer with the error `wrong-fields`.
EDGE_PAGES = ("edge1", "edge2")
CHUTE_PAGE, PLANT_PAGE = "chute", "plant"
# The pages of STATUS that every board knows, even a board with older firmware.
KNOWN_PAGES = tuple(page for page in PAGES if page not in (*EDGE_PAGES, CHUTE_PAGE, PLANT_PAGE))

_U32 = 2**32 - 1
NUMBERS: dict[str, tuple[int, int]] = {
    "version": (1, 255),
    "lane": (0, 4),
    "run": (1, 65535),
    "part": (0, 99_999_999),
    "gate": (0, 4),
    "event": (0, 65535),
    "token": (0, 65535),
    "host_ms": (0, _U32),
    "board_ms": (0, _U32),
    "board_us": (0, 999),
    "at_ms": (0, _U32),
    "travel_ms": (0, 65535),
    "moved": (0, 1),
    "moves": (0, 65535),
    "code": (0, 99),
    "raised": (0, 1),
    "detail": (0, _U32),
    "lanes": (1, 4),
    "parts": (0, _U32),
    "events": (64, 256),
    "window": (1, 16),
    "grades": (0, 1),
    "tracked": (0, 1024),
    "pending": (0, 256),
    "diverted": (0, _U32),
    "passed": (0, _U32),
    "missing": (0, _U32),
    "unmatched": (0, _U32),
    "no_verdict": (0, _U32),
    "pulse_us": (544, 2400),
    "servo_power": (0, 1),
    "estop": (0, 1),
    "good": (0, _U32),
    "damaged": (0, _U32),
    "overrun": (0, _U32),
    "lost": (0, _U32),
    "eye1": (0, 1),
    "eye2": (0, 1),
    "position_steps": (0, _U32),
    "belt": (0, 1),
    "edges": (0, 65535),
    "edge_ms": (0, _U32),
    "edge_steps": (0, _U32),
    "length_ms": (0, _U32),
    "length_steps": (0, _U32),
    "servo_us": (0, 2400),
    "confirms": (0, 1),
    "confirmed": (0, 1),
    "at_end": (0, 1),
    "chute_eye": (0, 1),
    "chute_full": (0, 1),
    "button": (0, 1),
    "seen": (0, _U32),
    "unexpected": (0, _U32),
    "unconfirmed": (0, _U32),
    "ready": (0, 1),
    "busy": (0, 1),
    "valid": (0, 1),
    "reject": (0, 1),
    "heartbeat": (0, 1),
    "fault": (0, 1),
    "buzzer": (0, 1),
    "reset": (0, 1),
    "bypass": (0, 1),
    "rejects": (0, 255),
}

WORDS: dict[str, tuple[str, ...]] = {
    "verdict": ("keep", "divert"),
    "action": ("divert", "pass", "stop", "none"),
    "reason": ("verdict", "no-verdict", "cancelled", "spacing", "touching", "safe", "missing", "unmatched"),
    "told": ("accepted", "same", "cancelled", "none", "cleared", "done"),
    "cause": ("power", "button", "brown-out", "watchdog", "unknown"),
    "state": ("waiting", "running", "safe", "stopped"),
    "lamp": ("green", "yellow", "red", "off"),
    "page": ("line", "count", "gate", "link", "eyes", "edge1", "edge2", "chute", "plant"),
    "position": ("rest", "out", "moving"),
    "what": ("gate", "trigger", "lamp", "relay"),
    "warning": ("gate-far", "chute-far"),
}

TEXTS = ("key", "value", "digest")


class Fields(dict[str, int | str]):
    """The fields of one frame by their names. Numbers are within their limits, and words are among the allowed words."""

    def number(self, name: str) -> int:
        """Returns the field called `name`, which must be a number."""
        value = self[name]
        assert isinstance(value, int), name
        return value

    def word(self, name: str) -> str:
        """Returns the field called `name` as text."""
        return str(self[name])


def read_fields(names: Sequence[str], values: Sequence[str]) -> Fields:
    """Checks the fields of a frame and returns them by their names. Additional values of a newer board are ignored.

    Raises ValueError if a field is absent, malformed or out of its bounds.
    """
    if len(values) < len(names):
        raise ValueError(f"expected the fields {' '.join(names)}, found {' '.join(values)!r}")
    return Fields({name: _read_field(name, value) for name, value in zip(names, values, strict=False)})


def read_event(name: str, values: Sequence[str]) -> Fields:
    """Checks the fields of the event `name` and returns them by their names. Optional fields can be left out.

    Raises ValueError if a field is absent, malformed or out of its bounds.
    """
    return _read_with_optional(name, EVENTS[name], values)


def read_answer(name: str, command_fields: Sequence[str], values: Sequence[str]) -> Fields:
    """Checks the fields of OK, the answer to the command `name`, and returns them by their names. Optional fields can be left out.

    Raises ValueError if a field is absent, malformed or out of its bounds.
    """
    if name == "STATUS":
        page = command_fields[1]
        return _read_with_optional(page, ("page", *PAGES[page]), values)
    return _read_with_optional(name, COMMANDS[name][1], values)


def _read_with_optional(name: str, names: Sequence[str], values: Sequence[str]) -> Fields:
    optional = OPTIONAL.get(name, ())[: max(0, len(values) - len(names))]
    return read_fields((*names, *optional), values)


def _read_field(name: str, value: str) -> int | str:
    if name in NUMBERS:
        least, most = NUMBERS[name]
        if not is_protocol_number(value) or not least <= int(value) <= most:
            raise ValueError(f"expected {name} as a number from {least} to {most}, found {value!r}")
        return int(value)
    if name in WORDS and value not in WORDS[name]:
        raise ValueError(f"expected {name} as one of {', '.join(WORDS[name])}, found {value!r}")
    return value


def is_protocol_number(text: str) -> bool:
    """Returns whether `text` is a number as the protocol writes it: up to 10 decimal digits without sign or leading zeros."""
    return text.isascii() and text.isdecimal() and len(text) <= 10 and (text[0] != "0" or text == "0")
