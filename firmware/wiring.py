"""Writes the drawings of the wiring, the table of pins and the terminal plan into docs/. Run it with `python -m firmware.wiring`.

The pins are those of `firmware/pins.py`. A test fails if the documents show other pins.
"""

from __future__ import annotations

from pathlib import Path

from firmware import cabinet, plant_strip
from firmware.pins import LANES, PLANT, LanePins
from firmware.svg_drawing import GROUND, HIGH, SIGNAL, SvgDrawing

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- pins: written by python -m firmware.wiring -->", "<!-- end of pins -->"
BEGIN_FAULTS, END_FAULTS = "<!-- faults: written by python -m firmware.wiring -->", "<!-- end of faults -->"
BEGIN_TERMINALS, END_TERMINALS = "<!-- terminals: written by python -m firmware.wiring -->", "<!-- end of terminals -->"

WIDTH, HEIGHT = 1180, 1180
# The rectangle of the Mega in the drawing, in pixels: x and y of the upper left corner, width, height.
BOARD = (490, 70, 200, 1070)

# The table of pins. Each row has the use of the pin, its field in the class LanePins, its direction, and what its level means.
USES: tuple[tuple[str, str, str, str], ...] = (
    ("photo-eye 1 (camera)", "eye1", "in", "high: blocked (eye_light_on = 1)"),
    ("photo-eye 2 (gate)", "eye2", "in", "high: blocked (eye_light_on = 1)"),
    ("encoder A", "encoder_a", "in", "A leads B when the belt runs forward"),
    ("encoder B", "encoder_b", "in", ""),
    ("emergency stop", "estop", "in", "low: closed, all is well"),
    ("servo supply", "servo_power", "in", "high: present"),
    ("belt runs (optional, without encoder)", "belt", "in", "low: the belt runs"),
    ("end switch of the gate (optional)", "end_switch", "in", "low: at an end"),
    ("eye in the reject chute (optional)", "chute_eye", "in", "high: blocked (eye_light_on = 1)"),
    ("chute full (optional)", "chute_full", "in", "low: the chute has room"),
    ("push-button (optional)", "button", "in", "low: pressed"),
    ("servo pulse", "servo", "out", "544 to 2400 us, 50 a second"),
    ("camera trigger", "trigger", "out", "high: fires"),
    ("belt relay", "relay", "out", "high: the belt may run"),
    ("lamp green", "green", "out", "high: lit"),
    ("lamp yellow", "yellow", "out", "high: lit"),
    ("lamp red", "red", "out", "high: lit"),
)

