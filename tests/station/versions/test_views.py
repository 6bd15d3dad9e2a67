"""The Models pages, with the versions in a folder of this machine and on S3."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from django.test import Client
from django.test.utils import override_settings

from models.registry import BUNDLED_VERSIONS, LocalRegistry, RemoteRegistry
from station.accounts.models import AuditEntry
from station.configuration import current_settings
from streams.settings import load_settings
from streams.signatures import create_keys, sign_manifest
from tests.conftest import MakeSettings
from tests.models.registry.test_version_report import PNG, make_report, write_report


@pytest.fixture
def local_root(tmp_path: Path, database: Path) -> Iterator[Path]:
    """The bundled version and a copy of it, `second`, in the folder that the station reads."""
    root = tmp_path / "versions"
    copy_demo(root, "demo")
    copy_demo(root, "second")
    with override_settings(
        CASTLINE=current_settings().model_copy(update={"model": current_settings().model.model_copy(update={"root": root})})
    ):
        yield root


def copy_demo(root: Path, name: str, **fields: object) -> None:
    """Copies the bundled version to `root` under the name `name`, with other `fields` of its manifest."""
    shutil.copytree(BUNDLED_VERSIONS / "demo", root / name)
    manifest = root / name / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": name} | fields))


def test_the_models_page_shows_every_version_with_its_interval(operator: Client) -> None:
    page = operator.get("/models/").content.decode()
    assert "99.25 %" in page
    assert "98.37 to 99.72" in page
    assert "Put in force" not in page
    assert operator.get("/models/version/nothing/").status_code == 404


def test_a_version_without_a_report_shows_its_validation_figures_and_the_command_that_makes_a_report(operator: Client) -> None:
    page = operator.get("/models/version/demo/").content.decode()
    assert "castline models make-demo" in page
    for text in ("5 of 800", "1 of 800", "0 of 800", "accuracy of lenet alone, at the threshold 0.5", "793 of 800", "770 of 800"):
        assert text in page
    assert "castline evaluate --model demo --data FOLDER --report demo.report" in page
    assert "castline train --out demo</code> writes the curves" in page


def test_the_model_card_is_a_page_and_two_files(operator: Client) -> None:
    page = operator.get("/models/version/demo/card").content.decode()
    assert "Limits and known failures" in page
    for suffix, begin in (("md", b"# Model card of version demo"), ("html", b"<!doctype html>")):
        answer = operator.get(f"/models/version/demo/card?format={suffix}")
        assert answer.content.startswith(begin)
        assert answer["Content-Disposition"] == f'attachment; filename="demo-model-card.{suffix}"'
    assert operator.get("/models/version/nothing/card").status_code == 404


def test_a_version_that_was_made_with_another_picture_decoder_says_so_on_its_pages(operator: Client) -> None:
    """The bundled version was made by release 0.1.0."""
    for address in ("/models/", "/models/version/demo/"):
        assert "made with picture decoder 1, but this program has picture decoder" in operator.get(address).content.decode()


def test_damaged_versions_are_shown_and_cannot_be_selected(local_root: Path, engineer: Client) -> None:
    (local_root / "demo" / "manifest.json").write_text("{")
    (local_root / "second" / "lenet.weights.h5").write_bytes(b"damaged")
    page = engineer.get("/models/").content.decode()
    assert page.count('class="badge defect">damaged') == 2
    for name in ("demo", "second"):
        assert f'<option value="{name}" disabled>' in page
        assert engineer.get(f"/models/version/{name}/").status_code == 200
    assert "has 7 bytes instead of" in engineer.get("/models/version/second/").content.decode()


def test_a_report_is_shown_with_its_curves_and_gallery(local_root: Path, operator: Client) -> None:
    pictures = {"curves": [{"file": "curves.png", "caption": "ROC"}], "gallery": [{"file": "error-0.png", "caption": "a.jpeg: truly <b>"}]}
    pictures["gallery"].append({"file": "misses-0.png", "caption": "b.jpeg", "group": "misses"})
    write_report(local_root, make_report(**pictures))
    for file in ("curves.png", "error-0.png", "misses-0.png"):
        (local_root / "demo.report" / file).write_bytes(PNG)
    (local_root / "demo.training").mkdir()
    (local_root / "demo.training" / "lenet.png").write_bytes(PNG)
    page = operator.get("/models/version/demo/").content.decode()
    assert "Judged on 2 labelled pictures" in page
    assert "a.jpeg: truly &lt;b&gt;" in page
    assert "<h3>Misses: defective parts that were called good</h3>" in page
    for path in ("report/curves.png", "report/error-0.png", "report/misses-0.png", "training/lenet.png"):
        assert f'src="/models/version/demo/{path}"' in page
        answer = operator.get(f"/models/version/demo/{path}")
        assert (answer.content, answer["Content-Type"]) == (PNG, "image/png")
    for path in ("report/report.json", "report/lenet.png", "training/curves.png", "training/options.json"):
        assert operator.get(f"/models/version/demo/{path}").status_code == 404


def test_the_page_answers_whether_there_are_enough_pictures_and_whether_an_export_changes_a_verdict(
    local_root: Path, operator: Client
) -> None:
    page = operator.get("/models/version/demo/").content.decode()
    assert "castline experiment learning-curve --data FOLDER --out demo.report" in page
    assert "castline models optimise demo --data FOLDER --report demo.report" in page
    share = {"value": 0.02, "low": 0.01, "high": 0.03}
    curve = {
        "fingerprint": "0" * 64,
        "network": "lenet",
        "pictures": 60,
        "groups": 50,
        "points": [{"share": one, "training_pictures": 40, "errors": share} for one in (0.5, 1.0)],
        "gain": share,
        "contradicted_count": 1,
        "contradicted": [{"path": "bad<1>.jpeg", "class_name": "ok_front", "defect_probability": 0.97}],
    }
    speed = {"runtime": "onnx", "batch": 8, "per_s": 500.0, "distance": 0.001, "same_labels": True}
    runtimes = {"version": "demo", "processor": "cpu", "pictures": 60, "chosen": "onnx", "measured": [speed]}
    folder = local_root / "demo.report"
    folder.mkdir()
    (folder / "learning-curve.json").write_text(json.dumps(curve))
    (folder / "learning-curve.png").write_bytes(PNG)
    (folder / "runtimes.json").write_text(json.dumps(runtimes | {"refused": {"tflite": "labels 2 of 60 pictures differently"}}))
    page = operator.get("/models/version/demo/").content.decode()
    for text in (
        "was computed with other pictures",
        "2.00 % (95 %: 1.00 to 3.00 %)",
        "will probably help",
        "bad&lt;1&gt;.jpeg",
        "tflite: labels 2",
    ):
        assert text in page
    assert operator.get("/models/version/demo/report/learning-curve.png").content == PNG


def test_heat_maps_compared_with_masks_are_shown_where_the_report_has_them(local_root: Path, operator: Client) -> None:
    write_report(local_root, make_report())
    assert "Heat maps compared with masks" not in operator.get("/models/version/demo/").content.decode()
    figures = {"defective": 4, "good": 0, "defects": 9, "pixel_auroc": 0.8508, "aupro": 0.5454, "aupimo": None, "box_iou": 0.25}
    pointing = {"count": 3, "of": 4, "value": 0.75, "low": 0.19, "high": 0.99}
    localisation = {"sources": {"grad-cam": {**figures, "pointing": pointing}}, "left_out": ["Left out: 1 mask."]}
    write_report(local_root, make_report(localisation=localisation))
    page = operator.get("/models/version/demo/").content.decode()
    for text in ("Heat maps compared with masks", ">0.851<", ">0.545<", ">75.0 %<", ">0.250<", ">–<", "Left out: 1 mask."):
        assert text in page


def test_a_report_of_release_0_1_0_is_shown_and_says_how_to_make_its_pictures(local_root: Path, operator: Client) -> None:
    write_report(local_root, make_report())
    page = operator.get("/models/version/demo/").content.decode()
    assert "Judged on 2 labelled pictures" in page
    assert "a.jpeg: ok, 0.2000" in page
    assert "An earlier release wrote this report without pictures. To make the pictures, run <code>castline evaluate --model demo" in page


def test_only_engineers_may_change_a_model_and_nothing_changes_without_kafka(engineer: Client, reviewer: Client) -> None:
    path = "/models/change?action=choose&line=line-1&version=demo"
    assert reviewer.get(path).status_code == 403
    answer = engineer.get(path)
    assert answer.status_code == 503
    assert "Kafka does not answer" in answer.content.decode()
    assert engineer.post("/models/change", {"action": "choose", "line": "line-1", "version": "demo"}).status_code == 503
    assert not AuditEntry.objects.exists()


@pytest.fixture
def s3_root(
    s3_versions: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: Path
) -> Iterator[str]:
    """A registry on S3, named by CASTLINE_MODEL__ROOT, with the versions `demo`, `second`, `others` (of other classes) and `damaged`."""
    copy_demo(tmp_path / "pushed", "demo")
    copy_demo(tmp_path / "pushed", "second")
    copy_demo(tmp_path / "pushed", "others", classes=["cracked", "ok_front"])
    copy_demo(tmp_path / "pushed", "damaged")
    for name in ("demo", "second", "others", "damaged"):
        RemoteRegistry(s3_versions).push(LocalRegistry(tmp_path / "pushed").open_version(name))
    files, weights = fsspec.filesystem("s3"), f"{s3_versions}/damaged/lenet.weights.h5"
    content = bytearray(files.cat_file(weights))
    content[1000] ^= 1
    files.pipe_file(weights, bytes(content))
    monkeypatch.setenv("CASTLINE_MODEL__ROOT", s3_versions)
    settings = make_settings(lines=("line-1", "line-2", "uploads")).model_copy(update={"model": load_settings().model})
    with override_settings(CASTLINE=settings):
        yield s3_versions


def test_versions_on_s3_are_listed_shown_compared_and_chosen(s3_root: str, engineer: Client) -> None:
    page = engineer.get("/models/").content.decode()
    for name in ("demo", "second", "others", "damaged"):
        assert f'<a href="/models/version/{name}/">' in page
    assert page.count("99.25 %") == 4
    assert "Checksums are verified when the version is chosen." in page
    assert "5 of 800" in engineer.get("/models/version/second/").content.decode()
    assert engineer.get("/models/version/nothing/").status_code == 404

    def open_confirmation(version: str) -> tuple[int, str]:
        answer = engineer.get("/models/change", {"action": "choose", "line": "line-1", "version": version})
        return answer.status_code, answer.content.decode()

    status, page = open_confirmation("second")
    assert (status, "Put second in force?" in page) == (200, True)
    assert "Version second has learned from rendered pictures only." in page
    assert "Expected on line-1 at 1000 parts an hour and " in page
    assert page.count(" good parts rejected, ") == 2, "of the version in force and of the new one"
    chosen = engineer.post("/models/change", {"action": "choose", "line": "line-1", "version": "second"})
    assert (chosen.status_code, chosen["Location"]) == (302, "/models/")
    assert AuditEntry.objects.get().subject == "line-1"
    status, page = open_confirmation("others")
    assert (status, "others has the classes cracked, ok_front" in page) == (409, True)
    status, page = open_confirmation("damaged")
    assert (status, "lenet.weights.h5 is damaged or was tampered with" in page) == (409, True)
    status, page = open_confirmation("nothing")
    assert (status, "There is no version" in page) == (409, True)


def test_a_report_on_s3_is_shown(s3_root: str, operator: Client, tmp_path: Path) -> None:
    write_report(tmp_path, make_report(curves=[{"file": "curves.png", "caption": "ROC"}]))
    files = fsspec.filesystem("s3")
    files.put_file(str(tmp_path / "demo.report" / "report.json"), f"{s3_root}/demo.report/report.json")
    files.pipe_file(f"{s3_root}/demo.report/curves.png", PNG)
    assert "Judged on 2 labelled pictures" in operator.get("/models/version/demo/").content.decode()
    assert operator.get("/models/version/demo/report/curves.png").content == PNG
    assert "0.5000 (1 of 2; 95 %: 0.0100 to 0.9900)" in operator.get("/models/version/demo/card").content.decode()


def test_a_registry_that_does_not_answer_is_reported_on_the_page(s3_root: str, engineer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    answer = engineer.get("/models/")
    assert answer.status_code == 200
    assert f"The model registry {s3_root} does not answer" in answer.content.decode()
    assert engineer.get("/models/version/demo/").status_code == 404
    assert engineer.get("/models/change?action=choose&line=line-1&version=demo").status_code == 409


def test_the_page_of_a_version_without_networks_shows_its_scorer(operator: Client, local_root: Path) -> None:
    files = json.loads((local_root / "demo" / "manifest.json").read_text())["files"]
    scorer = {
        "name": "golden-template",
        "files": ["golden-template.npz"],
        "side_px": 160,
        "cut_off": 2.5,
        "alarm_share": 0.05,
        "highest_alarm_share": 0.139,
        "good_pictures": 20,
    }
    files = {"golden.npz": files["golden.npz"], "golden-template.npz": files["golden.npz"]}
    absent = {"cascade": None, "segmentation": None, "training_index": None}
    copy_demo(local_root, "good-only", voters=[], scorers=[scorer], files=files, figures={}, **absent)
    page = operator.get("/models/version/good-only/").content.decode()
    assert "golden-template: cut-off 2.5000, computed from 20 good pictures" in page
    assert "<dt>Networks</dt><dd>none</dd>" in page
    assert "good-only" in operator.get("/models/").content.decode()


def test_an_unsigned_version_is_shown_with_the_command_that_signs_it_and_cannot_be_selected(local_root: Path, engineer: Client) -> None:
    keys = local_root.parent / "keys"
    create_keys(keys, keys / "public", "administrator")
    manifest = (local_root / "second" / "manifest.json").read_bytes()
    LocalRegistry(local_root).write_signature("second", sign_manifest(keys, "second", manifest))
    settings = current_settings()
    signing = settings.signing.model_copy(update={"public_keys": keys / "public"})
    with override_settings(CASTLINE=settings.model_copy(update={"signing": signing})):
        page = engineer.get("/models/").content.decode()
        detail = engineer.get("/models/version/demo/").content.decode()
    assert '<option value="demo" disabled>' in page
    assert '<option value="second" disabled>' not in page
    assert "castline models sign demo" in detail
