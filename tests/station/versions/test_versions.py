"""The models pages read versions as files; a change is checked as the command line checks it."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.test import Client

from models.registry import BUNDLED_VERSIONS, open_registry
from models.registry.version_report import Proportion as ModelsShare
from station.accounts.models import AuditEntry
from station.versions.choosing import NO_SHADOW, OtherClassesError, Plan, Wish, consider
from station.versions.records import gallery, report, training_curve, training_curves
from station.versions.shelf import Share, read, verify
from streams.errors import ModelError
from streams.model_choices import ALL_LINES, ModelChoices
from streams.settings import LineSettings, ModelSettings, Settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Versions: the bundled one, the same under another name, and one that judges other classes."""
    for name in ("demo", "second", "others"):
        shutil.copytree(BUNDLED_VERSIONS / "demo", tmp_path / name, ignore=shutil.ignore_patterns("*.json.*"))
        manifest = tmp_path / name / "manifest.json"
        told = json.loads(manifest.read_text()) | {"version": name}
        manifest.write_text(json.dumps(told | ({"classes": ["cracked", "ok_front"]} if name == "others" else {})))
    return tmp_path


def considered(root: Path, wish: Wish, chosen: ModelChoices | None = None) -> Plan:
    settings = Settings(model=ModelSettings(root=root), lines=(LineSettings(name="line-1"), LineSettings(name="line-2")))
    return consider(settings, wish, chosen or ModelChoices("demo"), "anna", NOW)


def test_the_pages_reader_and_the_inspectors_agree(root: Path) -> None:
    mine, its = verify(root, "demo"), open_registry(root).open_version("demo").manifest
    assert (mine.version, mine.threshold, mine.classes, mine.figures) == (its.version, its.threshold, its.classes, its.figures)
    assert mine.files.keys() == its.files.keys()


def test_intervals_are_those_of_the_evaluation() -> None:
    for count, of in ((0, 10), (10, 10), (794, 800), (3, 7)):
        mine, its = Share.counted(count, of), ModelsShare.from_counts(count, of)
        assert mine is not None
        assert (mine.low, mine.high) == pytest.approx((100 * its.low, 100 * its.high))
    assert Share.counted(0, 0) is None
    assert Share.counted(5, 3) is None


@pytest.mark.parametrize("name", ["../demo", "demo/../demo", "", ".", "nothing", "DEMO", "demo\0"])
def test_a_name_that_is_no_version_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ModelError, match="There is no version"):
        read(root, name)


def test_a_changed_file_is_found_and_the_version_not_chosen(root: Path) -> None:
    weights = root / "second" / "lenet.weights.h5"
    value = bytearray(weights.read_bytes())
    value[1000] ^= 1
    weights.write_bytes(value)
    with pytest.raises(ModelError, match=r"lenet\.weights\.h5 is damaged or was tampered with"):
        considered(root, Wish("choose", "line-1", "second"))
    (root / "demo" / "more.py").write_text("")
    with pytest.raises(ModelError, match=r"holds more\.py"):
        verify(root, "demo")


def test_a_damaged_manifest_is_said_to_be_damaged(root: Path) -> None:
    for text in ("", "{}", "[" * 100_000, '{"version": "demo"}'):
        (root / "demo" / "manifest.json").write_text(text)
        with pytest.raises(ModelError, match="manifest of demo is damaged"):
            read(root, "demo")


def test_a_choice_is_the_record_that_the_command_line_makes(root: Path) -> None:
    plan = considered(root, Wish("choose", "line-1", "second"))
    assert plan.record == ModelChoices("demo").make_choice("line-1", "second", "anna", NOW)
    assert plan.before == "demo"


def test_other_classes_need_an_explicit_word(root: Path) -> None:
    for line in ("line-1", ALL_LINES):
        with pytest.raises(OtherClassesError, match="others judges cracked, ok_front"):
            considered(root, Wish("choose", line, "others"))
        assert considered(root, Wish("choose", line, "others", force=True)).record.forced


