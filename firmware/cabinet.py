"""The example of the wiring guide: a cabinet for two lanes, with its mains side, its emergency stop and all wires of both lanes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from firmware.pins import LANES
from firmware.svg_drawing import GROUND, HIGH, SvgDrawing

BEGIN, END = "<!-- example: written by python -m firmware.wiring -->", "<!-- end of example -->"
BEGIN_VALVE, END_VALVE = "<!-- valve: written by python -m firmware.wiring -->", "<!-- end of valve -->"
BEGIN_BLOCKS, END_BLOCKS = "<!-- blocks: written by python -m firmware.wiring -->", "<!-- end of blocks -->"
BEGIN_ENCODER, END_ENCODER = "<!-- encoder: written by python -m firmware.wiring -->", "<!-- end of encoder -->"
EXAMPLE_LANES = (1, 2)
PE, FOREIGN = "#2e7d32", "#e07000"

# The wires of one lane. Each row has four items:
#   1. the terminal
#   2. the device outside the cabinet
#   3. the wires inside the cabinet
#   4. the field of LanePins that holds the Mega's pin, or "" if the terminal has no pin
# The texts contain these placeholders:
#   {n}                  the lane
#   {pin}                the Mega's pin
#   {first}, {second}    contact numbers of the contactors
#   {in:K}, {out:K}      an input circuit or an output circuit with the optocoupler K
LANE_WIRES: tuple[tuple[int, str, str, str], ...] = (
    (1, "{n}B1 brown", "{n}XP", ""),
    (2, "{n}B1 blue", "{n}XN", ""),
    (3, "{n}B1 black", "{in:1}", "eye1"),
    (4, "{n}B2 brown", "{n}XP", ""),
    (5, "{n}B2 blue", "{n}XN", ""),
    (6, "{n}B2 black", "{in:2}", "eye2"),
    (7, "Q2:{first}, inside the cabinet", "{n}XP", ""),
    (8, "Q3:{second}, inside the cabinet", "{in:3}", "estop"),
    (9, "{n}M1 red", "{n}F3:2; only with `use_servo_power`: 4.7 kohm to {pin}, and 10 kohm from {pin} to XG", "servo_power"),
    (10, "{n}M1 brown", "G{t}-", ""),
    (11, "{n}M1 orange", "220 ohm to {pin}", "servo"),
    (
        12,
        "{n}TA enable, first side",
        "{n}K20:11; input of {n}K20 to {pin}, its + to X6, and its - to XG; 10 kohm from {pin} to XG",
        "relay",
    ),
    (13, "{n}TA enable, second side", "{n}K20:14", ""),
    (14, "{n}C1 trigger +", "{n}K4:4; {pin} through 330 ohm to {n}K4:1, and {n}K4:2 to XG", "trigger"),
    (15, "{n}C1 trigger -", "{n}K4:3", ""),
    (16, "{n}H1 common", "{n}XL; {n}XL also to {n}N1:10", ""),
    (17, "{n}H1 green", "{n}N1:18; {out:5} to {n}N1:1", "green"),
    (18, "{n}H1 yellow", "{n}N1:17; {out:6} to {n}N1:2", "yellow"),
    (19, "{n}H1 red", "{n}N1:16; {out:7} to {n}N1:3; {n}N1:9 to {n}XN", "red"),
    (24, '{n}TA contact "runs", first side', "{n}XP", ""),
    (25, '{n}TA contact "runs", second side', "{in:8}", "belt"),
    (26, "{n}S1 and {n}S2, first sides", "{n}XP", ""),
    (27, "{n}S1 and {n}S2, second sides", "{in:9}", "end_switch"),
    (28, "{n}B3 brown", "{n}XP", ""),
    (29, "{n}B3 blue", "{n}XN", ""),
    (30, "{n}B3 black", "{in:10}", "chute_eye"),
    (31, "{n}S3, first side", "{n}XP", ""),
    (32, "{n}S3, second side", "{in:11}", "chute_full"),
    (33, "{n}S4, first side", "1 kohm to {pin}", "button"),
    (34, "{n}S4, second side", "XG", ""),
    (35, "{n}S1 and {n}S2 blue, only sensors", "{n}XN", ""),
)
# The wires of a solenoid valve, which replace those of the servo at the terminals 9 to 11.
VALVE_WIRES: tuple[tuple[int, str, str, str], ...] = (
    (36, "{n}Y1 +", "{n}F4:2; one more wire from this terminal to {n}N2:10 and {n}K12:4", ""),
    (37, "{n}Y1 -", "{n}N2:18; {valve:12} to {n}N2:1; {n}N2:9 to {n}XN", "servo"),
)
# The wires of an encoder. The cabinet in the wiring guide has no encoder, so its encoder terminals are empty.
ENCODER_WIRES: tuple[tuple[int, str, str, str], ...] = (
    (20, "{n}B4 red", "{n}F5:2; {n}F5:1 to X6", ""),
    (21, "{n}B4 black, and the screen of its cable", "XG", ""),
    (22, "{n}B4 white (A)", "2.2 kohm to X5; 1 kohm to {pin}; 1 nF from {pin} to XG", "encoder_a"),
    (23, "{n}B4 green (B)", "2.2 kohm to X5; 1 kohm to {pin}; 1 nF from {pin} to XG", "encoder_b"),
)
INPUT = "2.2 kohm to {n}K{k}:1; {n}K{k}:2 to {n}XN; {n}K{k}:3 to XG; {n}K{k}:4 to {pin}; 4.7 kohm from {pin} to X5"
_OUTPUT = "{pin} through 330 ohm to {n}K{k}:1; {n}K{k}:2 to XG; {n}XL to {n}K{k}:4; {n}K{k}:3 through 10 kohm"
_VALVE = "{pin} through 330 ohm to {n}K{k}:1; {n}K{k}:2 to XG; {n}K{k}:3 through 10 kohm"
_CIRCUITS = {"in": INPUT, "out": _OUTPUT, "valve": _VALVE}

# The distribution blocks in the cabinet. A block joins many wires. Each row has the block's name and meaning, and the ends of its wires.
# The wires in the table LANE_WIRES are not repeated here.
BLOCKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("1XP", "+24 V of lane 1", ("1F1:2",)),
    ("2XP", "+24 V of lane 2", ("2F1:2",)),
    ("1XL", "+24 V of the lamp of lane 1", ("1F2:2",)),
    ("2XL", "+24 V of the lamp of lane 2", ("2F2:2",)),
    ("1XN", "0 V of lane 1", ("X0:5",)),
    ("2XN", "0 V of lane 2", ("X0:5",)),
    ("XG", "GND rail", ("pin GND of the Mega", "G2 -", "G3 -", "G4 -", "G5 -", "X0:13")),
    ("X5", "5 V rail", ("pin 5V of the Mega",)),
    ("X6", "5 V of the relay modules and encoders", ("G5 +",)),
)


def fill_placeholders(text: str, lane: int, pin: str, circuits: Mapping[str, str]) -> str:
    """Replaces the placeholders in `text` and returns the result. `lane` is 1 or 2, and `pin` is the Mega's pin.

    `circuits` holds a text for each kind of circuit. Example: the placeholder {in:3} becomes the text of "in", an input circuit, with the
    optocoupler number 3.
    """
    for kind, circuit in circuits.items():
        text = re.sub(rf"{{{kind}:(\d+)}}", circuit.replace("{k}", r"\g<1>"), text)
    first, second = (("13", "14"), ("33", "34"))[lane - 1]
    return text.format(n=lane, pin=pin, t=lane + 1, first=first, second=second)


def _make_wires(wires: tuple[tuple[int, str, str, str], ...]) -> str:
    rows = ["| terminal | outside | path inside the cabinet |", "| ---: | --- | --- |"]
    for lane in EXAMPLE_LANES:
        for terminal, outside, inside, name in wires:
            pin = getattr(LANES[lane - 1], name).label if name else ""
            paths = [fill_placeholders(text, lane, pin, _CIRCUITS) for text in (outside, inside)]
            rows.append(f"| X{lane}:{terminal} | {' | '.join(paths)} |")
    return "\n".join(rows)


def make_lane_wires() -> str:
    """Returns the wires of both lanes of the cabinet as a Markdown table. Each terminal has a row, except the terminals of encoders."""
    return _make_wires(LANE_WIRES)


def make_valve_wires() -> str:
    """Returns a Markdown table of the wires that a solenoid valve needs in each lane of the cabinet."""
    return _make_wires(VALVE_WIRES)


def make_encoder_wires() -> str:
    """Returns a Markdown table of the wires that an encoder needs in each lane of the cabinet."""
    return _make_wires(ENCODER_WIRES)


def make_blocks() -> str:
    """Returns a Markdown table of the distribution blocks in the cabinet, with the number of wires that each block joins."""
    wires = make_lane_wires()
    rows = ["| block | meaning | fed from, and other wires | wires in all |", "| --- | --- | --- | ---: |"]
    for name, meaning, others in BLOCKS:
        count = len(re.findall(rf"\b{name}\b", wires)) + len(others)
        rows.append(f"| {name} | {meaning} | {', '.join(others)} | {count} |")
    return "\n".join(rows)


def _draw_mains(drawing: SvgDrawing) -> None:
    drawing.text(20, 76, "Mains side (only for a qualified electrician)", bold=True)
    drawing.box(20, 90, 100, 90, "mains", "L: X0:1", "N: X0:2", "PE: X0:3")
    for y in (110, 135):
        drawing.line((120, y), (170, y), width=2.4)
        drawing.line((260, y), (300, y), width=2.4)
    drawing.box(170, 92, 90, 62, "Q1", "main switch", "2 poles")
    drawing.box(300, 92, 90, 62, "F10", "C 6 A", "2 poles")
    drawing.line((390, 110), (440, 110), (440, 530), width=2.4)
    drawing.line((390, 135), (425, 135), (425, 550), width=2.4)
    supplies = (
        ("G1", "24 V, 5 A", "+ to X0:4, - to X0:5"),
        ("G2", "5 to 6 V, 8 A", "servo of lane 1"),
        ("G3", "5 to 6 V, 8 A", "servo of lane 2"),
        ("G4", "9 V, 1 A", "VIN of the Mega"),
        ("G5", "5 V, 1 A", "relay modules, encoders"),
    )
    for number, (name, voltage, use) in enumerate(supplies):
        y = 90 + 105 * number
        drawing.line((440, y + 20), (480, y + 20), width=2.4)
        drawing.line((425, y + 40), (480, y + 40), width=2.4)
        drawing.line((480, y + 67), (358 + 13 * number, y + 67), (358 + 13 * number, 640), colour=PE, width=2.4)
        drawing.box(480, y, 170, 76, name, voltage, use)
        drawing.text(470, y + 14, "L", anchor="end", size=10)
        drawing.text(470, y + 34, "N", anchor="end", size=10)
        drawing.text(470, y + 62, "PE", anchor="end", colour=PE, size=10)


def _draw_earth(drawing: SvgDrawing) -> None:
    drawing.line((120, 165), (140, 165), (140, 640), colour=PE, width=2.4)
    drawing.box(20, 640, 630, 34, "PE bar: one terminal and one wire for each part", fill="#eef6ee")
    parts = (
        ("mounting", "plate"),
        ("door,", "strap"),
        ("machine", "frame"),
        ("X0:6, link", "to 0 V"),
        ("X0:13, link", "to GND (XG)"),
        ("1TA", "drive, lane 1"),
        ("2TA", "drive, lane 2"),
    )
    for number, lines in enumerate(parts):
        x = 20 + 91 * number
        drawing.line((x + 42, 674), (x + 42, 710), colour=PE, width=2.4)
        drawing.box(x, 710, 85, 48, *lines)
    for x, name in ((475, "1M2"), (566, "2M2")):
        drawing.line((x + 42, 758), (x + 42, 790), colour=PE, width=2.4)
        drawing.box(x, 790, 85, 48, name, "belt motor")
    drawing.text(465, 780, "PE in the motor cable", anchor="end", colour=PE, size=10)
    drawing.text(465, 818, "Sizes of these PE wires: see the drive's manual.", anchor="end", size=10)


def _draw_emergency_stop(drawing: SvgDrawing) -> None:
    drawing.text(720, 76, "Emergency stop: no part of it goes through Castline's board", bold=True)
    drawing.box(960, 90, 190, 300, "K0", "safety relay", "with two channels")
    rows = (
        (90, 62, ("S0, contact 11-12", "X0:7 and X0:8"), ("S11", "S12")),
        (165, 62, ("S0, contact 21-22", "X0:9 and X0:10"), ("S21", "S22")),
        (240, 76, ("S9 (reset), X0:11, X0:12", "Q2 contact 21-22", "Q3 contact 21-22"), ("S33", "S34")),
        (329, 61, ("F0 2 A, from X0:4", "and 0 V, X0:5"), ("A1", "A2")),
    )
    for y, height, lines, (first, second) in rows:
        drawing.box(720, y, 180, height, *lines)
        for at, name in ((y + 14, first), (y + height - 14, second)):
            drawing.line((900, at), (960, at), colour=HIGH)
            drawing.text(966, at + 4, name, size=10)
    drawing.text(810, 402, "S9, Q2 and Q3 are in series.", anchor="middle", size=10)
    for x, name, contact in ((960, "Q2", "13-14"), (1060, "Q3", "23-24")):
        drawing.line((x + 45, 390), (x + 45, 440), colour=HIGH)
        drawing.text(x + 50, 418, f"K0 {contact}", colour=HIGH, size=10)
        drawing.box(x, 440, 90, 48, name, "coil A1-A2")
        drawing.line((x + 45, 488), (x + 45, 510), colour=GROUND)
        drawing.text(x + 45, 522, "0 V, X0:5", anchor="middle", colour=GROUND, size=10)
    drawing.text(720, 436, "K0 13 and 23 get +24 V from F0.", size=10)
    drawing.text(720, 455, "Report to lane 1 (X1:7, X1:8):", size=10)
    drawing.text(720, 469, "Q2 13-14 and Q3 13-14 in series", size=10)
    drawing.text(720, 488, "Report to lane 2 (X2:7, X2:8):", size=10)
    drawing.text(720, 502, "Q2 33-34 and Q3 33-34 in series", size=10)
    drawing.text(720, 521, "Closed contacts mean that all is well.", size=10)


def _draw_drives(drawing: SvgDrawing) -> None:
    drawing.text(720, 570, "Feed of the drives: it stays live while Q1 is off.", bold=True)
    drawing.text(720, 587, "Lock Q4, too. Warning label at Q1, at Q4 and on covers. Orange wires.", colour=FOREIGN, size=11)
    drawing.line((780, 640), (1030, 640), colour=FOREIGN, width=2.4)
    devices = ((720, 60, "feed", "mains"), (795, 50, "Q4", "lock"), (855, 45, "F20", ""), (910, 45, "Q2", "main"), (965, 45, "Q3", "main"))
    for x, width, *lines in devices:
        drawing.box(x, 616, width, 48, *filter(None, lines))
    drawing.line((1030, 613), (1030, 683), colour=FOREIGN, width=2.4)
    for y, fuse, name in ((613, "F21", "1TA"), (683, "F22", "2TA")):
        drawing.line((1030, y), (1100, y), colour=FOREIGN, width=2.4)
        drawing.box(1042, y - 16, 45, 32, fuse)
        drawing.box(1100, y - 23, 60, 46, name, "drive")
    for y, lane in ((735, 1), (755, 2)):
        drawing.line((720, y), (744, y), colour=FOREIGN, width=2.4)
        drawing.text(750, y + 4, f"X{lane}:12 and X{lane}:13, enable of {lane}TA: voltage of the drive, also orange", size=11)
    drawing.text(720, 785, "The emergency stop does not switch the servos and valves.", size=11)
    drawing.text(720, 801, 'A gate can still move. See "Emergency stop" on this page.', size=11)
    drawing.text(720, 817, "Optional: K0 33-34 before 1F3 or 1F4, and K0 43-44 before 2F3 or 2F4.", size=11)


def draw_cabinet() -> str:
    """Returns an SVG drawing of the cabinet: mains side, protective earth and emergency stop."""
    drawing = SvgDrawing(1180, 890, "Mains side, protective earth and emergency stop of a cabinet for two lanes")
    drawing.text(20, 34, "Castline: cabinet for two lanes", bold=True, size=18)
    drawing.text(
        20, 54, "An example that was not checked on real hardware. X0 is the strip of the cabinet, X1 and X2 are those of the lanes."
    )
    _draw_mains(drawing)
    _draw_earth(drawing)
    _draw_emergency_stop(drawing)
    _draw_drives(drawing)
    for x, text, colour in (
        (20, "mains", "#222222"),
        (120, "protective earth (PE)", PE),
        (300, "24 V", HIGH),
        (380, "0 V", GROUND),
        (460, "live while Q1 is off", FOREIGN),
    ):
        drawing.line((x, 872), (x + 24, 872), colour=colour, width=2.4)
        drawing.text(x + 30, 876, text, size=11)
    return drawing.svg()
