"""Reads and writes the topic `castings.lines`: the settings that people change while a line runs.

A line without a record on the topic has no such settings. All other settings are in castline.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from streams.compacted_topics import publish_keyed_record, read_compacted_topic
from streams.errors import RecordError
from streams.record_reader import read_record
from streams.records import LiveLineSettings
from streams.settings import Settings
from streams.topics import TopicNames


@dataclass(frozen=True)
class LiveSettingsByLine:
    """The newest settings of each line that has a record on the topic `castings.lines`."""

    by_line: Mapping[str, LiveLineSettings] = field(default_factory=dict)

    def find(self, line: str) -> LiveLineSettings | None:
        """Returns the settings of `line`, or None if nobody has set any."""
        return self.by_line.get(line)

    def with_record(self, key: bytes | None, value: bytes | None, broker_time: datetime | None = None) -> LiveSettingsByLine:
        """Returns a copy that also contains the record `value` of the line `key`. An empty value removes the line.

        Raises RecordError if the record is not valid.
        """
        name = (key or b"").decode(errors="replace")
        if not value:
            return LiveSettingsByLine({line: one for line, one in self.by_line.items() if line != name})
        one = read_record(LiveLineSettings, value, broker_time)
        if one.line != name:
            raise RecordError("other-line", f"The settings are for line {one.line}, but the key of their record is {name[:80]!r}.")
        return LiveSettingsByLine({**self.by_line, one.line: one})


def read_live_line_settings(settings: Settings, role: str) -> LiveSettingsByLine:
    """Reads the topic `castings.lines` to its end and returns the newest settings of each line.

    Raises CastlineError if the topic does not exist or cannot be read.
    """
    return read_compacted_topic(settings, role, TopicNames(settings.topics.prefix).lines, LiveSettingsByLine())


def publish_live_line_settings(settings: Settings, record: LiveLineSettings, source: str) -> None:
    """Writes the settings of a line to the topic `castings.lines`. Raises BrokerError if the brokers do not confirm the record."""
    publish_keyed_record(settings, TopicNames(settings.topics.prefix).lines, record.line, record, source)
