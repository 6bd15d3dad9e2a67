"""The model card of a version: one page for auditors, made from the manifest and the reports.

The content follows Mitchell et al., Model Cards for Model Reporting, FAT* 2019: model, training data, figures, intended use and limits.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.pictures.decoder_version import DECODER_VERSION, FIRST_DECODER_VERSION
from models.registry.manifest import Manifest
from models.registry.registry import Registry
from models.registry.version_report import (
    MAX_FILE_BYTES,
    ClassificationFigures,
    LearningCurve,
    RuntimeReport,
    VersionReport,
    list_validation_figures,
    read_learning_curve,
    read_report,
    read_runtime_report,
)

CLEANING_FILE = "cleaning.json"
# If a version was tested with fewer than 50 good or 20 defective pictures, its figures are uncertain. The model card then shows a warning.
FEW_GOOD, FEW_DEFECTIVE = 50, 20
_MAX_ERRORS = 20
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%}"
    "th,td{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}th{width:22rem}"
)

Row = tuple[str, str]


@dataclass(frozen=True)
class CardSection:
    """A section of a model card: a title, some sentences, and a table of names and values."""

    title: str
    sentences: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """A summary of one model version for people, in sections."""

    version: str
    sections: tuple[CardSection, ...]

    def to_markdown(self) -> str:
        """Returns the card as a Markdown document."""
        lines = [f"# Model card of version {self.version}"]
        for section in self.sections:
            lines += ["", f"## {section.title}", ""]
            lines += [f"- {_escape_markdown(sentence)}" for sentence in section.sentences]
            if section.rows:
                lines += [*([""] if section.sentences else []), "| | |", "| --- | --- |"]
                lines += [f"| {_escape_markdown(name)} | {_escape_markdown(value)} |" for name, value in section.rows]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """Returns the card as a complete HTML page without links to other files."""
        title = html.escape(f"Model card of version {self.version}")
        parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>']
        for section in self.sections:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
            if section.sentences:
                parts.append("<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in section.sentences) + "</ul>")
            if section.rows:
                cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in section.rows)
                parts.append(f"<table>{cells}</table>")
        return "\n".join(parts) + "</html>\n"


def make_model_card(registry: Registry, name: str) -> ModelCard:
    """Makes the model card of the version `name` from its manifest and its reports. If a report is missing, the card is shorter.

    Raises ModelError if the registry has no such version or its manifest is not valid.
    """
    manifest = registry.read_manifest(name)
    report, cleaning = read_report(registry, name), _read_cleaning_report(registry, name)
    sections = (
        _describe_version(manifest),
        _describe_training_data(manifest, cleaning),
        _describe_decision(manifest),
        _describe_figures(manifest, report),
        *_describe_conditions(report),
        *_describe_scorers(manifest),
        *_describe_segmentation(manifest),
        *_describe_learning_curve(manifest, read_learning_curve(registry, name)),
        *_describe_runtimes(read_runtime_report(registry, name)),
        _describe_limits(manifest, report, cleaning),
        *_describe_errors(report),
        _describe_reproduction(manifest),
    )
    return ModelCard(name, sections)


def _describe_version(manifest: Manifest) -> CardSection:
    networks = ", ".join(f"{voter.name} (weight {voter.weight:.2f}, {voter.side_px} px)" for voter in manifest.voters)
    return CardSection(
        "The version",
        ("The version judges pictures of castings. It gives each part the label ok, defect or review. A person checks parts with review.",),
        (
            ("Version", manifest.version),
            ("Made on", f"{manifest.created:%Y-%m-%d %H:%M} UTC"),
            ("Made by", manifest.made_by or "not recorded"),
            ("Release of Castline", manifest.made_with or "not recorded"),
            ("Classes", manifest.describe_classes()),
            ("Networks", networks or "none"),
            ("Side of the input picture", f"{manifest.preprocessing.side_px} px"),
            ("Picture decoder", f"version {manifest.decoder_version or FIRST_DECODER_VERSION}, this program has version {DECODER_VERSION}"),
            ("Checks that the picture shows the whole part", "yes" if manifest.part else "no"),
            ("A mirrored part is a different part", "yes" if manifest.handed else "no"),
        ),
    )


def _describe_training_data(manifest: Manifest, cleaning: Mapping[str, Any]) -> CardSection:
    data = manifest.data
    rows = [(f"Pictures of class {name}", str(count)) for name, count in data.pictures.items()]
    rows += [("Choice of the validation pictures", data.split), ("Fingerprint of the pictures", data.sha256)]
    names = {
        "groups": "Groups of near-duplicates",
        "largest_group": "Pictures in the largest group",
        "equal_files": "Files that are equal to another file",
    }
    rows += [(title, str(cleaning[key])) for key, title in names.items() if isinstance(cleaning.get(key), int)]
    counted = {
        "contradicting_groups": "Groups of near-duplicates with different labels",
        "unreadable": "Files that could not be read",
    }
    rows += [(title, str(len(cleaning[key]))) for key, title in counted.items() if isinstance(cleaning.get(key), list)]
    missing = () if cleaning else (f"The folder {manifest.version}.training with the report on the pictures is not in the registry.",)
    return CardSection("Training pictures", (*_list_texts(manifest.describe_training_pictures()), *missing), tuple(rows))


def _describe_decision(manifest: Manifest) -> CardSection:
    band, costs = manifest.band, manifest.costs
    has_band = band.low < band.high
    return CardSection(
        "Threshold and costs",
        ("A line may have a threshold or a share of defects of its own. Then the threshold below does not decide.",),
        (
            ("Threshold: lowest probability that counts as a defect", f"{manifest.threshold:.4f}"),
            ("Defect probabilities for review", f"{band.low:.4f} to {band.high:.4f}" if has_band else "none"),
            ("Cost of a miss", f"{costs.miss:g}"),
            ("Cost of a false alarm", f"{costs.false_alarm:g}"),
            ("Calibration temperature", f"{manifest.temperature:.4f}"),
        ),
    )


def _describe_figures(manifest: Manifest, report: VersionReport | None) -> CardSection:
    if report is None:
        figures = [(name, str(value)) for name, value in list_validation_figures(manifest) if value]
        sentence = (
            "These figures come from the validation pictures, with which the training chose weights and threshold. The version may make "
            'more errors on other pictures. "castline evaluate --report" measures the version on pictures that it has not seen.'
            if figures
            else 'Nobody has measured this version. "castline evaluate --report" measures it.'
        )
        return CardSection("Figures", (sentence,), tuple(figures))
    sentence = f"These figures come from {report.figures.pictures} labelled pictures in the report on the version, with 95 % intervals."
    return CardSection("Figures", (sentence,), tuple(_list_figures(report.figures)))


def _list_figures(figures: ClassificationFigures) -> list[Row]:
    rows = [
        ("Accuracy", str(figures.accuracy)),
        ("Precision: parts called defective that are defective", str(figures.precision)),
        ("Recall: defective parts that are called defective", str(figures.recall)),
        ("Misses among the defective parts", str(figures.misses)),
        ("False alarms among the good parts", str(figures.false_alarms)),
        ("Parts for review", str(figures.reviews)),
        ("Calibration error", f"{figures.calibration_error:.4f}"),
    ]
    return rows + ([("Area under the ROC curve", f"{figures.roc_auc:.5f}")] if figures.roc_auc is not None else [])


def _describe_conditions(report: VersionReport | None) -> list[CardSection]:
    """Returns sections about the accuracy of each network, the accuracy on disturbed pictures, and the quality of the heat maps.

    If the report has no figures for a section, the section is left out.
    """
    if report is None:
        return []
    sections = []
    sets: tuple[tuple[str, str, Mapping[str, ClassificationFigures]], ...] = (
        ("Each network alone", "Here each network decides alone, at the threshold 0.5.", report.voters_at_half),
        ("Disturbed pictures", "The accuracy on copies of the pictures, each with one disturbance.", report.strained),
    )
    for title, sentence, figures in sets:
        if figures:
            sections.append(CardSection(title, (sentence,), tuple((name, str(each.accuracy)) for name, each in figures.items())))
    if report.localisation:
        rows = [(name, _describe_heat_map(each)) for name, each in report.localisation.sources.items()]
        sentence = "Heat maps compared with masks of the defects. The best value of each measure is 1."
        sections.append(CardSection("Where the defects are", (sentence, *report.localisation.left_out), tuple(rows)))
    return sections


def _describe_scorers(manifest: Manifest) -> list[CardSection]:
    rows = [
        (
            name,
            f"cut-off {scorer.cut_off:.4g} from {scorer.good_pictures} good pictures. With 95 % confidence, at most "
            f"{scorer.highest_alarm_share:.1%} of the good parts are above it.",
        )
        for name, scorer in manifest.entries_by_scorer.items()
    ]
    sentence = "A scorer has learned from good parts alone. A part above its cut-off differs from them."
    return [CardSection("Scorers", (sentence,), tuple(rows))] if rows else []


def _describe_segmentation(manifest: Manifest) -> list[CardSection]:
    head = manifest.segmentation
    if head is None:
        return []
    rows = [("Kinds of defect", ", ".join(head.kinds)), ("Command", head.command)]
    rows += [(f"Training pictures, {name}", str(count)) for name, count in head.pictures.items()]
    rows += [(f"Figure {name}", f"{value:.4g}") for name, value in head.figures.items()]
    sentence = "The segmentation head shows where defects are and names their kinds. It does not decide whether a part is good."
    return [CardSection("Segmentation head", (sentence,), tuple(rows))]


def _describe_learning_curve(manifest: Manifest, curve: LearningCurve | None) -> list[CardSection]:
    if curve is None:
        return []
    sentences = [
        curve.describe_gain(),
        f"The labels of {curve.contradicted_count} pictures are contradicted by networks that have not seen these pictures.",
    ]
    if curve.fingerprint != manifest.data.sha256:
        sentences.append("The learning curve was made of other pictures than those of this version.")
    rows = [(f"Errors with {point.training_pictures} training pictures", str(point.errors)) for point in curve.points]
    return [CardSection("Number of training pictures", tuple(sentences), tuple(rows))]


def _describe_runtimes(report: RuntimeReport | None) -> list[CardSection]:
    if report is None:
        return []
    compared = "The golden set was" if not report.pictures else f"The golden set and {report.pictures} more pictures were"
    rows = [(f"{one.runtime}, batch {one.batch}", f"largest difference of a probability {one.distance:.5f}") for one in report.measured]
    rows += [(name, f"refused: {reason}") for name, reason in report.refused.items()]
    return [CardSection("Exports", (f"{compared} compared with TensorFlow in float32, on {report.processor}.",), tuple(rows))]


def _describe_heat_map(figures: Any) -> str:
    shares = {"pixel AUROC": figures.pixel_auroc, "AUPRO": figures.aupro, "AUPIMO": figures.aupimo}
    values = [f"{name} {value:.3f}" for name, value in shares.items() if value is not None]
    return ", ".join([*values, f"hottest point at a defect {figures.pointing}"])


def _describe_limits(manifest: Manifest, report: VersionReport | None, cleaning: Mapping[str, Any]) -> CardSection:
    counts = manifest.data.pictures
    good = counts.get(manifest.classes[manifest.ok_class], 0)
    defective = sum(counts.values()) - good
    side = manifest.preprocessing.side_px
    sentences = [
        *_list_texts(manifest.describe_training_pictures(), manifest.describe_decoder()),
        f"A picture is reduced to {side} x {side} px. A defect that is then smaller than about two pixels cannot be seen.",
        "The version knows only the kinds of part, defects, light and camera that are in its training pictures.",
    ]
    sentences += manifest.all_warnings
    if not manifest.warnings and (good < FEW_GOOD or (manifest.voters and defective < FEW_DEFECTIVE)):
        sentences.append(
            f"The version has learned from few pictures: {good} good and {defective} defective ones. With fewer than {FEW_GOOD} good or "
            f"{FEW_DEFECTIVE} defective ones, its figures are uncertain."
        )
    if manifest.part is None:
        sentences.append("The version does not check whether a picture shows the part. A picture of something else gets any label.")
    if manifest.reference is None:
        sentences.append("The version has no drift reference, so nobody is warned if the pictures of a line change.")
    else:
        brightness, sharpness = manifest.reference.brightness, manifest.reference.sharpness
        sentences.append(
            f"The validation pictures have a mean grey level from {brightness.low:.0f} to {brightness.high:.0f} and a sharpness from "
            f"{sharpness.low:.0f} to {sharpness.high:.0f} (1st and 99th percentile). On other pictures the version was not measured."
        )
    if cleaning.get("contradicting_groups"):
        sentences.append("Some near-duplicates among the training pictures have different labels. The labels may be wrong.")
    if report is None:
        sentences.append("There is no report on pictures that the version has not seen.")
    elif report.strained:
        name, worst = min(report.strained.items(), key=lambda item: item[1].accuracy.value)
        sentences.append(f"The worst disturbance that was tried is {name}, with an accuracy of {worst.accuracy}.")
    return CardSection("Limits and known failures", tuple(sentences))


def _describe_errors(report: VersionReport | None) -> list[CardSection]:
    if report is None or not report.errors:
        return []
    many = len(report.errors)
    shown = f" The {_MAX_ERRORS} worst of them are listed." if many > _MAX_ERRORS else ""
    rows = [
        (error.path, f"called {error.label}, defect probability {error.defect_probability:.4f}") for error in report.errors[:_MAX_ERRORS]
    ]
    return [CardSection("Wrongly judged pictures", (f"The version judged {many} pictures of the report wrongly.{shown}",), tuple(rows))]


def _describe_reproduction(manifest: Manifest) -> CardSection:
    return CardSection(
        "How to make the version again",
        (
            "Run the command with the same release of Castline and with pictures that have the same fingerprint. Small differences remain, "
            "because processors add numbers in different orders.",
        ),
        (
            ("Command", manifest.command),
            ("Fingerprint of the pictures", manifest.data.sha256),
            *((f"SHA-256 of {name}", entry.sha256) for name, entry in sorted(manifest.files.items())),
        ),
    )


def _read_cleaning_report(registry: Registry, name: str) -> dict[str, Any]:
    """Returns the report of the training run about its pictures (cleaning.json), or {} if the file is missing or damaged."""
    content = registry.read_companion(f"{name}.training", CLEANING_FILE, MAX_FILE_BYTES)
    try:
        report = json.loads(content) if content else {}
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def _list_texts(*texts: str) -> list[str]:
    return [text for text in texts if text]


def _escape_markdown(text: str) -> str:
    """Returns `text` so that Markdown shows it unchanged within a table."""
    for character in "\\`*_<>[]|#":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
