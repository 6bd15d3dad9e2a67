"""A LiveConsumer without Kafka."""

from __future__ import annotations

from datetime import datetime

import pytest

from station.live.live_consumer import ArchivedCounts, LiveConsumer
from streams.settings import LineSettings, Settings
from tests.station.live.records import NOW

LINE = LineSettings.model_validate({"name": "line-1", "gate": {"port": "/dev/null"}})


def count_nothing(line: str, since: datetime, now: datetime) -> ArchivedCounts:
    """Counts an empty archive."""
    return ArchivedCounts(since)


@pytest.fixture
def consumer() -> LiveConsumer:
    """A consumer of line-1 and the uploads whose thread does not run. Tests add records to it."""
    consumer = LiveConsumer(Settings(lines=(LINE, LineSettings(name="uploads"))), count_nothing)
    consumer.update_shift(NOW)
    return consumer
