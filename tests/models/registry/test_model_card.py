"""The model card of a version has everything that an auditor asks for, also where files beside the version are missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from click.testing import CliRunner

from deploy.cli.main import castline
from models.registry import BUNDLED_VERSIONS, LocalRegistry
from models.registry.model_card import CardSection, ModelCard, make_model_card
from tests.models.registry.test_version_report import make_report, write_report


def copy_demo(root: Path) -> LocalRegistry:
    shutil.copytree(BUNDLED_VERSIONS / "demo", root / "demo")
    return LocalRegistry(root)


def sections_of(card: ModelCard) -> dict[str, CardSection]:
    return {section.title: section for section in card.sections}


def test_a_card_names_pictures_figures_thresholds_limits_and_the_way_to_make_the_version_again(tmp_path: Path) -> None:
    registry = copy_demo(tmp_path)
    errors = [{"path": "a|b.jpeg", "class": "defect", "defect_probability": 0.2, "label": "ok"}]
    base = make_report()
    write_report(tmp_path, make_report(strained={"blur": base["figures"]}, errors=errors))
    (tmp_path / "demo.training").mkdir()
    (tmp_path / "demo.training" / "cleaning.json").write_text(json.dumps({"groups": 31, "contradicting_groups": [{}], "unreadable": []}))
    card = make_model_card(registry, "demo")
    sections = sections_of(card)
    training = dict(sections["Training pictures"].rows)
    assert (training["Pictures of class def_front"], training["Groups of near-duplicates"]) == ("1990", "31")
    assert training["Groups of near-duplicates with different labels"] == "1"
    assert dict(sections["Figures"].rows)["Accuracy"] == "0.5000 (1 of 2; 95 %: 0.0100 to 0.9900)"
    assert dict(sections["Threshold and costs"].rows)["Cost of a miss"] == "2"
    limits = " ".join(sections["Limits and known failures"].sentences)
    for text in (
        "rendered pictures only",
        "picture decoder 1",
        "160 x 160 px",
        "different labels",
        "worst disturbance that was tried is blur",
    ):
        assert text in limits
    assert dict(sections["Wrongly judged pictures"].rows)["a|b.jpeg"] == "called ok, defect probability 0.2000"
    assert dict(sections["How to make the version again"].rows)["Command"] == "castline models make-demo"
    assert r"a\|b.jpeg" in card.to_markdown()
    assert "<td>castline models make-demo</td>" in card.to_html()


def test_a_card_without_report_shows_the_validation_figures_and_says_what_is_missing(tmp_path: Path) -> None:
    sections = sections_of(make_model_card(copy_demo(tmp_path), "demo"))
    assert dict(sections["Figures"].rows)["accuracy"].startswith("0.9925 (794 of 800; 95 %:")
    assert "There is no report on pictures that the version has not seen." in sections["Limits and known failures"].sentences
    assert "demo.training" in " ".join(sections["Training pictures"].sentences)
    assert "Wrongly judged pictures" not in sections


def test_a_card_shows_the_warnings_of_the_training_and_that_the_parts_are_handed(tmp_path: Path) -> None:
    registry = copy_demo(tmp_path)
    path = tmp_path / "demo" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": ["There are only 20 pictures."], "handed": True}))
    sections = sections_of(make_model_card(registry, "demo"))
    assert "There are only 20 pictures." in sections["Limits and known failures"].sentences
    assert dict(sections["The version"].rows)["A mirrored part is a different part"] == "yes"


def test_a_card_shows_scorers_learning_curve_and_exports_where_there_are_some(tmp_path: Path) -> None:
    registry = copy_demo(tmp_path)
    manifest = json.loads((tmp_path / "demo" / "manifest.json").read_text())
    scorer = {"name": "golden-template", "files": ["golden.npz"], "side_px": 160, "cut_off": 2.5, "alarm_share": 0.01}
    manifest["scorers"] = [{**scorer, "highest_alarm_share": 0.03, "good_pictures": 400}]
    rings = {"radius_px": 900, "rings": 400, "strip_rings": 40, "overlap_rings": 4}
    cut_off = {"cut_off": 3.5, "alarm_share": 0.01, "highest_alarm_share": 0.02, "good_pictures": 200}
    manifest["details"] = {"file": "golden.npz", **rings, **cut_off}
    (tmp_path / "demo" / "manifest.json").write_text(json.dumps(manifest))
    share = {"value": 0.02, "low": -0.01, "high": 0.03}
    point = {"share": 1.0, "training_pictures": 40, "errors": share}
    curve = {
        "fingerprint": manifest["data"]["sha256"],
        "network": "lenet",
        "pictures": 60,
        "groups": 50,
        "points": [point, point],
        "gain": share,
    }
    speed = {"runtime": "onnx", "batch": 8, "per_s": 500.0, "distance": 0.001}
    runtimes = {"version": "demo", "processor": "cpu", "pictures": 60, "chosen": "onnx", "measured": [speed], "refused": {}}
    (tmp_path / "demo.report").mkdir()
    for file, content in (("learning-curve.json", curve), ("runtimes.json", runtimes)):
        (tmp_path / "demo.report" / file).write_text(json.dumps(content))
    sections = sections_of(make_model_card(registry, "demo"))
    assert "cut-off 2.5 from 400 good pictures" in dict(sections["Scorers"].rows)["golden-template"]
    assert "cut-off 3.5 from 200 good pictures" in dict(sections["Scorers"].rows)["detail-template"]
    assert dict(sections["Number of training pictures"].rows) == {"Errors with 40 training pictures": "2.00 % (95 %: -1.00 to 3.00 %)"}
    assert "will probably help little" in sections["Number of training pictures"].sentences[0]
    assert "The golden set and 60 more pictures were compared" in sections["Exports"].sentences[0]


def test_the_command_writes_a_card_and_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    copy_demo(tmp_path)
    runner = CliRunner()
    for suffix, begin in (("md", "# Model card of version demo"), ("html", "<!doctype html>")):
        out = tmp_path / f"card.{suffix}"
        assert runner.invoke(castline, ["models", "card", "demo", "--root", str(tmp_path), "--out", str(out)]).exit_code == 0
        assert out.read_text().startswith(begin)
    refused = runner.invoke(castline, ["models", "card", "demo", "--out", str(tmp_path / "card.pdf")])
    assert (refused.exit_code, "Choose a name that ends with .md or .html." in refused.stderr.replace("\n", " ")) == (2, True)
    assert not (tmp_path / "card.pdf").exists()