# The terminal plan. Each row has four items:
#   1. the colour of the wire (for sensors, as in IEC 60947-5-2)
#   2. the device outside the cabinet
#   3. the connection inside the cabinet
#   4. the field of LanePins that holds the Mega's pin, or "" if the terminal has no pin
TERMINALS: tuple[tuple[str, str, str, str], ...] = (
    ("brown", "photo-eye 1, +", "fuse F1 (+24 V)", ""),
    ("blue", "photo-eye 1, 0 V", "0 V of the 24 V supply", ""),
    ("black", "photo-eye 1, output", "optocoupler K1, input circuit", "eye1"),
    ("brown", "photo-eye 2, +", "fuse F1 (+24 V)", ""),
    ("blue", "photo-eye 2, 0 V", "0 V of the 24 V supply", ""),
    ("black", "photo-eye 2, output", "optocoupler K2, input circuit", "eye2"),
    ("any", "emergency stop, report contact (closed: all is well), first side", "fuse F1 (+24 V)", ""),
    ("any", "emergency stop, report contact, second side", "optocoupler K3, input circuit", "estop"),
    (
        "red",
        "servo, +",
        "fuse F3 (+ of the servo supply); only with `use_servo_power`: 4.7 kohm from this terminal to the pin, 10 kohm from the pin to GND",
        "servo_power",
    ),
    ("brown", "servo, -", "- of the servo supply", ""),
    ("orange", "servo, signal", "220 ohm", "servo"),
    (
        "orange",
        "belt drive, enable, first side",
        "contact of the relay module (closes when the belt may run); 10 kohm from the pin to GND",
        "relay",
    ),
    ("orange", "belt drive, enable, second side", "the other side of this contact", ""),
    ("any", "camera, trigger input +", "optocoupler K4, collector; its LED through 330 ohm from the pin to GND", "trigger"),
    ("any", "camera, trigger input -", "optocoupler K4, emitter", ""),
    ("any", "lamp, common +", "fuse F2 (+24 V)", ""),
    ("green", "lamp, green", "ULN2803, pin 18; its input pin 1 comes from optocoupler K5, output circuit", "green"),
    ("yellow", "lamp, yellow", "ULN2803, pin 17; its input pin 2 comes from optocoupler K6, output circuit", "yellow"),
    ("red", "lamp, red", "ULN2803, pin 16; its input pin 3 comes from optocoupler K7, output circuit", "red"),
    ("red", "encoder, + (optional)", "fuse F5 (+5 V)", ""),
    ("black", "encoder, 0 V and screen", "GND of the Mega", ""),
    ("white", "encoder, A", "2.2 kohm to 5 V; 1 kohm to the pin; 1 nF from the pin to GND", "encoder_a"),
    ("green", "encoder, B", "2.2 kohm to 5 V; 1 kohm to the pin; 1 nF from the pin to GND", "encoder_b"),
    ("any", "belt runs (optional), contact, first side", "fuse F1 (+24 V)", ""),
    ("any", "belt runs, contact, second side", "optocoupler K8, input circuit", "belt"),
    ("any", "end switches (optional), two closing contacts in parallel, first sides; or + of two sensors", "fuse F1 (+24 V)", ""),
    ("any", "end switches, second sides; or the outputs of two sensors", "optocoupler K9, input circuit", "end_switch"),
    ("brown", "eye in the reject chute (optional), +", "fuse F1 (+24 V)", ""),
    ("blue", "eye in the reject chute, 0 V", "0 V of the 24 V supply", ""),
    ("black", "eye in the reject chute, output", "optocoupler K10, input circuit", "chute_eye"),
    ("any", "chute full (optional), contact, first side", "fuse F1 (+24 V)", ""),
    ("any", "chute full, contact, second side", "optocoupler K11, input circuit", "chute_full"),
    ("any", "push-button (optional), first side", "1 kohm", "button"),
    ("any", "push-button, second side", "GND of the Mega", ""),
    ("blue", "end switches, 0 V (only sensors with three wires)", "0 V of the 24 V supply", ""),
    ("any", "valve instead of the servo, +", "fuse F4 (+24 V)", ""),
    ("any", "valve instead of the servo, -", "ULN2803 N2, pin 18; its input pin 1 comes from optocoupler K12, output circuit", "servo"),
)

# The numbers of the terminals that must hold three wires. All other terminals must hold two wires.
THREE_PLACES = frozenset({1, 2, 4, 5, 9, 21, 26, 27, 28, 29, 35, 36})

