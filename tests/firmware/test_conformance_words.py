"""Every board answers each command as firmware/PROTOCOL.md says."""

from __future__ import annotations

import pytest

from firmware.lane_settings import TABLE, LaneSettings
from firmware.protocol import COMMANDS, PAGES, Frame, crc16, parse_frame
from tests.firmware.protocol_host import QUICK, ProtocolHost
from tests.firmware.protocol_page import example_session
from tests.firmware.rigs import Rig

SAMPLE = {
    "HELLO": ("1",), "CONFIGURE": ("1", "gate_mm", "20"), "COMMIT": ("1",), "SHOW": ("1", "gate_mm"), "PING": ("7",), "SYNC": (),
    "VERDICT": ("1", "1", "1", "keep", "0"), "CANCEL": ("1", "1", "1"), "SEEN": ("1", "1", "1"), "ACK": ("9",),
    "STATUS": ("1", "line"), "TEST": ("1", "7", "trigger"), "CLEAR": ("1", "41"),
}  # fmt: skip


# Indexes of the fields that differ between boards: capacities and clock readings.
OWN = {"HELLO": range(3, 8), "SYNC": range(2), "PING": range(1)}
MOMENTS = {"PART": (3,), "GATE": (8, 9)}


@pytest.mark.stock_mega
def test_the_board_answers_as_in_the_example_session(rig: Rig) -> None:
    while rig.run < 12:
        rig.reset("power")
    host, received, asked = ProtocolHost(rig), list[Frame](), ""
    rig.wait(5)
    for line in example_session():
        if line.startswith("@"):
            at, _, what = line[1:].partition(" ")
            host.wait_until(int(at))
            host.block(1 if what.endswith("photo-eye 1") else 2, 150)
            received += host.received
        elif line.startswith(">"):
            received += host.send_raw(line.encode() + b"\n")
            asked = line.split("*")[0].split()[1]
        elif line.startswith(("<", "!")):
            rig.wait(10)
            received += rig.take_frames()
            expected = parse_frame(line.encode())
            assert expected is not None
            assert any(is_alike(frame, expected, asked) for frame in received), f"{line} was not received"


def is_alike(frame: Frame, expected: Frame, asked: str) -> bool:
    """Returns whether a frame is the expected one. Fields that differ between boards are ignored, and times may differ by 5 ms."""
    if (frame.start, frame.name, len(frame.fields)) != (expected.start, expected.name, len(expected.fields)):
        return False
    if frame.start == "<" and frame.seq != expected.seq:
        return False
    own = OWN.get(asked, range(0)) if frame.start == "<" and frame.name == "OK" else range(0)
    moments = MOMENTS.get(frame.name, ())
    for at, (found, printed) in enumerate(zip(frame.fields, expected.fields, strict=True)):
        if at in moments and abs(int(found) - int(printed)) > 5:
            return False
        if at not in own and at not in moments and found != printed:
            return False
    return True


def test_the_banner_is_repeated_until_the_host_greets(host: ProtocolHost) -> None:
    host.rig.wait(2500)
    banners = host.events("BOOT")
    assert len(banners) >= 3
    assert {banner.number("run") for banner in banners} == {host.rig.run}
    host.ok("HELLO", 1)
    host.received.clear()
    host.wait(2500)
    assert host.events("BOOT") == []
    assert len(host.events("BEAT")) >= 2


def test_each_command_says_what_must_have_happened_before(host: ProtocolHost) -> None:
    for name, fields in SAMPLE.items():
        if COMMANDS[name][2]:
            assert host.error_code(name, *fields) == 4, name
        elif name != "HELLO":
            host.ok(name, *fields)
    host.ok("HELLO", 1)
    for name, fields in SAMPLE.items():
        if COMMANDS[name][2] == "commit":
            assert host.error_code(name, *fields) == 5, name


def test_a_command_with_a_field_too_few_is_refused_and_one_with_more_is_taken(host: ProtocolHost) -> None:
    host.greet()
    for name, fields in SAMPLE.items():
        if fields:
            assert host.error_code(name, *fields[:-1]) == 2, name
    assert host.ok("SHOW", 1, "gate_mm", "of-a-newer-host")["value"] == "20"


@pytest.mark.parametrize("number", ["-1", "01", "+1", "5", "1.0", "99999999999", "one", "0x1"])
def test_a_malformed_lane_is_refused(host: ProtocolHost, number: str) -> None:
    host.greet()
    frame = f">07 SHOW {number} gate_mm"
    answers = host.send_raw(f"{frame}*{crc16(frame.encode()):04X}\n".encode())
    # A frame with a character that is not allowed is damaged, and is not answered.
    assert [answer.fields[0] for answer in answers] == ([] if "+" in number else ["2"])


def test_an_unknown_command_is_answered(host: ProtocolHost) -> None:
    assert host.error_code("DANCE", 1) == 1


@pytest.mark.parametrize("lane", [0, 2, 3, 4])
def test_a_lane_that_is_not_there_or_not_committed_is_refused(host: ProtocolHost, lane: int) -> None:
    capacity = host.ok("HELLO", 1).number("lanes")
    expected = 5 if 1 <= lane <= capacity else 11
    assert host.error_code("VERDICT", lane, host.rig.run, 1, "keep", 0) == expected


