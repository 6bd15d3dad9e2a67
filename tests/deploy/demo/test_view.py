"""What the operator sees: fits the terminal, says what is starting, and what to act on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from deploy.demo.view import Row, Snapshot, Standing, alarms, plain, render
from deploy.demo.watch import LineNumbers, Tally
from deploy.supervisor import State
from streams.records import Verdict
from tests.deploy.demo.constructed import judged, sorting

NUMBERS = LineNumbers(
    verdicts=4242,
    labels={"ok": 4000, "defect": 200, "review": 42},
    sorted=4230,
    diverted=242,
    p50_ms=72,
    p99_ms=285,
    per_s=2.0,
    last_verdict_at=100,
)
ROWS = [Row(f"line-{number}", NUMBERS, 4250, 8, 0, "running") for number in (1, 2, 3)]
READY = [Standing("broker", State.READY, 60), Standing("topics", State.ENDED)]
RUNNING = Snapshot("running", 65, 3600, ROWS, READY, cores=1.2, memory_mb=1700, useful_s=2.8, now=101)


def drawn(snapshot: Snapshot, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(render(snapshot))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_is_readable_in(width: int) -> None:
    lines = drawn(RUNNING, width)
    assert "…" not in "".join(lines)
    assert all(len(line.rstrip()) <= width for line in lines)
    (row,) = [line for line in lines if line.startswith("line-2")]
    assert row.split() == ["line-2", "4250", "4000", "200", "42", "242", "72/285", "8", "running"]
    assert any(line.startswith("6.0 verdicts/s   12726 verdicts   12690 sorted") for line in lines)


def test_it_says_what_is_starting_and_what_comes_then() -> None:
    standings = [Standing("broker", State.READY, 9), Standing("inspector-1", State.STARTING, 7), Standing("sorter line-1", State.WAITING)]
    text = "\n".join(drawn(replace(RUNNING, phase="starting", processes=standings), 80))
    assert "waiting for inspector-1 (starting 7 s); then sorter line-1" in text


def test_all_is_well_means_no_alarm() -> None:
    assert alarms(RUNNING) == []


@pytest.mark.parametrize(
    ("numbers", "row", "words"),
    [
        ({"no_verdict": 3}, {}, "line-1: 3 parts reached the gate without a verdict"),
        ({"last_verdict_at": 80.0}, {}, "line-1: 8 pictures wait and no verdict for 21 s"),
        ({"p99_ms": 2900.0}, {}, "line-1: verdicts come later than 2.8 s"),
        ({}, {"spooled": 12}, "line-1: 12 pictures wait on the gateway's disk"),
    ],
)
def test_what_an_operator_should_act_on_is_said(numbers: dict[str, Any], row: dict[str, Any], words: str) -> None:
    harmed = replace(ROWS[0], numbers=replace(NUMBERS, **numbers), **row)
    (alarm,) = alarms(replace(RUNNING, rows=[harmed, *ROWS[1:]]))
    assert alarm.startswith(words)
    assert words in plain(replace(RUNNING, rows=[harmed]))


def test_many_alarms_are_cut_short_and_counted() -> None:
    rows = [replace(row, spooled=15, numbers=replace(NUMBERS, no_verdict=1, p99_ms=9000.0)) for row in ROWS]
    assert "and 4 more" in "\n".join(drawn(replace(RUNNING, rows=rows), 80))


def test_a_plain_line_has_the_sums_of_all_lines() -> None:
    assert plain(RUNNING).strip() == (
        "65 s running; parts 12750; verdicts 12726 (12000 ok 600 defect 126 review); sorted 12690; diverted 726; queue 24; "
        "age p50/p99 72/285 ms; 6.0 verdicts/s"
    )


def verdict(part: int, label: str = "ok", age_ms: float = 100) -> tuple[Verdict, float]:
    one = judged(part, label=label, age_ms=age_ms)
    return one.verdict, one.appended_at.timestamp()


def test_a_part_counts_once_however_often_its_records_come() -> None:
    tally = Tally()
    for part in (1, 2, 2, 1):
        tally.judged(*verdict(part), now=10)
        tally.sorted(sorting(part, action="diverted", gate_moved=True))
    numbers = tally.numbers(now=11)
    assert (numbers.verdicts, numbers.sorted, numbers.diverted, numbers.labels) == (2, 2, 2, {"ok": 2})


def test_ages_end_when_the_broker_has_the_verdict() -> None:
    tally = Tally()
    for part, age_ms in enumerate((100, 200, 900), 1):
        tally.judged(*verdict(part, age_ms=age_ms), now=10)
    numbers = tally.numbers(now=10)
    assert numbers.p50_ms == pytest.approx(200, abs=0.01)
    assert numbers.p99_ms == pytest.approx(900, abs=0.01)


def test_throughput_is_that_of_the_last_seconds() -> None:
    tally = Tally()
    for part in range(1, 21):
        tally.judged(*verdict(part), now=float(part))
    assert tally.numbers(now=20).per_s == pytest.approx(1.1)
    assert tally.numbers(now=200).per_s == 0
