"""Checks what a verdict or a finding refers to: its line, its picture and its heat map.

Another program can forge a record. Without these checks, a forged verdict could show a picture of another line, and a forged finding could
make the archivist delete a picture that it calls its heat map.
"""

from __future__ import annotations

from streams.errors import RecordError
from streams.object_store import is_heat_map_address
from streams.records import Finding, PartRecord, Verdict
from streams.topics import TopicNames

OTHER_LINE = "other-line"
REFERENCE = "reference"


def check_references(record: PartRecord, line: str, names: TopicNames) -> None:
    """Raises RecordError if `record`, which is on a topic of `line`, belongs to another line or refers to a wrong picture or heat map."""
    if record.line != line:
        raise RecordError(OTHER_LINE, f"The record belongs to {record.line}, but its topic belongs to {line}.")
    if isinstance(record, Verdict) and record.image.topic != names.images(line):
        raise RecordError(
            REFERENCE, f"The verdict of {record.part_id} names a picture on {record.image.topic[:80]!r}, which is no topic of its line."
        )
    if isinstance(record, Finding) and record.heat_map and not is_heat_map_address(record.heat_map):
        raise RecordError(REFERENCE, f"The finding of {record.part_id} names {record.heat_map[:80]!r}, which is no address of a heat map.")
