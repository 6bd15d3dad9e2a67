"""Sends the pictures of a line's spool to Kafka in order. Repeats a picture until the brokers have confirmed it.

| error | what the sender does |
| --- | --- |
| no broker, no object store, or a temporary error | tries again, with growing pauses |
| not authorised, or no such topic | tries again, and the pictures wait |
| Kafka refuses one record, or no record can be made of a picture | keeps the picture on disk until the next start |
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from kafka import KafkaProducer
from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
)

from agents.gateway.spool import Spool, SpooledPicture
from streams import metrics
from streams.backoff import Backoff
from streams.health import ProgressWatchdog
from streams.identity import PictureIdentity, make_headers
from streams.kafka import is_reachable, make_client_arguments, open_client
from streams.object_store import ObjectStore
from streams.operating_system import SYSTEM, OperatingSystem
from streams.settings import Settings
from streams.supervision import SupervisedThread
from streams.topics import TopicNames

log = logging.getLogger(__name__)

# If Kafka answers with one of these errors, it refuses a single record. The picture of this record is sent again only after a restart.
# InvalidTimestampError is not in this list, because it affects all pictures: the clock of this machine is wrong.
_RECORD_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError, PolicyViolationError)

# If Kafka confirms nothing for this many seconds while pictures wait for its confirmation, Kafka counts as unavailable.
_SILENT_S = 2.0
# If sending a picture takes more than this many seconds, for example because the object store is slow, the sender reads the answers to
# earlier pictures before it sends the next picture.
_SLOW_S = 0.5
# If Kafka confirms nothing for this many seconds, the Kafka client is replaced, because clients have got stuck when brokers restarted.
_STUCK_S = 30.0
# While no picture is in flight, the sender checks at this interval whether a broker is reachable.
_PROBE_INTERVAL_S = 5.0
_READ_AT_ONCE = 8
_REMINDER_INTERVAL_S = 60.0
_IDLE_WAIT_S = 0.2


class UnsendableError(Exception):
    """Raised for a picture of which no Kafka record can be made. Sending the picture again does not help."""


class ChannelUnavailableError(Exception):
    """Raised if Kafka or the object store does not accept pictures at the moment."""


@dataclass(frozen=True)
class SendResult:
    """The result of sending a picture. `error` is None if the brokers confirmed it."""

    sent: SpooledPicture
    error: Exception | None


class PictureChannel(Protocol):
    """A connection over which the sender sends pictures to Kafka."""

    def send(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        """Sends `picture`. Calls `on_result` at most once, from any thread.

        Raises ChannelUnavailableError if nothing can be sent now, and UnsendableError if no record can be made of `picture`.
        """

    def close(self) -> None:
        """Closes the connection. Pictures that are not confirmed by then stay in the spool."""


class KafkaChannel:
    """Sends the pictures of one line with an idempotent KafkaProducer, and puts large pictures into the object store.

    The KafkaProducer tries to send a picture for 600 s. But if Kafka confirms nothing for 30 s, a new KafkaChannel replaces this one.
    """

    def __init__(self, settings: Settings, line: str, store: ObjectStore) -> None:
        """Raises ChannelUnavailableError if no broker is reachable, the topic is missing, or the gateway is not allowed to write to it."""
        self._topic = TopicNames(settings.topics.prefix).images(line)
        self._inline_bytes = settings.pictures.inline_bytes
        self._store = store
        # Check first that a broker is reachable, because each KafkaProducer that fails to connect leaks a file descriptor for a while.
        if not is_reachable(settings.bootstrap):
            raise ChannelUnavailableError(
                f"expected Kafka at {settings.bootstrap}, but nothing listens there; start the broker, or correct kafka.bootstrap"
            )
        self._producer: Any = None
        try:
            self._producer = open_client(
                KafkaProducer,
                **make_client_arguments(settings, f"gateway-{line}"),
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=5000,
                max_block_ms=5000,
                delivery_timeout_ms=600_000,
                max_request_size=settings.topics.max_message_bytes,
                batch_size=min(2**20, settings.topics.max_message_bytes // 2),
                metrics_enabled=False,
            )
            self._producer.partitions_for(self._topic)
        except (KafkaError, OSError, AssertionError) as error:
            if self._producer is not None:
                self.close()
                raise ChannelUnavailableError(
                    f'cannot use topic {self._topic} at {settings.bootstrap}: {error}; "castline topics create" makes a missing topic'
                ) from None
            raise ChannelUnavailableError(f"Kafka at {settings.bootstrap} refused the connection: {error}") from None

    def send(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        checked, claim, value = picture.picture, None, picture.picture.value
        if len(value) > self._inline_bytes:
            try:
                claim, value = self._store.put(value), b""
            except OSError as error:
                raise ChannelUnavailableError(f"The object store did not accept the picture of part {picture.part}: {error}") from None
        try:
            identity = PictureIdentity(picture.part, checked.captured_at, checked.content_type, checked.sha256, claim, checked.traceparent)
            headers = make_headers(identity, {"truth": checked.truth} if checked.truth else None)
            future = self._producer.send(self._topic, value=value, key=picture.part.key, headers=headers)
        except _RECORD_ERRORS as error:
            on_result(SendResult(picture, error))
            return
        except KafkaError as error:
            raise ChannelUnavailableError(str(error)) from None
        except (ValueError, TypeError, AssertionError) as error:
            raise UnsendableError(f"the picture cannot become a Kafka record: {error!r}") from error
        future.add_callback(lambda _: on_result(SendResult(picture, None)))
        future.add_errback(lambda error: on_result(SendResult(picture, error)))

    def close(self) -> None:
        try:
            self._producer.close(timeout=1)
        except KafkaError:
            # If close() times out, the producer's thread still sends pictures. Only the two private methods below end the thread.
            self._producer._sender.force_close()
            self._producer._sender.join(5)


class _TakingTimer:
    """Measures for how many seconds the channel has been busy with the picture that is being sent. `seconds` is 0 if none is being sent."""

    _since_s: float | None = None

    @property
    def seconds(self) -> float:
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def __enter__(self) -> None:
        self._since_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._since_s = None


class _InFlightWindow:
    """The pictures that were sent over one channel and are not yet confirmed. Their number and their total size are limited."""

    def __init__(
        self,
        channel: PictureChannel,
        spool: Spool,
        max_pictures: int,
        max_bytes: int,
        on_result: Callable[[], None],
        taking: _TakingTimer,
    ) -> None:
        self._taking = taking
        self._channel = channel
        self._spool = spool
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._on_result = on_result
        self._in_flight: dict[int, SpooledPicture] = {}
        self._bytes = 0
        self._last_seq = 0
        self._results: SimpleQueue[SendResult] = SimpleQueue()
        self._last_result_s = time.monotonic()

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def silent_s(self) -> float:
        """The seconds since Kafka's last answer. After a pause without pictures, the seconds count from the next picture that is sent.

        Example: Kafka confirms all pictures at 10:00:00. The next picture is sent at 10:05:00. At 10:05:02, the result is 2.
        """
        return time.monotonic() - self._last_result_s

    def send_next(self) -> int:
        """Sends the next few pictures of the spool, and returns how many. Sends none if too many pictures are not confirmed yet.

        If the object store is slow, sends a single picture, so that the results of earlier pictures do not wait for later ones.
        Raises ChannelUnavailableError if nothing can be sent now.
        """
        room = self._max_pictures - len(self._in_flight)
        if room <= 0 or self._bytes >= self._max_bytes:
            return 0
        pictures = self._spool.read_after(self._last_seq, min(_READ_AT_ONCE, room), self._max_bytes - self._bytes)
        for count, picture in enumerate(pictures, 1):
            began_s = time.monotonic()
            if not self._in_flight:
                self._last_result_s = began_s
            self._in_flight[picture.seq] = picture
            self._bytes += len(picture.picture.value)
            try:
                with self._taking:
                    self._channel.send(picture, self._add_result)
            except UnsendableError as error:
                self._add_result(SendResult(picture, error))
            self._last_seq = picture.seq
            # While a picture is sent to the object store, the sender reads no confirmations from Kafka. So this time does not count as
            # silence of Kafka.
            taken_s = time.monotonic() - began_s
            self._last_result_s += taken_s
            if taken_s > _SLOW_S:
                return count
        return len(pictures)

    def take_results(self) -> list[SendResult]:
        """Returns the results that arrived since the last call. The pictures of these results no longer count as unconfirmed."""
        results: list[SendResult] = []
        try:
            while True:
                results.append(self._results.get_nowait())
        except Empty:
            pass
        for result in results:
            self._bytes -= len(self._in_flight.pop(result.sent.seq).picture.value)
            self._last_result_s = time.monotonic()
        return results

    def _add_result(self, result: SendResult) -> None:
        self._results.put(result)
        self._on_result()


class Sender:
    """A thread that sends the pictures of one line's spool to Kafka.

    If the pictures do not reach Kafka, `problem` says why. Otherwise `problem` is "".
    """

    def __init__(
        self,
        spool: Spool,
        connect: Callable[[], PictureChannel],
        is_kafka_reachable: Callable[[], bool],
        in_flight: int,
        watchdog: ProgressWatchdog,
        in_flight_bytes: int = 2**25,
        system: OperatingSystem = SYSTEM,
    ) -> None:
        """Creates the sender. `connect` is a function that opens a channel or raises ChannelUnavailableError.

        At most `in_flight` pictures wait for Kafka's confirmation at the same time. Together they have about `in_flight_bytes` bytes.
        """
        self._problem = "connecting to Kafka"
        self._taking = _TakingTimer()
        self._spool = spool
        self._connect = connect
        self._is_kafka_reachable = is_kafka_reachable
        self._max_in_flight = in_flight
        self._max_in_flight_bytes = in_flight_bytes
        self._watchdog = watchdog
        self._system = system
        self._wake_up = system.make_event()
        self._stop_by_s: float | None = None
        self._is_behind = False
        self._unavailable_since_s = time.monotonic()
        self._reminded_at_s = float("-inf")
        self._probed_at_s = time.monotonic()
        self._backoff = Backoff(first_s=0.5, longest_s=5.0)
        self._thread = SupervisedThread(f"sender-{spool.line}", self._run, system=system)

    @property
    def problem(self) -> str:
        """Why no pictures can be sent at the moment, or "". Any thread can read it.

        The object store can hold up the thread of the sender for seconds. During this time, only this property can report the problem.
        """
        is_slow = self._taking.seconds > _SILENT_S
        return self._problem or (f"the object store or Kafka has not taken a picture for {_SILENT_S:.0f} s" if is_slow else "")

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Tells the sender that the spool holds a new picture."""
        self._wake_up.set()

    def stop(self, by_s: float) -> None:
        """Makes the thread end as soon as the spool is empty or Kafka is unavailable, but not later than at the monotonic time `by_s`."""
        self._stop_by_s = by_s
        self._wake_up.set()

    def join(self, within_s: float) -> None:
        """Waits for the end of the thread, but for at most `within_s` seconds.

        The thread can run longer if it waits for the object store.
        """
        self._thread.join(within_s)

    def _is_finished(self) -> bool:
        if self._stop_by_s is None:
            return False
        # If Kafka is unavailable when the gateway stops, the pictures stay in the spool and are sent after the next start.
        return bool(self._problem) or self._spool.sendable_count == 0 or time.monotonic() >= self._stop_by_s

    def _run(self) -> None:
        while not self._is_finished():
            run = self._spool.run
            try:
                channel = self._connect()
                try:
                    # The connection to Kafka is open. If no picture waits, the sender now reports that Kafka is available. If pictures
                    # wait, the sender reports this only after Kafka has confirmed a picture.
                    if self._spool.sendable_count == 0:
                        self._set_available()
                    self._send_pictures(channel)
                finally:
                    channel.close()
            except (ChannelUnavailableError, sqlite3.OperationalError) as error:
                # OperationalError means that the disk is full or fails. The sender then cannot delete confirmed pictures from the spool. It
                # sends these pictures again with the same part ids.
                self._set_unavailable(str(error))
                self._wait_before_retry()
            except sqlite3.DatabaseError as error:
                self._spool.replace_damaged(error, run)

    def _send_pictures(self, channel: PictureChannel) -> None:
        """Sends pictures over `channel` until the sender stops or the channel must be replaced.

        Raises ChannelUnavailableError if Kafka does not accept pictures.
        """
        window = _InFlightWindow(channel, self._spool, self._max_in_flight, self._max_in_flight_bytes, self._wake_up.set, self._taking)
        self._probed_at_s = time.monotonic()
        while True:
            self._wake_up.clear()
            if results := window.take_results():
                self._apply_results(results)
                # After Kafka has refused a record, the idempotent producer is replaced, because its sequence numbers have a gap.
                if any(isinstance(result.error, _RECORD_ERRORS) for result in results):
                    return
                self._set_available()
            if self._is_finished():
                return
            sent_count = window.send_next()
            self._track_backlog()
            self._check_connection(window)
            if not sent_count:
                self._wake_up.wait(_IDLE_WAIT_S)

    def _check_connection(self, window: _InFlightWindow) -> None:
        """Checks whether Kafka is available, and records the result. If no picture waits for a confirmation, tries to reach a broker."""
        if len(window):
            silent_s = window.silent_s
            if silent_s > _STUCK_S:
                raise ChannelUnavailableError(f"Kafka has confirmed nothing for {silent_s:.0f} s")
            if silent_s > _SILENT_S:
                self._set_unavailable(f"Kafka has confirmed nothing for {_SILENT_S:.0f} s")
        elif time.monotonic() - self._probed_at_s > _PROBE_INTERVAL_S:
            self._probed_at_s = time.monotonic()
            if self._is_kafka_reachable():
                self._set_available()
            else:
                self._set_unavailable("nothing listens at Kafka's address")

    def _wait_before_retry(self) -> None:
        until_s = time.monotonic() + self._backoff.failed()
        while time.monotonic() < until_s and not self._is_finished():
            self._track_backlog()
            self._system.sleep(0.1)

    def _apply_results(self, results: list[SendResult]) -> None:
        """Deletes confirmed pictures from the spool. Refused pictures stay in the spool until the gateway starts again.

        Raises ChannelUnavailableError after a temporary error.
        """
        self._remove_confirmed([result.sent for result in results if result.error is None])
        temporary_error: Exception | None = None
        for result in results:
            if isinstance(result.error, (*_RECORD_ERRORS, UnsendableError)):
                self._park(result.sent, result.error)
            elif result.error is not None:
                temporary_error = temporary_error or result.error
        if temporary_error is not None:
            raise ChannelUnavailableError(f"Kafka did not accept a picture: {temporary_error}")

    def _remove_confirmed(self, pictures: list[SpooledPicture]) -> None:
        if not pictures:
            return
        line = self._spool.line
        self._spool.remove(picture.seq for picture in pictures)
        self._watchdog.record_progress()
        now = self._system.now()
        for picture in pictures:
            metrics.pictures_sent.labels(line).inc()
            metrics.picture_bytes.labels(line).inc(len(picture.picture.value))
            metrics.send_seconds.labels(line).observe(max(0.0, (now - picture.picture.captured_at).total_seconds()))
            log.debug("Kafka has confirmed the picture of part %s.", picture.part, extra={"part": str(picture.part)})

    def _park(self, picture: SpooledPicture, error: Exception) -> None:
        self._spool.park(picture.seq, str(error))
        metrics.pictures_refused.labels(self._spool.line, "refused-by-kafka").inc()
        log.error(
            "Kafka refuses the picture of part %s: %s. The picture stays in the spool and is sent again after a restart.",
            picture.part,
            error,
            extra={"part": str(picture.part)},
        )

    def _track_backlog(self) -> None:
        """Logs when a backlog of pictures begins and ends."""
        waiting = self._spool.sendable_count
        if not self._is_behind and waiting > 2 * self._max_in_flight:
            self._is_behind = True
            # No warning about the backlog is needed while Kafka is unavailable, because the log then contains a warning about Kafka.
            if not self._problem:
                log.warning("Pictures of %s arrive faster than Kafka accepts them. %d wait in the spool.", self._spool.line, waiting)
        elif self._is_behind and waiting <= self._max_in_flight // 2:
            self._is_behind = False
            log.info("Kafka accepts the pictures of %s fast enough again. %d pictures still wait in the spool.", self._spool.line, waiting)

    def _set_unavailable(self, problem: str) -> None:
        now_s = time.monotonic()
        if not self._problem:
            self._unavailable_since_s = now_s
        if not self._problem or now_s - self._reminded_at_s > _REMINDER_INTERVAL_S:
            self._reminded_at_s = now_s
            log.warning(
                "%d pictures of %s stay on disk, because they cannot be sent to Kafka: %s",
                self._spool.waiting_count,
                self._spool.line,
                problem,
            )
        self._problem = problem

    def _set_available(self) -> None:
        if self._problem:
            unavailable_s = time.monotonic() - self._unavailable_since_s
            log.info(
                "Kafka accepts pictures of %s again. It accepted no picture for %.1f s. Pictures that wait in the spool: %d.",
                self._spool.line,
                unavailable_s,
                self._spool.waiting_count,
            )
            self._problem = ""
            self._backoff.succeeded()
