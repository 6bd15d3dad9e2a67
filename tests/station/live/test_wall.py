"""What the wall makes of the records it hears: counts, ages, alarms, and what it says when it hears nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from station.live.board import board
from station.live.seen import SeenPart
from station.live.shifts import shift_start
from station.live.stream import MOST_STREAMS, Cards, events, streams
from station.live.tally import Tally
from station.live.views import _still_allowed
from station.live.watching import Watch
from streams.identity import PartId
from streams.records import Box, Finding, ImageReference, Record, Sorting, Verdict, make_verdict_id
from streams.settings import LineSettings, Settings

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LINE = LineSettings.model_validate({"name": "line-1", "gate": {"port": "/dev/null"}})


def nothing_counted(line: str, since: datetime, now: datetime) -> Tally:
    """An archive that is empty."""
    return Tally(since)


@pytest.fixture
def watch() -> Watch:
    """A watch that hears what the test hands it."""
    found = Watch(Settings(lines=(LINE, LineSettings(name="uploads"))), nothing_counted)
    found.turn_shift(NOW)
    return found


def record(topic: str, made: Record, at: datetime = NOW) -> Any:
    """`made` as kafka-python hands it over."""
    return SimpleNamespace(
        topic=f"castings.{topic}.line-1", value=made.encode(), key=b"", headers=[], timestamp=at.timestamp() * 1000, partition=0, offset=0
    )


def verdict(part: int, label: str = "ok", at: datetime = NOW, took_s: float = 0.2, model: str = "demo") -> Verdict:
    """A verdict on part `part` of run 7, photographed at `at`."""
    sha256 = f"{part:064x}"
    return Verdict(
        verdict_id=make_verdict_id(PartId("line-1", 7, part), sha256, model),
        line="line-1",
        run=7,
        part=part,
        label=label,
        defect_probability=None if label == "review" else 0.5,
        votes={},
        threshold=0.5,
        model=model,
        reason="truncated" if label == "review" else "",
        captured_at=at,
        received_at=at,
        decided_at=at + timedelta(seconds=took_s),
        image=ImageReference(topic="castings.images.line-1", partition=0, offset=part, sha256=sha256, width_px=300, height_px=300),
    )


def sorting(part: int, reason: str = "verdict", code: int = 0, at: datetime = NOW) -> Sorting:
    """The gate's report on part `part`."""
    return Sorting(
        line="line-1",
        run=7,
        part=part,
        board="b",
        event=part,
        action="diverted",
        reason=reason,
        code=code,
        gate_moved=True,
        move_count=part,
        sorted_at=at,
    )


def test_parts_are_counted_once_however_often_their_verdict_comes(watch: Watch) -> None:
    for part, label in ((1, "ok"), (2, "defect"), (2, "defect"), (3, "review"), (1, "ok")):
        watch.take(record("verdicts", verdict(part, label)))
    shown = board(watch.lines["line-1"], NOW, watch.lines["line-1"].last_parts(5))
    assert (shown.ok, shown.defect, shown.review) == (1, 1, 1)
    assert [part.part for part in shown.parts] == [3, 2, 1]


def test_a_finding_that_comes_later_puts_its_box_on_the_part(watch: Watch) -> None:
    judged = verdict(4, "defect")
    watch.take(record("verdicts", judged))
    box = Box(left_px=10, top_px=20, width_px=30, height_px=40, score=0.9, kind="blow hole")
    found = Finding(
        line="line-1",
        run=7,
        part=4,
        verdict_id=judged.verdict_id,
        method="grad-cam",
        model="demo",
        boxes=(box,),
        heat_map="maps/a.png",
        found_at=NOW,
    )
    watch.take(record("findings", found))
    part = watch.part(PartId("line-1", 7, 4))
    assert part is not None
    assert part.boxes == (box,)


def test_a_record_that_is_none_harms_nothing(watch: Watch) -> None:
    for value in (b"", b"\xff", b"{}", b'{"line": "line-1"}'):
        watch.take(SimpleNamespace(topic="castings.verdicts.line-1", value=value, key=b"", headers=[], timestamp=0, partition=0, offset=0))
    watch.take(record("verdicts", verdict(1)))
    assert watch.lines["line-1"].counts == Counter(ok=1)


