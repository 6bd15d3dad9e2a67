"""The live pages' stream of server-sent events: what changed, at most once in two seconds a line (ten on a busy machine), for a bounded
number of browsers.

A card is rendered once and sent to all who look at it; how many new pictures it brings is bounded, whatever comes on the line.
Every stream tells every two seconds whether the station itself hears from Kafka: a browser that hears nothing for longer knows that it
is cut off.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.template.loader import render_to_string

from station.live.board import board
from station.live.seen import SeenPart
from station.live.watching import Watch

MOST_STREAMS = 64
TICK_S = 0.5
_BEAT_TICKS = 4
# However much comes: a person reads no faster, and each drawing makes every browser fetch pictures.
_DRAWN_S = 2.0
# Where workers want all processors: drawing, and the pictures that browsers then ask for, would take a twentieth of them.
_DRAWN_ON_BUSY_MACHINE_S = 10.0
_BUSY = 0.75  # of the processors, in the mean of a minute: a saturated inspector takes 0.96 of two, and at times is seen as less
# A card says how long ago something was, so it is drawn again even when nothing came.
_STALE_S = 5
PARTS_ON_WALL, PARTS_ON_PAGE = 5, 18


@dataclass(frozen=True)
class Card:
    """A rendered card; `mark` tells it from the one before and after it."""

    mark: tuple[int, int]
    html: str
    parts: list[SeenPart]
    drawn_at: datetime


def machine_is_busy() -> bool:
    """Whether about as many threads run or wait for a processor as there are."""
    return os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)


class Cards:
    """The rendered cards of all lines, each made once a change. Thread-safe."""

    def __init__(self, watch: Watch, busy: Callable[[], bool] = machine_is_busy) -> None:
        self.watch = watch
        self._busy = busy
        self._drawn: dict[tuple[str, bool], Card] = {}
        self._lock = threading.Lock()

    def card(self, line: str, page: bool) -> Card:
        """The card of `line`: small for the wall, or the inner part of the line's own page."""
        now = datetime.now(UTC)
        with self._lock:
            state = self.watch.lines[line]
            mark = (state.version, int(now.timestamp()) // _STALE_S)
            known = self._drawn.get((line, page))
            # The clock may be set back.
            apart = timedelta(seconds=_DRAWN_ON_BUSY_MACHINE_S if self._busy() else _DRAWN_S)
            if known is not None and (known.mark == mark or timedelta() <= now - known.drawn_at < apart):
                return known
            # What was drawn when somebody last looked, long ago, is no beginning for who looks now.
            before = known.parts if known and now - known.drawn_at < 2 * timedelta(seconds=_DRAWN_ON_BUSY_MACHINE_S) else []
            with self.watch.lock:
                parts = state.renewed(before, PARTS_ON_PAGE if page else PARTS_ON_WALL)
                shown = board(state, now, parts, trend=page)
            html = render_to_string(f"station/live/_{'page' if page else 'card'}.html", {"line": shown, "now": now})
            drawn = self._drawn[line, page] = Card(mark, html, parts, now)
            return drawn

    def status(self) -> str:
        """Whether the station hears from Kafka, for the page's banner."""
        return render_to_string("station/live/_status.html", {"trouble": self.watch.trouble})


class Streams:
    """Who listens now, counted, so that no number of open browsers wears the station down."""

    def __init__(self) -> None:
        self.open = 0

    def full(self) -> bool:
        return self.open >= MOST_STREAMS


streams = Streams()


async def events(cards: Cards, line: str | None, over: Callable[[], bool], allowed: Callable[[], object]) -> AsyncIterator[bytes]:
    """The events of the wall, or of the page of `line`, until `over` says so or the person is no longer `allowed` (an awaitable's answer).

    Event `<line>` carries a card, `page` a line's page, `status` the banner.
    """
    streams.open += 1
    try:
        sent: dict[str, tuple[int, int]] = {}
        tick = 0
        while not over():
            if tick % _BEAT_TICKS == 0:
                if tick and tick % (30 * _BEAT_TICKS) == 0 and not await _answer(allowed):
                    yield event(
                        "status", render_to_string("station/live/_status.html", {"trouble": "You were logged out: reload the page."})
                    )
                    return
                yield event("status", cards.status())
            for name in [line] if line else cards.watch.on_wall:
                card = cards.card(name, page=line is not None)
                if sent.get(name) != card.mark:
                    sent[name] = card.mark
                    yield event("page" if line else name, card.html)
            tick += 1
            await asyncio.sleep(TICK_S)
    finally:
        streams.open -= 1


async def _answer(allowed: Callable[[], object]) -> bool:
    found = allowed()
    return bool(await found) if asyncio.iscoroutine(found) else bool(found)


def event(name: str, html: str) -> bytes:
    """One server-sent event; every line of `html` is a line of its data."""
    data = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"event: {name}\n{data}\n".encode()
