"""The tables of firmware/PROTOCOL.md agree with the Python code, and no error code has changed."""

from __future__ import annotations

from firmware import protocol
from firmware.board import board, events, faults
from firmware.fault_table import error_codes
from firmware.lane_settings import TABLE
from tests.firmware.protocol_page import example_session, shown_frames, tables

# Released numbers. A row may be added here, but never changed, because boards in the field use the numbers.
RELEASED = {
    1: "unknown-command", 2: "wrong-fields", 3: "version", 4: "not-greeted", 5: "not-committed", 6: "unknown-setting",
    7: "out-of-bounds", 8: "inconsistent", 9: "busy", 10: "not-supported", 11: "unknown-lane", 12: "fault-present",
    13: "not-clearable", 20: "late", 21: "unknown-run", 22: "unknown-part", 23: "conflict", 40: "host-silent",
    41: "eye1-stuck", 42: "eye2-stuck", 43: "encoder-stopped", 44: "servo-power", 45: "emergency-stop",
    46: "abnormal-reset", 47: "tracker-full", 48: "events-lost", 49: "stopped", 50: "parts-exhausted",
    51: "settings-lost", 52: "awaiting-start", 53: "trigger-lost", 54: "gate-stuck",
    55: "chute-missed", 56: "chute-full", 57: "rejects-in-a-row", 58: "bypass",
    80: "no-answer", 81: "link-away", 82: "deadline", 83: "port-in-use", 84: "stopping",
}  # fmt: skip


def test_the_limits_are_those_of_the_codec() -> None:
    limits = {row["limit"]: row["value"] for table in tables("Frames") for row in table}
    assert limits["longest frame, newline included, bytes"] == str(protocol.MAX_FRAME_BYTES)
    assert limits["longest frame to a host whose `HELLO` has no `confirms`, bytes"] == str(protocol.MAX_FRAME_BYTES_0_1_0)
    assert limits["longest command, newline included, bytes"] == str(protocol.MAX_COMMAND_BYTES)
    assert limits["protocol version"] == str(protocol.VERSION)
    assert limits["commands unanswered at a time, at most"] == str(board.COMMAND_WINDOW)


def test_the_checksum_gives_the_check_value() -> None:
    (table,) = tables("CRC-16")
    check = next(row["value"] for row in table if row["property"].startswith("check value"))
    assert protocol.crc16(b"123456789") == int(check, 16) == 0x29B1


def test_every_frame_shown_is_whole() -> None:
    shown = shown_frames()
    assert len(shown) > 40
    assert [line for line in shown if protocol.parse_frame(line.encode()) is None] == []


def test_commands_events_and_pages_are_the_same_in_page_and_code() -> None:
    (table,) = tables("Commands")
    page = {row["command"]: (row["fields"], row["fields of OK"], row["needs"]) for row in table}

    def join(fields: tuple[str, ...]) -> str:
        return " ".join(fields) or "-"

    code = {
        name: (
            join((*fields, *(f"[{field}]" for field in protocol.COMMAND_OPTIONAL.get(name, ())))),
            join(_with_optional(name, answer)),
            needs or "-",
        )
        for name, (fields, answer, needs) in protocol.COMMANDS.items()
    }
    code["STATUS"] = ("lane page", "page and the page's fields", "-")
    assert page == code
    event_fields = {name: _with_optional(name, fields) for name, fields in protocol.EVENTS.items()}
    assert {row["event"]: tuple(row["fields"].split()) for row in tables("Events")[0]} == event_fields
    assert {row["page"]: tuple(row["fields"].split()) for row in tables("STATUS")[0]} == {
        page: _with_optional(page, fields) for page, fields in protocol.PAGES.items()
    }


def _with_optional(name: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    return (*fields, *(f"[{field}]" for field in protocol.OPTIONAL.get(name, ())))


def test_every_field_has_the_same_bounds_or_words_in_page_and_code() -> None:
    numbers, lists = tables("Fields")
    assert {row["field"]: (int(row["least"]), int(row["most"])) for row in numbers if row["type"] == "number"} == protocol.NUMBERS
    assert {row["field"]: tuple(row["words"].split()) for row in lists} == protocol.WORDS
    assert {row["field"] for row in numbers if row["type"] != "number"} == set(protocol.TEXTS)
    used = {name for fields, answer, _ in protocol.COMMANDS.values() for name in (*fields, *answer)}
    used |= {name for fields in (*protocol.EVENTS.values(), *protocol.PAGES.values()) for name in fields}
    assert used - protocol.NUMBERS.keys() - protocol.WORDS.keys() - set(protocol.TEXTS) == set()


def test_every_reason_of_a_gate_event_is_explained() -> None:
    assert tuple(row["reason"] for row in tables("Reasons and actions of GATE")[0]) == protocol.WORDS["reason"]


def test_settings_have_the_same_bounds_and_defaults_in_page_and_code() -> None:
    page = [[cells[name] for name in ("key", "unit", "least", "most", "default")] for cells in tables("Settings")[0]]
    code = []
    for each in TABLE:
        bounds = ("divert", "stop") if each.unit == "word" else (each.least, each.most)
        code.append([str(value) for value in (each.key, each.unit, *bounds, each.default)])
    assert page == code


def test_every_fault_has_its_effect_and_its_end_in_page_and_code() -> None:
    (table,) = tables("Faults")
    assert {int(row["code"]): row["effect"] for row in table} == faults.EFFECTS
    assert {int(row["code"]): row["ends by"] for row in table} == faults.ENDS_BY
    assert {code for code, row in error_codes().items() if row.kind == "fault"} == faults.EFFECTS.keys()


def test_no_code_has_been_renumbered() -> None:
    known = {code: row.name for code, row in error_codes().items()}
    assert {code: known.get(code) for code in RELEASED} == RELEASED
    assert len(set(known.values())) == len(known)


def test_codes_lie_in_the_range_of_their_kind() -> None:
    ranges = {"answer": range(1, 40), "fault": range(40, 70), "link": range(80, 100)}
    assert [code for code, row in error_codes().items() if code not in ranges[row.kind]] == []
    assert all(row.meaning and row.what_the_host_does for row in error_codes().values())


def test_the_longest_gate_event_just_fits() -> None:
    fields = ("65535", "4", "65535", "99999999", "divert", "no-verdict", "1", "65535", "4294967295", "65535")
    assert len(protocol.Frame("!", 7, "GATE", fields).encode()) == protocol.MAX_FRAME_BYTES_0_1_0
    assert len(protocol.Frame("!", 7, "GATE", (*fields, "0", "1")).encode()) == protocol.MAX_FRAME_BYTES
    # An additional gate takes a part for these two reasons only. Both are short enough to leave room for the gate.
    for reason in ("verdict", "spacing"):
        assert len(protocol.Frame("!", 7, "GATE", (*fields[:5], reason, *fields[6:], "4")).encode()) <= protocol.MAX_FRAME_BYTES_0_1_0


def test_the_ring_repeats_as_the_page_says() -> None:
    repetition = {row["event"]: row["kept until"] for row in tables("Events")[0]}
    assert repetition["GATE"] == repetition["FAULT"] == f"ACK; repeated every {events.REPEAT_US // 1000} ms"


def test_the_session_is_there_to_be_replayed() -> None:
    assert sum(line.startswith(">") for line in example_session()) >= 15
