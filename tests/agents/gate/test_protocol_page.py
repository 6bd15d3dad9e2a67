"""What firmware/PROTOCOL.md says is what the Python side knows; error codes have one home."""

from __future__ import annotations

from firmware.board import commands, faults, frames, ring, words
from firmware.board.lane_settings import TABLE
from firmware.fault_table import error_codes
from tests.agents.gate.protocol_page import frames_shown, session, tables

# Released numbers. A line may be added here, never changed: boards in the field speak them.
RELEASED = {
    1: "unknown-command", 2: "wrong-fields", 3: "version", 4: "not-greeted", 5: "not-committed", 6: "unknown-setting",
    7: "out-of-bounds", 8: "inconsistent", 9: "busy", 10: "not-supported", 11: "unknown-lane", 12: "fault-present",
    13: "not-clearable", 20: "late", 21: "unknown-run", 22: "unknown-part", 23: "conflict", 40: "host-silent",
    41: "eye1-stuck", 42: "eye2-stuck", 43: "encoder-stopped", 44: "servo-power", 45: "emergency-stop",
    46: "abnormal-reset", 47: "tracker-full", 48: "events-lost", 49: "stopped", 50: "parts-exhausted",
    51: "settings-lost", 80: "no-answer", 81: "link-away", 82: "deadline", 83: "port-in-use", 84: "stopping",
}  # fmt: skip


def test_the_limits_are_those_of_the_codec() -> None:
    limits = {row["limit"]: row["value"] for table in tables("Frames") for row in table}
    assert limits["longest frame, newline included, bytes"] == str(frames.LONGEST)
    assert limits["longest command, newline included, bytes"] == str(frames.LONGEST_COMMAND)
    assert limits["protocol version"] == str(words.VERSION)
    assert limits["commands unanswered at a time, at most"] == str(commands.WINDOW)


def test_the_checksum_gives_the_check_value() -> None:
    (table,) = tables("CRC-16")
    check = next(row["value"] for row in table if row["property"].startswith("check value"))
    assert frames.crc16(b"123456789") == int(check, 16) == 0x29B1


def test_every_frame_shown_is_whole() -> None:
    shown = frames_shown()
    assert len(shown) > 40
    assert [line for line in shown if frames.parse(line.encode()) is None] == []


def test_commands_events_and_pages_are_the_same_in_page_and_code() -> None:
    (table,) = tables("Commands")
    page = {row["command"]: (row["fields"], row["fields of OK"], row["needs"]) for row in table}

    def told(fields: tuple[str, ...]) -> str:
        return " ".join(fields) or "-"

    code = {name: (told(fields), told(answer), needs or "-") for name, (fields, answer, needs) in words.COMMANDS.items()}
    code["STATUS"] = ("lane page", "page and the page's fields", "-")
    assert page == code
    events = {name: (*fields, *(f"[{field}]" for field in words.OPTIONAL.get(name, ()))) for name, fields in words.EVENTS.items()}
    assert {row["event"]: tuple(row["fields"].split()) for row in tables("Events")[0]} == events
    assert {row["page"]: tuple(row["fields"].split()) for row in tables("STATUS")[0]} == words.PAGES


def test_every_field_has_the_same_bounds_or_words_in_page_and_code() -> None:
    numbers, lists = tables("Fields")
    assert {row["field"]: (int(row["least"]), int(row["most"])) for row in numbers if row["type"] == "number"} == words.NUMBERS
    assert {row["field"]: tuple(row["words"].split()) for row in lists} == words.WORDS
    assert {row["field"] for row in numbers if row["type"] != "number"} == set(words.TEXTS)
    spoken = {name for fields, answer, _ in words.COMMANDS.values() for name in (*fields, *answer)}
    spoken |= {name for fields in (*words.EVENTS.values(), *words.PAGES.values()) for name in fields}
    assert spoken - words.NUMBERS.keys() - words.WORDS.keys() - set(words.TEXTS) == set()


def test_every_reason_of_a_gate_event_is_explained() -> None:
    assert tuple(row["reason"] for row in tables("Reasons and actions of GATE")[0]) == words.WORDS["reason"]


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
    assert len(frames.Frame("!", 7, "GATE", fields).encode()) == frames.LONGEST
    # A further gate takes a part for these two reasons only: they leave room to name it.
    for reason in ("verdict", "spacing"):
        assert len(frames.Frame("!", 7, "GATE", (*fields[:5], reason, *fields[6:], "4")).encode()) <= frames.LONGEST


def test_the_ring_repeats_as_the_page_says() -> None:
    kept = {row["event"]: row["kept until"] for row in tables("Events")[0]}
    assert kept["GATE"] == kept["FAULT"] == f"ACK; repeated every {ring.REPEAT_US // 1000} ms"


def test_the_session_is_there_to_be_replayed() -> None:
    assert sum(line.startswith(">") for line in session()) >= 15
