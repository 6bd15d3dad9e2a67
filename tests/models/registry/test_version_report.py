"""Reports and training curves beside a version: those of this release and those of release 0.1.0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.registry import LocalRegistry
from models.registry.version_report import (
    Proportion,
    list_training_curves,
    read_report,
    read_report_picture,
    read_training_curve,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"the rest of a picture"


def make_report(**fields: object) -> dict[str, object]:
    """The values of a report.json of release 0.1.0 on two pictures, with further `fields`."""
    half = {"count": 1, "of": 2, "value": 0.5, "low": 0.01, "high": 0.99}
    nothing = {"count": 0, "of": 0, "value": float("nan"), "low": 0.0, "high": 1.0}
    figures = dict.fromkeys(("accuracy", "recall", "misses", "false_alarms", "reviews"), half)
    counts = {"pictures": 2, "defects": 1, "f1": 0.5, "roc_auc": None, "average_precision": None, "calibration_error": 0.1}
    return {
        "model": "demo",
        "threshold": 0.5,
        "figures": {**figures, **counts, "precision": nothing, "confusion": [[1, 0], [1, 0]]},
        "errors": [{"path": "a.jpeg", "class": "defect", "defect_probability": 0.2, "label": "ok"}],
        **fields,
    }


def write_report(root: Path, values: dict[str, object], version: str = "demo") -> None:
    folder = root / f"{version}.report"
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(values))


def test_a_report_of_release_0_1_0_opens_without_pictures(tmp_path: Path) -> None:
    write_report(tmp_path, make_report())
    report = read_report(LocalRegistry(tmp_path), "demo")
    assert report is not None
    assert report.figures.confusion == ((1, 0), (1, 0))
    assert report.errors[0].path == "a.jpeg"
    assert report.curves == report.gallery == ()


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"model": "demo", "figures": {}}'])
def test_a_damaged_report_is_no_report(tmp_path: Path, content: str) -> None:
    (tmp_path / "demo.report").mkdir()
    (tmp_path / "demo.report" / "report.json").write_text(content)
    assert read_report(LocalRegistry(tmp_path), "demo") is None


def test_a_report_on_another_version_is_no_report(tmp_path: Path) -> None:
    write_report(tmp_path, make_report(model="other"))
    assert read_report(LocalRegistry(tmp_path), "demo") is None


def test_only_png_files_that_the_report_names_are_read(tmp_path: Path) -> None:
    files = ("curves.png", "missing.png", "text.png", "link.png", "../demo.report/curves.png", "curves.svg")
    write_report(tmp_path, make_report(gallery=[{"file": file, "caption": ""} for file in files]))
    folder, registry = tmp_path / "demo.report", LocalRegistry(tmp_path)
    for file in ("curves.png", "unnamed.png", "curves.svg"):
        (folder / file).write_bytes(PNG)
    (folder / "text.png").write_text("no picture")
    (folder / "link.png").symlink_to(folder / "curves.png")
    assert read_report_picture(registry, "demo", "curves.png") == PNG
    for file in ("unnamed.png", *files[1:]):
        assert read_report_picture(registry, "demo", file) is None, file


def test_training_curves_are_listed_with_and_without_their_numbers(tmp_path: Path) -> None:
    folder, registry = tmp_path / "demo.training", LocalRegistry(tmp_path)
    assert list_training_curves(registry, "demo") == []
    folder.mkdir()
    for network in ("alexnet", "lenet"):
        (folder / f"{network}.png").write_bytes(PNG)
    epoch = {"number": 1, "loss": 0.7, "validation_loss": 0.6, "accuracy": 0.5, "validation_accuracy": 0.6}
    (folder / "alexnet.json").write_text(json.dumps({"network": "alexnet", "epochs": [epoch] * 3}))
    (folder / "evil.png").symlink_to("/etc/passwd")
    (folder / "options.json").write_text("{}")
    assert [(curve.file, curve.caption) for curve in list_training_curves(registry, "demo")] == [
        ("alexnet.png", "alexnet: loss and accuracy over 3 epochs of its training"),
        ("lenet.png", "lenet: loss and accuracy over the epochs of its training"),
    ]
    assert read_training_curve(registry, "demo", "lenet.png") == PNG
    for file in ("evil.png", "../demo/manifest.json", "options.json", "absent.png"):
        assert read_training_curve(registry, "demo", file) is None


def test_an_interval_is_that_of_clopper_and_pearson() -> None:
    """The values are those of the paper's method in R's binom.test."""
    some = Proportion.from_counts(794, 800)
    assert (some.low, some.high) == pytest.approx((0.98375, 0.99724), abs=1e-5)
    assert (Proportion.from_counts(0, 10).low, Proportion.from_counts(10, 10).high) == (0, 1)
    assert (Proportion.from_counts(0, 0).low, Proportion.from_counts(0, 0).high) == (0, 1)
    with pytest.raises(ValueError, match=r"within 0\.\.3"):
        Proportion.from_counts(5, 3)
