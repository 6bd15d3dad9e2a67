"""Sets up the log output: JSON with one object in each line, or plain text for a terminal.

A log call about a part passes `extra={"part": ...}`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from pythonjsonlogger.json import JsonFormatter

from streams.secrets import mask_secrets
from streams.settings import ServiceSettings

# These libraries log a message for each failed attempt to connect and for each malformed request.
_CLIENT_LIBRARIES = ("kafka", "aiokafka", "aiohttp")
_REPEATING_LIBRARIES = (*_CLIENT_LIBRARIES, "django", "uvicorn")
_REPEAT_INTERVAL_S = 10.0
_MAX_KINDS = 1000
# The largest number of characters in a log message of a Kafka client or web server, and in a line of a traceback. The rest is cut off,
# because a stranger may have sent the text.
_MAX_CHARACTERS = 1024


class RepeatFilter(logging.Filter):
    """Logs the same message of a library at most once in `interval_s` seconds. The message then says how often it was left out before.

    Two messages are the same if they have the same template, the same kind of error and the same HTTP status.

    Without the filter, the Kafka clients would log hundreds of messages a second while Kafka does not answer. The web servers of
    the gateway and the station would log each wrong request.
    """

    def __init__(self, interval_s: float = _REPEAT_INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._passed_at_s: dict[tuple[str, ...], float] = {}
        self._left_out: dict[tuple[str, ...], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _REPEATING_LIBRARIES:
            return True
        message = _find_kind(record)
        if len(self._passed_at_s) > _MAX_KINDS:
            self._passed_at_s.clear()
            self._left_out.clear()
        if self._clock() - self._passed_at_s.get(message, float("-inf")) < self._interval_s:
            self._left_out[message] = self._left_out.get(message, 0) + 1
            return False
        self._passed_at_s[message] = self._clock()
        if left_out := self._left_out.pop(message, 0):
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times more)", ()
        return True


def _find_kind(record: logging.LogRecord) -> tuple[str, ...]:
    """Returns the kind of a message: its logger, its template, the class of its error, and its HTTP status."""
    error = record.exc_info[0] if record.exc_info else None
    # Django logs refused requests without a template. The logger's name, such as django.security.DisallowedHost, gives the kind.
    template = "" if record.name.startswith("django.security") and not record.args else str(record.msg)
    return record.name, template, error.__name__ if error else "", str(getattr(record, "status_code", ""))


class SecretFilter(logging.Filter):
    """Removes the secrets of the settings, and passwords in addresses, from each message and traceback of the log. Shortens long texts."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = mask_secrets(_format_message(record)), ()
        if record.name.partition(".")[0] in _REPEATING_LIBRARIES:
            record.msg = _cut(record.msg)
        if record.exc_info:
            lines = mask_secrets(logging.Formatter().formatException(record.exc_info)).splitlines()
            record.exc_text = "\n".join(_cut(line) for line in lines)
            record.exc_info = None
        return True


def _cut(text: str) -> str:
    left_out = len(text) - _MAX_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MAX_CHARACTERS]} (and {left_out} characters more)"


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
    for name in (*_CLIENT_LIBRARIES, "faust", "mode", "asyncio", "urllib3", "fsspec"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # kafka-python warns about each connection that uses SCRAM without TLS. The warning is hidden, because SCRAM never sends the password
    # itself.
    logging.getLogger("kafka.net.sasl.scram").setLevel(logging.ERROR)
    # TensorFlow compiles its code again for each batch size, and warns if there are more than five sizes. Castline needs many batch sizes,
    # so the warning is hidden.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
