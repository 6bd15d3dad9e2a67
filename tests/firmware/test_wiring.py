"""The wiring guide shows the pins of firmware/pins.py and names only commands that exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import fields

from click.testing import CliRunner

from deploy.cli.board import command
from firmware import toolchain, wiring
from firmware.pins import LANES, Pin

PAGE = (wiring.DOCS / "wiring.md").read_text()


def test_drawing_and_table_are_those_of_the_pins() -> None:
    assert (wiring.DOCS / "wiring.svg").read_text() == wiring.draw_lane(LANES[0], 1)
    assert wiring.replace_tables(PAGE) == PAGE, "call python -m firmware.wiring"


def test_the_drawing_is_whole_and_names_every_pin_of_the_lane() -> None:
    root = ElementTree.fromstring(wiring.draw_lane(LANES[0], 1))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    pins = [getattr(LANES[0], each.name) for each in fields(LANES[0])]
    assert {pin.label for pin in pins if isinstance(pin, Pin)} <= texts


def test_the_terminal_plan_has_each_pin_of_a_lane_once() -> None:
    names = Counter(name for _, _, _, name in wiring.TERMINALS if name)
    assert names == Counter(each.name for each in fields(LANES[0]) if isinstance(getattr(LANES[0], each.name), Pin))


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
