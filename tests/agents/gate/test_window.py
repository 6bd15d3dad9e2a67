"""The window of commands: order, room, resends, deadlines."""

from __future__ import annotations

import pytest

from agents.gate.window import ANSWER_S, TRIES, Order, Window
from firmware.board.frames import Frame
from firmware.board.words import Fields
from streams.errors import GateError


def verdict(part: int, log: list[object], deadline_s: float | None = None, run: int = 1) -> Order:
    fields = ("1", str(run), str(part), "keep", "0")
    return Order(
        "VERDICT", fields, lambda answer: log.append((part, answer["told"])), lambda error: log.append((part, error.code)), deadline_s, run
    )


def answer(frame: Frame, name: str = "OK", *fields: str) -> Frame:
    return Frame("<", frame.seq, name, fields or ("accepted",))


def test_no_more_are_unanswered_than_there_is_room_for_and_the_order_is_kept() -> None:
    log: list[object] = []
    window = Window(size=2)
    for part in range(1, 5):
        window.add(verdict(part, log))
    first = window.due(0.0)
    assert [frame.fields[2] for frame in first] == ["1", "2"]
    assert window.due(0.0) == []
    window.answered(answer(first[1]))
    assert [frame.fields[2] for frame in window.due(0.0)] == ["3"]
    window.answered(answer(first[0]))
    assert [frame.fields[2] for frame in window.due(0.0)] == ["4"]
    assert log == [(2, "accepted"), (1, "accepted")]


def test_what_is_not_answered_is_sent_again_under_its_number_with_back_off() -> None:
    window = Window(size=1)
    window.add(verdict(1, [], deadline_s=100.0))
    sent: list[tuple[float, int]] = []
    for tick in range(0, 500):
        sent += [(tick / 100, frame.seq) for frame in window.due(tick / 100)]
    assert [at for at, _ in sent] == [0.0, 0.25, 0.75, 1.75, 2.75, 3.75, 4.75]
    assert {seq for _, seq in sent} == {0}
    assert sum(window.take_resends().values()) == 6


def test_a_command_without_deadline_breaks_the_link_after_five_tries() -> None:
    window = Window(size=1)
    window.add(Order("PING", ("1",)))
    tries = sum(len(window.due(at_s)) for at_s in (0.0, 0.3, 0.8, 1.9, 3.0))
    assert tries == TRIES
    with pytest.raises(GateError, match="80 no-answer") as broken:
        window.due(4.1)
    assert broken.value.retriable


def test_a_verdict_past_its_deadline_is_not_sent() -> None:
    log: list[object] = []
    window = Window(size=1)
    window.add(verdict(1, log, deadline_s=1.0))
    window.take_overdue(1.1)
    assert window.due(1.1) == []
    assert log == [(1, 82)]


def test_the_answer_to_a_verdict_sent_in_time_is_waited_for() -> None:
    log: list[object] = []
    window = Window(size=1)
    window.add(verdict(1, log, deadline_s=1.0))
    (frame,) = window.due(0.9)
    window.take_overdue(1.0 + ANSWER_S / 2)
    assert window.due(1.3) == [], "it is not sent again after its deadline"
    window.answered(answer(frame))
    assert log == [(1, "accepted")]


def test_an_answer_that_nobody_waits_for_is_ignored() -> None:
    assert Window().answered(Frame("<", 9, "OK", ("accepted",))) is None


@pytest.mark.parametrize(
    ("name", "fields", "code", "retriable"),
    [
        ("ERR", ("20", "late"), 20, False),
        ("ERR", ("9", "busy"), 9, True),
        ("ERR", ("77", "of-a-newer-board"), 77, False),
        ("OK", ("gone",), 2, False),
    ],
)
def test_a_refusal_reaches_who_asked_with_its_code(name: str, fields: tuple[str, ...], code: int, retriable: bool) -> None:
    errors: list[GateError] = []
    window = Window()
    window.add(Order("VERDICT", ("1", "1", "1", "keep", "0"), lambda _: None, errors.append))
    (frame,) = window.due(0.0)
    window.answered(answer(frame, name, *fields))
    assert [(error.code, error.retriable) for error in errors] == [(code, retriable)]


def test_orders_of_a_run_that_is_over_are_taken_out() -> None:
    log: list[object] = []
    window = Window(size=1)
    for run in (1, 2):
        window.add(verdict(run, log, run=run))
    window.due(0.0)
    window.take_of_other_runs(2)
    assert log == [(1, 21)]
    assert [frame.fields[1] for frame in window.due(0.0)] == ["2"]


def test_after_a_broken_link_what_was_sent_is_sent_first_and_in_order() -> None:
    window = Window(size=2)
    for part in range(1, 4):
        window.add(verdict(part, []))
    window.due(0.0)
    window.requeue()
    window.size = 3
    assert [frame.fields[2] for frame in window.due(1.0)] == ["1", "2", "3"]


def test_sequence_numbers_wrap_and_skip_what_is_still_unanswered() -> None:
    window = Window(size=2)
    stuck = Order("VERDICT", ("1", "1", "1", "keep", "0"), deadline_s=1e9)
    window.add(stuck)
    window.due(0.0)
    used = []
    for _ in range(600):
        window.add(Order("SYNC", (), lambda _: None))
        (frame,) = [frame for frame in window.due(0.0) if frame.name == "SYNC"]
        used.append(frame.seq)
        window.answered(Frame("<", frame.seq, "OK", ("1", "1")))
    assert stuck.seq == 0
    assert 0 not in used
    assert set(used) == set(range(1, 256))


def test_the_fields_of_a_status_page_are_read() -> None:
    got: list[Fields] = []
    window = Window()
    window.add(Order("STATUS", ("1", "gate"), got.append))
    (frame,) = window.due(0.0)
    window.answered(answer(frame, "OK", "gate", "1000", "rest", "7", "1", "0"))
    assert got[0] == {"page": "gate", "pulse_us": 1000, "position": "rest", "moves": 7, "servo_power": 1, "estop": 0}