# What the gate and the belt do during a fault. A key is an effect of a fault (see firmware/PROTOCOL.md). The three texts of each effect are
# for the three values of the setting `safe`: divert, pass and stop.
EFFECTS: dict[str, tuple[str, str, str]] = {
    "gate held": ("gate out; belt runs", "gate at rest; belt runs", "gate stays where it is; relay opens"),
    "host silent": (
        "castings with a verdict by their verdict, others out; belt runs",
        "castings with a verdict by their verdict, others pass; belt runs",
        "castings with a verdict by their verdict; the first other casting raises fault 49",
    ),
    "report only": (
        "until the sorter has sent the settings: gate out, belt runs",
        "until the sorter has sent the settings: gate at rest, belt runs",
        "until the sorter has sent the settings: gate at rest, relay open",
    ),
    "warning": ("no change",) * 3,
    "stopped": ("gate sorts the castings that still arrive; relay opens",) * 3,
    "bypassed": ("gate at rest; belt runs",) * 3,
}
# The faults that a lost wire can cause: the code, the wires, and the effect of the fault.
LOST_WIRES: tuple[tuple[int, str, str], ...] = (
    (40, "USB cable", "host silent"),
    (41, "photo-eye 1: terminals 1 to 3", "gate held"),
    (42, "photo-eye 2: terminals 4 to 6", "gate held"),
    (43, 'encoder: terminals 20 to 23, or F5; contact "belt runs": terminals 24 and 25', "gate held"),
    (44, "+ of the servo supply up to terminal 9, or F3; only with `use_servo_power`", "gate held"),
    (45, "report contact: terminals 7 and 8; also F0, F1, G1, and X0:7 to X0:10", "gate held"),
    (46, "G4, if the voltage of the USB port then falls below 4.3 V", "report only"),
    (48, "USB cable, when the board has no room for further events", "warning"),
    (49, "USB cable, if `safe` is `stop`; camera: terminals 14 and 15, if `no_verdict` is `stop`", "stopped"),
    (52, "supply of the Mega: the fault comes when the board starts again, if `autostart` is 0", "gate held"),
    (54, "end switches: terminals 26, 27 and 35; servo: terminals 9 to 11; valve: terminals 36 and 37, or F4", "stopped"),
    (55, "eye in the chute: terminals 28 to 30; also the wires of the servo or of the valve", "stopped"),
    (56, 'contact "chute full": terminals 31 and 32', "stopped"),
    (57, "camera: terminals 14 and 15, if `reject_limit` is above 0", "stopped"),
    (58, "wire from 5V of the Mega to X5, in a lane with a plant interface", "bypassed"),
)


def _draw_pin(drawing: SvgDrawing, label: str, y: float, left: bool) -> float:
    """Draws a dot and a label for a pin at the edge of the Mega. Returns the x coordinate of the dot, where the wire begins."""
    x, _, width, _ = BOARD
    edge = x if left else x + width
    drawing.dot(edge, y)
    drawing.text(edge + (10 if left else -10), y + 4, label, anchor="start" if left else "end", bold=True)
    return edge


def _draw_isolated_input(drawing: SvgDrawing, y: float, label: str, device: tuple[str, ...]) -> None:
    """Draws the circuit of an input: 24 V device, resistor, optocoupler, and pin with a resistor to 5 V."""
    edge = _draw_pin(drawing, label, y, left=True)
    drawing.box(20, y - 26, 150, 52, *device)
    drawing.line((170, y - 10), (200, y - 10), colour=HIGH)
    drawing.box(200, y - 21, 60, 22, "2.2 k")
    drawing.line((260, y - 10), (290, y - 10), colour=HIGH)
    drawing.box(290, y - 26, 90, 52, "PC817", "optocoupler", fill="#f4f4ea")
    drawing.line((290, y + 16), (170, y + 16), colour=GROUND)
    drawing.text(230, y + 29, "0 V of 24 V", anchor="middle", colour=GROUND, size=10)
    drawing.line((380, y), (edge, y), colour=SIGNAL)
    drawing.dot(412, y, SIGNAL)
    drawing.line((412, y), (412, y - 24), colour=SIGNAL)
    drawing.text(417, y - 14, "4.7 k to 5 V", colour=SIGNAL, size=10)
    drawing.line((380, y + 16), (404, y + 16), colour=GROUND)
    drawing.text(408, y + 20, "GND", colour=GROUND, size=10)


