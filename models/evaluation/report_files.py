"""Writes an evaluation report into a folder: report.json and PNG files for the station and other programs, report.html for people.

The station reads report.json as a `models.registry.version_report.VersionReport`.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from models.evaluation.evaluation_report import EvaluationReport
from models.evaluation.figures import bin_reliability
from models.inference.defect_locator import open_heat_mapper
from models.pictures.display import overlay_heat_map
from models.registry import Version
from models.registry.version_report import (
    GROUP_TITLES,
    MAX_GROUP_PICTURES,
    REPORT_FILE,
    ClassificationFigures,
    GalleryGroup,
    LocalisationReport,
    ReportPicture,
)
from streams.atomic_file import write_atomically

MAX_SIDE_PX = 320
CURVES = ReportPicture(file="curves.png", caption="ROC, precision and recall, reliability")

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b2530}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #c5ccd4;padding:.25rem .6rem;text-align:left}
th{background:#eef1f4}figure{display:inline-block;margin:.4rem;width:15rem;vertical-align:top}figure img{width:100%}
figcaption{font-size:.8rem;overflow-wrap:anywhere}.plot{max-width:100%}"""


def write_report(folder: Path, version: Version, report: EvaluationReport) -> Path:
    """Writes report.json, its PNG files and report.html into `folder`, and returns the path of report.html.

    report.html contains the pictures, so it needs no other file. report.json is written last, because the station shows the report as
    soon as this file exists.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("error-*.png", *(f"{_file_stem(group)}-*.png" for group in get_args(GalleryGroup))):
        for old in folder.glob(pattern):
            old.unlink()
    curves = _draw_curves(report)
    write_atomically(folder / CURVES.file, curves)
    gallery = _draw_gallery(version, report)
    for picture, content in gallery:
        write_atomically(folder / picture.file, content)
    page = folder / "report.html"
    write_atomically(page, _build_page(version, report, curves, gallery))
    values = {
        "model": version.name,
        "threshold": version.manifest.threshold,
        "handed": version.manifest.handed,
        "warnings": version.manifest.all_warnings,
        **report.to_json(),
        "curves": [CURVES.model_dump()],
        "gallery": [picture.model_dump() for picture, _ in gallery],
    }
    write_atomically(folder / REPORT_FILE, json.dumps(values, indent=2) + "\n")
    return page


def _draw_curves(report: EvaluationReport) -> bytes:
    probability, is_defect = report.probability, report.is_defect
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    roc, precision, reliability = figure.subplots(1, 3)
    if report.figures.roc_auc is not None:
        alarms, hits, _ = roc_curve(is_defect, probability)
        roc.plot(alarms, hits)
        precisions, recalls, _ = precision_recall_curve(is_defect, probability)
        precision.plot(recalls, precisions)
    roc.set(title="ROC", xlabel="false alarms of the good", ylabel="defects found", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    precision.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    bins = bin_reliability(probability, is_defect)
    reliability.plot([0, 1], [0, 1], color="0.7")
    reliability.plot([mean for mean, _, _ in bins], [share for _, share, _ in bins], "o-")
    reliability.set(title="Reliability", xlabel="defect probability", ylabel="share of defects")
    for axes in (roc, precision, reliability):
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _draw_gallery(version: Version, report: EvaluationReport) -> list[tuple[ReportPicture, bytes]]:
    """Returns PNG files of the worst misses, the worst false alarms and the most doubtful pictures, at most MAX_GROUP_PICTURES of each.

    If the version makes heat maps, each PNG shows the picture beside its heat map.
    """
    groups: dict[GalleryGroup, list[int]] = {
        "misses": [index for index in report.errors if report.is_defect[index]],
        "false alarms": [index for index in report.errors if not report.is_defect[index]],
        "doubtful": report.doubtful,
    }
    if not any(groups.values()):
        return []
    mapper = open_heat_mapper(version)
    gallery = []
    for group, indices in groups.items():
        for number, index in enumerate(indices[:MAX_GROUP_PICTURES]):
            pixels, entry = report.pictures.pixels[index], report.pictures.files[index]
            images = [Image.fromarray(pixels).convert("RGB")]
            if mapper:
                images.append(overlay_heat_map(pixels, mapper.compute_defect_map(pixels).heat))
            caption = f"{entry.path}: truly {entry.class_name}, {_describe_rank(report, index)}"
            picture = ReportPicture(file=f"{_file_stem(group)}-{number}.png", caption=caption, group=group)
            gallery.append((picture, _encode_side_by_side(images)))
    return gallery


def _file_stem(group: GalleryGroup) -> str:
    return group.replace(" ", "-")


def _describe_rank(report: EvaluationReport, index: int) -> str:
    measure = "score" if report.predictions[index].defect_probability is None else "defect probability"
    return f"{measure} {report.probability[index]:.4f}"


def _encode_side_by_side(images: Sequence[Image.Image]) -> bytes:
    for image in images:
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    sheet = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    left_px = 0
    for image in images:
        sheet.paste(image, (left_px, 0))
        left_px += image.width
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _build_page(version: Version, report: EvaluationReport, curves: bytes, gallery: Sequence[tuple[ReportPicture, bytes]]) -> str:
    manifest, figures = version.manifest, report.figures
    (passed, alarms), (misses, hits) = figures.confusion
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(version.name)}</title><style>{STYLE}</style>",
        f"<h1>Version {html.escape(version.name)} on {figures.pictures} pictures</h1>",
        f"<p>A part is called defective if its defect probability is at least {manifest.threshold:.4f}. It is labelled for review "
        f"if the probability is from {manifest.band.low:.4f} to {manifest.band.high:.4f}. "
        f"The version judged {report.pictures_per_s:.0f} pictures a second, without decoding.</p>",
        *(f"<p><strong>{html.escape(warning)}</strong></p>" for warning in manifest.all_warnings),
        *(["<p>A mirrored part is a different part, so the training pictures were not mirrored.</p>"] if manifest.handed else []),
        _build_table(("figure", "value"), _list_figures(figures)),
        "<h2>Confusion</h2>",
        _build_table(("", "called good", "called defective"), [("truly good", passed, alarms), ("truly defective", misses, hits)]),
        "<h2>Curves</h2>",
        f'<img class=plot alt="{CURVES.caption}" src="{_embed_png(curves)}">',
        "<h2>By source</h2>",
        _compare_figures(report.sources),
        "<h2>Each network alone, at 0.5</h2>",
        _compare_figures(report.voters),
    ]
    if report.robustness:
        parts += ["<h2>Robustness</h2>", _compare_figures(report.robustness)]
    if report.localisation:
        parts += ["<h2>Heat maps compared with masks</h2>", _compare_sources(report.localisation)]
    parts.append(f"<h2>Errors ({len(report.errors)})</h2>")
    if not report.errors:
        parts.append("<p>None.</p>")
    for group in get_args(GalleryGroup):
        figures_of_group = [
            f'<figure><img alt="" src="{_embed_png(content)}"><figcaption>{html.escape(picture.caption)}</figcaption></figure>'
            for picture, content in gallery
            if picture.group == group
        ]
        if figures_of_group:
            parts += [f"<h3>{GROUP_TITLES[group]}</h3>", *figures_of_group]
    if report.pictures.unreadable:
        unreadable = [(bad.path, bad.message) for bad in report.pictures.unreadable]
        parts += ["<h2>Unreadable</h2>", _build_table(("file", "reason"), unreadable)]
    return "\n".join(parts) + "\n"


def _list_figures(figures: ClassificationFigures) -> list[tuple[object, ...]]:
    return [
        ("accuracy", figures.accuracy),
        ("precision", figures.precision),
        ("recall", figures.recall),
        ("F1", f"{figures.f1:.4f}"),
        ("misses", figures.misses),
        ("false alarms", figures.false_alarms),
        ("for review", figures.reviews),
        ("misses outside review", figures.misses_outside_review),
        ("false alarms outside review", figures.false_alarms_outside_review),
        ("area under ROC", "none" if figures.roc_auc is None else f"{figures.roc_auc:.5f}"),
        ("average precision", "none" if figures.average_precision is None else f"{figures.average_precision:.5f}"),
        ("calibration error", f"{figures.calibration_error:.4f}"),
    ]


def _compare_figures(sets: dict[str, ClassificationFigures]) -> str:
    rows = [(name, each.pictures, each.accuracy, each.misses.count, each.false_alarms.count) for name, each in sets.items()]
    return _build_table(("", "pictures", "accuracy", "misses", "false alarms"), rows)


def _compare_sources(localisation: LocalisationReport) -> str:
    head = ("source", "defective", "good", "pixel AUROC", "AUPRO 0.3", "AUPIMO", "hottest point within 8 px of a defect", "box IoU")
    rows = []
    for name, each in localisation.sources.items():
        shares = (each.pixel_auroc, each.aupro, each.aupimo, each.box_iou)
        auroc, aupro, aupimo, box_iou = ("none" if share is None else f"{share:.4f}" for share in shares)
        rows.append((name, each.defective, each.good, auroc, aupro, aupimo, each.pointing, box_iou))
    left_out = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in localisation.left_out)
    return _build_table(head, rows) + left_out


def _build_table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    def build_row(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + build_row(head, "th") + "".join(build_row(row, "td") for row in rows) + "</table>"


def _embed_png(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
