"""Makes the teaching report of `castline board teach`, which a person prints and signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape

from deploy.cli.teach_figures import LaneMeasurement


@dataclass
class TeachRecord:
    """The results of one call of `castline board teach`.

    Each of `changes` has the name of a setting, its old value and its new value, as text.
    """

    line: str
    person: str
    began_at: datetime
    board: str = ""
    firmware: str = ""
    measured: LaneMeasurement | None = None
    measurements: list[tuple[str, str]] = field(default_factory=list)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


_STYLE = "body{font:11pt sans-serif;max-width:48em;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #888;padding:.2em .6em}"


def render_page(record: TeachRecord) -> str:
    """Returns the teaching report as one HTML page that needs no other files."""
    facts = [
        ("Line", record.line),
        ("Board", record.board),
        ("Firmware", record.firmware),
        ("Date", f"{record.began_at.astimezone():%Y-%m-%d %H:%M}"),
        ("Made by", record.person),
    ]
    parts = [f"<h1>Commissioning of {escape(record.line)}</h1>", _table((), facts)]
    parts += ["<h2>Settings</h2>", _table(("Setting", "Before", "After"), record.changes or [("none changed", "", "")])]
    if record.measurements:
        parts += ["<h2>Measured values</h2>", _table(("Value", "Result"), record.measurements)]
    if record.measured is not None:
        travel = record.measured.travel
        rows = [
            (str(number), f"{value:.1f}", "outlier, not used" if number - 1 in travel.outliers else "")
            for number, value in enumerate(travel.values, 1)
        ]
        parts += ["<h2>Castings</h2>", _table(("Casting", "Travel in mm", "Remark"), rows)]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in record.skipped]
    parts.append("<p style='margin-top:4em'>Name, date, signature: ______________________________</p>")
    title = f"<title>Commissioning of {escape(record.line)}</title>"
    return f"<!doctype html><html lang=en><meta charset=utf-8>{title}<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>" if header else ""
    return "<table>" + head + "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows) + "</table>"
