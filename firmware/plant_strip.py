"""The terminal strips of the plant interfaces (X9 for lane 1, X10 for lane 2): their table and their drawing for docs/plant-interface.md.

The pins are those of `firmware/pins.py`. A test fails if the page shows other pins.
"""

from __future__ import annotations

from firmware.cabinet import FOREIGN, INPUT, fill_placeholders
from firmware.pins import PLANT, PlantPins
from firmware.svg_drawing import GROUND, HIGH, SIGNAL, SvgDrawing

BEGIN, END = "<!-- plant strip: written by python -m firmware.wiring -->", "<!-- end of plant strip -->"
# The terminal strips of the plant interfaces of lanes 1 and 2.
STRIPS = ("X9", "X10")

# The terminals of a strip. Each row has four items:
#   1. the colour of the wire outside the cabinet (its cross-section is 0.5 mm2)
#   2. the device outside the cabinet
#   3. the wires inside the cabinet
#   4. the field of PlantPins that holds the Mega's pin, or "" if the terminal has no pin
# The texts contain these placeholders:
#   {n}                the lane
#   {pin}              the Mega's pin
#   {in:K}, {out:K}    an input circuit or an output circuit with the optocoupler K
TERMINALS: tuple[tuple[str, str, str, str], ...] = (
    ("orange", "+24 V of the plant", "{n}F6:1; {n}F6:2 to {n}XF", ""),
    ("orange", 'input "ready" of the controller', "{out:31}", "ready"),
    ("orange", 'input "busy" of the controller', "{out:32}", "busy"),
    ("orange", 'input "result valid" of the controller', "{out:33}", "result_valid"),
    ("orange", 'input "reject" of the controller', "{out:34}", "reject"),
    ("orange", 'input "heartbeat" of the controller', "{out:35}; 2.2 kohm from {n}K35:1 to {n}K35:2", "heartbeat"),
    ("orange", 'input "fault" of the controller', "{out:36}", "fault"),
    ("blue", "{n}P1 +", "{n}XL", ""),
    (
        "white-blue",
        "{n}P1 -",
        "{n}N1:15; {pin} through 680 ohm to {n}K37:1; {n}K37:2 to XG; {n}XL to {n}K37:4; {n}K37:3 through 10 kohm to {n}N1:4",
        "buzzer",
    ),
    ("any", "{n}S5, first side", "{n}XP", ""),
    ("any", "{n}S5, second side", "{in:38}", "reset"),
    ("any", "{n}S6, first side", "{n}XP", ""),
    ("any", "{n}S6, second side", "{in:39}", "bypass"),
)
_OUTPUT = "1 kohm to {n}K{k}:3; {n}XF to {n}K{k}:4; {pin} through 680 ohm to {n}K{k}:1; {n}K{k}:2 to XG"
_CIRCUITS = {"in": INPUT, "out": _OUTPUT}


def make_strips() -> str:
    """Returns the terminals of both strips as Markdown."""
    rows = ["| terminal | wire | outside | path inside the cabinet |", "| ---: | --- | --- | --- |"]
    for lane, (strip, pins) in enumerate(zip(STRIPS, PLANT, strict=True), 1):
        for terminal, (wire, outside, inside, name) in enumerate(TERMINALS, 1):
            pin = getattr(pins, name).label if name else ""
            paths = [fill_placeholders(text, lane, pin, _CIRCUITS) for text in (outside, inside)]
            rows.append(f"| {strip}:{terminal} | {wire} | {' | '.join(paths)} |")
    return "\n".join(rows)


def _draw_output(drawing: SvgDrawing, y: float, pin: str, number: int, terminal: int, signal: str) -> None:
    drawing.dot(190, y)
    drawing.text(180, y + 4, pin, anchor="end", bold=True)
    drawing.line((190, y), (230, y), colour=SIGNAL)
    drawing.box(230, y - 11, 60, 22, "680")
    drawing.line((290, y), (350, y), colour=SIGNAL)
    drawing.box(350, y - 20, 100, 40, f"K{number}", "PC817C", fill="#f4f4ea")
    drawing.line((450, y - 12), (480, y - 12), colour=FOREIGN)
    drawing.dot(480, y - 12, FOREIGN)
    drawing.line((450, y + 8), (520, y + 8), colour=FOREIGN)
    drawing.box(520, y - 3, 70, 22, "1 k 1 W")
    drawing.line((590, y + 8), (650, y + 8), colour=FOREIGN)
    drawing.box(650, y - 6, 90, 28, f"X9:{terminal}")
    drawing.line((740, y + 8), (820, y + 8), colour=FOREIGN)
    drawing.text(828, y + 12, f'input "{signal}"', colour=FOREIGN)


