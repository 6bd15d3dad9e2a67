"""The wiring guide and the page about the plant interface show the pins of firmware/pins.py, and name only commands that exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import fields

from click.testing import CliRunner

from deploy.cli.board import command
from firmware import cabinet, plant_strip, toolchain, wiring
from firmware.board import faults
from firmware.pins import LANES, PLANT, PLANT_OUTPUTS, Pin, PlantPins

PAGE = (wiring.DOCS / "wiring.md").read_text()
PLANT_PAGE = (wiring.DOCS / "plant-interface.md").read_text()


def test_drawing_and_table_are_those_of_the_pins() -> None:
    assert (wiring.DOCS / "wiring.svg").read_text() == wiring.draw_lane(LANES[0], 1)
    assert (wiring.DOCS / "wiring-valve.svg").read_text() == wiring.draw_valve(LANES[1], 2)
    assert (wiring.DOCS / "wiring-cabinet.svg").read_text() == cabinet.draw_cabinet()
    assert (wiring.DOCS / "wiring-plant.svg").read_text() == plant_strip.draw_plant(PLANT[0])
    assert wiring.replace_tables(PAGE) == PAGE, "call python -m firmware.wiring"
    assert wiring.replace_plant_strips(PLANT_PAGE) == PLANT_PAGE, "call python -m firmware.wiring"


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
    encoder = [(number, name) for number, (_, outside, _, name) in enumerate(wiring.TERMINALS, 1) if "encoder" in outside]
    assert [(terminal, name) for terminal, _, _, name in cabinet.ENCODER_WIRES if name] == [each for each in encoder if each[1]]


def _devices() -> str:
    return PAGE.partition("### Devices")[2].partition("### Mains side")[0]


def test_the_example_explains_the_name_of_each_device() -> None:
    wires = cabinet.make_lane_wires() + cabinet.make_valve_wires() + cabinet.make_encoder_wires() + plant_strip.make_strips()
    names = set(re.findall(r"\b(?:1[BCFHKMNPSXY]\d+|1TA|1X[PLNF]|[GQ]\d|X(?:[0G569]|10))\b", wires))
    names = {name for name in names if not re.fullmatch(r"1K([2-9]|10|3[2-8])", name)}
    assert {"1F3", "1K20", "1B3", "1Y1", "1TA", "1XN", "XG", "G2", "Q2", "1B4", "1F5", "1F6", "1P1", "1S6", "1XF", "X9", "X10"} <= names
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


def _plant_rows() -> list[tuple[str, list[str]]]:
    """Returns the number of the lane and the columns for each row of the table of strips X9 and X10."""
    table = PLANT_PAGE.partition(plant_strip.BEGIN)[2].partition(plant_strip.END)[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines() if row.startswith("| X")]
    return [("1" if cells[0].startswith("X9:") else "2", cells) for cells in rows]


def _names(pins: PlantPins) -> dict[str, Pin]:
    return {each.name: getattr(pins, each.name) for each in fields(pins)}


def test_the_strips_of_the_plant_interfaces_have_each_of_their_pins_once() -> None:
    named = Counter(name for _, _, _, name in plant_strip.TERMINALS if name)
    assert named == Counter(list(_names(PLANT[0])))
    labels = {pin.label for lane in LANES for each in fields(lane) if isinstance(pin := getattr(lane, each.name), Pin)}
    for lane, pins in zip("12", PLANT, strict=True):
        paths = [cells[3] for number, cells in _plant_rows() if number == lane]
        assert len(paths) == len(plant_strip.TERMINALS)
        used = [sorted(labels & set(re.findall(r"\b[AD]\d+\b", path))) for path in paths]
        expected = [[getattr(pins, name).label] if name else [] for _, _, _, name in plant_strip.TERMINALS]
        assert used == expected


def test_the_strips_drive_outputs_and_read_inputs_as_the_firmware_does() -> None:
    """An output makes the LED of its optocoupler light. An input has a resistor to 5 V, and a closed contact makes it low."""
    for name, pin in _names(PLANT[0]).items():
        (path,) = [cells[3] for lane, cells in _plant_rows() if lane == "1" and re.search(rf"\b{pin.label}\b", cells[3])]
        assert (f"{pin.label} through 680 ohm" in path) == (name in PLANT_OUTPUTS), name
        assert (f"4.7 kohm from {pin.label} to X5" in path) == (name not in PLANT_OUTPUTS), name
        assert ("1XF" in path) == (name in PLANT_OUTPUTS - {"buzzer"}), "only signals to the controller use the plant's 24 V"


def test_the_names_of_the_strips_terminals_are_those_of_the_signals() -> None:
    for _, outside, _, name in plant_strip.TERMINALS:
        if signal := re.search(r'input "([a-z ]+)"', outside):
            assert signal[1].replace(" ", "_") == name


def test_the_table_of_signals_shows_pins_and_directions() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| ([AD]\d+) \| ([AD]\d+) \| (in|out) \|", PLANT_PAGE, re.MULTILINE)
    shown = {name.replace(" ", "_"): (first, second, direction) for name, first, second, direction in rows}
    first, second = map(_names, PLANT)
    assert shown == {name: (first[name].label, second[name].label, "out" if name in PLANT_OUTPUTS else "in") for name in first}


def test_the_inputs_of_the_plant_interface_are_on_at_a_low_level() -> None:
    config = (toolchain.SORTER / "config.h").read_text()
    assert "const bool kResetPressedLevel = false;" in config
    assert "const bool kBypassOnLevel = false;" in config


def test_the_drawing_of_the_plant_interface_names_its_pins_and_terminals() -> None:
    root = ElementTree.fromstring(plant_strip.draw_plant(PLANT[0]))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {pin.label for pin in _names(PLANT[0]).values()} <= texts
    assert {f"X9:{number}" for number in range(1, len(plant_strip.TERMINALS) + 1)} <= texts


def test_the_guide_counts_the_wires_that_a_device_adds_to_the_blocks() -> None:
    added = {cells[0]: cells[1:] for row in re.findall(r"^\| (?:encoder|valve|plant interface) \|[ \d|]+$", PAGE, re.MULTILINE)
             if (cells := [cell.strip() for cell in row.strip("|").split("|")])}  # fmt: skip
    wires = {"encoder": cabinet.make_encoder_wires(), "valve": cabinet.make_valve_wires(), "plant interface": plant_strip.make_strips()}
    for device, table in wires.items():
        lane = "\n".join(row for row in table.splitlines() if row.startswith(("| X1:", "| X9:")))
        counts = [len(re.findall(rf"\b{block}\b", lane)) for block in ("1XP", "1XL", "1XN", "XG", "X5", "X6")]
        assert [int(count or 0) for count in added[device]] == counts, device
    assert len(re.findall(r"\b1XF\b", wires["plant interface"])) == 7


def test_the_guide_counts_the_places_of_the_terminals() -> None:
    three = wiring.THREE_PLACES
    assert f"{len(three)} with three places (1, 2, 4, 5, 9, 21, 26 to 29, 35, 36), and {len(wiring.TERMINALS) - len(three)} with" in PAGE
    assert three == {1, 2, 4, 5, 9, 21, *range(26, 30), 35, 36}


def test_the_sums_of_the_5_v_rail_are_right() -> None:
    section = PAGE.partition("### The 5 V rail")[2].partition("## Parts list")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    for table in tables:
        rows = [[int(value) for value in re.findall(r"(\d+) mA(?= \|)", row)] for row in table.splitlines()]
        for column in range(1, len(rows[-1]) + 1):
            loads = [row[-column] for row in rows[:-1] if len(row) >= column]
            assert sum(loads) == rows[-1][-column], table


def test_the_table_of_lost_wires_gives_each_fault_the_effect_that_the_board_gives_it() -> None:
    shown = {code: effect for code, _, effect in wiring.LOST_WIRES}
    assert shown == {code: faults.EFFECTS[code] for code in shown}
    assert set(wiring.EFFECTS) == set(faults.EFFECTS.values())
    left_out = set(faults.EFFECTS) - set(shown)
    assert "The faults 47, 50, 51 and 53 do not come from a lost wire." in PAGE
    assert left_out == {47, 50, 51, 53}


def test_each_contact_of_the_safety_relay_that_cuts_the_energy_of_a_gate_has_its_wires_and_its_test() -> None:
    for lane, first, second, supply in ((1, 33, 34, "G2 +"), (2, 43, 44, "G3 +")):
        for gate, fuse, source in (("servo", "F3", supply), ("valve", "F4", "X0:4")):
            wires = f"{source} to K0:{first}, and K0:{second} to {lane}{fuse}:1"
            assert f"| {gate} of lane {lane} | {source} to {lane}{fuse}:1 | {wires} |" in PAGE
    steps = PAGE.partition("### Before you switch on")[2].partition("\n## ")[0]
    assert "Step 9 of" in PAGE
    assert "9. If contacts of K0 cut the energy of the gates" in steps


def test_the_commands_of_the_guide_exist() -> None:
    named = set(re.findall(r"castline board (\w+)", PAGE + PLANT_PAGE))
    assert {"status", "test", "configure", "flash", "clear"} <= named
    for name in named:
        assert CliRunner().invoke(command, [name, "--help"]).exit_code == 0, name
