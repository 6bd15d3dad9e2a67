"""Renders the cards of the live pages and sends them to the browsers as server-sent events.

A card shows one line. Each card is rendered once for all browsers, at most every two seconds.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.template.loader import render_to_string

from station.live.line_card import make_card
from station.live.line_state import LivePart
from station.live.live_consumer import LiveConsumer, get_live_consumer

# Largest number of event streams that are open at the same time.
MAX_STREAMS = 64
# Largest number of open event streams of one account.
MAX_ACCOUNT_STREAMS = 32
# Largest number of open event streams of one log-in session. A session is usually one browser.
MAX_SESSION_STREAMS = 8
TICK_S = 0.5
_STATUS_TICKS = 4
# Once a minute, the stream checks whether the person is still allowed to see the page.
_PERMISSION_TICKS = 30 * _STATUS_TICKS
_RENDER_INTERVAL_S = 2.0
_BUSY_RENDER_INTERVAL_S = 10.0
# The machine is busy if its load average per processor is above this value. An inspector that works without pauses on two processors gives
# a load average of 0.96 per processor.
_BUSY_LOAD = 0.75
_MAX_CARD_AGE_S = 5
PARTS_ON_WALL, PARTS_ON_PAGE = 5, 18


@dataclass(frozen=True)
class RenderedCard:
    """The HTML of a card, and the parts that the card shows. `revision` changes when the content of the card changes."""

    revision: tuple[int, int]
    html: str
    parts: list[LivePart]
    rendered_at: datetime


def is_machine_busy() -> bool:
    """Returns whether the machine's load average of the last minute is above 0.75 for each processor."""
    return os.getloadavg()[0] > _BUSY_LOAD * (os.cpu_count() or 1)


