"""Verifies the hashes of the audit log, and sends a copy of each entry to a log server.

The hash of each entry covers the hash of the entry before it, so a changed entry no longer fits its hash. Somebody who can write to the
database could change an entry and compute all hashes again. The copy on the log server then differs from the database.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import logging.handlers
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.db import DatabaseError, InterfaceError, connection

from station.accounts.models import AuditEntry, AuditShipment
from station.configuration import current_settings
from station.middleware import stopping
from streams import metrics
from streams.backoff import Backoff

log = logging.getLogger(__name__)

_CHUNK = 1000
_SHIP_EVERY_S = 2.0
_SEND_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ChainReport:
    """The result of a verification: the number of entries, the hash of the newest entry, and a sentence for each fault.

    Each entry is checked with the stored hash of the entry before it, even if that entry is faulty. So one changed entry gives one fault.
    """

    entries: int
    head: str
    faults: tuple[str, ...]


def verify_chain(known_head: str = "") -> ChainReport:
    """Computes the hashes of all entries again, and compares them with the stored hashes.

    `known_head` is the hash of an entry, which somebody has noted before. If no entry has this hash any more, a fault is reported. For
    example, the newest entries may have been deleted.
    """
    previous, count, is_head_found = "", 0, not known_head
    faults: list[str] = []
    for entry in AuditEntry.objects.order_by("id").iterator(_CHUNK):
        count += 1
        if entry.sha256 != entry.compute_sha256(previous):
            faults.append(
                f"Entry {entry.pk} of {entry.at:%Y-%m-%d %H:%M:%S} does not fit: it, or an entry before it, was changed or removed."
            )
        previous = entry.sha256
        is_head_found |= entry.sha256 == known_head
    if not is_head_found:
        faults.append(f"No entry has the hash {known_head}. The entry was changed or removed.")
    return ChainReport(count, previous, tuple(faults))


def list_records(after: int = 0) -> Iterator[dict[str, Any]]:
    """Yields the entries whose number is greater than `after`, in the order of their numbers.

    Each entry has the form in which it is sent to a log server.
    """
    for entry in AuditEntry.objects.filter(pk__gt=after).order_by("id").iterator(_CHUNK):
        yield {"number": entry.pk, **entry.as_record(), "sha256": entry.sha256}


class SyslogSender:
    """Sends text to a syslog server. `address` has the form of the setting `station.audit_syslog`, and must not be empty.

    Raises OSError if the server cannot be reached, or if the server accepts no text for `timeout_s` seconds. UDP has no confirmation, so
    this class does not notice a lost UDP datagram.
    """

    def __init__(self, address: str, timeout_s: float = _SEND_TIMEOUT_S) -> None:
        place: str | tuple[str, int] = address
        kind = None
        if not address.startswith("/"):
            parts = urlsplit(address)
            assert parts.hostname is not None
            assert parts.port is not None
            place = parts.hostname, parts.port
            kind = socket.SOCK_STREAM if parts.scheme == "tcp" else socket.SOCK_DGRAM
        self._is_stream = kind == socket.SOCK_STREAM
        self._handler = _RaisingSyslogHandler(place, kind, timeout_s)
        self._handler.ident = "castline-audit: "
        self._handler.append_nul = False

    def send(self, text: str) -> None:
        # On TCP, a line feed ends each message (RFC 6587, non-transparent framing). JSON text holds no line feed.
        message = f"{text}\n" if self._is_stream else text
        if self._is_stream and self._handler.is_closed_by_server():
            raise ConnectionResetError("the log server has closed the connection")
        self._handler.handle(logging.makeLogRecord({"msg": message, "levelno": logging.INFO, "levelname": "INFO"}))

    def close(self) -> None:
        self._handler.close()


class _RaisingSyslogHandler(logging.handlers.SysLogHandler):
    def __init__(self, place: str | tuple[str, int], kind: socket.SocketKind | None, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(place, logging.handlers.SysLogHandler.LOG_AUTHPRIV, kind)

    def createSocket(self) -> None:
        super().createSocket()
        self._limit_time()

    def _connect_unixsocket(self, address: str) -> None:
        # After an error, the base class calls this method to connect again. The new connection needs a time limit, because a send without
        # a limit could wait for ever.
        super()._connect_unixsocket(address)  # type: ignore[misc]
        self._limit_time()

    def _limit_time(self) -> None:
        # getattr() is used because the type stubs of Python do not name the attribute `socket`.
        getattr(self, "socket").settimeout(self._timeout_s)  # noqa: B009

    def is_closed_by_server(self) -> bool:
        # SyslogSender calls this method before each message. If the server has closed the connection, the operating system would still
        # accept one message and lose it.
        connected: socket.socket = getattr(self, "socket")  # noqa: B009
        # select.select() would refuse the connection if more than 1023 files are open.
        readiness = select.poll()
        readiness.register(connected, select.POLLIN)
        return bool(readiness.poll(0)) and not connected.recv(4096)

    def handleError(self, record: logging.LogRecord) -> None:
        # The module `logging` calls this method when a message could not be sent. Raise the error again, so that the caller notices it.
        raise


def ship_new_entries(sender: SyslogSender) -> int:
    """Sends all entries that were not sent before, and returns their number. After a crash, some entries are sent twice.

    If an entry is too large for one datagram, only the size and the SHA-256 of its field `detail` are sent, and not the field itself.
    Raises OSError if the server cannot be reached.
    """
    position = AuditShipment.objects.first() or AuditShipment()
    sent = 0
    try:
        for record in list_records(after=position.shipped):
            _send_record(sender, record)
            position.shipped, sent = record["number"], sent + 1
            if sent % _CHUNK == 0:
                position.save()
    finally:
        if sent % _CHUNK:
            position.save()
    return sent


def _send_record(sender: SyslogSender, record: dict[str, Any]) -> None:
    try:
        sender.send(json.dumps(record, sort_keys=True))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        # The record is too large for one message. Entries are sent in their order, so this record would block all newer entries. Send a
        # shorter record instead.
        detail = json.dumps(record["detail"], sort_keys=True, separators=(",", ":")).encode()
        short = {"omitted_bytes": len(detail), "omitted_sha256": hashlib.sha256(detail).hexdigest()}
        sender.send(json.dumps({**record, "detail": short}, sort_keys=True))


def keep_shipping() -> None:
    """Sends new entries to the log server in the setting `station.audit_syslog`, until the process ends.

    Returns at once if the setting is empty.
    """
    address = current_settings().station.audit_syslog
    if not address:
        return
    backoff = Backoff(first_s=1.0, longest_s=60.0)
    sender: SyslogSender | None = None
    while not stopping.is_set():
        pause_s = _SHIP_EVERY_S
        try:
            sender = sender or SyslogSender(address)
            ship_new_entries(sender)
            backoff.succeeded()
            metrics.audit_shipping_failing.set(0)
        except (OSError, DatabaseError, InterfaceError) as error:
            metrics.audit_shipping_failing.set(1)
            log.warning("New entries of the audit log cannot be sent to %s now. They will be sent later: %s", address, error)
            if sender:
                sender.close()
            sender, pause_s = None, backoff.failed()
            connection.close()
        except Exception:
            metrics.audit_shipping_failing.set(1)
            raise
        stopping.wait(pause_s)
