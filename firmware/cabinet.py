"""The example of the wiring guide: a cabinet for two lanes, with its mains side, its emergency stop and all wires of both lanes."""

from __future__ import annotations

from firmware.pins import LANES
from firmware.svg_drawing import GROUND, HIGH, SvgDrawing

BEGIN, END = "<!-- example: written by python -m firmware.wiring -->", "<!-- end of example -->"
EXAMPLE_LANES = (1, 2)
PE = "#2e7d32"

# Each row has the terminal of the lane's strip, the device outside, the path inside the cabinet, and the field of LanePins or "".
# `{n}` is the lane, `{pin}` is the pin of the Mega, and `{q}` is the contactor of the lane. The text {in:K} is an input circuit with
# optocoupler K.
LANE_WIRES: tuple[tuple[int, str, str, str], ...] = (
    (1, "B{n}1 brown", "{n}F1:2", ""),
    (2, "B{n}1 blue", "X0:5", ""),
    (3, "B{n}1 black", "{in:1}", "eye1"),
    (4, "B{n}2 brown", "{n}F1:2", ""),
    (5, "B{n}2 blue", "X0:5", ""),
    (6, "B{n}2 black", "{in:2}", "eye2"),
    (7, "{q}:13, inside the cabinet", "{n}F1:2", ""),
    (8, "{q}:14, inside the cabinet", "{in:3}", "estop"),
    (9, "M{n} red", "{n}F3:2; also 4.7 kohm to {pin}, and 10 kohm from {pin} to the GND rail", "servo_power"),
    (10, "M{n} brown", "T{t}-", ""),
    (11, "M{n} orange", "220 ohm to {pin}", "servo"),
    (12, "U{n} enable, first side", "{n}K20:11; input of {n}K20 to {pin}, its + to the 5 V rail, and its - to the GND rail", "relay"),
    (13, "U{n} enable, second side", "{n}K20:14", ""),
    (14, "C{n} trigger +", "{n}K4:4; {pin} through 330 ohm to {n}K4:1, and {n}K4:2 to the GND rail", "trigger"),
    (15, "C{n} trigger -", "{n}K4:3", ""),
    (16, "H{n} common", "{n}F2:2; {n}F2:2 also to {n}N1:10", ""),
    (17, "H{n} green", "{n}N1:18; {out:5} to {n}N1:1", "green"),
    (18, "H{n} yellow", "{n}N1:17; {out:6} to {n}N1:2", "yellow"),
    (19, "H{n} red", "{n}N1:16; {out:7} to {n}N1:3", "red"),
    (24, 'U{n} contact "runs", first side', "{n}F1:2", ""),
    (25, 'U{n} contact "runs", second side', "{in:8}", "belt"),
    (26, "S{n}1 and S{n}2, first sides", "{n}F1:2", ""),
    (27, "S{n}1 and S{n}2, second sides", "{in:9}", "end_switch"),
    (28, "B{n}3 brown", "{n}F1:2", ""),
    (29, "B{n}3 blue", "X0:5", ""),
    (30, "B{n}3 black", "{in:10}", "chute_eye"),
    (31, "S{n}3, first side", "{n}F1:2", ""),
    (32, "S{n}3, second side", "{in:11}", "chute_full"),
    (33, "S{n}4, first side", "1 kohm to {pin}", "button"),
    (34, "S{n}4, second side", "GND rail", ""),
)
_INPUT = "2.2 kohm to {n}K{k}:1; {n}K{k}:2 to X0:5; {n}K{k}:3 to the GND rail; {n}K{k}:4 to {pin}; 4.7 kohm from {pin} to the 5 V rail"
_OUTPUT = "{pin} through 330 ohm to {n}K{k}:1; {n}K{k}:2 to the GND rail; {n}F2:2 to {n}K{k}:4; {n}K{k}:3 through 10 kohm"


def _fill(text: str, lane: int, pin: str) -> str:
    for kind, circuit in (("in", _INPUT), ("out", _OUTPUT)):
        for number in range(1, 12):
            text = text.replace(f"{{{kind}:{number}}}", circuit.replace("{k}", str(number)))
    return text.format(n=lane, pin=pin, q=f"Q{lane + 1}", t=lane + 1)


def make_lane_wires() -> str:
    """Returns the wires of the example's lanes as Markdown, one row for each terminal. The encoder's terminals are empty."""
    rows = ["| terminal | outside | path inside the cabinet |", "| ---: | --- | --- |"]
    for lane in EXAMPLE_LANES:
        for terminal, outside, inside, name in LANE_WIRES:
            pin = getattr(LANES[lane - 1], name).label if name else ""
            rows.append(f"| X{lane}:{terminal} | {_fill(outside, lane, pin)} | {_fill(inside, lane, pin)} |")
    return "\n".join(rows)


