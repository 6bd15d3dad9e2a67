"""Writes the drawing of a lane's wiring and the table of pins into docs/. Run it with `python -m firmware.wiring`.

The pins are those of `firmware/pins.py`. A test fails if the documents show other pins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from firmware.pins import LANES, LanePins

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- pins: written by python -m firmware.wiring -->", "<!-- end of pins -->"

WIDTH, HEIGHT = 1180, 1180
# The Mega in the drawing: left, top, width and height in pixels.
BOARD = (490, 70, 200, 1070)
INK, SIGNAL, HIGH, GROUND = "#222222", "#1f5fbf", "#b03030", "#555555"

# The rows of the table of pins: use, field of LanePins, direction, meaning of the level.
USES: tuple[tuple[str, str, str, str], ...] = (
    ("photo-eye 1 (camera)", "eye1", "in", "high: blocked (eye_light_on = 1)"),
    ("photo-eye 2 (gate)", "eye2", "in", "high: blocked (eye_light_on = 1)"),
    ("encoder A", "encoder_a", "in", "A leads B when the belt runs forward"),
    ("encoder B", "encoder_b", "in", ""),
    ("emergency stop", "estop", "in", "low: closed, all is well"),
    ("servo supply", "servo_power", "in", "high: present"),
    ("belt runs (optional, without encoder)", "belt", "in", "low: the belt runs"),
    ("end switch of the gate (optional)", "end_switch", "in", "low: at an end"),
    ("eye in the reject chute (optional)", "chute_eye", "in", "low: blocked"),
    ("chute full (optional)", "chute_full", "in", "low: the chute has room"),
    ("push-button (optional)", "button", "in", "low: pressed"),
    ("servo pulse", "servo", "out", "544 to 2400 us, 50 a second"),
    ("camera trigger", "trigger", "out", "high: fires"),
    ("belt relay", "relay", "out", "high: the belt may run"),
    ("lamp green", "green", "out", "high: lit"),
    ("lamp yellow", "yellow", "out", "high: lit"),
    ("lamp red", "red", "out", "high: lit"),
)


@dataclass
class SvgDrawing:
    """Collects the elements of an SVG drawing. Coordinates are in pixels from the top left corner."""

    parts: list[str] = field(default_factory=list)

    def line(self, *points: tuple[float, float], colour: str = INK, width: float = 1.6) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>')

    def box(self, x: float, y: float, width: float, height: float, *lines: str, fill: str = "#ffffff") -> None:
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" stroke="{INK}"/>')
        top = y + height / 2 - 7.5 * (len(lines) - 1) + 4
        for number, text in enumerate(lines):
            self.text(x + width / 2, top + 15 * number, text, anchor="middle", bold=number == 0)

    def text(self, x: float, y: float, text: str, anchor: str = "start", colour: str = INK, bold: bool = False, size: int = 12) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'
        )

    def dot(self, x: float, y: float, colour: str = INK) -> None:
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="3" fill="{colour}"/>')

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, sans-serif" role="img" '
            'aria-label="Wiring of one lane of the Arduino Mega 2560">'
        )
        return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *self.parts, "</svg>", ""])


def _draw_pin(drawing: SvgDrawing, label: str, y: float, left: bool) -> float:
    """Draws a pin at the Mega's edge and returns the x coordinate at which the wire ends."""
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
    _draw_isolated_input(drawing, 330, pins.estop.label, ("emergency stop", "auxiliary contact, NC"))
    drawing.box(20, 400, 150, 70, "encoder", "5 V, open collector,", "screened cable")
    for y, pin in ((420, pins.encoder_a), (450, pins.encoder_b)):
        edge = _draw_pin(drawing, pin.label, y, left=True)
        drawing.line((170, y), (edge, y), colour=SIGNAL)
        drawing.dot(330, y, SIGNAL)
        drawing.text(336, y - 5, "2.2 k to 5 V", colour=SIGNAL, size=10)
    drawing.text(180, 414, "A", colour=SIGNAL, size=10)
    drawing.text(180, 444, "B", colour=SIGNAL, size=10)
    _draw_isolated_input(drawing, 680, pins.belt.label, ("belt runs (optional)", "contact of the drive"))
    _draw_isolated_input(drawing, 920, pins.end_switch.label, ("end switch (optional)", "2 contacts in parallel"))
    _draw_isolated_input(drawing, 1000, pins.chute_eye.label, ("chute eye (optional)", "24 V, PNP"))
    _draw_isolated_input(drawing, 1080, pins.chute_full.label, ("chute full (optional)", "on: the chute has room"))
    y = 550
    edge = _draw_pin(drawing, pins.servo_power.label, y, left=True)
    drawing.box(20, 524, 150, 52, "servo supply +", "5 to 6 V")
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
    drawing.text(905, y - 6, "twisted with its ground", anchor="middle", colour=SIGNAL, size=10)
    drawing.box(1010, 100, 150, 150, "servo", "of the gate")
    drawing.box(740, 200, 150, 60, "servo supply", "5 to 6 V, 3 A or more", "one for each servo")
    drawing.line((890, 215), (1010, 215), colour=HIGH, width=2.4)
    drawing.line((890, 245), (1010, 245), colour=GROUND, width=2.4)
    drawing.line((950, 215), (950, 222), colour=INK)
    drawing.line((938, 222), (962, 222), width=2.4)
    drawing.line((938, 230), (962, 230), width=2.4)
    drawing.line((950, 230), (950, 245))
    drawing.text(950, 275, "1000 uF and 100 nF", anchor="middle", size=10)
    drawing.text(950, 288, "at the servo", anchor="middle", size=10)
    edge = _draw_pin(drawing, "GND", 290, left=False)
    drawing.line((edge, 290), (720, 290), (720, 245), (740, 245), colour=GROUND, width=2.4)
    drawing.text(728, 306, "grounds meet here only", colour=GROUND, size=10)

    y = 390
    edge = _draw_pin(drawing, pins.trigger.label, y, left=False)
    drawing.line((edge, y), (740, y), colour=SIGNAL)
    drawing.box(740, y - 11, 60, 22, "330")
    drawing.line((800, y), (850, y), colour=SIGNAL)
    drawing.box(850, y - 26, 90, 52, "PC817", "optocoupler", fill="#f4f4ea")
    drawing.line((940, y), (1010, y), colour=HIGH)
    drawing.box(1010, y - 30, 150, 60, "camera", "trigger input,", "24 V or 5 V")

    y = 500
    edge = _draw_pin(drawing, pins.relay.label, y, left=False)
    drawing.line((edge, y), (850, y), colour=SIGNAL)
    drawing.box(850, y - 30, 110, 60, "relay module", "isolated,", "active high")
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
        drawing.line((edge, y), (850, y), colour=SIGNAL)
        drawing.line((960, y), (1010, y), colour=HIGH)
        drawing.text(985, y - 6, colour, anchor="middle", size=10)
    drawing.box(850, 585, 110, 130, "ULN2803", "driver", fill="#f4f4ea")
    drawing.box(1010, 585, 150, 130, "lamp", "24 V tower")


