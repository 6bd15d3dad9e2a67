"""Which pictures are kept: all that a person may want to see again, and a share of the good ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from streams.identity import PartId


@dataclass(frozen=True)
class Keeping:
    """What decides whether a picture is kept: `ok_share` of the good parts, and all of the lines in `always`."""

    ok_share: float
    always: frozenset[str] = frozenset()

    def wants(self, part: PartId, label: str, reviewed: bool) -> bool:
        """Whether the picture of `part` is kept. The share is drawn by the part's id, so that a repeat decides the same."""
        return reviewed or label in ("defect", "review") or part.line in self.always or drawn(part, self.ok_share)


def drawn(part: PartId, share: float) -> bool:
    """Whether `part` is among a `share` of all parts that is chosen as if at random, and always alike."""
    first = hashlib.sha256(part.key).digest()[:8]
    return int.from_bytes(first, "big") < share * 2**64