def _draw_inputs(drawing: SvgDrawing, pins: LanePins) -> None:
    _draw_isolated_input(drawing, 130, pins.eye1.label, ("photo-eye 1", "24 V, PNP, light on"))
    _draw_isolated_input(drawing, 230, pins.eye2.label, ("photo-eye 2", "24 V, PNP, light on"))
    _draw_isolated_input(drawing, 330, pins.estop.label, ("emergency stop", "report contact,", "closed: all is well"))
    drawing.box(20, 400, 150, 70, "encoder", "5 V, open collector,", "screened cable")
    for y, pin in ((420, pins.encoder_a), (450, pins.encoder_b)):
        edge = _draw_pin(drawing, pin.label, y, left=True)
        drawing.line((170, y), (290, y), colour=SIGNAL)
        drawing.dot(210, y, SIGNAL)
        drawing.text(214, y - 5, "2.2 k to 5 V", colour=SIGNAL, size=10)
        drawing.box(290, y - 10, 50, 20, "1 k")
        drawing.line((340, y), (edge, y), colour=SIGNAL)
        drawing.dot(380, y, SIGNAL)
        drawing.text(384, y - 5, "1 nF to GND", colour=SIGNAL, size=10)
    drawing.text(180, 414, "A", colour=SIGNAL, size=10)
    drawing.text(180, 444, "B", colour=SIGNAL, size=10)
    drawing.text(20, 486, "+: F5, 0.2 A, resettable, from 5 V; 0 V: GND", size=10)
    _draw_isolated_input(drawing, 680, pins.belt.label, ("belt runs (optional)", "contact of the drive"))
    _draw_isolated_input(drawing, 920, pins.end_switch.label, ("end switch (optional)", "2 closing contacts", "in parallel"))
    _draw_isolated_input(drawing, 1000, pins.chute_eye.label, ("chute eye (optional)", "24 V, PNP, light on"))
    _draw_isolated_input(drawing, 1080, pins.chute_full.label, ("chute full (optional)", "on: the chute has room"))
    y = 550
    edge = _draw_pin(drawing, pins.servo_power.label, y, left=True)
    drawing.box(20, 524, 150, 52, "terminal 9 (optional)", "servo +, behind F3")
    drawing.line((170, y), (210, y), colour=HIGH)
    drawing.box(210, y - 11, 60, 22, "4.7 k")
    drawing.line((270, y), (edge, y), colour=SIGNAL)
    drawing.dot(340, y, SIGNAL)
    drawing.line((340, y), (340, y + 20), colour=SIGNAL)
    drawing.box(310, y + 20, 60, 22, "10 k")
    drawing.line((340, y + 42), (340, y + 56), colour=GROUND)
    drawing.text(346, y + 58, "GND", colour=GROUND, size=10)


