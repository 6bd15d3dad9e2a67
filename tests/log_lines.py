"""The log lines of Castline in a test, without those of libraries."""

from __future__ import annotations

import logging

import pytest

_PACKAGES = ("agents", "bench", "dashboards", "deploy", "firmware", "models", "station", "streams")


def castline_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Returns what Castline logged. `caplog.records` also has the lines of Kafka clients that an earlier test left behind."""
    return [record for record in caplog.records if record.name.split(".")[0] in _PACKAGES]
