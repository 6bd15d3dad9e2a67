"""The identity of a picture: its part, capture time, content type and checksum. It is in the headers of the picture's Kafka record."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import StringConstraints

from streams.errors import IdentityError

# Topic names contain the name of the line. Dots separate the words of a topic name, so the name of a line must not contain a dot.
LINE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
LineName = Annotated[str, StringConstraints(pattern=LINE_PATTERN)]

UNKNOWN_CONTENT_TYPE = "application/octet-stream"
# A header of dead letters with the reason `expired`. Its value is the number of pictures that Kafka deleted before they were judged.
EXPIRED_HEADER = "expired-records"

_LARGEST_NUMBER = 2**63 - 1
# The largest number of characters in each of the headers captured_at, content-type, sha256, claim and traceparent.
_MAX_HEADER_CHARACTERS = 1024

_PART_HEADERS = frozenset({"line", "run", "part"})
_PICTURE_HEADERS = frozenset({"captured_at", "content-type", "sha256", "claim", "traceparent"})

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

Headers = Mapping[str, bytes]


@dataclass(frozen=True, order=True)
class PartId:
    """The id of one casting. Its text form `<line>:<run>:<part>` is the key of all records about the part.

    - `run`: the boot count of the board. If the line has no board: the start time of the gateway, in seconds since 1970.
    - `part`: counts up from 1 within a run.
    """

    line: str
    run: int
    part: int

    def __str__(self) -> str:
        return f"{self.line}:{self.run}:{self.part}"

    @property
    def key(self) -> bytes:
        """The key of the part's Kafka records, in UTF-8."""
        return str(self).encode()

    @classmethod
    def parse(cls, text: str) -> PartId:
        """Returns the part id that `text` stands for. Raises IdentityError if `text` is not `<line>:<run>:<part>`."""
        fields = text.split(":")
        if len(fields) != 3:
            raise IdentityError(f"expected a part id <line>:<run>:<part>, found {text[:80]!r}")
        return cls.from_fields(*fields)

    @classmethod
    def from_fields(cls, line: str, run: str, part: str) -> PartId:
        """Returns the part id for a line, run and part given as text.

        Raises IdentityError if `line` is not a valid name, or if `run` or `part` is not a whole number in 1..2^63-1.
        """
        if not re.match(LINE_PATTERN, line):
            raise IdentityError(f"expected a line name like line-1, found {line[:80]!r}")
        return cls(line, _parse_number("run", run), _parse_number("part", part))


class RecentPartIds:
    """Remembers the ids of at most `limit` parts, so that a second record about a part can be recognised. Forgets the oldest id first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: OrderedDict[PartId, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, part: PartId) -> bool:
        """Adds `part` and returns True. Returns False if `part` is remembered already."""
        if part in self._ids:
            return False
        self._ids[part] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)
        return True


def _parse_number(name: str, text: str) -> int:
    # Check the text with a pattern first, because int() would also accept "1_000", " 7 " and digits that are not ASCII.
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 1 <= int(text) <= _LARGEST_NUMBER:
        raise IdentityError(f"expected {name} to be a whole number of at least 1, found {text[:80]!r}")
    return int(text)


@dataclass(frozen=True)
class PictureIdentity:
    """Facts about a picture from the key and the headers of its image record. If a header is missing, its field is None.

    `claim` is the address of the picture if the picture is in the object store.
    """

    part: PartId
    captured_at: datetime | None
    content_type: str | None
    sha256: str | None
    claim: str | None
    traceparent: str | None


def read_identity(key: bytes | None, headers: Headers, line: str) -> PictureIdentity:
    """Returns the identity of a picture, from the headers and the key of its record on the image topic of `line`.

    Raises IdentityError if the headers and the key name no part, a part of another line, or two different parts. Also raises IdentityError
    if a header of the picture, such as `captured_at`, is wrong.
    """
    return read_picture_headers(read_part_id(key, headers, line), headers)


def read_part_id(key: bytes | None, headers: Headers, line: str) -> PartId:
    """Returns the part that a record on the image topic of `line` names in its headers or its key.

    Raises IdentityError if the headers and the key name no part, a part of another line, or two different parts.
    """
    part = _read_part(key, _decode_headers(headers, _PART_HEADERS))
    if part.line != line:
        raise IdentityError(f"expected a part of {line}, as the topic says, found {part}")
    return part


def read_picture_headers(part: PartId, headers: Headers) -> PictureIdentity:
    """Returns the identity of the picture of `part` from the headers of its record. Raises IdentityError if a header is wrong."""
    text = _decode_headers(headers, _PICTURE_HEADERS)
    for name, value in text.items():
        if len(value) > _MAX_HEADER_CHARACTERS:
            raise IdentityError(f"expected {name} with at most {_MAX_HEADER_CHARACTERS} characters for part {part}, found {len(value)}")
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


def _read_part(key: bytes | None, headers: Mapping[str, str]) -> PartId:
    present = [name for name in ("line", "run", "part") if name in headers]
    if len(present) == 3:
        part = PartId.from_fields(headers["line"], headers["run"], headers["part"])
        if key and key != part.key:
            raise IdentityError(f"expected the key {part}, as in the headers, found {key[:80]!r}")
        return part
    if present:
        raise IdentityError(f"expected all three headers `line`, `run` and `part`, found only {', '.join(present)}")
    if key:
        return PartId.parse(_decode_header("key", key))
    raise IdentityError("expected a key <line>:<run>:<part> or the headers `line`, `run` and `part`, found neither")


def _decode_headers(headers: Headers, names: frozenset[str]) -> dict[str, str]:
    return {name: _decode_header(name, value) for name, value in headers.items() if name in names}


def _decode_header(name: str, value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise IdentityError(f"expected {name} as UTF-8 text, found {bytes(value)[:40]!r}") from None


def make_headers(identity: PictureIdentity, extra: Mapping[str, str] | None = None) -> list[tuple[str, bytes]]:
    """Returns the headers of an image record in a fixed order. The headers in `extra` come last. A value that is None gets no header."""
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
    """Returns a record's headers by name. Accepts the forms in which Kafka clients deliver headers: pairs, a mapping, or None.

    If a name occurs twice, the last value is used.
    """
    if headers is None:
        return {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {name: value for name, value in pairs if value is not None}


def sniff_content_type(value: bytes) -> str:
    """Recognises the content type of a picture by its first bytes. Returns `application/octet-stream` for an unknown format.

    The content type that a sender declares is often wrong, so it is not used.
    """
    for magic_number, content_type in _MAGIC_NUMBERS:
        if value.startswith(magic_number):
            return content_type
    if value[:4] == b"RIFF" and value[8:12] == b"WEBP":
        return "image/webp"
    return UNKNOWN_CONTENT_TYPE


def parse_time(text: str) -> datetime:
    """Returns the time that an RFC 3339 text gives, in UTC. Raises IdentityError if the text is not a time with a time zone."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("no zone")
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise IdentityError(f"expected a time such as 2026-01-31T12:00:00.000000Z, found {text[:80]!r}") from None


def format_time(time: datetime) -> str:
    """Returns `time` as RFC 3339 text, in UTC and with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
