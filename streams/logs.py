"""Structured log lines: one JSON object a line, or text for a terminal. Part ids come as `extra={"part": ...}`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from pythonjsonlogger.json import JsonFormatter

from streams.settings import ServiceSettings

_CLIENTS = ("kafka", "aiokafka")
_REPEAT_S = 10.0


class RepeatFilter(logging.Filter):
    """Lets a line of a Kafka client through once in `every_s`: while Kafka is away they tell so hundreds of times a second.

    Lines are alike when they come from the same place with the same words, whatever is filled in; a line that comes through
    says how many like it were left out. Lines of other loggers pass. `clock` gives monotonic seconds.
    """

    def __init__(self, every_s: float = _REPEAT_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _CLIENTS:
            return True
        kind = record.name, str(record.msg)
        if self._clock() - self._told.get(kind, float("-inf")) < self._every_s:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._told[kind] = self._clock()
        if left_out := self._left_out.pop(kind, 0):
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times more)", ()
        return True


def configure_logs(service: ServiceSettings, role: str) -> None:
    """Sends all logs of this process to standard error, in the format and from the level that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    if service.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                static_fields={"role": role},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {role}: %(message)s", "%H:%M:%S"))
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(service.log_level.upper())
    # These tell every connection and every fetch at info.
    for chatty in (*_CLIENTS, "faust", "mode", "asyncio", "urllib3", "fsspec"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # Warns of every batch shape after the fifth, which are traced on purpose and once.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
