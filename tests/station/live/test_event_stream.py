"""The stream of server-sent events, and how often cards are rendered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from django.test import Client

from station.live.event_stream import (
    MAX_ACCOUNT_STREAMS,
    MAX_SESSION_STREAMS,
    MAX_STREAMS,
    CardRenderer,
    OpenStreams,
    Viewer,
    open_streams,
    stream_events,
)
from station.live.live_consumer import LiveConsumer
from tests.station.live.records import make_kafka_record, make_verdict


def read_events(consumer: LiveConsumer, count: int, is_stopping: Callable[[], bool] = lambda: False) -> list[bytes]:
    """Returns the first `count` events of the wall."""

    async def is_permitted() -> bool:
        return True

    async def collect() -> list[bytes]:
        events = []
        stream = stream_events(CardRenderer(consumer), None, Viewer(1, "session"), is_stopping, is_permitted)
        async for event in stream:
            events.append(event)
            if len(events) == count:
                break
        await stream.aclose()  # type: ignore[attr-defined]  # async generators have this method
        return events

    return asyncio.run(collect())


def test_the_stream_sends_its_status_then_each_line_once(consumer: LiveConsumer) -> None:
    status, first = read_events(consumer, 2)
    assert status.startswith(b"event: status\ndata: ")
    assert b"has not begun yet" in status
    assert first.startswith(b"event: line-1\n")
    assert all(line.startswith((b"event: ", b"data: ")) for line in first.strip().split(b"\n"))


def test_the_stream_ends_when_the_station_stops(consumer: LiveConsumer) -> None:
    assert read_events(consumer, 3, is_stopping=lambda: True) == []
    assert open_streams.count == 0


def test_too_many_open_live_pages_are_refused(operator: Client) -> None:
    streams = [open_streams.add(Viewer(-number, "")) for number in range(MAX_STREAMS)]
    try:
        response = operator.get("/live/events")
    finally:
        for stream in streams:
            open_streams.remove(stream)
    assert response.status_code == 503
    assert "Too many live pages" in response.content.decode()


def test_a_session_and_an_account_have_limits_of_their_own() -> None:
    streams = OpenStreams()
    for number in range(MAX_ACCOUNT_STREAMS):
        viewer = Viewer(1, f"session {number // MAX_SESSION_STREAMS}")
        assert streams.find_refusal(viewer) == ""
        newest = streams.add(viewer)
    assert "in this browser" in streams.find_refusal(Viewer(1, "session 0"))
    assert "for this account" in streams.find_refusal(Viewer(1, "one more session"))
    assert streams.find_refusal(Viewer(2, "session of another account")) == ""
    streams.remove(newest)
    assert streams.find_refusal(newest.viewer) == ""


def test_two_accounts_cannot_take_all_live_pages() -> None:
    streams = OpenStreams()
    opened = [streams.add(Viewer(number % 2, f"session {number // MAX_SESSION_STREAMS}")) for number in range(MAX_STREAMS)]
    assert streams.find_refusal(Viewer(2, "a")) == ""
    other = streams.add(Viewer(2, "a"))
    displaced = [stream for stream in opened if stream.is_displaced]
    assert displaced == opened[-2:-1], "the newest stream of the account with the most streams"
    assert streams.count == MAX_STREAMS
    assert "Too many live pages" in streams.find_refusal(Viewer(0, "b")), "an account gets no streams of an account with as many"
    for stream in (*opened, other):
        streams.remove(stream)
    assert streams.count == 0


def test_a_displaced_live_page_says_so_and_ends(consumer: LiveConsumer) -> None:
    async def is_permitted() -> bool:
        return True

    async def collect() -> list[bytes]:
        opened = [open_streams.add(Viewer(number, "")) for number in range(MAX_STREAMS - 2)]
        opened.append(open_streams.add(Viewer(-1, "")))
        page = stream_events(CardRenderer(consumer), None, Viewer(-1, ""), lambda: False, is_permitted)
        await anext(page)
        opened.append(open_streams.add(Viewer(-2, "")))
        events = [event async for event in page]
        for stream in opened:
            open_streams.remove(stream)
        return events

    assert b"most of them for this account" in asyncio.run(asyncio.wait_for(collect(), 20))[-1]
    assert open_streams.count == 0


def test_a_card_is_rendered_less_often_on_a_busy_machine(consumer: LiveConsumer) -> None:
    is_busy = True
    renderer = CardRenderer(consumer, lambda: is_busy)
    first = renderer.render_card("line-1", for_page=False)
    five_s_ago = replace(first, rendered_at=first.rendered_at - timedelta(seconds=5))
    renderer._cards["line-1", False] = five_s_ago
    consumer.add_record(make_kafka_record("verdicts", make_verdict(1)))
    assert renderer.render_card("line-1", for_page=False) is five_s_ago
    is_busy = False
    assert [part.part for part in renderer.render_card("line-1", for_page=False).parts] == [1]
