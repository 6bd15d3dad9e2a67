"""Tells the gateway which parts a board has counted, so that a picture gets the run and part number of its part."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

import aiohttp

from agents.gate.lane import PartCounted
from streams import metrics
from streams.identity import format_time

log = logging.getLogger(__name__)

# At most this many reports wait for a slow gateway. Further reports would come too late for the pictures of their parts.
_MAX_UNDER_WAY = 32


class PartReports:
    """Posts each counted part to `<url>/lines/<line>/parts`.

    `report` does not wait for the gateway. A failed report is not repeated, and a report older than `max_age_s` is not sent.
    """

    def __init__(self, url: str, line: str, token: str, max_age_s: float) -> None:
        self._address = f"{url.rstrip('/')}/lines/{line}/parts"
        self._line = line
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._max_age_s = max_age_s
        self._under_way: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=max(0.5, self._max_age_s)), headers=self._headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.gather(*self._under_way)
        assert self._session is not None
        await self._session.close()

    def report(self, counted: PartCounted) -> None:
        """Starts to send the report of a part, and returns at once."""
        if counted.age_s > self._max_age_s:
            self._count_failure(counted, f"the part was counted {counted.age_s:.2f} s ago")
        elif len(self._under_way) >= _MAX_UNDER_WAY:
            self._count_failure(counted, f"{len(self._under_way)} earlier reports are still waiting for the gateway")
        else:
            task = asyncio.create_task(self._send_report(counted))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send_report(self, counted: PartCounted) -> None:
        assert self._session is not None
        body = {"run": counted.run, "part": counted.part, "captured_at": format_time(counted.counted_at)}
        try:
            async with self._session.post(self._address, json=body) as answer:
                if answer.status >= 300:
                    self._count_failure(counted, f"{self._address} answered {answer.status}: {(await answer.text())[:200]}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count_failure(counted, f"{self._address}: {error!r}")

    def _count_failure(self, counted: PartCounted, reason: str) -> None:
        metrics.part_reports_failed.labels(self._line).inc()
        part = f"{self._line}:{counted.run}:{counted.part}"
        log.warning("part %s was not reported to the gateway, so its picture gets no part number: %s", part, reason, extra={"part": part})