def _draw_outputs(drawing: SvgDrawing, pins: LanePins) -> None:
    y = 130
    edge = _draw_pin(drawing, pins.servo.label, y, left=False)
    drawing.line((edge, y), (740, y), colour=SIGNAL)
    drawing.box(740, y - 11, 60, 22, "220")
    drawing.line((800, y), (1010, y), colour=SIGNAL)
    drawing.text(905, y - 6, "twisted with servo -", anchor="middle", colour=SIGNAL, size=10)
    drawing.box(1010, 100, 150, 150, "servo", "of the gate")
    drawing.box(740, 200, 150, 60, "servo supply", "5 to 6 V, 8 A or more", "F3; one for each servo")
    drawing.line((890, 215), (1010, 215), colour=HIGH, width=2.4)
    drawing.line((890, 245), (1010, 245), colour=GROUND, width=2.4)
    drawing.line((950, 215), (950, 222))
    drawing.line((938, 222), (962, 222), width=2.4)
    drawing.line((938, 230), (962, 230), width=2.4)
    drawing.line((950, 230), (950, 245))
    drawing.text(950, 275, "1000 uF and 100 nF", anchor="middle", size=10)
    drawing.text(950, 288, "at the servo", anchor="middle", size=10)
    edge = _draw_pin(drawing, "GND", 290, left=False)
    drawing.line((edge, 290), (720, 290), (720, 245), (740, 245), colour=GROUND, width=2.4)
    drawing.text(728, 306, "one wire to the GND rail", colour=GROUND, size=10)

    y = 390
    edge = _draw_pin(drawing, pins.trigger.label, y, left=False)
    drawing.line((edge, y), (740, y), colour=SIGNAL)
    drawing.box(740, y - 11, 60, 22, "330")
    drawing.line((800, y), (850, y), colour=SIGNAL)
    drawing.box(850, y - 26, 90, 52, "PC817", "optocoupler", fill="#f4f4ea")
    drawing.line((940, y), (1010, y), colour=HIGH)
    drawing.box(1010, y - 30, 150, 60, "camera", "trigger input;", "see its manual")

    y = 500
    edge = _draw_pin(drawing, pins.relay.label, y, left=False)
    drawing.line((edge, y), (850, y), colour=SIGNAL)
    drawing.text(696, y - 6, "10 k to GND", colour=SIGNAL, size=10)
    drawing.box(850, y - 30, 110, 60, "relay module", "active high,", "contact isolated")
    drawing.line((960, y), (1010, y), colour=HIGH)
    drawing.box(1010, y - 30, 150, 60, "belt drive", "enable; contact", "open: belt stops")

    y = 780
    edge = _draw_pin(drawing, pins.button.label, y, left=False)
    drawing.line((edge, y), (740, y), colour=SIGNAL)
    drawing.box(740, y - 11, 60, 22, "1 k")
    drawing.line((800, y), (850, y), colour=SIGNAL)
    drawing.box(850, y - 30, 130, 60, "push-button", "(optional)", "contact, NO")
    drawing.line((980, y), (1010, y), colour=GROUND)
    drawing.text(1016, y + 4, "GND of the Mega", colour=GROUND, size=10)

    for number, (colour, pin) in enumerate((("green", pins.green), ("yellow", pins.yellow), ("red", pins.red))):
        y = 610 + 40 * number
        edge = _draw_pin(drawing, pin.label, y, left=False)
        drawing.line((edge, y), (725, y), colour=SIGNAL)
        drawing.box(725, y - 11, 40, 22, "330")
        drawing.line((765, y), (785, y), colour=SIGNAL)
        drawing.line((845, y), (870, y), colour=HIGH)
        drawing.line((970, y), (1010, y), colour=HIGH)
        drawing.text(990, y - 6, colour, anchor="middle", size=10)
    drawing.box(785, 585, 60, 130, "3 PC817", "K5 to K7", fill="#f4f4ea")
    drawing.box(870, 585, 100, 130, "ULN2803", "pin 9: 0 V of", "24 V supply", "pin 10: F2", fill="#f4f4ea")
    drawing.box(1010, 585, 150, 130, "lamp", "24 V tower,", "common to F2")


def _draw_supply(drawing: SvgDrawing) -> None:
    edge = _draw_pin(drawing, "USB", 790, left=True)
    drawing.box(20, 764, 150, 52, "line PC", "castline sorter")
    drawing.line((170, 790), (edge, 790), width=2.4)
    drawing.text(330, 784, "USB cable with ferrites, 3 m at most", anchor="middle", size=10)
    edge = _draw_pin(drawing, "VIN, GND", 850, left=True)
    drawing.box(20, 824, 150, 52, "9 V supply", "of the Mega alone")
    drawing.line((170, 850), (edge, 850), colour=HIGH, width=2.4)


def _draw_fuses(drawing: SvgDrawing) -> None:
    drawing.box(740, 880, 150, 60, "24 V supply", "5 A or more")
    for y, name, use in ((895, "F1 1 A", "eyes +, contacts"), (925, "F2 0.5 A", "lamp, ULN2803")):
        drawing.line((890, y), (920, y), colour=HIGH)
        drawing.box(920, y - 11, 70, 22, name)
        drawing.line((990, y), (1010, y), colour=HIGH)
        drawing.text(1016, y + 4, use, colour=HIGH, size=10)
    drawing.box(740, 980, 150, 44, "servo supply", "5 to 6 V")
    drawing.line((890, 1002), (920, 1002), colour=HIGH)
    drawing.box(920, 991, 70, 22, "F3 3 A")
    drawing.line((990, 1002), (1010, 1002), colour=HIGH)
    drawing.text(1016, 1006, "servo +", colour=HIGH, size=10)
    drawing.text(740, 1060, "0 V of the 24 V supply and GND meet only at the PE bar.", colour=GROUND, size=11)
    drawing.text(740, 1078, "- of each servo supply has one wire to the GND rail.", colour=GROUND, size=11)
    drawing.text(740, 1096, "Contacts switch +24 V (F1) to their 2.2 k. The terminal plan", size=11)
    drawing.text(740, 1112, "on this page shows every wire.", size=11)


