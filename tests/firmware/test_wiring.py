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
    assert (wiring.DOCS / "wiring-cabinet.svg").read_text() == cabinet.draw_cabinet()
    assert wiring.replace_tables(PAGE) == PAGE, "call python -m firmware.wiring"


def test_the_drawing_is_whole_and_names_every_pin_of_the_lane() -> None:
    root = ElementTree.fromstring(wiring.draw_lane(LANES[0], 1))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    pins = [getattr(LANES[0], each.name) for each in fields(LANES[0])]
    assert {pin.label for pin in pins if isinstance(pin, Pin)} <= texts


def test_the_terminal_plan_has_each_pin_of_a_lane_once() -> None:
    names = Counter(name for _, _, _, name in wiring.TERMINALS if name)
    assert names == Counter(each.name for each in fields(LANES[0]) if isinstance(getattr(LANES[0], each.name), Pin))


def test_the_example_has_each_terminal_of_the_plan_once_except_the_encoders() -> None:
    plan = Counter((number, name) for number, (_, outside, _, name) in enumerate(wiring.TERMINALS, 1) if "encoder" not in outside)
    assert Counter((terminal, name) for terminal, _, _, name in cabinet.LANE_WIRES) == plan


def test_the_example_explains_the_name_of_each_device() -> None:
    wires = cabinet.make_lane_wires()
    names = {name for name in re.findall(r"\b(?:1[FKN]\d+|[BCHMSU]1\d?|[TQ]\d|X0)\b", wires) if not re.fullmatch(r"1K([2-9]|1[01]?)", name)}
    assert {"1F1", "1K20", "B13", "T2", "Q2"} <= names
    devices = PAGE.partition("### Devices")[2].partition("### Mains side")[0]
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", devices)] == []


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