def _draw_buzzer(drawing: SvgDrawing, y: float, pin: str) -> None:
    drawing.dot(190, y)
    drawing.text(180, y + 4, pin, anchor="end", bold=True)
    drawing.line((190, y), (230, y), colour=SIGNAL)
    drawing.box(230, y - 11, 60, 22, "680")
    drawing.line((290, y), (350, y), colour=SIGNAL)
    drawing.box(350, y - 20, 100, 40, "K37", "PC817C", fill="#f4f4ea")
    drawing.line((450, y), (480, y), colour=HIGH)
    drawing.box(480, y - 11, 50, 22, "10 k")
    drawing.line((530, y), (550, y), colour=HIGH)
    drawing.box(550, y - 20, 80, 40, "N1", "pins 4, 15", fill="#f4f4ea")
    drawing.line((630, y), (650, y), colour=HIGH)
    drawing.box(650, y - 14, 90, 28, "X9:9")
    drawing.line((740, y), (820, y), colour=HIGH)
    drawing.box(650, y - 54, 90, 28, "X9:8")
    drawing.line((740, y - 40), (820, y - 40), colour=HIGH)
    drawing.line((560, y - 40), (650, y - 40), colour=HIGH)
    drawing.text(552, y - 36, "+24 V from F2 (XL)", anchor="end", colour=HIGH, size=11)
    drawing.box(820, y - 54, 150, 68, "buzzer P1", "24 V DC,", "0.1 A or less")


def _draw_input(drawing: SvgDrawing, y: float, pin: str, number: int, terminal: int, *device: str) -> None:
    drawing.dot(190, y)
    drawing.text(180, y + 4, pin, anchor="end", bold=True)
    drawing.line((190, y), (350, y), colour=SIGNAL)
    drawing.text(200, y - 6, "4.7 k to 5 V", colour=SIGNAL, size=11)
    drawing.box(350, y - 20, 100, 40, f"K{number}", "PC817", fill="#f4f4ea")
    drawing.line((450, y), (520, y), colour=HIGH)
    drawing.box(520, y - 11, 70, 22, "2.2 k")
    drawing.line((590, y), (650, y), colour=HIGH)
    drawing.box(650, y - 14, 90, 28, f"X9:{terminal}")
    drawing.line((740, y), (820, y), colour=HIGH)
    drawing.box(650, y - 54, 90, 28, f"X9:{terminal - 1}")
    drawing.line((740, y - 40), (820, y - 40), colour=HIGH)
    drawing.line((560, y - 40), (650, y - 40), colour=HIGH)
    drawing.text(552, y - 36, "+24 V from F1 (XP)", anchor="end", colour=HIGH, size=11)
    drawing.box(820, y - 54, 150, 68, *device)


def draw_plant(pins: PlantPins) -> str:
    """Returns a drawing of strip X9, the plant interface of lane 1, as SVG."""
    drawing = SvgDrawing(1180, 900, "The plant interface of lane 1 at strip X9")
    drawing.text(20, 34, "Castline: plant interface of lane 1, strip X9", bold=True, size=18)
    drawing.text(20, 54, "Resistors in ohms, 1/4 W; 2.2 k in the 24 V circuits 1/2 W, 1 k 1 W. Not checked on real hardware.", size=12)
    drawing.box(20, 80, 170, 760, "Arduino", "Mega 2560", fill="#e8f0f8")
    outputs = ("ready", "busy", "result_valid", "reject", "heartbeat", "fault")
    for number, name in enumerate(outputs):
        _draw_output(drawing, 150 + 62 * number, getattr(pins, name).label, 31 + number, 2 + number, name.replace("_", " "))
    last = 150 + 62 * (len(outputs) - 1)
    drawing.text(200, 425, "2.2 k from K35:1 to K35:2", size=11)
    drawing.line((480, last - 12), (480, 100), (520, 100), colour=FOREIGN)
    drawing.text(474, 104, "block XF", anchor="end", colour=FOREIGN, size=11)
    drawing.box(520, 86, 70, 28, "F6 0.5 A")
    drawing.line((590, 100), (650, 100), colour=FOREIGN)
    drawing.box(650, 86, 90, 28, "X9:1")
    drawing.line((740, 100), (820, 100), colour=FOREIGN)
    drawing.text(828, 104, "+24 V of the plant", colour=FOREIGN)
    drawing.text(980, 290, "PNP: a high pin", colour=FOREIGN, size=11)
    drawing.text(980, 306, "gives 24 V at the input.", colour=FOREIGN, size=11)
    drawing.text(980, 322, "0 V of the plant stays", colour=FOREIGN, size=11)
    drawing.text(980, 338, "at the controller.", colour=FOREIGN, size=11)
    _draw_buzzer(drawing, 610, pins.buzzer.label)
    _draw_input(drawing, 710, pins.reset.label, 38, 11, "acknowledge", "button S5,", "closing contact")
    _draw_input(drawing, 810, pins.bypass.label, 39, 13, "bypass key S6,", "contact closed", "while turned")
    grounds = "Pin 2 of K31 to K37, and pin 3 of K38 and K39, go to XG. Pin 2 of K38 and K39 goes to XN. Pin 4 of K37 goes to XL."
    drawing.text(350, 850, grounds, colour=GROUND, size=11)
    plant = "24 V of the plant, live while Q1 is off"
    for x, text, colour in ((20, "5 V logic", SIGNAL), (140, "24 V of the cabinet", HIGH), (320, plant, FOREIGN)):
        drawing.line((x, 880), (x + 24, 880), colour=colour, width=2.4)
        drawing.text(x + 30, 884, text, size=11)
    return drawing.svg()
