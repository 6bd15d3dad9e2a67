"""Dead letters: the bytes as they came, with headers that say where from and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from streams.delivery import Outgoing
from streams.identity import Headers, write_time

# A hostile producer's headers are cut, so that the letter stays below the topic's limit.
_HEADER_BYTES = 1024
_MOST_HEADERS = 32
_OURS = "dead-"


@dataclass(frozen=True)
class Came:
    """A record as it came, from an agent's point of view."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def dead_letter(topic: str, came: Came, role: str, reason: str, detail: str) -> Outgoing:
    """`came` for the dead-letter topic. Its own headers are kept; ours are called `dead-*`."""
    kept = [(name[:128], value[:_HEADER_BYTES]) for name, value in came.headers.items() if not name.startswith(_OURS)][:_MOST_HEADERS]
    ours = {
        "dead-reason": reason,
        "dead-detail": detail[:_HEADER_BYTES],
        "dead-role": role,
        "dead-topic": came.topic,
        "dead-partition": str(came.partition),
        "dead-offset": str(came.offset),
        "dead-at": write_time(datetime.now(UTC)),
    }
    # The key is cut as well: it is only for finding the letter.
    key = came.key[:_HEADER_BYTES] if came.key is not None else None
    return Outgoing(topic, key, came.value, kept + [(name, value.encode()) for name, value in ours.items()])
