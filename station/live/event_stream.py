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

# Each open live page has an event stream, which updates the page. At most 64 streams are open at the same time.
MAX_STREAMS = 64
MAX_ACCOUNT_STREAMS = 32
# A log-in session is usually one browser.
MAX_SESSION_STREAMS = 8
TICK_S = 0.5
_STATUS_TICKS = 4
# Once a minute, an event stream checks whether the person is still allowed to see the page.
_PERMISSION_TICKS = 30 * _STATUS_TICKS
_RENDER_INTERVAL_S = 2.0
_BUSY_RENDER_INTERVAL_S = 10.0
# The machine counts as busy if its load average, divided by the number of processors, is above 0.75. For comparison: if an inspector works
# without pauses on a machine with two processors, this value is 0.96.
_BUSY_LOAD = 0.75
_MAX_CARD_AGE_S = 5
PARTS_ON_WALL, PARTS_ON_PAGE = 5, 18


@dataclass(frozen=True)
class RenderedCard:
    """The HTML of a card, and the castings (`parts`) that the card shows. The card stays valid while `revision` stays the same."""

    revision: tuple[int, int]
    html: str
    parts: list[LivePart]
    rendered_at: datetime


def is_machine_busy() -> bool:
    """Returns whether the load average of the last minute, divided by the number of processors, is above 0.75."""
    return os.getloadavg()[0] > _BUSY_LOAD * (os.cpu_count() or 1)


class CardRenderer:
    """Renders the cards of all lines, and caches them. Thread-safe.

    If the state of a line changes often, its card is rendered every two seconds. If the state does not change, the card is rendered
    every five seconds. While the machine is busy, a card is rendered at most every ten seconds.
    """

    def __init__(self, consumer: LiveConsumer, is_busy: Callable[[], bool] = is_machine_busy) -> None:
        self.consumer = consumer
        self._is_busy = is_busy
        self._cards: dict[tuple[str, bool], RenderedCard] = {}
        self._lock = threading.Lock()

    def render_card(self, line: str, for_page: bool) -> RenderedCard:
        """Returns the card of `line`: if `for_page` is True, the content of the line's own page, otherwise the small card for the wall."""
        now = datetime.now(UTC)
        busy_interval = timedelta(seconds=_BUSY_RENDER_INTERVAL_S)
        with self._lock:
            state = self.consumer.lines[line]
            revision = (state.version, int(now.timestamp()) // _MAX_CARD_AGE_S)
            known = self._cards.get((line, for_page))
            age = now - known.rendered_at if known else busy_interval
            interval = busy_interval if self._is_busy() else timedelta(seconds=_RENDER_INTERVAL_S)
            # If the clock of the machine was set back, the age of the card is negative. Such a card is rendered again.
            if known is not None and (known.revision == revision or timedelta() <= age < interval):
                return known
            # While people look at the card, replace at most two castings in each update, because people cannot follow more. If nobody has
            # looked at the card for 20 s, show the newest castings.
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
    """A person who looks at a live page: the primary key of the account, and the key of the log-in session."""

    account: int
    session: str


@dataclass(eq=False)
class OpenStream:
    """An open event stream. `is_displaced` becomes True when this stream must end, because a new stream has taken its place."""

    viewer: Viewer
    is_displaced: bool = False


class OpenStreams:
    """The open event streams, oldest first, and the limits of their number. All methods are called in the event loop.

    If MAX_STREAMS streams are open, a new stream takes the place of an open stream of the account that has the most streams. But if the
    new stream's account has as many streams or only one less, the new stream is refused.
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
        """Adds a stream of `viewer`. If MAX_STREAMS streams are already open, the account with the most streams loses its newest stream."""
        if self.count >= MAX_STREAMS:
            [(account, _)] = self._count_accounts().most_common(1)
            newest = next(stream for stream in reversed(self._streams) if stream.viewer.account == account)
            newest.is_displaced = True
            self._streams.remove(newest)
        stream = OpenStream(viewer)
        self._streams.append(stream)
        return stream

    def remove(self, stream: OpenStream) -> None:
        """Removes a stream that has ended. Does nothing if another stream has already taken its place."""
        if not stream.is_displaced:
            self._streams.remove(stream)

    def _count_accounts(self) -> Counter[int]:
        return Counter(stream.viewer.account for stream in self._streams)


open_streams = OpenStreams()


async def stream_events(
    renderer: CardRenderer, line: str | None, viewer: Viewer, is_stopping: Callable[[], bool], is_permitted: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yields the events for the page of all lines, or for the page of `line`, until `is_stopping()` is True or `is_permitted()` is False.

    For the page of all lines, each event has the name of a line and contains the card of this line. For the page of `line`, the event
    `page` contains the new content. If too many streams are open, yields only the event `status`, with a message for the person.
    """
    # The view has already checked the limits of the number of streams. Check them again, because other streams may have begun since then.
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
