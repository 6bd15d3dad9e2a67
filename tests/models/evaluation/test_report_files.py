"""The files of an evaluation report, as `castline evaluate --report` writes them and the station reads them."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.evaluation import report_files
from models.evaluation.evaluation_report import EvaluationReport, evaluate_version
from models.evaluation.report_files import write_report
from models.inference.ensemble import open_ensemble
from models.registry import LocalRegistry, Version
from models.registry.version_report import read_report, read_report_picture
from models.training.labelled_pictures import find_pictures, read_pictures

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def version(models_root: Path) -> Version:
    return LocalRegistry(models_root).open_version("tiny")


@pytest.fixture(scope="module")
def report(version: Version, tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    """The untrained version's report on ten pictures of noise, of which it gets some wrong, and one file that is no picture."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(5)
    for index in range(10):
        folder = root / ("defect" if index % 2 else "ok")
        folder.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{index}.png")
    (root / "ok" / "broken.png").write_text("no picture")
    pictures = read_pictures(find_pictures([root]), 64, version.manifest.classes)
    found = evaluate_version(open_ensemble(version, "tensorflow", (8,)), pictures, with_robustness=True)
    # Two of the pictures that were judged correctly are left for review.
    correct = [index for index in range(10) if index not in found.errors][:2]
    predictions = [replace(one, label="review") if index in correct else one for index, one in enumerate(found.predictions)]
    return replace(found, predictions=predictions)


def test_the_station_reads_the_report_and_its_pictures(version: Version, report: EvaluationReport, tmp_path: Path) -> None:
    (tmp_path / "tiny.report").mkdir()
    (tmp_path / "tiny.report" / "error-59.png").write_bytes(b"of an earlier report")
    page = write_report(tmp_path / "tiny.report", version, report)
    registry = LocalRegistry(tmp_path)
    found = read_report(registry, "tiny")
    assert found is not None
    assert found.figures == report.figures
    assert found.strained == report.robustness
    assert len(found.strained) > 5
    assert len(found.errors) == len(report.errors) > 0
    groups = Counter(picture.group for picture in found.gallery)
    assert groups["misses"] + groups["false alarms"] == len(report.errors)
    assert groups["doubtful"] == len(report.doubtful) == 2
    for picture in (*found.curves, *found.gallery):
        content = read_report_picture(registry, "tiny", picture.file)
        assert content is not None
        Image.open(io.BytesIO(content), formats=("PNG",)).verify()
    assert not (tmp_path / "tiny.report" / "error-59.png").exists()
    text = page.read_text()
    assert "<h2>Robustness</h2>" in text
    assert text.count("data:image/png;base64,") == 1 + len(found.gallery), "the page needs no file beside it"


def test_the_gallery_is_bounded_and_begins_each_group_with_its_worst_picture(
    version: Version, report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_files, "MAX_GROUP_PICTURES", 1)
    monkeypatch.setattr(report_files, "MAX_SIDE_PX", 32)
    write_report(tmp_path / "tiny.report", version, report)
    found = read_report(LocalRegistry(tmp_path), "tiny")
    assert found is not None
    assert set(Counter(picture.group for picture in found.gallery).values()) == {1}
    worst = report.pictures.files[report.errors[0]].path
    assert any(picture.caption.startswith(f"{worst}: truly ") for picture in found.gallery)
    with Image.open(tmp_path / "tiny.report" / found.gallery[0].file) as sheet:
        assert sheet.size == (64, 32), "the picture and its heat map, side by side"


def test_report_json_has_the_names_of_release_0_1_0(version: Version, report: EvaluationReport, tmp_path: Path) -> None:
    warned = version.manifest.model_copy(update={"warnings": ("There are only 20 pictures.",), "handed": True})
    page = write_report(tmp_path, replace(version, manifest=warned), report).read_text()
    assert "<strong>There are only 20 pictures.</strong>" in page
    assert "the training pictures were not mirrored" in page
    values = json.loads((tmp_path / "report.json").read_text())
    names = {"model", "threshold", "pictures", "unreadable", "figures", "sources", "voters_at_half", "strained", "pictures_per_s", "errors"}
    assert names < values.keys()
    assert values.keys() - names == {"curves", "gallery", "handed", "warnings"}
    assert (values["handed"], values["warnings"]) == (True, ["There are only 20 pictures."])
    assert set(values["figures"]) == {
        "pictures",
        "defects",
        "accuracy",
        "precision",
        "recall",
        "f1",
        "misses",
        "false_alarms",
        "reviews",
        "misses_outside_review",
        "false_alarms_outside_review",
        "roc_auc",
        "average_precision",
        "calibration_error",
        "confusion",
    }
    assert set(values["figures"]["accuracy"]) == {"count", "of", "value", "low", "high"}
    assert [Path(row["path"]).name for row in values["unreadable"]] == ["broken.png"]
