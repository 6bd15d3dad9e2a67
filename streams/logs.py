"""Structured log lines: one JSON object a line, or text for a terminal. Part ids come as `extra={"part": ...}`."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from streams.settings import ServiceSettings


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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(service.log_level.upper())
    # These tell every connection and every fetch at info.
    for chatty in ("kafka", "aiokafka", "faust", "mode", "asyncio", "urllib3", "fsspec"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # Warns of every batch shape after the fifth, which are traced on purpose and once.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
