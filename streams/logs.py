"""Sets up the log output: one JSON object a line, or plain text for a terminal. A log call about a part passes `extra={"part": ...}`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from pythonjsonlogger.json import JsonFormatter

from streams.secrets import mask_secrets
from streams.settings import ServiceSettings

# These libraries log a message for each failed try or each malformed request.
_REPEATING_LIBRARIES = ("kafka", "aiokafka", "aiohttp")
_REPEAT_INTERVAL_S = 10.0


class RepeatFilter(logging.Filter):
    """Logs the same message of a library only once in `interval_s` seconds. The next such message says how many were left out.

    Without the filter, the Kafka clients log hundreds of messages a second while Kafka does not answer, and the gateway's web server logs a
    traceback for each malformed request. The same text with another kind of error is another message.
    """

    def __init__(self, interval_s: float = _REPEAT_INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._passed_at_s: dict[tuple[str, str, str], float] = {}
        self._left_out: dict[tuple[str, str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _REPEATING_LIBRARIES:
            return True
        kind = record.exc_info[0] if record.exc_info else None
        message = record.name, str(record.msg), kind.__name__ if kind else ""
        if self._clock() - self._passed_at_s.get(message, float("-inf")) < self._interval_s:
            self._left_out[message] = self._left_out.get(message, 0) + 1
            return False
        self._passed_at_s[message] = self._clock()
        if left_out := self._left_out.pop(message, 0):
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times more)", ()
        return True


class SecretFilter(logging.Filter):
    """Removes the secrets of the settings, and passwords in addresses, from each message and traceback of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = mask_secrets(_format_message(record)), ()
        if record.exc_info:
            record.exc_text = mask_secrets(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


def _format_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  A log call of a library with wrong arguments must not stop the work of its caller.
        return f"{record.msg} (the arguments of this log call do not fit: {type(error).__name__})"


def configure_logs(service: ServiceSettings, role: str) -> None:
    """Sends all logs of this process to standard error. The settings give the format and the lowest level."""
    handler = logging.StreamHandler(sys.stderr)
    if service.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                static_fields={"role": role, "site": service.site, "machine": service.machine_name},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {role}: %(message)s", "%H:%M:%S"))
    handler.addFilter(RepeatFilter())
    handler.addFilter(SecretFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(service.log_level.upper())
    # At level info, these libraries would log every connection and every fetch from Kafka.
    for name in (*_REPEATING_LIBRARIES, "faust", "mode", "asyncio", "urllib3", "fsspec"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # kafka-python warns at each connection without TLS. The warning is hidden, because SCRAM sends no password over the connection, and
    # because the embedded broker listens on loopback only.
    logging.getLogger("kafka.net.sasl.scram").setLevel(logging.ERROR)
    # Castline needs many batch sizes, and TensorFlow compiles its code for each. From the sixth size on, TensorFlow would log warnings.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
