"""Who a picture is: line, run, part, and the headers that carry them on image records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import StringConstraints

from streams.errors import IdentityError

# What Kafka takes in a topic name and Prometheus in a label, without the dot that separates our topics' parts.
LINE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
LineName = Annotated[str, StringConstraints(pattern=LINE_PATTERN)]

_LARGEST = 2**63 - 1

Headers = Mapping[str, bytes]


@dataclass(frozen=True, order=True)
class PartId:
    """One casting on one line. Written `<line>:<run>:<part>`, which is also the key of its records.

    `run` is the board's boot count, or the gateway's start time in seconds where there is no board; `part` counts up
    from 1 within the run.
    """

    line: str
    run: int
    part: int

    def __str__(self) -> str:
        return f"{self.line}:{self.run}:{self.part}"

    @property
    def key(self) -> bytes:
        """The record key, UTF-8."""
        return str(self).encode()

    @classmethod
    def parse(cls, text: str) -> PartId:
        """Raises IdentityError: when `text` is not `<line>:<run>:<part>` with a valid line and whole numbers."""
        fields = text.split(":")
        if len(fields) != 3:
            raise IdentityError(f"expected a part id <line>:<run>:<part>, found {text[:80]!r}")
        return cls.from_fields(*fields)

    @classmethod
    def from_fields(cls, line: str, run: str, part: str) -> PartId:
        """Raises IdentityError: when a field is not what its place wants."""
        if not re.match(LINE_PATTERN, line):
            raise IdentityError(f"expected a line name like line-1, found {line[:80]!r}")
        return cls(line, _count("run", run), _count("part", part))


def _count(name: str, text: str) -> int:
    # int() alone would take "1_000", " 7 " and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 1 <= int(text) <= _LARGEST:
        raise IdentityError(f"expected {name} to be a whole number of at least 1, found {text[:80]!r}")
    return int(text)


@dataclass(frozen=True)
class PictureIdentity:
    """What the headers and the key of an image record say. Absent optional headers are None."""

    part: PartId
    captured_at: datetime | None
    content_type: str | None
    sha256: str | None
    claim: str | None
    traceparent: str | None


def read_identity(key: bytes | None, headers: Headers, line: str) -> PictureIdentity:
    """The identity of a record on the image topic of `line`: from its three identity headers, or else from its key.

    Raises IdentityError: when neither names a part, when they contradict each other or the topic, or when one is malformed.
    """
    text = {name: _text(name, value) for name, value in headers.items() if name in _READ}
    named = [name for name in ("line", "run", "part") if name in text]
    if len(named) == 3:
        part = PartId.from_fields(text["line"], text["run"], text["part"])
        if key and key != part.key:
            raise IdentityError(f"expected key {part} as the headers say, found {key[:80]!r}")
    elif named:
        raise IdentityError(f"expected the headers line, run and part together, found only {', '.join(named)}")
    elif key:
        part = PartId.parse(_text("key", key))
    else:
        raise IdentityError("expected a key <line>:<run>:<part> or the headers line, run and part, found neither")
    if part.line != line:
        raise IdentityError(f"expected a part of {line}, whose topic this is, found {part}")
    sha256 = text.get("sha256")
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise IdentityError(f"expected sha256 as 64 hexadecimal digits for part {part}, found {sha256[:80]!r}")
    return PictureIdentity(
        part=part,
        captured_at=parse_time(text["captured_at"]) if "captured_at" in text else None,
        content_type=text.get("content-type"),
        sha256=sha256,
        claim=text.get("claim"),
        traceparent=text.get("traceparent"),
    )


_READ = frozenset({"line", "run", "part", "captured_at", "content-type", "sha256", "claim", "traceparent"})


def _text(name: str, value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise IdentityError(f"expected {name} as UTF-8 text, found {bytes(value)[:40]!r}") from None


def make_headers(identity: PictureIdentity, extra: Mapping[str, str] | None = None) -> list[tuple[str, bytes]]:
    """The record headers of a picture, in a fixed order, absent ones left out; `extra` comes last."""
    part = identity.part
    fields: dict[str, str | None] = {
        "line": part.line,
        "run": str(part.run),
        "part": str(part.part),
        "captured_at": format_time(identity.captured_at) if identity.captured_at else None,
        "content-type": identity.content_type,
        "sha256": identity.sha256,
        "claim": identity.claim,
        "traceparent": identity.traceparent,
        **(extra or {}),
    }
    return [(name, value.encode()) for name, value in fields.items() if value is not None]


def make_header_map(headers: Iterable[tuple[str, bytes]] | Mapping[str, bytes] | None) -> dict[str, bytes]:
    """Headers as the clients hand them over (pairs, a mapping or nothing) as one mapping; the last of a name wins."""
    if headers is None:
        return {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {name: value for name, value in pairs if value is not None}


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with its zone, in UTC. Raises IdentityError: when it is not one."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("no zone")
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise IdentityError(f"expected a time as 2026-01-31T12:00:00.000000Z, found {text[:80]!r}") from None


def format_time(time: datetime) -> str:
    """`time` in RFC 3339, UTC, microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


UNKNOWN_CONTENT_TYPE = "application/octet-stream"

_MAGIC_NUMBERS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def sniff_content_type(value: bytes) -> str:
    """Returns the content type that the first bytes of an encoded picture stand for, or `application/octet-stream` if they are unknown.

    The camera's own statement is not used, because cameras and uploads often declare a wrong type. Nothing is decoded.
    """
    for magic_number, content_type in _MAGIC_NUMBERS:
        if value.startswith(magic_number):
            return content_type
    if value[:4] == b"RIFF" and value[8:12] == b"WEBP":
        return "image/webp"
    return UNKNOWN_CONTENT_TYPE
