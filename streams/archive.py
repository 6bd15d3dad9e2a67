"""What the archivist tells the archive, and what it expects of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.identity import PartId
from streams.records import PartRecord


@dataclass(frozen=True)
class Withdrawn:
    """A review that was taken back: a record on the topic of reviews without a value."""

    part_id: PartId


Told = PartRecord | Withdrawn


class Archive(Protocol):
    """Keeps what is told of parts. For one thread."""

    def write(self, told: Sequence[Told]) -> int:
        """Keeps all of `told`, in order, or nothing of it; returns how many parts' rows were made or changed. Repeats change nothing.

        Raises ArchiveError: `retriable` when the archive does not answer, else when it does not take one of `told`.
        """
        ...
