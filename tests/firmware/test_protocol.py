"""Frames and fields of the gate protocol: every written frame is read again, and no damaged frame is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.protocol import MAX_FRAME_BYTES, NUMBERS, Deframer, Frame, crc16, parse_frame, read_fields

fields = st.lists(st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.-", min_size=1, max_size=10), max_size=3)
frames = st.builds(
    Frame,
    start=st.sampled_from("><!"),
    seq=st.integers(0, 255),
    name=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=9),
    fields=fields.map(tuple),
)


@given(frames)
def test_a_frame_written_is_read_again(frame: Frame) -> None:
    assert parse_frame(frame.encode().removesuffix(b"\n")) == frame


@given(st.lists(frames, max_size=6), st.data())
def test_frames_come_whole_however_the_bytes_are_cut(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(frame.encode() for frame in sent)
    deframer, read = Deframer("><!"), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        read += deframer.feed(stream[:cut])
        stream = stream[cut:]
    assert read == sent
    assert deframer.damaged == 0


@given(frames, frames, st.binary(max_size=200))
def test_garbage_between_two_frames_costs_neither(first: Frame, second: Frame, garbage: bytes) -> None:
    read = Deframer("><!").feed(first.encode() + garbage + second.encode())
    assert read[0] == first
    assert read[-1] == second


@given(frames, frames, st.data())
def test_a_damaged_frame_costs_only_itself(damaged: Frame, after: Frame, data: st.DataObject) -> None:
    wire = bytearray(damaged.encode())
    at, bit = data.draw(st.integers(0, len(wire) - 1)), data.draw(st.integers(0, 7))
    wire[at] ^= 1 << bit
    deframer = Deframer("><!")
    assert deframer.feed(bytes(wire) + after.encode()) == [after]


@given(st.binary(max_size=400))
def test_no_bytes_break_the_deframer(data: bytes) -> None:
    deframer = Deframer("<!")
    for frame in deframer.feed(data):
        assert parse_frame(frame.encode().removesuffix(b"\n")) == frame


def test_a_frame_that_is_too_long_is_not_written() -> None:
    with pytest.raises(ValueError, match=f"may have {MAX_FRAME_BYTES} bytes"):
        Frame("!", 0, "GATE", ("9" * 40, "9" * 40)).encode()
    with pytest.raises(ValueError, match="may have 60 bytes"):
        Frame(">", 0, "VERDICT", ("9" * 50,)).encode()
    with pytest.raises(ValueError, match="does not allow"):
        Frame(">", 0, "VERDICT", ("a b*c",)).encode()


def test_the_worked_example_of_the_page() -> None:
    assert f"{crc16(b'>01 HELLO 1'):04X}" == "7C55"


@pytest.mark.parametrize("text", ["", "-1", "+1", "01", "1_0", "1e3", "٣", " 1"])
def test_a_number_is_written_in_one_way_only(text: str) -> None:
    with pytest.raises(ValueError, match="lane"):
        read_fields(("lane",), (text,))


@given(st.sampled_from(sorted(NUMBERS)), st.integers())
def test_numbers_are_taken_within_their_bounds_alone(name: str, number: int) -> None:
    least, most = NUMBERS[name]
    if least <= number <= most:
        assert read_fields((name,), (str(number),))[name] == number
    else:
        with pytest.raises(ValueError, match=name):
            read_fields((name,), (str(number),))