def _draw_supply(drawing: SvgDrawing) -> None:
    edge = _draw_pin(drawing, "USB", 790, left=True)
    drawing.box(20, 764, 150, 52, "line PC", "castline sorter")
    drawing.line((170, 790), (edge, 790), width=2.4)
    drawing.text(330, 784, "USB cable with ferrites, 3 m at most", anchor="middle", size=10)
    edge = _draw_pin(drawing, "VIN, GND", 850, left=True)
    drawing.box(20, 824, 150, 52, "9 V supply", "of the Mega alone")
    drawing.line((170, 850), (edge, 850), colour=HIGH, width=2.4)


def draw_lane(pins: LanePins, number: int) -> str:
    """Returns a drawing of one lane's wiring as SVG."""
    drawing = SvgDrawing()
    drawing.text(20, 34, f"Castline: lane {number} of an Arduino Mega 2560", bold=True, size=18)
    drawing.text(20, 54, "Resistors in ohms, 1/4 W; 2.2 k in the 24 V circuits 1/2 W. Not checked on real hardware.", size=12)
    drawing.box(*BOARD, "Arduino", "Mega 2560", fill="#e8f0f8")
    _draw_inputs(drawing, pins)
    _draw_outputs(drawing, pins)
    _draw_supply(drawing)
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


def replace_pin_table(page: str) -> str:
    """Returns `page` with a new table between the marks BEGIN and END."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{make_pin_table()}\n{END}{after}"


def write() -> None:
    """Writes the drawing docs/wiring.svg and the table in docs/wiring.md."""
    (DOCS / "wiring.svg").write_text(draw_lane(LANES[0], 1))
    page = DOCS / "wiring.md"
    page.write_text(replace_pin_table(page.read_text()))


if __name__ == "__main__":
    write()