def _draw_mains(drawing: SvgDrawing) -> None:
    drawing.text(20, 76, "Mains side (only for a qualified electrician)", bold=True)
    drawing.box(20, 90, 100, 90, "mains", "L: X0:1", "N: X0:2", "PE: X0:3")
    for y in (110, 135):
        drawing.line((120, y), (170, y), width=2.4)
        drawing.line((260, y), (300, y), width=2.4)
    drawing.box(170, 92, 90, 62, "Q1", "main switch", "2 poles")
    drawing.box(300, 92, 90, 62, "F10", "C 6 A", "2 poles")
    drawing.line((390, 110), (440, 110), (440, 425), width=2.4)
    drawing.line((390, 135), (425, 135), (425, 445), width=2.4)
    drawing.line((120, 165), (140, 165), (140, 520), colour=PE, width=2.4)
    drawing.line((410, 157), (410, 520), colour=PE, width=2.4)
    supplies = (
        ("T1", "24 V, 5 A", "+ to X0:4, - to X0:5"),
        ("T2", "5 to 6 V, 5 A", "servo of lane 1"),
        ("T3", "5 to 6 V, 5 A", "servo of lane 2"),
        ("T4", "9 V, 1 A", "VIN of the Mega"),
    )
    for number, (name, voltage, use) in enumerate(supplies):
        y = 90 + 105 * number
        drawing.line((440, y + 20), (480, y + 20), width=2.4)
        drawing.line((425, y + 40), (480, y + 40), width=2.4)
        drawing.line((410, y + 67), (480, y + 67), colour=PE, width=2.4)
        drawing.box(480, y, 170, 76, name, voltage, use)
        drawing.text(470, y + 14, "L", anchor="end", size=10)
        drawing.text(470, y + 34, "N", anchor="end", size=10)
        drawing.text(470, y + 62, "PE", anchor="end", colour=PE, size=10)
    drawing.box(20, 520, 630, 34, "PE bar: one terminal for each wire", fill="#eef6ee")
    parts = (("mounting plate", ""), ("door", "flexible strap"), ("machine frame", "and each drive"), ("X0:6, link", "to X0:5 (0 V)"))
    for number, lines in enumerate(parts):
        x = 20 + 165 * number
        drawing.line((x + 67, 554), (x + 67, 600), colour=PE, width=2.4)
        drawing.box(x, 600, 135, 48, *filter(None, lines))


def _draw_emergency_stop(drawing: SvgDrawing) -> None:
    drawing.text(720, 76, "Emergency stop: no part of it goes through Castline's board", bold=True)
    drawing.box(960, 90, 190, 300, "K0", "safety relay", "with two channels")
    rows = (
        (90, 62, ("S0, contact 11-12", "X0:7 and X0:8"), ("S11", "S12")),
        (165, 62, ("S0, contact 21-22", "X0:9 and X0:10"), ("S21", "S22")),
        (240, 76, ("S1 (reset), X0:11, X0:12", "Q2 contact 21-22", "Q3 contact 21-22"), ("S33", "S34")),
        (329, 61, ("F0 2 A, from X0:4", "and 0 V, X0:5"), ("A1", "A2")),
    )
    for y, height, lines, (first, second) in rows:
        drawing.box(720, y, 180, height, *lines)
        for at, name in ((y + 14, first), (y + height - 14, second)):
            drawing.line((900, at), (960, at), colour=HIGH)
            drawing.text(966, at + 4, name, size=10)
    drawing.text(810, 402, "S1, Q2 and Q3 are in series.", anchor="middle", size=10)
    for x, name, contact in ((960, "Q2", "13-14"), (1060, "Q3", "23-24")):
        drawing.line((x + 45, 390), (x + 45, 440), colour=HIGH)
        drawing.text(x + 50, 418, f"K0 {contact}", colour=HIGH, size=10)
        drawing.box(x, 440, 90, 48, name, "coil A1-A2")
        drawing.line((x + 45, 488), (x + 45, 510), colour=GROUND)
        drawing.text(x + 45, 522, "0 V, X0:5", anchor="middle", colour=GROUND, size=10)
    drawing.text(720, 436, "K0 13 and 23 get +24 V from F0.", size=10)
    drawing.text(720, 455, "Q2 contact 13-14: X1:7 and X1:8", size=10)
    drawing.text(720, 474, "Q3 contact 13-14: X2:7 and X2:8", size=10)
    drawing.text(720, 493, "These two contacts only report", size=10)
    drawing.text(720, 507, "the stop to the board.", size=10)
    drawing.box(720, 590, 110, 58, "feed", "of the drives,", "own breaker F20")
    drawing.line((830, 619), (1040, 619), width=2.4)
    for x, name in ((860, "Q2"), (950, "Q3")):
        drawing.box(x, 595, 70, 48, name, "main")
    drawing.line((1040, 583), (1040, 655), width=2.4)
    for y, name in ((560, "U1"), (632, "U2")):
        drawing.line((1040, y + 23), (1060, y + 23), width=2.4)
        drawing.box(1060, y, 100, 46, name, f"drive, lane {name[1]}")


def draw_cabinet() -> str:
    """Returns a drawing of the example's mains side, protective earth and emergency stop as SVG."""
    drawing = SvgDrawing(1180, 700, "Mains side, protective earth and emergency stop of a cabinet for two lanes")
    drawing.text(20, 34, "Castline: cabinet for two lanes", bold=True, size=18)
    drawing.text(
        20, 54, "An example that was not checked on real hardware. X0 is the strip of the cabinet, X1 and X2 are those of the lanes."
    )
    _draw_mains(drawing)
    _draw_emergency_stop(drawing)
    for x, text, colour in ((20, "mains", "#222222"), (120, "protective earth (PE)", PE), (300, "24 V", HIGH), (380, "0 V", GROUND)):
        drawing.line((x, 682), (x + 24, 682), colour=colour, width=2.4)
        drawing.text(x + 30, 686, text, size=11)
    return drawing.svg()
