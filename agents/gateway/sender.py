"""From a line's spool to Kafka: in order, confirmed, for as long as it takes.

A picture leaves the spool when the brokers have confirmed it, never before. When they stay silent the sender begins anew
from the oldest picture that was not confirmed; the brokers may then get a picture twice, under the same identity.

| error | what is done |
| --- | --- |
| no broker, no answer, any passing error, object store away | said once, tried again with back-off; `complaint` tells /readyz |
| not allowed, no such topic | the same: nothing is wrong with the pictures, they wait until the operator mends it |
| this record alone is refused (too large, against a policy) | parked on disk, counted, said by /healthz; the next start tries again |
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty, SimpleQueue

from agents.gateway.channel import RECORD_AT_FAULT, AwayError, Channel, Outcome
from agents.gateway.spool import Spool, Stored
from streams import metrics
from streams.health import ProgressWatchdog

log = logging.getLogger(__name__)

# No confirmation for so long, with pictures sent: Kafka counts as away.
_SILENT_S = 2.0
# And for so long: the client may be stuck (it has been after broker restarts), so a new one begins anew.
_STUCK_S = 30.0
# An idle sender asks so often whether a broker listens.
_PROBE_S = 5.0
# Large pictures: fewer of them in memory than `gateway.in_flight`.
_IN_FLIGHT_BYTES = 32 * 2**20
_BACK_OFF_S = (0.5, 5.0)
_REMIND_S = 60.0


class Sender:
    """Sends one line's spool, in a thread of its own."""

    def __init__(
        self,
        spool: Spool,
        connect: Callable[[], Channel],
        probe: Callable[[], bool],
        in_flight: int,
        progress: ProgressWatchdog,
    ) -> None:
        """`connect` raises AwayError; `probe` says quickly whether Kafka can be there at all."""
        self.complaint = "connecting to Kafka"  # empty while pictures get through
        self._spool = spool
        self._connect_to = connect
        self._probe = probe
        self._most = in_flight
        self._progress = progress
        self._wake = threading.Event()
        self._stop_at: float | None = None
        self._filling = False
        self._away_since = time.monotonic()
        self._reminded_at = float("-inf")
        self._wait_s = _BACK_OFF_S[0]
        self._thread = threading.Thread(target=self._run, name=f"sender-{spool.line}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the spool."""
        self._wake.set()

    def stop(self, by: float) -> None:
        """Sends on until the spool is empty, at the longest until `by` (monotonic seconds), then ends."""
        self._stop_at = by
        self._wake.set()

    def join(self) -> None:
        self._thread.join()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _over(self) -> bool:
        # With Kafka away there is nothing to wait for: what is left stays in the spool for the next start.
        done = bool(self.complaint) or self._spool.waiting == self._spool.parked
        return self._stop_at is not None and (done or time.monotonic() >= self._stop_at)

    def _run(self) -> None:
        while not self._over():
            try:
                channel = self._connect_to()
                try:
                    if self._spool.waiting == self._spool.parked:
                        self._here()  # else the first confirmation tells
                    self._pump(channel)
                finally:
                    channel.close()
            except (AwayError, sqlite3.OperationalError) as error:
                # The second: the disk is full or fails. What Kafka has confirmed goes to it once more, as the same part.
                self._away(str(error))
                self._pause()

    def _pause(self) -> None:
        until = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _BACK_OFF_S[1])
        while time.monotonic() < until and not self._over():
            self._watch()
            time.sleep(0.1)

    def _pump(self, channel: Channel) -> None:
        """Sends until the end or until something fails. Raises AwayError."""
        outcomes: SimpleQueue[Outcome] = SimpleQueue()

        def outcome(what: Outcome) -> None:
            outcomes.put(what)
            self._wake.set()

        flying: dict[int, Stored] = {}
        flying_bytes = last = 0
        heard_at = probed_at = time.monotonic()
        while True:
            self._wake.clear()
            if settled := _all(outcomes):
                heard_at = time.monotonic()
                for what in settled:
                    flying_bytes -= len(flying.pop(what.stored.seq).picture.value)
                self._settle(settled)  # raises, or parks and asks for a new channel
                if any(what.error for what in settled):
                    return
                self._here()
            if self._over():
                return
            sent = 0
            if len(flying) < self._most and flying_bytes < _IN_FLIGHT_BYTES:
                for stored in self._spool.after(last, min(8, self._most - len(flying))):
                    if not flying:
                        heard_at = time.monotonic()
                    flying[stored.seq] = stored
                    flying_bytes += len(stored.picture.value)
                    channel.send(stored, outcome)
                    last, sent = stored.seq, sent + 1
            self._watch()
            now = time.monotonic()
            if flying and now - heard_at > _STUCK_S:
                raise AwayError(f"Kafka has confirmed nothing for {now - heard_at:.0f} s")
            if flying and now - heard_at > _SILENT_S:
                self._away(f"Kafka has confirmed nothing for {_SILENT_S:.0f} s")
            elif not flying and now - probed_at > _PROBE_S:
                probed_at = now
                if self._probe():
                    self._here()
                else:
                    self._away("nothing listens at Kafka's address")
            if not sent:
                self._wake.wait(0.2)

    def _settle(self, outcomes: list[Outcome]) -> None:
        confirmed = [what.stored for what in outcomes if what.error is None]
        if confirmed:
            self._spool.remove(stored.seq for stored in confirmed)
            self._progress.record_progress()
            now = datetime.now(UTC)
            for stored in confirmed:
                metrics.pictures_sent.labels(self._spool.line).inc()
                metrics.picture_bytes.labels(self._spool.line).inc(len(stored.picture.value))
                metrics.send_seconds.labels(self._spool.line).observe(max(0.0, (now - stored.picture.captured_at).total_seconds()))
                log.debug("confirmed", extra={"part": str(stored.part)})
        passing: Exception | None = None
        for what in outcomes:
            if isinstance(what.error, RECORD_AT_FAULT):
                self._spool.park(what.stored.seq, str(what.error))
                metrics.pictures_refused.labels(self._spool.line, "refused-by-kafka").inc()
                log.error(
                    "Kafka refuses the picture for good, it is parked in the spool until the next start: %s",
                    what.error,
                    extra={"part": str(what.stored.part)},
                )
            elif what.error is not None:
                passing = passing or what.error
        if passing is not None:
            raise AwayError(f"Kafka did not take a picture: {passing}")

    def _watch(self) -> None:
        waiting = self._spool.waiting - self._spool.parked
        most = 2 * self._most
        if not self._filling and waiting > most:
            self._filling = True
            if not self.complaint:  # else the reason is known and has been said
                log.warning("pictures of %s come faster than Kafka takes them: %d wait in the spool", self._spool.line, waiting)
            self._spool.force_to_disk(True)
        elif self._filling and waiting <= self._most // 2:
            self._filling = False
            log.info("the spool of %s has drained: %d wait", self._spool.line, waiting)
            self._spool.force_to_disk(bool(self.complaint))

    def _away(self, why: str) -> None:
        now = time.monotonic()
        if not self.complaint:
            self._away_since = now
            self._spool.force_to_disk(True)
        if not self.complaint or now - self._reminded_at > _REMIND_S:
            self._reminded_at = now
            log.warning("pictures of %s stay on disk, %d wait: %s", self._spool.line, self._spool.waiting, why)
        self.complaint = why

    def _here(self) -> None:
        if self.complaint:
            away_s = time.monotonic() - self._away_since
            log.info("Kafka takes pictures of %s, after %.1f s; %d wait", self._spool.line, away_s, self._spool.waiting)
            self.complaint = ""
            self._wait_s = _BACK_OFF_S[0]
            self._spool.force_to_disk(self._filling)


def _all(outcomes: SimpleQueue[Outcome]) -> list[Outcome]:
    found = []
    while True:
        try:
            found.append(outcomes.get_nowait())
        except Empty:
            return found
