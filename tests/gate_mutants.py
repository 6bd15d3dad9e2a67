"""Changes the firmware, the gate link and the sorter in one place at a time, and checks that a test fails for each change.

`make campaign-mutants` prints a table: each mutant with the test that found it. The exit status is 1 if a mutant survived that is not
explained here, or if its patch no longer fits the source.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The exit status of pytest if its arguments choose no test.
_NO_TEST = 5
# A mutant can make a program hang.
MAX_RUN_S = 600


@dataclass(frozen=True)
class Mutant:
    """One change: `old` becomes `new` in `file`. `tests` are arguments of pytest.

    `survives_because` is empty, or explains why no test can find the mutant.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    survives_because: str = ""


FIRMWARE, HOST, SORTER = "firmware/sorter/", "agents/gate/", "agents/sorter/"
_EEPROM = "tests/firmware/test_eeprom.py"
_LOCKS = "tests/firmware/test_interrupts.py"
_MEGA = "tests/firmware/test_firmware.py"
_INPUTS = "tests/firmware/test_conformance_inputs.py"
_PARTS = "tests/firmware/test_conformance_parts.py"
_RESETS = "tests/firmware/test_conformance_resets.py"
_FAULTS = "tests/firmware/test_conformance_faults.py"
_MARKS = "tests/firmware/test_reset_marks.py"
_REQUESTS = "tests/agents/gate/test_requests.py"
_LINK = "tests/agents/gate/test_link.py"
_STOCK = "tests/agents/gate/test_stock_mega.py"
_MOVES = "tests/firmware/test_conformance_gate.py"
_PLANT = "tests/firmware/test_conformance_plant.py"
_BYPASS = "tests/agents/sorter/test_bypass.py"
_DECISIONS = "tests/agents/sorter/test_decisions.py"
_JOURNAL = "tests/agents/sorter/test_journal.py"
_RECORDS = "tests/agents/sorter/test_sorter_records.py"
_DELIVERY = "tests/agents/sorter/test_sorter_delivery.py"

