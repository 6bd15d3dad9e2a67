"""Reads and writes the topic `castings.lines`: the settings that people change while a line runs.

The file castline.toml holds the settings that a process reads at its start. A line without a record on this topic has none of the settings
here.
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
    """The newest settings of each line that has a record on the topic."""

    by_line: Mapping[str, LiveLineSettings] = field(default_factory=dict)

    def find(self, line: str) -> LiveLineSettings | None:
        """Returns the settings of `line`, or None if nobody has set any."""
        return self.by_line.get(line)

    def with_record(self, key: bytes | None, value: bytes | None) -> LiveSettingsByLine:
        """Returns the settings with one record of the topic added. An empty value removes a line. An invalid record changes nothing."""
        name = (key or b"").decode(errors="replace")
        if not value:
            return LiveSettingsByLine({line: one for line, one in self.by_line.items() if line != name})
        try:
            one = LiveLineSettings.decode(value)
        except ValidationError as error:
            log.warning("A record in the topic of line settings is ignored, because it is not valid: %s", error)
            return self
        if one.line != name:
            log.warning("The settings of %s are ignored, because their record has the wrong key %r.", one.line, name[:80])
            return self
        return LiveSettingsByLine({**self.by_line, one.line: one})


def read_live_line_settings(settings: Settings, role: str) -> LiveSettingsByLine:
    """Reads the topic and returns the settings that are in force.

    Raises CastlineError if the topic does not exist or cannot be read.
    """
    return read_compacted_topic(settings, role, TopicNames(settings.topics.prefix).lines, LiveSettingsByLine())


def publish_live_line_settings(settings: Settings, record: LiveLineSettings, source: str) -> None:
    """Sends `record` to Kafka and waits for the brokers' confirmation. Raises BrokerError if the brokers do not accept it."""
    publish_keyed_record(settings, TopicNames(settings.topics.prefix).lines, record.line, record, source)
