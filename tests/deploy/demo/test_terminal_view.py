"""Tests of the terminal view: it fits into the terminal, and shows starting processes and alarms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from deploy.demo.terminal_view import LineStatus, ProcessStatus, Snapshot, find_alarms, format_line, render_table
from deploy.demo.topic_monitor import LineFigures
from deploy.supervisor import State
from streams.plant_states import STATE_ALARMS, PlantState

FIGURES = LineFigures(
    verdicts=4242,
    labels={"ok": 4000, "defect": 200, "review": 42},
    sorted=4230,
    diverted=242,
    p50_ms=72,
    p99_ms=285,
    verdicts_per_s=2.0,
)
ROWS = [LineStatus(f"line-{number}", FIGURES, 4250, 8, 0, PlantState.RUNNING) for number in (1, 2, 3)]
READY = [ProcessStatus("broker", State.READY, 60), ProcessStatus("topics", State.ENDED)]
RUNNING = Snapshot("running", 65, 3600, ROWS, READY, cores=1.2, memory_mb=1700, deadline_s=2.8, now=101)


def render_text(snapshot: Snapshot, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(render_table(snapshot))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_is_readable_at_width(width: int) -> None:
    lines = render_text(RUNNING, width)
    assert "…" not in "".join(lines)
    assert all(len(line.rstrip()) <= width for line in lines)
    (row,) = [line for line in lines if line.startswith("line-2")]
    assert row.split() == ["line-2", "4250", "4000", "200", "42", "242", "72/285", "8", "running"]
    assert any(line.startswith("6.0 verdicts/s   12726 verdicts   12690 sorted") for line in lines)


def test_starting_processes_are_named_before_those_that_follow() -> None:
    processes = [
        ProcessStatus("broker", State.READY, 9),
        ProcessStatus("inspector-1", State.STARTING, 7),
        ProcessStatus("sorter line-1", State.WAITING),
    ]
    text = "\n".join(render_text(replace(RUNNING, phase="starting", processes=processes), 80))
    assert "waiting for inspector-1 (starting 7 s); then sorter line-1" in text


def test_a_healthy_foundry_has_no_alarm() -> None:
    assert find_alarms(RUNNING) == []


@pytest.mark.parametrize(
    ("figures", "row", "words"),
    [
        ({"no_verdict": 3}, {}, "line-1: 3 parts reached the gate without a verdict"),
        ({}, {"state": PlantState.RUNNING_BLIND}, "line-1: running blind. Check that an inspector runs"),
        ({}, {"state": PlantState.LATE}, "line-1: late. Start another inspector"),
        ({}, {"spooled": 12}, "line-1: 12 pictures wait on the gateway's disk"),
    ],
)
def test_conditions_that_need_an_operator_are_alarms(figures: dict[str, Any], row: dict[str, Any], words: str) -> None:
    damaged = replace(ROWS[0], figures=replace(FIGURES, **figures), **row)
    (alarm,) = find_alarms(replace(RUNNING, rows=[damaged, *ROWS[1:]]))
    assert alarm.startswith(words)
    assert words in format_line(replace(RUNNING, rows=[damaged]))


@pytest.mark.parametrize("state", list(PlantState))
def test_each_state_fits_into_80_columns_and_only_states_that_need_a_person_are_alarms(state: PlantState) -> None:
    rows = [replace(row, state=state) for row in ROWS]
    (row,) = [line for line in render_text(replace(RUNNING, rows=rows), 80) if line.startswith("line-2 ")]
    assert row.rstrip().endswith(f" {state.display_name}")
    assert len(find_alarms(replace(RUNNING, rows=rows))) == (len(rows) if state in STATE_ALARMS else 0)


def test_many_alarms_are_cut_short_and_counted() -> None:
    rows = [replace(row, spooled=15, state=PlantState.LATE, figures=replace(FIGURES, no_verdict=1)) for row in ROWS]
    assert "and 4 more" in "\n".join(render_text(replace(RUNNING, rows=rows), 80))


def test_a_plain_line_has_the_sums_of_all_lines() -> None:
    assert format_line(RUNNING).strip() == (
        "65 s running; parts 12750; verdicts 12726 (12000 ok 600 defect 126 review); sorted 12690; diverted 726; queue 24; "
        "age p50/p99 72/285 ms; 6.0 verdicts/s"
    )