def draw_valve(pins: LanePins, number: int) -> str:
    """Returns a drawing of a solenoid valve that moves a lane's gate instead of a servo, as SVG."""
    drawing = SvgDrawing(1180, 270, "A solenoid valve instead of a servo")
    drawing.text(20, 34, f"Castline: lane {number} with a solenoid valve instead of a servo", bold=True, size=18)
    drawing.box(20, 80, 150, 90, "Mega 2560", f"{pins.servo.label} high:", "gate out", fill="#e8f0f8")
    drawing.line((170, 110), (210, 110), colour=SIGNAL)
    drawing.box(210, 99, 50, 22, "330")
    drawing.line((260, 110), (300, 110), colour=SIGNAL)
    drawing.line((300, 150), (170, 150), colour=GROUND)
    drawing.text(230, 145, "GND", colour=GROUND, size=10)
    drawing.box(300, 80, 110, 90, "K12", "PC817", fill="#f4f4ea")
    drawing.line((410, 140), (450, 140), colour=HIGH)
    drawing.box(450, 129, 60, 22, "10 k")
    drawing.line((510, 140), (560, 140), colour=HIGH)
    drawing.text(555, 132, "1", anchor="end", size=10)
    drawing.box(560, 80, 130, 90, "N2", "ULN2803", "pin 9: 0 V of 24 V", fill="#f4f4ea")
    drawing.line((690, 140), (790, 140), colour=HIGH)
    drawing.text(696, 134, "18", size=10)
    drawing.box(790, 123, 110, 34, "terminal 37")
    drawing.line((900, 140), (1040, 140), colour=HIGH)
    drawing.box(790, 43, 110, 34, "terminal 36")
    drawing.line((900, 60), (1100, 60), (1100, 80), colour=HIGH)
    drawing.line((210, 60), (300, 60), colour=HIGH)
    drawing.text(205, 64, "+24 V", anchor="end", colour=HIGH, size=10)
    drawing.box(300, 45, 110, 30, "F4 0.5 A slow")
    drawing.line((410, 60), (790, 60), colour=HIGH)
    drawing.line((410, 95), (430, 95), (430, 60), colour=HIGH)
    drawing.line((625, 80), (625, 60), colour=HIGH)
    drawing.text(631, 74, "pin 10", size=10)
    drawing.box(1040, 80, 120, 90, "valve, 24 V", "6 W or less,", "spring return")
    drawing.line((960, 60), (960, 88), colour=HIGH)
    drawing.box(920, 88, 80, 34, "1N4007")
    drawing.line((960, 122), (960, 140), colour=HIGH)
    drawing.text(20, 212, "The diode sits at the coil, cathode at +.", size=12)
    drawing.text(20, 232, "Terminals 9 to 11 stay empty: a valve there would get 5 to 6 V and servo pulses.", size=12)
    drawing.text(20, 252, "F4 stays out until the board has stored use_solenoid = 1.", size=12)
    return drawing.svg()


def draw_lane(pins: LanePins, number: int) -> str:
    """Returns a drawing of one lane's wiring as SVG."""
    drawing = SvgDrawing(WIDTH, HEIGHT, "Wiring of one lane of the Arduino Mega 2560")
    drawing.text(20, 34, f"Castline: lane {number} of an Arduino Mega 2560", bold=True, size=18)
    drawing.text(20, 54, "Resistors in ohms, 1/4 W; 2.2 k in the 24 V circuits 1/2 W. Not checked on real hardware.", size=12)
    drawing.box(*BOARD, "Arduino", "Mega 2560", fill="#e8f0f8")
    _draw_inputs(drawing, pins)
    _draw_outputs(drawing, pins)
    _draw_supply(drawing)
    _draw_fuses(drawing)
    for x, text, colour in ((740, "5 V logic", SIGNAL), (850, "24 V or servo supply", HIGH), (1040, "ground", GROUND)):
        drawing.line((x, 1160), (x + 24, 1160), colour=colour, width=2.4)
        drawing.text(x + 30, 1164, text, size=11)
    return drawing.svg()