def test_a_shadow_is_another_version_than_the_one_in_force(root: Path) -> None:
    assert considered(root, Wish("shadow", "line-1", "second")).record.shadow == "second"
    assert considered(root, Wish("shadow", "line-1", NO_SHADOW)).record.shadow is None
    with pytest.raises(ModelError, match="in force there already"):
        considered(root, Wish("shadow", "line-1", "demo"))


def test_a_roll_back_goes_to_the_version_before_where_it_is_whole(root: Path) -> None:
    with pytest.raises(ModelError, match="no version to roll back to"):
        considered(root, Wish("roll-back", "line-1"))
    record = ModelChoices("demo").make_choice("line-1", "second", "anna", NOW)
    chosen = ModelChoices("demo", {"line-1": record})
    assert considered(root, Wish("roll-back", "line-1"), chosen).record.version == "demo"
    (root / "demo" / "golden.npz").unlink()
    with pytest.raises(ModelError, match="demo lacks its file"):
        considered(root, Wish("roll-back", "line-1"), chosen)


def test_curves_and_a_report_beside_the_version_are_shown(root: Path) -> None:
    (root / "demo.training").mkdir()
    (root / "demo.training" / "lenet.png").write_bytes(PNG)
    (root / "demo.training" / "evil.png").symlink_to("/etc/passwd")
    (root / "demo.report").mkdir()
    counted = {"count": 1, "of": 2}
    figures = dict.fromkeys(("accuracy", "precision", "recall", "misses", "false_alarms", "reviews"), counted)
    told = {"model": "demo", "figures": {**figures, "pictures": 2, "confusion": [[1, 0], [1, 0]]}, "errors": []}
    (root / "demo.report" / "report.json").write_text(json.dumps(told))
    embedded = "data:image/png;base64," + base64.b64encode(PNG).decode()
    (root / "demo.report" / "report.html").write_text(
        f'<script>alert(1)</script><img src="{embedded}"><figure><img src="{embedded}"><figcaption>a.jpeg: '
        "truly &lt;b&gt;</figcaption></figure>"
        '<figure><img src="https://elsewhere.example/x.png"><figcaption>b</figcaption></figure>'
        '<figure><img src="data:image/png;base64,!!"></figure>'
    )
    assert training_curves(root, "demo") == ["evil.png", "lenet.png"]
    assert training_curve(root, "demo", "lenet.png") == PNG
    assert training_curve(root, "demo", "evil.png") is None
    assert training_curve(root, "demo", "../demo/manifest.json") is None
    found = report(root, "demo")
    assert found is not None
    assert found.figures.confusion == ((1, 0), (1, 0))
    assert report(root, "second") is None
    shown = gallery(root, "demo")
    assert shown.curves == PNG
    assert shown.errors == (("a.jpeg: truly <b>", PNG),)


def test_the_pages_show_every_version_with_its_interval(operator: Client) -> None:
    page = operator.get("/models/").content.decode()
    assert "99.25 %" in page
    assert "98.37 to 99.72" in page
    assert "Put in force" not in page
    assert operator.get("/models/version/nothing/").status_code == 404


def test_a_version_without_a_report_shows_what_its_training_found_and_says_what_makes_one(operator: Client) -> None:
    page = operator.get("/models/version/demo/").content.decode()
    assert "castline models make-demo" in page
    for told in ("5 of 800", "1 of 800", "0 of 800", "accuracy of lenet alone, at 0.5", "793 of 800", "770 of 800"):
        assert told in page
    assert "castline evaluate --model demo --data FOLDER --report demo.report" in page
    assert "castline train --out demo</code> leaves them" in page


def test_only_engineers_may_change_and_without_kafka_nothing_changes(engineer: Client, reviewer: Client) -> None:
    path = "/models/change?action=choose&line=line-1&version=demo"
    assert reviewer.get(path).status_code == 403
    answer = engineer.get(path)
    assert answer.status_code == 503
    assert "Kafka does not answer" in answer.content.decode()
    assert engineer.post("/models/change", {"action": "choose", "line": "line-1", "version": "demo"}).status_code == 503
    assert not AuditEntry.objects.exists()
