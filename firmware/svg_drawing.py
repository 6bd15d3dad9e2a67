"""Draws lines, boxes and texts as SVG, for the wiring guide."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

INK, SIGNAL, HIGH, GROUND = "#222222", "#1f5fbf", "#b03030", "#555555"


@dataclass
class SvgDrawing:
    """Collects the elements of an SVG drawing. Coordinates are in pixels from the top left corner. Screen readers read `label` aloud."""

    width: int
    height: int
    label: str
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
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="Helvetica, Arial, sans-serif" role="img" aria-label="{escape(self.label)}">'
        )
        return "\n".join([head, f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>', *self.parts, "</svg>", ""])