def make_pin_table() -> str:
    """Returns the table of all lanes' pins as Markdown."""
    rows = [f"| use | {' | '.join(f'lane {number}' for number in range(1, len(LANES) + 1))} | direction | level |"]
    rows.append("| --- |" + " --- |" * (len(LANES) + 2))
    for use, name, direction, level in USES:
        labels = " | ".join(getattr(lane, name).label for lane in LANES)
        rows.append(f"| {use} | {labels} | {direction} | {level} |")
    return "\n".join(rows)


def make_terminal_plan() -> str:
    """Returns the terminal plan as a Markdown table. All lanes have the same terminals. Each lane has a column with its pins."""
    rows = [f"| terminal | places | wire | outside | inside | {' | '.join(f'lane {number}' for number in range(1, len(LANES) + 1))} |"]
    rows.append("| ---: | ---: | --- | --- | --- |" + " --- |" * len(LANES))
    for terminal, (wire, outside, inside, name) in enumerate(TERMINALS, 1):
        labels = " | ".join(getattr(lane, name).label if name else "" for lane in LANES)
        places = 3 if terminal in THREE_PLACES else 2
        rows.append(f"| {terminal} | {places} | {wire} | {outside} | {inside} | {labels} |")
    return "\n".join(rows)


def make_fault_table() -> str:
    """Returns a Markdown table of the faults that a lost wire can cause. The table says what the gate and the belt do."""
    rows = ["| fault | lost wire | `safe` is `divert` | `safe` is `pass` | `safe` is `stop` |", "| ---: | --- | --- | --- | --- |"]
    rows += [f"| {code} | {wires} | {' | '.join(EFFECTS[effect])} |" for code, wires, effect in LOST_WIRES]
    return "\n".join(rows)


def replace_tables(page: str) -> str:
    """Replaces all tables in `page`, the text of docs/wiring.md, and returns the new text."""
    tables = [(BEGIN, make_pin_table(), END), (BEGIN_TERMINALS, make_terminal_plan(), END_TERMINALS)]
    tables.append((BEGIN_FAULTS, make_fault_table(), END_FAULTS))
    tables.append((cabinet.BEGIN_VALVE, cabinet.make_valve_wires(), cabinet.END_VALVE))
    tables.append((cabinet.BEGIN_ENCODER, cabinet.make_encoder_wires(), cabinet.END_ENCODER))
    tables.append((cabinet.BEGIN_BLOCKS, cabinet.make_blocks(), cabinet.END_BLOCKS))
    tables.append((cabinet.BEGIN, cabinet.make_lane_wires(), cabinet.END))
    return _replace_between_comments(page, tables)


def replace_plant_strips(page: str) -> str:
    """Replaces the table of terminals in `page`, the text of docs/plant-interface.md, and returns the new text."""
    return _replace_between_comments(page, [(plant_strip.BEGIN, plant_strip.make_strips(), plant_strip.END)])


def _replace_between_comments(page: str, tables: list[tuple[str, str, str]]) -> str:
    """Replaces tables in `page`. Each item of `tables` has the comment before a table, the new table, and the comment after it."""
    for begin, table, end in tables:
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def write() -> None:
    """Writes the drawings, and the tables in docs/wiring.md and docs/plant-interface.md."""
    (DOCS / "wiring.svg").write_text(draw_lane(LANES[0], 1))
    (DOCS / "wiring-valve.svg").write_text(draw_valve(LANES[1], 2))
    (DOCS / "wiring-cabinet.svg").write_text(cabinet.draw_cabinet())
    (DOCS / "wiring-plant.svg").write_text(plant_strip.draw_plant(PLANT[0]))
    page = DOCS / "wiring.md"
    page.write_text(replace_tables(page.read_text()))
    page = DOCS / "plant-interface.md"
    page.write_text(replace_plant_strips(page.read_text()))


if __name__ == "__main__":
    write()