MUTANTS = (
    # The memory of the board
    Mutant(
        "checksum of stored settings ignored",
        FIRMWARE + "memory.cpp",
        "if (crc != (static_cast<uint16_t>(high) << 8 | low)) return kDamaged;",
        "(void)crc, (void)high, (void)low;",
        _EEPROM,
    ),
    Mutant(
        "stored fault not kept",
        FIRMWARE + "memory.cpp",
        "if (write_faults(compared_lane, board.lane(compared_lane).faults().kept())) return;",
        "(void)write_faults;",
        f"{_EEPROM} {_RESETS} -k 'fault and not core and not python'",
    ),
    Mutant("only one copy of a fault", FIRMWARE + "memory.cpp", "index < 2 * sizeof faults", "index < sizeof faults", _EEPROM),
    Mutant(
        "raised run not used",
        FIRMWARE + "commands.cpp",
        "if (run > run_) run_ = raised_run_ =",
        "if (run > 99999) run_ = raised_run_ =",
        f"{_RESETS} -k 'raised_run and avr'",
    ),
    Mutant(
        "raised run not stored",
        FIRMWARE + "commands.cpp",
        "run_ = raised_run_ = static_cast",
        "run_ = static_cast",
        f"{_RESETS} -k 'raised_run and avr'",
    ),
    # Interrupts
    Mutant(
        "encoder read without lock",
        FIRMWARE + "sensors.cpp",
        "ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { step = steps[lane]; }",
        "step = steps[lane];",
        _LOCKS,
    ),
    Mutant(
        "timer registers written without lock",
        FIRMWARE + "servo.cpp",
        "ATOMIC_BLOCK(ATOMIC_RESTORESTATE) { *to = value; }",
        "*to = value;",
        _LOCKS,
    ),
    Mutant(
        "clock read without lock",
        FIRMWARE + "sensors.cpp",
        "  ATOMIC_BLOCK(ATOMIC_RESTORESTATE) {\n    count = TCNT5;",
        "  {\n    count = TCNT5;",
        _LOCKS,
    ),
    Mutant(
        "overflow of the clock lost",
        FIRMWARE + "sensors.cpp",
        "&& count < 0x8000) ++high;",
        "&& count < 0) ++high;",
        _MEGA + " tests/firmware/test_four_lanes.py tests/firmware/test_thousand_parts.py",
    ),
    Mutant(
        "receive ring overwritten",
        FIRMWARE + "link.cpp",
        "if (waiting == kReceiveRing) {",
        "if (waiting > kReceiveRing * 8) {",
        _MEGA + " -k sends_too_much",
    ),
    # Inputs
    Mutant(
        "encoder's double step counted twice",
        FIRMWARE + "sensors.cpp",
        "  if (change == 1) steps[lane] = steps[lane] + 1;",
        "  if (change == 2) steps[lane] = steps[lane] + 2;\n  if (change == 1) steps[lane] = steps[lane] + 1;",
        _MEGA + " -k 'both_phases'",
    ),
    Mutant(
        "encoder counts backwards as forwards",
        FIRMWARE + "sensors.cpp",
        "steps[lane] = steps[lane] - 1;",
        "steps[lane] = steps[lane] + 1;",
        _MEGA + " -k encoder",
    ),
    Mutant(
        "bounce of the photo-eyes",
        FIRMWARE + "lane_parts.cpp",
        "take_edge(index, now_us, settings_[kDebounceUs])",
        "take_edge(index, now_us, 0)",
        f"{_INPUTS} -k avr",
    ),
    Mutant(
        "bounce of the emergency stop",
        FIRMWARE + "lane.cpp",
        "estop_open_.sample(estop_open, passed_us, hold_us);",
        "estop_open_.sample(estop_open, passed_us, 1);",
        f"{_INPUTS} -k avr",
    ),
    Mutant(
        "bounce of the servo's supply",
        FIRMWARE + "lane.cpp",
        "servo_power_missing_.sample(!servo_power, passed_us, hold_us);",
        "servo_power_missing_.sample(!servo_power, passed_us, 1);",
        f"{_INPUTS} -k avr",
    ),
    Mutant(
        "bounce of the belt signal",
        FIRMWARE + "lane.cpp",
        "belt_off_.sample(!belt_runs, passed_us, hold_us)",
        "belt_off_.sample(!belt_runs, passed_us, 1)",
        f"{_INPUTS} -k avr",
    ),
    Mutant(
        "contact lasts twice as long",
        FIRMWARE + "lane.cpp",
        "static_cast<uint16_t>(settings_[kContactMs] * 1000);",
        "static_cast<uint16_t>(settings_[kContactMs] * 2000);",
        f"{_INPUTS} -k 'avr or core'",
    ),
    Mutant(
        "trigger queue one shorter",
        FIRMWARE + "camera.h",
        "if (count_ == kCameraPulses) {",
        "if (count_ == kCameraPulses - 1) {",
        f"{_INPUTS} -k 'avr or core'",
    ),
    Mutant(
        "lost camera pulse not counted",
        FIRMWARE + "camera.h",
        "      ++lost_;\n      return;",
        "      return;",
        f"{_INPUTS} -k 'avr or core'",
    ),
    # Parts and gate
    Mutant(
        "decision window one step wider",
        FIRMWARE + "tracker.cpp",
        "settings.travel(kWindowMm)) + 1;",
        "settings.travel(kWindowMm)) + kPlacesPerStep + 1;",
        f"{_PARTS} -k avr",
    ),
    Mutant(
        "decision window one step narrower",
        FIRMWARE + "tracker.cpp",
        "settings.travel(kWindowMm)) + 1;",
        "settings.travel(kWindowMm)) - kPlacesPerStep + 1;",
        f"{_PARTS} -k avr",
    ),
    Mutant(
        "part missing one step early",
        FIRMWARE + "tracker.h",
        "past(place, parts_[first_].place) > static_cast<int32_t>(reach)",
        "past(place, parts_[first_].place) > static_cast<int32_t>(reach - kPlacesPerStep)",
        f"{_PARTS} -k avr",
    ),
    Mutant(
        "spacing counts to its last step",
        FIRMWARE + "tracker.cpp",
        "(*this)[cluster - 1].place) < spacing",
        "(*this)[cluster - 1].place) <= spacing",
        f"{_PARTS} -k 'avr or core'",
    ),
    Mutant(
        "spacing to an earlier part counts to its last step",
        FIRMWARE + "tracker.cpp",
        "past(place, last_until_) < 0 && !",
        "past(place, last_until_) <= 0 && !",
        f"{_PARTS} -k 'avr or core'",
    ),
    Mutant(
        "gate in front of photo-eye 2",
        FIRMWARE + "lane_parts.cpp",
        "(edge2_.place + settings_.places(gate",
        "(edge2_.place - settings_.places(gate",
        f"{_PARTS} -k 'avr or core'",
    ),
    Mutant(
        "one more missing part before the fault",
        FIRMWARE + "lane_parts.cpp",
        "missing_in_a_row_ >= settings_[kLostLimit]",
        "missing_in_a_row_ > settings_[kLostLimit]",
        f"{_FAULTS} -k 'avr or core'",
    ),
    Mutant(
        "one more unmatched part before the fault",
        FIRMWARE + "lane_parts.cpp",
        "unmatched_in_a_row_ >= settings_[kLostLimit]",
        "unmatched_in_a_row_ > settings_[kLostLimit]",
        f"{_FAULTS} -k 'avr or core'",
    ),
    Mutant(
        "missing parts counted on after a fault",
        FIRMWARE + "lane.cpp",
        "  missing_in_a_row_ = unmatched_in_a_row_ = 0;\n  ignore_missing_until_",
        "  ignore_missing_until_",
        f"{_FAULTS} {_PARTS} -k 'avr or core'",
    ),
    Mutant(
        "last part remembered after a fault",
        FIRMWARE + "lane_parts.cpp",
        "  }\n  tracker_.forget_last_part();\n",
        "  }\n",
        f"{_FAULTS} {_PARTS} -k 'avr or core'",
    ),
    Mutant(
        "late verdict accepted",
        FIRMWARE + "commands.cpp",
        "part == nullptr || part->basis != kUndecided ?",
        "part == nullptr ?",
        f"{_PARTS} tests/firmware/test_conformance_words.py -k 'avr or core'",
    ),
    Mutant(
        "fault cleared although its cause is present",
        FIRMWARE + "commands.cpp",
        "if (lane_->has_fault_cause(code)) return kFaultPresent;",
        "",
        f"{_FAULTS} -k 'avr or core'",
    ),
    # Confirmed moves
    Mutant(
        "bounce of the end switch",
        FIRMWARE + "lane_gate.cpp",
        "gate_at_end_.sample(inputs.at_end, passed_us, hold_us, kGateSampleUs);",
        "gate_at_end_.sample(inputs.at_end, passed_us, 1, kGateSampleUs);",
        f"{_MOVES} -k 'avr and jammed'",
    ),
    Mutant(
        "bounce of the full chute",
        FIRMWARE + "lane_gate.cpp",
        "chute_full_.sample(inputs.chute_full, passed_us, hold_us, kGateSampleUs);",
        "chute_full_.sample(inputs.chute_full, passed_us, 1, kGateSampleUs);",
        f"{_INPUTS} -k 'avr and 5_ms'",
    ),
    Mutant(
        "bounce of the eye in the chute",
        FIRMWARE + "lane_gate.cpp",
        "chute_eye_.sample(blocked, passed_us, hold_us, kGateSampleUs)",
        "chute_eye_.sample(blocked, passed_us, 1, kGateSampleUs)",
        f"{_INPUTS} -k 'avr and 5_ms'",
    ),
    Mutant(
        "bounce of the push-button",
        FIRMWARE + "button.h",
        "contact_.sample(pressed, passed_us, kMinPressMs * 1000U, kGateSampleUs)",
        "contact_.sample(pressed, passed_us, 1, kGateSampleUs)",
        f"{_INPUTS} -k 'avr and 5_ms'",
    ),
    Mutant(
        "bounce of the plant's reset button",
        FIRMWARE + "lane.cpp",
        "reset_pressed_.sample(reset_pressed, unsampled_us_, kKeyMs * 1000U);",
        "reset_pressed_.sample(reset_pressed, unsampled_us_, 1);",
        f"{_INPUTS} -k 'avr and 5_ms'",
    ),
    Mutant(
        "bounce of the bypass key",
        FIRMWARE + "lane.cpp",
        "bypass_on_.sample(bypass_on, unsampled_us_, kKeyMs * 1000U);",
        "bypass_on_.sample(bypass_on, unsampled_us_, 1);",
        f"{_INPUTS} -k 'avr and 5_ms'",
    ),
    Mutant(
        "the eye in the chute switches when dark only",
        FIRMWARE + "lane_gate.cpp",
        "const bool blocked = is_low != is_light_on;",
        "const bool blocked = is_low;",
        f"{_MOVES} -k 'avr and switch'",
    ),
    Mutant(
        "a change of the polarity counts as a casting in the chute",
        FIRMWARE + "lane_gate.cpp",
        "    chute_eye_.invert(hold_us);\n",
        "",
        f"{_MOVES} -k 'avr and switch'",
    ),
    Mutant(
        "window at the chute one step wider",
        FIRMWARE + "lane_gate.cpp",
        "chute_.take_nearest(place, belt.settings_.places(settings_[kChuteWindowMm]), event)",
        "chute_.take_nearest(place, belt.settings_.places(settings_[kChuteWindowMm]) + kPlacesPerStep, event)",
        f"{_MOVES} -k 'avr and window'",
    ),
    Mutant(
        "window at the chute one step narrower",
        FIRMWARE + "lane_gate.cpp",
        "chute_.take_nearest(place, belt.settings_.places(settings_[kChuteWindowMm]), event)",
        "chute_.take_nearest(place, belt.settings_.places(settings_[kChuteWindowMm]) - kPlacesPerStep, event)",
        f"{_MOVES} -k 'avr and window'",
    ),
    Mutant(
        "part overdue at the chute one step early",
        FIRMWARE + "chute.h",
        "past(here, moves_[index].expected) <= static_cast<int32_t>(window)) ++index;",
        "past(here, moves_[index].expected) <= static_cast<int32_t>(window - kPlacesPerStep)) ++index;",
        f"{_MOVES} -k 'avr and window'",
    ),
    Mutant(
        "oldest instead of nearest part in the chute",
        FIRMWARE + "chute.h",
        "return take(nearest, event);",
        "return take(nearest < count_ ? 0 : nearest, event);",
        f"{_MOVES} -k 'avr and lost_between'",
    ),
    Mutant(
        "part that the chute did not see is confirmed",
        FIRMWARE + "lane_gate.cpp",
        "belt().raise(kChuteMissed, shared_->events.confirm(event, false));",
        "belt().raise(kChuteMissed, shared_->events.confirm(event, true));",
        f"{_MOVES} -k 'avr and does_not_see'",
    ),
    Mutant(
        "part that the chute did not see raises no fault",
        FIRMWARE + "lane_gate.cpp",
        "belt().raise(kChuteMissed, shared_->events.confirm(event, false));",
        "shared_->events.confirm(event, false);",
        "tests/firmware/test_faults.py -k chute",
    ),
    Mutant(
        "report waits for the chute for ever after a fault",
        FIRMWARE + "lane_parts.cpp",
        "  remove_armed(safe);\n  give_up_chute();\n",
        "  remove_armed(safe);\n",
        f"{_MOVES} -k 'avr and before_the_chute'",
    ),
    Mutant(
        "unexpected castings in the chute not counted",
        FIRMWARE + "lane_gate.cpp",
        "    ++chute_counters_.unexpected;\n",
        "",
        f"{_MOVES} -k 'avr and diverted'",
    ),
    Mutant(
        "jammed gate forgiven while it sorts",
        FIRMWARE + "end_switch.h",
        "const bool has_stayed = at_end && must_leave_ &&",
        "const bool has_stayed = false && must_leave_ &&",
        "tests/firmware/test_faults.py -k jams",
    ),
    Mutant(
        "time limit of the end switch doubled",
        FIRMWARE + "lane_gate.cpp",
        "(2 * uint32_t{settings_[kServoMs]} + kEndMarginMs) * 1000;",
        "(4 * uint32_t{settings_[kServoMs]} + 2 * kEndMarginMs) * 1000;",
        f"{_MOVES} -k 'avr and gate'",
    ),
    Mutant(
        "stuck gate's fault ends although the gate is stuck",
        FIRMWARE + "lane.cpp",
        "if (code == kGateStuck) return settings_[kUseEndSwitch] && !is_gate_at_end();",
        "if (code == kGateStuck) return false;",
        f"{_MOVES} -k 'avr and gate'",
    ),
    Mutant(
        "chute full at once",
        FIRMWARE + "lane_gate.cpp",
        "now_ms - chute_had_room_ms_ >= settings_[kChuteFullMs]",
        "now_ms - chute_had_room_ms_ >= 1",
        f"{_MOVES} -k 'avr and full'",
    ),
    Mutant(
        "long press of the push-button counts",
        FIRMWARE + "button.h",
        "    if (contact_.is_on() && now_ms - since_ms_ >= kMaxPressMs) counts_ = false;\n",
        "",
        f"{_MOVES} -k 'avr and long_press'",
    ),
    Mutant(
        "push-button ends a fault whose cause is present",
        FIRMWARE + "lane_gate.cpp",
        "end(code) == kByClear && !belt.has_fault_cause(code)",
        "end(code) == kByClear",
        f"{_MOVES} -k 'avr and press'",
    ),
    Mutant(
        "end of a fault by the push-button not reported",
        FIRMWARE + "lane_gate.cpp",
        "belt.end_fault(code, kEndedByButton);",
        "belt.end_fault(code);",
        f"{_MOVES} -k 'avr and press'",
    ),
    # Plant interface and servo
    Mutant(
        "one more reject before the interlock",
        FIRMWARE + "lane_parts.cpp",
        "rejects_in_a_row_ >= settings_[kRejectLimit])",
        "rejects_in_a_row_ > settings_[kRejectLimit])",
        f"{_PLANT} -k 'avr and rejects'",
    ),
    Mutant(
        "parts without verdict do not count for the interlock",
        FIRMWARE + "lane_parts.cpp",
        "count_reject(is_unjudged || decision.action == kDivert);",
        "count_reject(decision.action == kDivert);",
        f"{_PLANT} -k 'avr and rejects'",
    ),
    Mutant(
        "bypass does not stop diversions that are under way",
        FIRMWARE + "lane.cpp",
        "is_bypassed() && at < other.armed_count_",
        "false && at < other.armed_count_",
        f"{_PLANT} -k 'avr and (key or additional)'",
    ),
    Mutant(
        "reject changes together with result valid",
        FIRMWARE + "plant_interface.h",
        "const uint8_t kResultMarginMs = 5;",
        "const uint8_t kResultMarginMs = 0;",
        f"{_PLANT} -k 'avr and result'",
    ),
    Mutant(
        "heartbeat without a host",
        FIRMWARE + "plant_interface.h",
        "if (has_host && beat_) bits |= kHeartbeatSignal;",
        "if (beat_) bits |= kHeartbeatSignal;",
        f"{_PLANT} -k 'avr and heartbeat'",
    ),
    Mutant(
        "servo pulse cut by a level",
        FIRMWARE + "servo.cpp",
        "if (!pulse_may_be_high(index, count) && count < kTop - kGuard) connect(index, false);",
        "connect(index, false), (void)count;",
        _MEGA + " -k finished",
    ),
    Mutant(
        "gates 1 and 4 start their pulses one after the other",
        FIRMWARE + "hardware.cpp",
        "      servo::set_pulse(index, lane.pulse_us());\n",
        "      servo::set_pulse(index, lane.pulse_us());\n      servo::time_pulse(index, lane.gate_moves_soon());\n",
        "tests/firmware/test_four_lanes.py -k together",
    ),
    # Resets
    Mutant(
        "autostart ignored",
        FIRMWARE + "lane.cpp",
        "if (first && !settings_[kAutostart]) raise(kAwaitingStart, 0);",
        "",
        f"{_RESETS} -k 'avr or core'",
    ),
    Mutant(
        "heartbeat in memory ignored", FIRMWARE + "reset_marks.cpp", "if (marks.samples >= kStillSamples) return kWatchdog;", "", _MARKS
    ),
    Mutant("HUPCL left on", HOST + "port.py", "settings[2] &= ~termios.HUPCL", "settings[2] |= termios.HUPCL", _STOCK),
    Mutant("BOOT not awaited", HOST + "link.py", "        self._listen()\n        self._received_s", "        self._received_s", _STOCK),
    Mutant(
        "boot loader not left",
        HOST + "link.py",
        "            self._port.leave_boot_loader()\n        if self._stopping",
        "        if self._stopping",
        _STOCK,
    ),
    # The gate link
    Mutant(
        "deadline ignored",
        HOST + "requests.py",
        "return now_s > request.deadline_s +",
        "return now_s > 1e9 + request.deadline_s +",
        f"{_REQUESTS} {_LINK}",
    ),
    Mutant(
        "verdict sent again after its deadline",
        HOST + "requests.py",
        "if now_s >= request.resend_s and request.may_be_sent_again:",
        "if now_s >= request.resend_s:",
        _REQUESTS,
    ),
    Mutant(
        "deadline from the wall clock",
        SORTER + "decisions.py",
        "    if counted_s is None:\n        counted_s = now_s",
        "    if counted_s is not None or True:\n        counted_s = now_s",
        _DECISIONS,
    ),
    Mutant(
        "deadline after the gate",
        SORTER + "decisions.py",
        "gate.travel_s - MIN_SENDING_TIME",
        "gate.travel_s + MIN_SENDING_TIME",
        _DECISIONS,
    ),
    Mutant(
        "repeated event passed on",
        HOST + "lane.py",
        "        if (self.run, event) in self._unacknowledged:\n            return False\n",
        "",
        _LINK,
    ),
    Mutant(
        "one command more than the board can take",
        HOST + "requests.py",
        "        while len(self.sent) < self.size and",
        "        while len(self.sent) <= self.size and",
        f"{_REQUESTS} {_LINK}",
    ),
    Mutant(
        "command without answer sent for ever",
        HOST + "requests.py",
        "if request.tries >= MAX_TRIES and",
        "if request.tries >= 10 * MAX_TRIES and",
        f"{_REQUESTS} {_LINK}",
    ),
    Mutant(
        "verdict for an earlier run sent",
        HOST + "requests.py",
        '        self._drop(is_of_other_run, "unknown-run")\n',
        "",
        f"{_REQUESTS} {_LINK}",
    ),
    Mutant(
        "part announced twice is counted twice",
        HOST + "lane.py",
        "if run == self.run and (run, part) not in self._announced_parts:",
        "if run == self.run:",
        _LINK,
    ),
    Mutant(
        "event of an earlier run passed on",
        HOST + "lane.py",
        'if run == self.run and self._is_new(fields.number("event")):',
        'if self._is_new(fields.number("event")):',
        "tests/agents/gate",
    ),
    Mutant(
        "board's clock kept over a reset",
        HOST + "link.py",
        "            self._clock.reset()\n",
        "            pass\n",
        "tests/agents/gate",
    ),
    Mutant(
        "time of the board after its wrap",
        HOST + "lane.py",
        "+ _CLOCK_WRAP_MS // 2) % _CLOCK_WRAP_MS - _CLOCK_WRAP_MS // 2",
        ") % _CLOCK_WRAP_MS",
        "tests/agents/gate/test_lane.py",
    ),
    Mutant(
        "exchanged board keeps its run",
        SORTER + "part_states.py",
        "return run if is_unused or highest >= MAX_RUN else highest + 1",
        "return run",
        _DECISIONS,
    ),
    # Records
    Mutant(
        "unconfirmed move recorded as confirmed",
        SORTER + "decisions.py",
        '{True: "yes", False: "no", None: "not-equipped"}',
        '{True: "yes", False: "yes", None: "not-equipped"}',
        _DECISIONS,
    ),
    Mutant(
        "missing eye in the chute recorded as not seen",
        SORTER + "decisions.py",
        '{True: "yes", False: "no", None: "not-equipped"}',
        '{True: "yes", False: "no", None: "no"}',
        _DECISIONS,
    ),
    Mutant(
        "late verdict recorded as the reason of the movement",
        SORTER + "decisions.py",
        'reason: SortingReason = LATE if previous.reason == "no-verdict" else previous.reason',
        "reason: SortingReason = LATE",
        _DECISIONS,
    ),
    Mutant(
        "bypass not given as the reason",
        SORTER + "decisions.py",
        "        if _BYPASS in self._active:\n            return _BYPASS\n",
        "",
        _BYPASS,
    ),
    Mutant(
        "review passed although it must be diverted",
        SORTER + "decisions.py",
        'if verdict.label == "ok" or (verdict.label == "review" and gate.on_review == "pass"):',
        'if verdict.label == "ok" or verdict.label == "review":',
        _DECISIONS,
    ),
    # The journal
    Mutant(
        "journal not flushed to the disk", "streams/queue_file.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL", _JOURNAL
    ),
    Mutant(
        "journal acknowledged before it is written",
        SORTER + "sorter.py",
        "            await self._store(sortings, counted, runs[-1] if runs else None)\n",
        "            [self._lane.acknowledge_event(event.event, event.run) for event in events if isinstance(event, PartSorted)]\n"
        "            await self._store(sortings, counted, runs[-1] if runs else None)\n",
        _JOURNAL,
    ),
    Mutant(
        "records removed before Kafka has them",
        SORTER + "journal_sender.py",
        "                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])\n",
        "                await asyncio.to_thread(self._journal.remove_through, entries[-1].seq)\n"
        "                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])\n",
        _JOURNAL,
    ),
    Mutant(
        "event recorded again after a restart",
        SORTER + "sorter.py",
        '        if previous is not None and previous.action != "untracked" and previous.event == event.event:',
        "        if previous is not None and previous.event < 0:",
        _RECORDS,
    ),
    Mutant(
        "parts of an earlier run forgotten",
        SORTER + "sorter.py",
        'return [self._untracked_sorting(*key, "board-restarted", _UNKNOWN_RUN) for key in self._states.unrecorded_parts(event.run)]',
        "return []",
        _RECORDS,
    ),
    Mutant(
        "two resets at once give a part two records",
        SORTER + "sorter.py",
        "sortings += self._remember(self._sortings_of(event))",
        "sortings += self._sortings_of(event)",
        _RECORDS,
    ),
    Mutant(
        "late record before the board is back",
        SORTER + "sorter.py",
        "usual_s if self._is_draining else max(usual_s, self._lane.reports_until_s)",
        "usual_s",
        _RECORDS,
    ),
    Mutant(
        "verdict behind acknowledgements",
        HOST + "requests.py",
        "return next((request for request in ready if request.deadline_s is not None), ready[0] if ready else None)",
        "return ready[0] if ready else None",
        _REQUESTS,
    ),
    Mutant(
        "last part forgotten after its spacing",
        FIRMWARE + "tracker.cpp",
        "past(place, last_until_) >= kForgotten",
        "past(place, last_until_) >= 0",
        f"{_PARTS} -k 'spacing_of'",
    ),
    Mutant(
        "old verdicts replayed",
        SORTER + "process.py",
        "    recent_start.apply_to(app)\n",
        "",
        f"{_DELIVERY} -k old_verdicts",
    ),
)


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Yields a copy of the tracked files of this tree."""
    with tempfile.TemporaryDirectory(prefix="castline-mutants-") as name:
        folder = Path(name)
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for file in filter(None, tracked.split("\0")):
            if (ROOT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, folder / file)
        yield folder


def run_tests(folder: Path, tests: str) -> tuple[bool, str]:
    """Runs tests in `folder` until one fails. Returns whether all passed, and the name of the failed test or the reason."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider -p no:xdist --durations=0 --no-header {tests}"
    try:
        done = subprocess.run(
            command.replace("-p no:xdist ", ""), shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=MAX_RUN_S
        )
    except subprocess.TimeoutExpired:
        return False, "a test hung"
    if done.returncode == _NO_TEST:
        raise ValueError(f"no test is chosen by {tests}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode == 0, failed.group(1) if failed else f"status {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}"


@contextmanager
def mutated(folder: Path, mutant: Mutant) -> Iterator[None]:
    """Applies a mutant to the copy. Raises ValueError if its text is not in the source exactly once."""
    file = folder / mutant.file
    source = file.read_text()
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has the text of the mutant {source.count(mutant.old)} times instead of once: {mutant.old}")
    file.write_text(source.replace(mutant.old, mutant.new))
    try:
        yield
    finally:
        file.write_text(source)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the mutants whose names contain this text")
    parser.add_argument("--check", action="store_true", help="only check that each patch fits the source")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    found = unexplained = wrong = 0
    with copied_tree() as folder:
        for mutant in chosen:
            try:
                with mutated(folder, mutant):
                    passed, test = (True, "") if options.check else run_tests(folder, mutant.tests)
            except ValueError as error:
                wrong += 1
                print(f"{mutant.name}: {error}", flush=True)
                continue
            if options.check:
                continue
            found += not passed
            unexplained += passed and not mutant.survives_because
            result = f"found by {test}" if not passed else f"SURVIVED. {mutant.survives_because}"
            print(f"{mutant.name:52} {result}", flush=True)
    print(f"{found} of {len(chosen)} mutants found, {unexplained} survived without an explanation, {wrong} patches do not fit")
    return int(bool(unexplained or wrong))


if __name__ == "__main__":
    sys.exit(main())
