"""The wiring guide shows the pins of firmware/pins.py and names only commands that exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import fields

from click.testing import CliRunner

from deploy.cli.board import command
from firmware import cabinet, toolchain, wiring
from firmware.pins import LANES, Pin

PAGE = (wiring.DOCS / "wiring.md").read_text()


def test_drawing_and_table_are_those_of_the_pins() -> None:
    assert (wiring.DOCS / "wiring.svg").read_text() == wiring.draw_lane(LANES[0], 1)
    assert (wiring.DOCS / "wiring-valve.svg").read_text() == wiring.draw_valve(LANES[1], 2)
    assert (wiring.DOCS / "wiring-cabinet.svg").read_text() == cabinet.draw_cabinet()
    assert wiring.replace_tables(PAGE) == PAGE, "call python -m firmware.wiring"


def test_the_drawing_is_whole_and_names_every_pin_of_the_lane() -> None:
    root = ElementTree.fromstring(wiring.draw_lane(LANES[0], 1))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    pins = [getattr(LANES[0], each.name) for each in fields(LANES[0])]
    assert {pin.label for pin in pins if isinstance(pin, Pin)} <= texts


def test_the_terminal_plan_has_each_pin_of_a_lane_once_and_the_servos_also_for_a_valve() -> None:
    names = Counter(name for _, _, _, name in wiring.TERMINALS if name)
    pins = Counter(each.name for each in fields(LANES[0]) if isinstance(getattr(LANES[0], each.name), Pin))
    assert names == pins + Counter(["servo"])


def test_the_example_has_each_terminal_of_the_plan_once_except_the_encoders() -> None:
    plan = {(number, name): outside for number, (_, outside, _, name) in enumerate(wiring.TERMINALS, 1) if "encoder" not in outside}
    valve = [terminal for terminal, outside in plan.items() if outside.startswith("valve")]
    assert [(terminal, name) for terminal, _, _, name in cabinet.LANE_WIRES] == [terminal for terminal in plan if terminal not in valve]
    assert [(terminal, name) for terminal, _, _, name in cabinet.VALVE_WIRES] == valve


def _devices() -> str:
    return PAGE.partition("### Devices")[2].partition("### Mains side")[0]


def test_the_example_explains_the_name_of_each_device() -> None:
    wires = cabinet.make_lane_wires() + cabinet.make_valve_wires()
    names = set(re.findall(r"\b(?:1[BCFHKMNSXY]\d+|1TA|1X[PLN]|[GQ]\d|X[0G56])\b", wires))
    names = {name for name in names if not re.fullmatch(r"1K([2-9]|10)", name)}
    assert {"1F3", "1K20", "1B3", "1Y1", "1TA", "1XN", "XG", "G2", "Q2"} <= names
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", _devices())] == []


def test_no_device_has_the_name_of_a_pin_or_of_a_devices_terminal() -> None:
    devices = [name for row in re.findall(r"^\| ([^|]+) \|[^|]+\|$", _devices(), re.MULTILINE) for name in re.findall(r"\w+", row)]
    pins = {pin.label for lane in LANES for each in fields(lane) if isinstance(pin := getattr(lane, each.name), Pin)}
    assert {"1B1", "K0", "X0"} <= set(devices)
    assert set(devices).isdisjoint(pins | set(re.findall(r"\b\w+:(\w+)", PAGE)))


def test_each_lane_reads_the_stop_from_both_contactors() -> None:
    wires = cabinet.make_lane_wires() + PAGE.partition("### Emergency stop")[2]
    for lane, first, second in ((1, 13, 14), (2, 33, 34)):
        assert f"| X{lane}:7 | Q2:{first}," in wires
        assert f"| Q2:{second} | Q3:{first} |" in wires
        assert f"| X{lane}:8 | Q3:{second}," in wires


def test_no_wire_of_the_servo_reaches_a_valve() -> None:
    servo = {number for number, (_, outside, _, _) in enumerate(wiring.TERMINALS, 1) if outside.startswith("servo,")}
    assert servo == {9, 10, 11}
    assert servo.isdisjoint(terminal for terminal, _, _, _ in cabinet.VALVE_WIRES)
    assert not re.search(r"F3|G[23]|220", cabinet.make_valve_wires())


def test_no_pin_has_two_uses_and_none_is_the_serial_line() -> None:
    pins = [value for lane in LANES for each in fields(lane) if isinstance(value := getattr(lane, each.name), Pin)]
    assert Counter(pin.port for pin in pins).most_common(1)[0][1] == 1
    assert Counter(pin.label for pin in pins).most_common(1)[0][1] == 1
    assert {"D0", "D1"}.isdisjoint(pin.label for pin in pins)


def test_every_pin_of_the_table_stands_in_the_sketchs_configuration() -> None:
    config = (toolchain.SORTER / "config.h").read_text()
    for lane in LANES:
        names = ("servo", "eye1", "eye2", "encoder_a", "encoder_b", "end_switch", "chute_eye", "chute_full", "button")
        for each in fields(lane):
            pin = getattr(lane, each.name)
            if isinstance(pin, Pin) and each.name in names:
                assert re.search(rf"\b{pin.label}\b", config), (each.name, pin)


def test_the_commands_of_the_guide_exist() -> None:
    named = set(re.findall(r"castline board (\w+)", PAGE))
    assert {"status", "test", "configure", "flash", "clear"} <= named
    for name in named:
        assert CliRunner().invoke(command, [name, "--help"]).exit_code == 0, name