def test_counts_begin_anew_with_the_shift_and_what_the_archive_counted_is_not_counted_again() -> None:
    def counted(line: str, since: datetime, now: datetime) -> Tally:
        return Tally(now - timedelta(minutes=5), Counter(ok=100, defect=3))

    watch = Watch(Settings(lines=(LINE,)), counted)
    watch.turn_shift(NOW)
    watch.take(record("verdicts", verdict(1, at=NOW - timedelta(minutes=6))))
    watch.take(record("verdicts", verdict(2, at=NOW - timedelta(minutes=4))))
    assert watch.lines["line-1"].counts == Counter(ok=101, defect=3)
    watch.turn_shift(NOW + timedelta(hours=5))
    assert watch.lines["line-1"].counts == Counter()


def test_however_fast_a_line_is_a_card_takes_in_two_parts_at_a_time_one_of_them_faulty(watch: Watch) -> None:
    state = watch.lines["line-1"]
    for part in range(1, 21):
        watch.take(record("verdicts", verdict(part, "defect" if part < 10 else "ok")))
    first = state.renewed((), 5)
    for part in range(21, 41):
        watch.take(record("verdicts", verdict(part, "defect" if part == 31 else "ok")))
    assert [one.part for one in first] == [20, 19, 18, 17, 16]
    assert [one.part for one in state.renewed(first, 5)] == [40, 31, 20, 19, 18]


def test_a_slow_lines_card_shows_every_part_and_what_becomes_known_of_it(watch: Watch) -> None:
    state = watch.lines["line-1"]
    shown: list[SeenPart] = []
    for part in range(1, 9):
        watch.take(record("verdicts", verdict(part)))
        shown = state.renewed(shown, 5)
    assert [one.part for one in shown] == [8, 7, 6, 5, 4]
    assert state.renewed(shown, 5) == shown
    watch.take(record("sorted", sorting(6)))
    assert [one.sorting is not None for one in state.renewed(shown, 5)] == [False, False, True, False, False]


