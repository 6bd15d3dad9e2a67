"""An examination as a folder to read: `report.html`, which needs nothing beside it, and `report.json` for programs."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from models.evaluation.evaluation_report import Examination
from models.evaluation.figures import Figures, reliability
from models.inference.heat_map import heat_of, overlaid
from models.registry.versions import Version

MOST_ERRORS = 60  # in the gallery; all are in the JSON

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b2530}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #c5ccd4;padding:.25rem .6rem;text-align:left}
th{background:#eef1f4}figure{display:inline-block;margin:.4rem;width:15rem;vertical-align:top}figure img{width:100%}
figcaption{font-size:.8rem;overflow-wrap:anywhere}.plot{max-width:100%}"""


def write_report(folder: Path, version: Version, examination: Examination) -> Path:
    """Writes both files into `folder`; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"model": version.name, "threshold": version.manifest.threshold, **examination.plain()}
    (folder / "report.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_page(version, examination), encoding="utf-8")
    return page


def _page(version: Version, examination: Examination) -> str:
    manifest, found = version.manifest, examination.figures
    (passed, alarms), (misses, hits) = found.confusion
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(version.name)}</title><style>{STYLE}</style>",
        f"<h1>Version {html.escape(version.name)} on {found.pictures} pictures</h1>",
        f"<p>Defect from probability {manifest.threshold:.4f} on; for review from {manifest.band.low:.4f} to {manifest.band.high:.4f}. "
        f"{examination.per_s:.0f} pictures a second without decoding.</p>",
        _table(("figure", "value"), _rows(found)),
        "<h2>Confusion</h2>",
        _table(("", "called good", "called defective"), [("truly good", passed, alarms), ("truly defective", misses, hits)]),
        "<h2>Curves</h2>",
        f'<img class=plot alt="ROC, precision and recall, reliability" src="{_png(_curves(examination))}">',
        "<h2>By source</h2>",
        _compared(examination.sources),
        "<h2>Each network alone, at 0.5</h2>",
        _compared(examination.voters),
    ]
    if examination.strained:
        parts += ["<h2>Under strain</h2>", _compared(examination.strained)]
    parts += [f"<h2>Errors ({len(examination.wrong)})</h2>", *_gallery(version, examination)]
    if examination.pictures.unreadable:
        listed = [(bad.path, bad.message) for bad in examination.pictures.unreadable]
        parts += ["<h2>Unreadable</h2>", _table(("file", "why"), listed)]
    return "\n".join(parts) + "\n"


def _rows(found: Figures) -> list[tuple[object, ...]]:
    return [
        ("accuracy", found.accuracy),
        ("precision", found.precision),
        ("recall", found.recall),
        ("F1", f"{found.f1:.4f}"),
        ("misses", found.misses),
        ("false alarms", found.false_alarms),
        ("for review", found.reviews),
        ("misses outside review", found.misses_outside_review),
        ("false alarms outside review", found.false_alarms_outside_review),
        ("area under ROC", "none" if found.roc_auc is None else f"{found.roc_auc:.5f}"),
        ("average precision", "none" if found.average_precision is None else f"{found.average_precision:.5f}"),
        ("calibration error", f"{found.calibration_error:.4f}"),
    ]


def _compared(sets: dict[str, Figures]) -> str:
    rows = [(name, each.pictures, each.accuracy, each.misses.count, each.false_alarms.count) for name, each in sets.items()]
    return _table(("", "pictures", "accuracy", "misses", "false alarms"), rows)


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    def line(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def _curves(examination: Examination) -> Image.Image:
    probability, bad = examination.probability, examination.bad
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    roc, precision, calibration = figure.subplots(1, 3)
    if examination.figures.roc_auc is not None:
        alarms, hits, _ = roc_curve(bad, probability)
        roc.plot(alarms, hits)
        precisions, recalls, _ = precision_recall_curve(bad, probability)
        precision.plot(recalls, precisions)
    roc.set(title="ROC", xlabel="false alarms of the good", ylabel="defects found", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    precision.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    bins = reliability(probability, bad)
    calibration.plot([0, 1], [0, 1], color="0.7")
    calibration.plot([mean for mean, _, _ in bins], [share for _, share, _ in bins], "o-")
    calibration.set(title="Reliability", xlabel="defect probability", ylabel="share of defects")
    for axes in (roc, precision, calibration):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return Image.open(buffer, formats=("PNG",))


def _gallery(version: Version, examination: Examination) -> list[str]:
    if not examination.wrong:
        return ["<p>None.</p>"]
    heat = heat_of(version)
    found = []
    for index in examination.wrong[:MOST_ERRORS]:
        pixels, entry = examination.pictures.pixels[index], examination.pictures.files[index]
        shown = [Image.fromarray(pixels).convert("RGB")]
        if heat:
            shown.append(overlaid(pixels, heat.map(pixels)))
        said = f"{entry.path}: truly {entry.class_name}, defect probability {examination.probability[index]:.4f}"
        found.append(f'<figure><img alt="" src="{_png(_beside(shown))}"><figcaption>{html.escape(said)}</figcaption></figure>')
    return found


def _beside(images: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
