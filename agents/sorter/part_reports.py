"""Tells the gateway which parts a board has counted, so that a picture gets the run and part number of its part."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import aiohttp

from agents.gate.lane import PartCounted
from agents.sorter.journal import CountedPart
from streams import metrics
from streams.identity import format_time

log = logging.getLogger(__name__)

# The largest number of reports that wait for the gateway. At 10 parts a second, 2,048 parts pass in more than three minutes.
MAX_REPORTS = 2048
# The largest number of reports that are sent at once. The gateway limits the number of connections from one address, and all sorters of a
# PC have the same address.
_MAX_REQUESTS = 8
# The pause before a report is sent again. The pause is short, so that the picture of the part need not wait long for the report.
_RETRY_S = 0.2
# The gateway answers within 15 s, even if it has to wait for its disk and for a picture from the camera.
_MAX_ANSWER_S = 20.0
# If the gateway answers with one of these statuses, the report is sent again. The statuses mean that the report came too slowly, that the
# gateway is overloaded, that its spool is full, or that a proxy cannot reach the gateway.
_RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504, 507})


class PartReports:
    """Reports each counted part to the gateway, by a POST request to `<url>/lines/<line>/parts`. All methods are called in the event loop.

    A request is repeated until the gateway accepts or refuses the part.

    `report` does not wait for the gateway. A report is counted as failed if the gateway has not accepted the part within `in_time_s`
    seconds.
    """

    def __init__(
        self, url: str, line: str, token: str, in_time_s: float, open_session: Callable[..., aiohttp.ClientSession] = aiohttp.ClientSession
    ) -> None:
        self._address = f"{url.rstrip('/')}/lines/{line}/parts"
        self._line = line
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._in_time_s = in_time_s
        self._waiting: dict[CountedPart, asyncio.Task[None]] = {}
        self._finished: list[CountedPart] = []
        self._requests = asyncio.Semaphore(_MAX_REQUESTS)
        self._open_session = open_session
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = self._open_session(timeout=aiohttp.ClientTimeout(total=_MAX_ANSWER_S), headers=self._headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert self._session is not None
        await self._session.close()

    def report(self, counted: PartCounted) -> None:
        """Starts to send the report of a part, and returns at once. If too many reports wait, the oldest one is dropped."""
        self._start(CountedPart(counted.run, counted.part, counted.counted_at), counted.age_s)

    def send_again(self, parts: Iterable[CountedPart]) -> None:
        """Sends the reports of `parts`, for which an earlier process of this sorter got no final answer from the gateway."""
        for part in parts:
            self._start(part, self._in_time_s)

    def take_finished(self) -> list[CountedPart]:
        """Returns the parts whose reports were accepted, refused or dropped since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def put_back(self, parts: Iterable[CountedPart]) -> None:
        """Makes the next call of `take_finished` return `parts` again, because they could not be written to the journal.

        Keeps only the oldest MAX_REPORTS parts.
        """
        self._finished = [*parts, *self._finished][:MAX_REPORTS]

    def _start(self, part: CountedPart, age_s: float) -> None:
        if part in self._waiting:
            return
        if len(self._waiting) >= MAX_REPORTS:
            oldest = next(iter(self._waiting))
            self._waiting.pop(oldest).cancel()
            self._finish(oldest)
        self._waiting[part] = asyncio.create_task(self._send(part, time.monotonic() + self._in_time_s - age_s))
        metrics.part_reports_waiting.labels(self._line).set(len(self._waiting))

    def _finish(self, part: CountedPart) -> None:
        self._finished.append(part)
        metrics.part_reports_waiting.labels(self._line).set(len(self._waiting))

    async def _send(self, part: CountedPart, due_s: float) -> None:
        is_late = False
        async with self._requests:
            while True:
                refusal, is_final = await self._send_once(part)
                if (refusal and is_final) or (not is_late and time.monotonic() > due_s):
                    self._log_failure(part, refusal or "the gateway accepted the report too late", is_final)
                    # A report is counted as failed only once. If a late report is refused afterwards, it is not counted again.
                    if not is_late:
                        metrics.part_reports_failed.labels(self._line).inc()
                    is_late = True
                if is_final:
                    break
                await asyncio.sleep(_RETRY_S)
        self._waiting.pop(part, None)
        self._finish(part)

    async def _send_once(self, part: CountedPart) -> tuple[str, bool]:
        """Sends a report once. Returns the reason why the gateway did not accept the report, and whether the result is final.

        The reason is "" if the gateway has accepted the report.
        """
        assert self._session is not None
        body = {"run": part.run, "part": part.part, "captured_at": format_time(part.counted_at)}
        try:
            async with self._session.post(self._address, json=body) as answer:
                if answer.status < 300:
                    return "", True
                reason = f"{self._address} answered {answer.status}: {(await answer.text())[:200]}"
                return reason, answer.status not in _RETRIED_STATUSES
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{self._address}: {error!r}", False

    def _log_failure(self, counted: CountedPart, reason: str, is_final: bool) -> None:
        part = f"{self._line}:{counted.run}:{counted.part}"
        outlook = "Its picture gets no part number." if is_final else "The sorter repeats the report until the gateway answers."
        log.warning("The gateway did not accept the report of part %s in time. %s Cause: %s", part, outlook, reason, extra={"part": part})
