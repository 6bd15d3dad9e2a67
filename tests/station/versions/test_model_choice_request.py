"""Requests to change a line's model pass the same checks as `castline models choose`."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.registry import BUNDLED_VERSIONS
from station.versions.model_choice_request import (
    NO_SHADOW,
    CheckedModelChoice,
    DifferentClassesError,
    ModelChoiceRequest,
    check_request,
)
from streams.errors import ModelError
from streams.model_choices import ALL_LINES, ModelChoices
from streams.settings import LineSettings, ModelSettings, Settings

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A registry with the bundled version, the same version under another name, and one with other classes."""
    for name in ("demo", "second", "others"):
        shutil.copytree(BUNDLED_VERSIONS / "demo", tmp_path / name, ignore=shutil.ignore_patterns("*.json.*"))
        manifest = tmp_path / name / "manifest.json"
        values = json.loads(manifest.read_text()) | {"version": name}
        manifest.write_text(json.dumps(values | ({"classes": ["cracked", "ok_front"]} if name == "others" else {})))
    return tmp_path


def check(root: Path, request: ModelChoiceRequest, current: ModelChoices | None = None) -> CheckedModelChoice:
    settings = Settings(model=ModelSettings(root=root), lines=(LineSettings(name="line-1"), LineSettings(name="line-2")))
    return check_request(settings, request, current or ModelChoices("demo"), "anna", NOW)


def test_a_choice_is_the_record_that_the_command_line_makes(root: Path) -> None:
    choice = check(root, ModelChoiceRequest("choose", "line-1", "second"))
    assert choice.record == ModelChoices("demo").make_choice("line-1", "second", "anna", NOW)
    assert choice.before == "demo"


@pytest.mark.parametrize("name", ["../demo", "demo/../demo", "", ".", "nothing", "DEMO", "demo\0"])
def test_a_name_that_is_no_version_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ModelError, match="There is no version"):
        check(root, ModelChoiceRequest("choose", "line-1", name))


def test_a_damaged_version_is_never_chosen(root: Path) -> None:
    weights = root / "second" / "lenet.weights.h5"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    for action in ("choose", "shadow"):
        with pytest.raises(ModelError, match=r"lenet\.weights\.h5 is damaged or was tampered with"):
            check(root, ModelChoiceRequest(action, "line-1", "second"))


def test_other_classes_must_be_forced(root: Path) -> None:
    for line in ("line-1", ALL_LINES):
        with pytest.raises(DifferentClassesError, match="others has the classes cracked, ok_front"):
            check(root, ModelChoiceRequest("choose", line, "others"))
        assert check(root, ModelChoiceRequest("choose", line, "others", force=True)).record.forced


def test_a_shadow_is_another_version_than_the_one_in_force(root: Path) -> None:
    assert check(root, ModelChoiceRequest("shadow", "line-1", "second")).record.shadow == "second"
    assert check(root, ModelChoiceRequest("shadow", "line-1", NO_SHADOW)).record.shadow is None
    with pytest.raises(ModelError, match="already judges the parts"):
        check(root, ModelChoiceRequest("shadow", "line-1", "demo"))


def test_a_roll_back_goes_to_the_previous_version_if_that_is_undamaged(root: Path) -> None:
    with pytest.raises(ModelError, match="no version to roll back to"):
        check(root, ModelChoiceRequest("roll-back", "line-1"))
    record = ModelChoices("demo").make_choice("line-1", "second", "anna", NOW)
    current = ModelChoices("demo", {"line-1": record})
    assert check(root, ModelChoiceRequest("roll-back", "line-1"), current).record.version == "demo"
    (root / "demo" / "golden.npz").unlink()
    with pytest.raises(ModelError, match=r"golden\.npz is named in manifest\.json, but there is no such file"):
        check(root, ModelChoiceRequest("roll-back", "line-1"), current)