class CardRenderer:
    """Renders the cards of all lines, and caches them. Thread-safe.

    Renders a card again if the state of its line has changed, or after at most five seconds. Renders no card more often than every two
    seconds, or every ten seconds while the machine is busy.
    """

    def __init__(self, consumer: LiveConsumer, is_busy: Callable[[], bool] = is_machine_busy) -> None:
        self.consumer = consumer
        self._is_busy = is_busy
        self._cards: dict[tuple[str, bool], RenderedCard] = {}
        self._lock = threading.Lock()

    def render_card(self, line: str, for_page: bool) -> RenderedCard:
        """Renders `line` for the line's own page if `for_page` is True. Otherwise, renders its small card for the page of all lines."""
        now = datetime.now(UTC)
        busy_interval = timedelta(seconds=_BUSY_RENDER_INTERVAL_S)
        with self._lock:
            state = self.consumer.lines[line]
            revision = (state.version, int(now.timestamp()) // _MAX_CARD_AGE_S)
            known = self._cards.get((line, for_page))
            age = now - known.rendered_at if known else busy_interval
            interval = busy_interval if self._is_busy() else timedelta(seconds=_RENDER_INTERVAL_S)
            # The age is negative if the machine's clock was set back. The card is then rendered again.
            if known is not None and (known.revision == revision or timedelta() <= age < interval):
                return known
            # While people look at the card, replace at most two of its parts in each update, because people cannot follow more. If nobody
            # has looked for 20 s, show the newest parts.
            shown_parts = known.parts if known and age < 2 * busy_interval else []
            with self.consumer.lock:
                parts = state.update_selection(shown_parts, PARTS_ON_PAGE if for_page else PARTS_ON_WALL)
                plant_state = self.consumer.watch.find_state(line, now) if line in self.consumer.wall_lines else None
                card = make_card(state, plant_state, now, parts, with_trend=for_page)
            html = render_to_string(f"station/live/_{'page' if for_page else 'card'}.html", {"card": card, "now": now})
            rendered = self._cards[line, for_page] = RenderedCard(revision, html, parts, now)
            return rendered

    def render_status(self) -> str:
        """Returns the banner that says whether the station receives records from Kafka."""
        return render_to_string("station/live/_status.html", {"trouble": self.consumer.connection_fault})


_renderers: dict[LiveConsumer, CardRenderer] = {}


def get_card_renderer() -> CardRenderer:
    """Returns the card renderer that all requests of this process share."""
    consumer = get_live_consumer()
    if consumer not in _renderers:
        _renderers.clear()
        _renderers[consumer] = CardRenderer(consumer)
    return _renderers[consumer]


@dataclass(frozen=True)
class Viewer:
    """Who looks at a live page: the number of the account, and the key of the log-in session."""

    account: int
    session: str


@dataclass(eq=False)
class OpenStream:
    """An open event stream. If `is_displaced` is True, the stream must end, because a new stream has taken its place."""

    viewer: Viewer
    is_displaced: bool = False


class OpenStreams:
    """The open event streams, oldest first, and the limits of their number. All methods are called in the event loop.

    If the limit for all people is reached, a new stream displaces the newest stream of the account with the most streams. This happens only
    if the account of the new stream has at least two streams fewer. Otherwise the new stream is refused.
    """

    def __init__(self) -> None:
        self._streams: list[OpenStream] = []

    @property
    def count(self) -> int:
        return len(self._streams)

    def find_refusal(self, viewer: Viewer) -> str:
        """Returns why `viewer` cannot open a further stream, or "" if it can."""
        accounts = self._count_accounts()
        if sum(stream.viewer == viewer for stream in self._streams) >= MAX_SESSION_STREAMS:
            return f"{MAX_SESSION_STREAMS} live pages are open in this browser. Close one, then reload this page."
        if accounts[viewer.account] >= MAX_ACCOUNT_STREAMS:
            return f"{MAX_ACCOUNT_STREAMS} live pages are open for this account. Close one, or log in with another account."
        if self.count >= MAX_STREAMS and max(accounts.values()) < accounts[viewer.account] + 2:
            return "Too many live pages are open at this station. Close one, then reload this page."
        return ""

    def add(self, viewer: Viewer) -> OpenStream:
        """Adds a stream. If MAX_STREAMS streams are already open, the account with the most streams loses its newest stream."""
        if self.count >= MAX_STREAMS:
            [(account, _)] = self._count_accounts().most_common(1)
            newest = next(stream for stream in reversed(self._streams) if stream.viewer.account == account)
            newest.is_displaced = True
            self._streams.remove(newest)
        stream = OpenStream(viewer)
        self._streams.append(stream)
        return stream

    def remove(self, stream: OpenStream) -> None:
        """Removes a stream. Does nothing if the stream was displaced."""
        if not stream.is_displaced:
            self._streams.remove(stream)

    def _count_accounts(self) -> Counter[int]:
        return Counter(stream.viewer.account for stream in self._streams)


open_streams = OpenStreams()


async def stream_events(
    renderer: CardRenderer, line: str | None, viewer: Viewer, is_stopping: Callable[[], bool], is_permitted: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yields the events for the page of all lines, or for the page of `line`, until `is_stopping()` is true or `is_permitted()` is false.

    An event is named after a line and contains the card of this line. The event `page` contains the page of `line`. If `viewer` has too
    many streams, the only event is a status that says so.
    """
    # Check the limits again. The view has checked them already, but other streams may have begun since then.
    if refusal := open_streams.find_refusal(viewer):
        yield _format_event("status", render_to_string("station/live/_status.html", {"trouble": refusal}))
        return
    stream = open_streams.add(viewer)
    try:
        sent_revisions: dict[str, tuple[int, int]] = {}
        tick = 0
        while not is_stopping():
            if stream.is_displaced:
                displaced = "Too many live pages are open, and most of them for this account. Close some, then reload this page."
                yield _format_event("status", render_to_string("station/live/_status.html", {"trouble": displaced}))
                return
            if tick % _STATUS_TICKS == 0:
                if tick and tick % _PERMISSION_TICKS == 0 and not await is_permitted():
                    logged_out = "You were logged out. Reload the page."
                    yield _format_event("status", render_to_string("station/live/_status.html", {"trouble": logged_out}))
                    return
                yield _format_event("status", renderer.render_status())
            for name in [line] if line else renderer.consumer.wall_lines:
                card = renderer.render_card(name, for_page=line is not None)
                if sent_revisions.get(name) != card.revision:
                    sent_revisions[name] = card.revision
                    yield _format_event("page" if line else name, card.html)
            tick += 1
            await asyncio.sleep(TICK_S)
    finally:
        open_streams.remove(stream)


def _format_event(name: str, html: str) -> bytes:
    """Returns one server-sent event. Each line of `html` becomes one `data:` line."""
    data = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"event: {name}\n{data}\n".encode()
