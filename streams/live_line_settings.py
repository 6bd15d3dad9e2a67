"""Reads and writes the topic `castings.lines`: the settings that people change while a line runs.

A line without a record on the topic has no such settings. All other settings are in castline.toml.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from streams.compacted_topics import publish_keyed_record, read_compacted_topic
from streams.records import LiveLineSettings
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LiveSettingsByLine:
    """The newest settings of each line that has a record on the topic `castings.lines`."""

    by_line: Mapping[str, LiveLineSettings] = field(default_factory=dict)

    def find(self, line: str) -> LiveLineSettings | None:
        """Returns the settings of `line`, or None if nobody has set any."""
        return self.by_line.get(line)

    def with_record(self, key: bytes | None, value: bytes | None) -> LiveSettingsByLine:
        """Returns a copy that also contains the record `value` of the line `key`. An empty value removes the line.

        If the record is invalid, returns this object unchanged and logs a warning.
        """
        name = (key or b"").decode(errors="replace")
        if not value:
            return LiveSettingsByLine({line: one for line, one in self.by_line.items() if line != name})
        try:
            one = LiveLineSettings.decode(value)
        except ValidationError as error:
            log.warning("An invalid record on the topic of line settings is ignored: %s", error)
            return self
        if one.line != name:
            log.warning(
                "New settings of line %s are ignored, because their record has the key %r instead of the name of the line.",
                one.line,
                name[:80],
            )
            return self
        return LiveSettingsByLine({**self.by_line, one.line: one})


def read_live_line_settings(settings: Settings, role: str) -> LiveSettingsByLine:
    """Reads the topic `castings.lines` to its end and returns the settings that are in force.

    Raises CastlineError if the topic does not exist or cannot be read.
    """
    return read_compacted_topic(settings, role, TopicNames(settings.topics.prefix).lines, LiveSettingsByLine())


def publish_live_line_settings(settings: Settings, record: LiveLineSettings, source: str) -> None:
    """Writes the settings of a line to the topic `castings.lines`. Raises BrokerError if the brokers do not confirm the record."""
    publish_keyed_record(settings, TopicNames(settings.topics.prefix).lines, record.line, record, source)
