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
    viewers = [Viewer(-number, "") for number in range(MAX_STREAMS)]
    for viewer in viewers:
        open_streams.add(viewer)
    try:
        response = operator.get("/live/events")
    finally:
        for viewer in viewers:
            open_streams.remove(viewer)
    assert response.status_code == 503
    assert "Too many live pages" in response.content.decode()


def test_a_session_and_an_account_have_limits_of_their_own() -> None:
    streams = OpenStreams()
    for number in range(MAX_ACCOUNT_STREAMS):
        viewer = Viewer(1, f"session {number // MAX_SESSION_STREAMS}")
        assert streams.find_refusal(viewer) == ""
        streams.add(viewer)
    assert "in this browser" in streams.find_refusal(Viewer(1, "session 0"))
    assert "for this account" in streams.find_refusal(Viewer(1, "one more session"))
    assert streams.find_refusal(Viewer(2, "session of another account")) == ""
    streams.remove(Viewer(1, "session 0"))
    assert streams.find_refusal(Viewer(1, "session 0")) == ""


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