def test_every_setting_takes_its_bounds_and_nothing_beyond(host: ProtocolHost) -> None:
    host.ok("HELLO", 1)
    for setting in TABLE:
        if setting.unit == "word":
            for word in ("divert", "pass", "stop"):
                assert host.ok("CONFIGURE", 1, setting.key, word)["value"] == word
            wrong: tuple[str, ...] = ("Divert", "7")
        else:
            for bound in (setting.least, setting.most):
                assert host.ok("CONFIGURE", 1, setting.key, bound)["value"] == str(bound)
            wrong = (*((str(setting.least - 1),) if setting.least else ()), str(setting.most + 1), "x", "007")
        for value in wrong:
            assert host.error_code("CONFIGURE", 1, setting.key, value) == 7, (setting.key, value)
    assert host.error_code("CONFIGURE", 1, "colour", 1) == 6
    assert host.error_code("SHOW", 1, "colour") == 6


def test_defaults_are_in_force_before_anything_is_configured(host: ProtocolHost) -> None:
    host.ok("HELLO", 1)
    for setting in TABLE:
        assert host.ok("SHOW", 1, setting.key)["value"] == str(setting.default)
    assert host.ok("COMMIT", 1)["digest"] == LaneSettings().digest


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"part_min_mm": 150, "gate_mm": 150, "part_max_mm": 150}, 8),
        ({"gate_mm": 4}, 8),
        ({"window_mm": 151}, 8),
        ({"rest_us": 1500, "out_us": 1500}, 8),
        ({"lane_of": 2}, 8),
        ({"lane_of": 1}, 8),
    ],
)
def test_settings_that_contradict_each_other_are_refused_and_change_nothing(host: ProtocolHost, values: dict[str, int], code: int) -> None:
    before = host.greet()
    for key, value in values.items():
        host.ok("CONFIGURE", 1, key, value)
    assert host.error_code("COMMIT", 1) == code
    for key in values:
        assert host.ok("SHOW", 1, key)["value"] == str(before.values[key])


def test_a_commit_that_changes_a_lane_with_parts_is_busy_and_one_that_changes_nothing_is_not(host: ProtocolHost) -> None:
    settings = host.greet()
    host.count_part()
    assert host.ok("COMMIT", 1)["digest"] == settings.digest
    host.ok("CONFIGURE", 1, "dwell_mm", 70)
    assert host.error_code("COMMIT", 1) == 9


@pytest.mark.stock_mega
def test_settings_survive_a_reset_and_the_boot_is_counted(host: ProtocolHost) -> None:
    host.greet(dwell_mm=77)
    run = host.rig.run
    host.rig.reset("button")
    host.received.clear()
    host.rig.wait(10)
    assert host.rig.run == run + 1
    assert [(boot.number("run"), boot.word("cause")) for boot in host.events("BOOT")] == [(run + 1, host.rig.known_cause("button"))]
    host.ok("HELLO", 1)
    assert host.ok("SHOW", 1, "dwell_mm")["value"] == "77"


@pytest.mark.parametrize("page", PAGES)
def test_every_status_page_is_answered(host: ProtocolHost, page: str) -> None:
    host.greet()
    assert host.status(page).word("page") == page


def test_a_board_agrees_on_the_lower_version(host: ProtocolHost) -> None:
    assert host.ok("HELLO", 200).number("version") == 1
    assert host.error_code("HELLO", 0) == 2


def test_the_clock_is_sent_to_the_microsecond(host: ProtocolHost) -> None:
    host.greet()
    first, second = host.ok("SYNC"), host.ok("SYNC")
    assert second.number("board_ms") >= first.number("board_ms")
    assert abs(second.number("board_ms") - host.rig.now_ms()) <= 20


def test_the_answers_of_a_sequence_of_commands_come_in_order(host: ProtocolHost) -> None:
    host.greet()
    frames = [Frame(">", seq, "PING", ("1",)).encode() for seq in range(0x40, 0x44)]
    assert [answer.seq for answer in host.send_raw(b"".join(frames), 40)] == [0x40, 0x41, 0x42, 0x43]


PING = Frame(">", 0x21, "PING", ("1",)).encode()
NEXT = Frame(">", 0x22, "PING", ("1",)).encode()


@pytest.mark.parametrize(
    ("line", "answered"),
    [
        (PING, [0x21, 0x22]),
        (PING.replace(b"\n", b"\r\n"), [0x21, 0x22]),
        (b"noise\x00\xff" + PING, [0x21, 0x22]),
        (PING.replace(b"PING", b"PINK"), [0x22]),
        (PING.replace(b"\n", b"\x0b"), [0x22]),
        (PING[:-1], [0x22]),
        (PING[:9], [0x22]),
        (PING.lower(), [0x22]),
        (b">" + b"A" * 300 + b"\n", [0x22]),
        (b"\n\n\r\n", [0x22]),
        (b"<21 OK*0000\n", [0x22]),
        (PING.replace(b"*", b"\x80"), [0x22]),
        (bytes(range(256)) * 8, [0x22]),
    ],
)
def test_a_damaged_frame_costs_only_itself(host: ProtocolHost, line: bytes, answered: list[int]) -> None:
    host.greet()
    assert [answer.seq for answer in host.send_raw(line + NEXT, 300)] == answered


def test_every_single_flipped_bit_is_found(host: ProtocolHost) -> None:
    host.greet()
    frame = Frame(">", 0x21, "CLEAR", ("1", "41")).encode()
    before = host.ok("STATUS", 1, "link").number("damaged")
    for at in range(len(frame) - 1):
        for bit in range(8):
            flipped = bytearray(frame)
            flipped[at] ^= 1 << bit
            # A flipped byte may begin or end a frame, but the board must not accept the command.
            assert host.send_raw(bytes(flipped) + b"\n", 2) == [], flipped
    assert host.ok("STATUS", 1, "link").number("damaged") > before
    assert [answer.seq for answer in host.send_raw(frame)] == [0x21]


def test_quick_settings_are_whole() -> None:
    assert LaneSettings(QUICK).digest
