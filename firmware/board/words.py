"""The words of the protocol: commands, events, status pages, and what each field may hold.

The tables here are compared with firmware/PROTOCOL.md by a test; that page says what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence

VERSION = 1

# Name -> fields of the command, fields of OK, what must have happened before ("", "hello", "commit").
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
}

EVENTS: dict[str, tuple[str, ...]] = {
    "BOOT": ("version", "run", "cause"),
    "BEAT": ("board_ms", "state", "lamp", "tracked", "pending"),
    "PART": ("lane", "run", "part", "at_ms"),
    "GATE": ("event", "lane", "run", "part", "action", "reason", "moved", "moves", "at_ms", "travel_ms"),
    "FAULT": ("event", "lane", "code", "raised", "detail", "at_ms"),
}

# Fields that an event has at its end only where they say something.
OPTIONAL: dict[str, tuple[str, ...]] = {"GATE": ("gate",)}

PAGES: dict[str, tuple[str, ...]] = {
    "line": ("state", "code", "lamp", "tracked"),
    "count": ("parts", "diverted", "passed", "missing", "unmatched", "no_verdict"),
    "gate": ("pulse_us", "position", "moves", "servo_power", "estop"),
    "link": ("good", "damaged", "overrun", "pending", "lost"),
    "eyes": ("eye1", "eye2", "position_steps"),
}

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
}

WORDS: dict[str, tuple[str, ...]] = {
    "verdict": ("keep", "divert"),
    "action": ("divert", "pass", "stop", "none"),
    "reason": ("verdict", "no-verdict", "cancelled", "spacing", "touching", "safe", "missing", "unmatched"),
    "told": ("accepted", "same", "cancelled", "none", "cleared", "done"),
    "cause": ("power", "button", "brown-out", "watchdog", "unknown"),
    "state": ("waiting", "running", "safe", "stopped"),
    "lamp": ("green", "yellow", "red", "off"),
    "page": ("line", "count", "gate", "link", "eyes"),
    "position": ("rest", "out", "moving"),
    "what": ("gate", "trigger", "lamp", "relay"),
}

TEXTS = ("key", "value", "digest")


class Fields(dict[str, int | str]):
    """Fields of one frame by name, checked."""

    def number(self, name: str) -> int:
        value = self[name]
        assert isinstance(value, int), name
        return value

    def word(self, name: str) -> str:
        return str(self[name])


def read_fields(names: Sequence[str], values: Sequence[str]) -> Fields:
    """The named fields with their values; further values are ignored (a newer speaker's).

    Raises ValueError: when one is absent, malformed or out of its range.
    """
    if len(values) < len(names):
        raise ValueError(f"expected the fields {' '.join(names)}, found {' '.join(values)!r}")
    return Fields({name: _read(name, value) for name, value in zip(names, values, strict=False)})


def read_event(name: str, values: Sequence[str]) -> Fields:
    """The fields of the event `name`, those optional ones that are there included.

    Raises ValueError: as read_fields.
    """
    names = EVENTS[name]
    optional = OPTIONAL.get(name, ())[: max(0, len(values) - len(names))]
    return read_fields((*names, *optional), values)


def _read(name: str, value: str) -> int | str:
    if name in NUMBERS:
        least, most = NUMBERS[name]
        if (
            not (value.isascii() and value.isdecimal())
            or (value[0] == "0" and value != "0")
            or len(value) > 10
            or not least <= int(value) <= most
        ):
            raise ValueError(f"expected {name} as a number from {least} to {most}, found {value!r}")
        return int(value)
    if name in WORDS and value not in WORDS[name]:
        raise ValueError(f"expected {name} as one of {', '.join(WORDS[name])}, found {value!r}")
    return value
