"""The window of requests: their order, the number that is sent at a time, repetitions, deadlines and answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agents.gate.requests import LATE_ANSWER_S, MAX_TRIES, BoardRequest, RequestWindow
from firmware.protocol import Frame
from streams.errors import GateError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def verdict_request(part: int, deadline_s: float | None = None, run: int = 1) -> BoardRequest:
    return BoardRequest("VERDICT", ("1", str(run), str(part), "keep", "0"), deadline_s, run)


def window_of(*requests: BoardRequest, size: int = 1) -> RequestWindow:
    window = RequestWindow(size=size)
    window.add(requests)
    return window


def answer(frame: Frame, name: str = "OK", *fields: str) -> Frame:
    return Frame("<", frame.seq, name, fields or ("accepted",))


def error_of(request: BoardRequest) -> GateError:
    error = request.response.exception(timeout=0)
    assert isinstance(error, GateError)
    return error


def test_no_more_requests_than_the_size_are_unanswered_and_their_order_is_kept() -> None:
    requests = [verdict_request(part) for part in range(1, 5)]
    window = window_of(*requests, size=2)
    first = window.take_due(0.0)
    assert [frame.fields[2] for frame in first] == ["1", "2"]
    assert window.take_due(0.0) == []
    assert window.take_answered(answer(first[1]), NOW) is requests[1]
    assert [frame.fields[2] for frame in window.take_due(0.0)] == ["3"]
    assert window.take_answered(answer(first[0]), NOW) is requests[0]
    assert [frame.fields[2] for frame in window.take_due(0.0)] == ["4"]
    assert [request.response.done() for request in requests] == [True, True, False, False]
    assert requests[0].response.result().fields == {"told": "accepted"}
    assert requests[0].response.result().answered_at == NOW


def test_a_verdict_goes_before_commands_that_can_wait() -> None:
    seen = [BoardRequest("SEEN", ("1", "1", str(part)), run=1) for part in range(1, 4)]
    window = window_of(*seen, verdict_request(1, deadline_s=9.0), verdict_request(2, deadline_s=9.0), size=4)
    sent = [(frame.name, frame.fields[2]) for frame in window.take_due(0.0)]
    assert sent == [("VERDICT", "1"), ("VERDICT", "2"), ("SEEN", "1"), ("SEEN", "2")]


def test_a_repeated_event_adds_no_command_that_still_waits() -> None:
    window = RequestWindow(size=1)
    for _ in range(10):
        window.add_missing([BoardRequest("SEEN", ("1", "1", "1"), run=1), BoardRequest("SEEN", ("1", "1", "2"), run=1)])
    (first,) = window.take_due(0.0)
    window.add_missing([BoardRequest("SEEN", ("1", "1", "1"), run=1), BoardRequest("SEEN", ("1", "2", "1"), run=2)])
    assert len(window) == 3
    window.take_answered(answer(first), NOW)
    window.add_missing([BoardRequest("SEEN", ("1", "1", "1"), run=1)])
    assert [request.fields for request in window.queued] == [("1", "1", "2"), ("1", "2", "1"), ("1", "1", "1")]


def test_an_unanswered_request_is_sent_again_under_its_number_with_back_off() -> None:
    window = window_of(verdict_request(1, deadline_s=100.0))
    sent: list[tuple[float, int]] = []
    for tick in range(0, 500):
        sent += [(tick / 100, frame.seq) for frame in window.take_due(tick / 100)]
    assert [at_s for at_s, _ in sent] == [0.0, 0.25, 0.75, 1.75, 2.75, 3.75, 4.75]
    assert {seq for _, seq in sent} == {0}
    assert sum(window.take_resends().values()) == 6


def test_a_command_without_deadline_breaks_the_link_after_five_tries() -> None:
    window = window_of(BoardRequest("PING", ("1",)))
    tries = sum(len(window.take_due(at_s)) for at_s in (0.0, 0.3, 0.8, 1.9, 3.0))
    assert tries == MAX_TRIES
    with pytest.raises(GateError, match="80 no-answer") as broken:
        window.take_due(4.1)
    assert broken.value.retriable


def test_a_verdict_past_its_deadline_is_not_sent() -> None:
    request = verdict_request(1, deadline_s=1.0)
    window = window_of(request)
    window.drop_expired(1.1)
    assert window.take_due(1.1) == []
    assert error_of(request).code == 82


def test_a_verdict_to_a_stopped_belt_has_time() -> None:
    request = BoardRequest("VERDICT", ("1", "1", "1", "keep", "0"), 1.0, 1, lane=1)
    window = window_of(request)
    window.drop_expired(1.1, stopped_lanes=[1])
    assert len(window.take_due(1.1)) == 1


def test_the_answer_to_a_verdict_that_was_sent_in_time_is_waited_for() -> None:
    request = verdict_request(1, deadline_s=1.0)
    window = window_of(request)
    (frame,) = window.take_due(0.9)
    window.drop_expired(1.0 + LATE_ANSWER_S / 2)
    assert window.take_due(1.3) == [], "it is not sent again after its deadline"
    window.take_answered(answer(frame), NOW)
    assert request.response.result(0).fields["told"] == "accepted"


def test_a_repeated_answer_is_ignored() -> None:
    assert RequestWindow().take_answered(Frame("<", 9, "OK", ("accepted",)), NOW) is None


@pytest.mark.parametrize(
    ("name", "fields", "code", "retriable"),
    [
        ("ERR", ("20", "late"), 20, False),
        ("ERR", ("9", "busy"), 9, True),
        ("ERR", ("77", "of-a-newer-board"), 77, False),
        ("OK", ("gone",), 2, False),
    ],
)
def test_a_refusal_reaches_the_sender_with_its_code(name: str, fields: tuple[str, ...], code: int, retriable: bool) -> None:
    request = verdict_request(1)
    window = window_of(request)
    (frame,) = window.take_due(0.0)
    window.take_answered(answer(frame, name, *fields), NOW)
    assert (error_of(request).code, error_of(request).retriable) == (code, retriable)


def test_requests_of_an_earlier_run_are_dropped() -> None:
    old, new = verdict_request(1, run=1), verdict_request(2, run=2)
    window = window_of(old, new)
    window.take_due(0.0)
    window.run = 2
    window.drop_expired(0.0)
    assert error_of(old).code == 21
    assert [frame.fields[1] for frame in window.take_due(0.0)] == ["2"]


def test_after_a_broken_link_unanswered_requests_are_sent_first_and_in_order() -> None:
    window = window_of(*(verdict_request(part) for part in range(1, 4)), size=2)
    window.take_due(0.0)
    window.requeue()
    window.size = 3
    assert [frame.fields[2] for frame in window.take_due(1.0)] == ["1", "2", "3"]


def test_sequence_numbers_wrap_and_skip_the_unanswered_ones() -> None:
    unanswered = BoardRequest("VERDICT", ("1", "1", "1", "keep", "0"), deadline_s=1e9)
    window = window_of(unanswered, size=2)
    window.take_due(0.0)
    used = []
    for _ in range(600):
        window.add([BoardRequest("SYNC")])
        (frame,) = [frame for frame in window.take_due(0.0) if frame.name == "SYNC"]
        used.append(frame.seq)
        window.take_answered(Frame("<", frame.seq, "OK", ("1", "1")), NOW)
    assert unanswered.seq == 0
    assert 0 not in used
    assert set(used) == set(range(1, 256))


def test_the_fields_of_a_status_page_are_read() -> None:
    request = BoardRequest("STATUS", ("1", "gate"))
    window = window_of(request)
    (frame,) = window.take_due(0.0)
    window.take_answered(answer(frame, "OK", "gate", "1000", "rest", "7", "1", "0"), NOW)
    fields = request.response.result(0).fields
    assert fields == {"page": "gate", "pulse_us": 1000, "position": "rest", "moves": 7, "servo_power": 1, "estop": 0}