def test_ages_are_those_of_the_last_minute(watch: Watch) -> None:
    for part in range(1, 101):
        watch.take(record("verdicts", verdict(part, took_s=part / 100), NOW))
    ages = watch.lines["line-1"].ages(NOW)
    assert ages.p50_s == pytest.approx(0.51)
    assert ages.p99_s == pytest.approx(1.0)
    assert watch.lines["line-1"].ages(NOW + timedelta(minutes=2)).p50_s is None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([record("sorted", sorting(1, "fault", 41))], "fault 41: photo-eye 1 is blocked"),
        ([record("sorted", sorting(1, "late-verdict")), record("sorted", sorting(2, "late-verdict"))], "2 verdicts too late for the gate"),
        ([record("sorted", sorting(1, "no-verdict"))], "1 casting at the gate without a verdict"),
        ([record("verdicts", verdict(1, at=NOW - timedelta(seconds=90)))], "No casting for 89 s"),
        (
            [record("sorted", sorting(1, at=NOW - timedelta(minutes=3))), record("verdicts", verdict(2))],
            "the gate has been silent for 3 min",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(watch: Watch, told: list[Any], words: str) -> None:
    for one in told:
        watch.take(one)
    (alarm,) = board(watch.lines["line-1"], NOW, watch.lines["line-1"].last_parts(4)).alarms
    assert words in alarm.text


def test_dead_letters_of_the_last_hour_are_an_alarm(watch: Watch) -> None:
    headers = [("dead-topic", b"castings.images.line-1"), ("dead-reason", b"truncated")]
    watch.take(
        SimpleNamespace(
            topic="castings.dead-letters", value=b"", key=b"", headers=headers, timestamp=NOW.timestamp() * 1000, partition=0, offset=0
        )
    )
    (alarm,) = board(watch.lines["line-1"], NOW, watch.lines["line-1"].last_parts(4)).alarms
    assert "1 picture could not be judged in the last hour (the picture ended too early: 1)" in alarm.text


def test_a_line_that_runs_for_a_week_holds_no_more_than_one_that_ran_an_hour(watch: Watch) -> None:
    state = watch.lines["line-1"]
    first, late = verdict(1, "defect"), sorting(1, "late-verdict")
    for part in range(1, 12_000):
        at = NOW + timedelta(seconds=part * 50)
        state.verdict(first.model_copy(update={"part": part, "captured_at": at, "decided_at": at}), at, NOW)
        state.sorting(late.model_copy(update={"part": part, "sorted_at": at}))
    sizes = [len(getattr(state, name)) for name in ("_parts", "_judged", "_sorted", "_trend", "_ages", "_missed", "faulty")]
    assert sizes[0] == 60
    assert max(sizes) <= 6000


def test_shifts_follow_the_plants_clock() -> None:
    zone, begins = ZoneInfo("Europe/Berlin"), (time(6), time(14), time(22))
    assert shift_start(datetime(2026, 11, 22, 4, 59, tzinfo=UTC), begins, zone) == datetime(2026, 11, 21, 21, 0, tzinfo=UTC)
    assert shift_start(datetime(2026, 11, 22, 5, 0, tzinfo=UTC), begins, zone) == datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
    assert shift_start(datetime(2026, 7, 1, 4, 0, tzinfo=UTC), begins, zone) == datetime(2026, 7, 1, 4, 0, tzinfo=UTC)
    assert shift_start(datetime(2026, 11, 22, 5, 0, tzinfo=UTC), (), ZoneInfo("UTC")) == datetime(2026, 11, 22, tzinfo=UTC)


def read(watch: Watch, count: int, over: Callable[[], bool] = lambda: False, line: str | None = None) -> list[bytes]:
    """The first `count` events."""

    async def collect() -> list[bytes]:
        found = []
        stream = events(Cards(watch), line, over, lambda: True)
        async for event in stream:
            found.append(event)
            if len(found) == count:
                break
        await stream.aclose()  # type: ignore[attr-defined]  # a generator has it
        return found

    return asyncio.run(collect())


def test_the_stream_tells_its_state_then_each_line_once(watch: Watch) -> None:
    status, first = read(watch, 2)
    assert status.startswith(b"event: status\ndata: ")
    assert b"has not begun yet" in status
    assert first.startswith(b"event: line-1\n")
    assert all(line.startswith((b"event: ", b"data: ")) for line in first.strip().split(b"\n"))


def test_the_stream_ends_when_the_station_stops(watch: Watch) -> None:
    assert read(watch, 3, over=lambda: True) == []
    assert streams.open == 0


def test_more_walls_than_the_station_bears_are_told_so(operator: Client) -> None:
    streams.open = MOST_STREAMS
    try:
        answer = operator.get("/live/events")
    finally:
        streams.open = 0
    assert answer.status_code == 503
    assert "Too many live pages" in answer.content.decode()


def test_the_wall_is_for_those_who_may_look(visitor: Client, operator: Client) -> None:
    assert visitor.get("/").status_code == 302
    assert visitor.get("/live/events").status_code == 302
    page = operator.get("/").content.decode()
    assert "line-1" in page
    assert "uploads" not in page.replace('href="/uploads/"', "")
    assert operator.get("/lines/line-1/").status_code == 200
    assert operator.get("/lines/line-9/").status_code == 404


def test_a_card_is_drawn_less_often_where_workers_want_all_processors(watch: Watch) -> None:
    busy = True
    cards = Cards(watch, lambda: busy)
    first = cards.card("line-1", page=False)
    cards._drawn["line-1", False] = five_s_ago = replace(first, drawn_at=first.drawn_at - timedelta(seconds=5))
    watch.take(record("verdicts", verdict(1)))
    assert cards.card("line-1", page=False) is five_s_ago
    busy = False
    assert [part.part for part in cards.card("line-1", page=False).parts] == [1]


def test_a_stream_goes_on_as_long_as_its_person_may_look(operator: Client) -> None:
    """Asked once a minute, of the request that the stream began with."""
    request = operator.get("/").wsgi_request
    assert _still_allowed(request)
    person = User.objects.get(username=request.user.get_username())
    person.groups.clear()
    assert not _still_allowed(request)
    person.groups.add(Group.objects.get(name="operator"))
    assert _still_allowed(request)
    operator.logout()
    assert not _still_allowed(request)
