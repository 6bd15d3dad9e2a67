"""Tells the gateway which part the camera has just been triggered for, so that the picture gets the board's numbers."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

import aiohttp

from agents.gate.events import PartCounted
from streams import metrics
from streams.identity import format_time

log = logging.getLogger(__name__)

# A slow gateway must not pile up reports of parts whose pictures are long taken.
_MOST_UNDER_WAY = 32


class PartReports:
    """Posts each fresh part to `<url>/lines/<line>/parts`; a part older than `fresh_s` is not told any more.

    Never waits, never repeats: a part that the gateway does not hear of gets no verdict, and the board does the safe thing.
    """

    def __init__(self, url: str, line: str, token: str, fresh_s: float) -> None:
        self._address = f"{url.rstrip('/')}/lines/{line}/parts"
        self._line = line
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._fresh_s = fresh_s
        self._under_way: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=max(0.5, self._fresh_s)), headers=self._headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.gather(*self._under_way)
        assert self._session is not None
        await self._session.close()

    def report(self, counted: PartCounted) -> None:
        """Begins to tell; returns at once."""
        if counted.age_s > self._fresh_s:
            self._failed(counted, f"its picture is {counted.age_s:.2f} s old")
        elif len(self._under_way) >= _MOST_UNDER_WAY:
            self._failed(counted, f"{len(self._under_way)} reports wait already")
        else:
            task = asyncio.create_task(self._post(counted))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _post(self, counted: PartCounted) -> None:
        assert self._session is not None
        body = {"run": counted.run, "part": counted.part, "captured_at": format_time(counted.counted_at)}
        try:
            async with self._session.post(self._address, json=body) as answer:
                if answer.status >= 300:
                    self._failed(counted, f"{self._address} answered {answer.status}: {(await answer.text())[:200]}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._failed(counted, f"{self._address}: {error!r}")

    def _failed(self, counted: PartCounted, why: str) -> None:
        metrics.part_reports_failed.labels(self._line).inc()
        part = f"{self._line}:{counted.run}:{counted.part}"
        log.warning("part %s was not told to the gateway: %s", part, why, extra={"part": part})
