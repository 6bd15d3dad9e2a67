"""The commands `castline lines set` and `show`: what they store, what they show before they ask, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.cli.main import castline
from streams.errors import CastlineError, ModelError
from streams.live_line_settings import read_live_line_settings
from streams.records import LiveLineSettings
from streams.settings import Settings
from tests.conftest import MakeSettings
from tests.image_topics import make_jpeg
from tests.processes import CASTLINE, make_environment
from tests.tiny_version import make_tiny_version

pytestmark = pytest.mark.real


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(lines=("line-1", "line-2"), model={"version": "demo"})


def run(settings: Settings, *arguments: str, keys: str = "") -> Result:
    return CliRunner().invoke(castline, ["lines", *arguments], env=make_environment(settings), input=keys)


def read_settings(settings: Settings, line: str = "line-1") -> LiveLineSettings | None:
    return read_live_line_settings(settings, "test").find(line)


def test_a_share_of_defects_is_shown_before_it_is_set_and_set_only_if_a_person_agrees(settings: Settings) -> None:
    refused = run(settings, "set", "--line", "line-1", "--defect-share", "0.01", keys="n\n")
    assert refused.exit_code == 1
    assert "Expected of version demo at 1000 parts an hour and 1.000% defects:" in refused.output
    assert read_settings(settings) is None
    agreed = run(settings, "set", "--line", "line-1", "--defect-share", "0.01", "--parts-per-hour", "500", keys="y\n")
    assert agreed.exit_code == 0
    before, after = (line for line in agreed.output.splitlines() if " threshold " in line)
    assert "threshold 0.1364: per hour" in before
    assert "threshold 0.98" in after
    record = read_settings(settings)
    assert record is not None
    assert record.defect_share == 0.01


def test_settings_that_are_not_named_stay_and_cleared_ones_go(settings: Settings) -> None:
    for arguments in (
        ("--threshold", "0.7", "--mm-per-px", "0.2", "--inspect", "0.1,0.2,0.9,0.8", "--ignore", "0.1,0.1 0.2,0.1 0.1,0.2"),
        ("--mm-per-px", "0.3", "--planned-stop-until", "2026-02-01T12:00:00Z"),
        ("--clear", "threshold", "--clear", "ignore"),
    ):
        assert run(settings, "set", "--line", "line-1", *arguments, "--yes").exit_code == 0
    record = read_settings(settings)
    assert record is not None
    assert (record.threshold, record.mm_per_px, record.ignore_regions) == (None, 0.3, ())
    assert [(corner.x, corner.y) for corner in record.inspect_regions[0].corners] == [(0.1, 0.2), (0.9, 0.2), (0.9, 0.8), (0.1, 0.8)]
    assert record.planned_stop_until is not None
    shown = run(settings, "show", "--line", "line-1").output
    assert "mm-per-px: 0.3" in shown
    assert "inspect: 1 regions" in shown


def test_programs_get_json(settings: Settings) -> None:
    result = json.loads(run(settings, "set", "--line", "line-2", "--threshold", "0.8", "--yes", "--json").stdout)
    assert result["settings"]["threshold"] == result["after"]["threshold"] == 0.8
    assert result["before"]["threshold"] == pytest.approx(0.1364, abs=1e-4)
    unset, set_now = json.loads(run(settings, "show", "--json").stdout)
    assert (unset["settings"], unset["decision"]) == (None, "")
    assert set_now["decision"] == result["decision"]
    assert set_now["outlook"]["threshold"] == 0.8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--line", "line-1"), "There is nothing to change."),
        (("--line", "line-1", "--threshold", "0.5", "--clear", "threshold"), "Do only one of the two."),
        (("--line", "line-1", "--defect-share", "1"), "--defect-share"),
        (("--line", "line-1", "--miss-risk", "0"), "--miss-risk"),
        (("--line", "line-1", "--inspect", "0.9,0.1,0.1,0.9"), "is not a region. Give LEFT,TOP,RIGHT,BOTTOM"),
        (("--line", "line-1", "--inspect", "0.5,0.5 0.9,0.5 0.7,0.5"), "is too small. A region has at least 0.01% of the picture's area."),
        (("--line", "line-1", *(("--inspect", "0.1,0.1,0.9,0.9") * 33)), "There are 33 regions to inspect, but at most 32 are possible."),
        (("--line", "line-1", "--ignore", "0.9,0.1 2,0.9 0.1,0.1"), "All numbers are shares of the picture"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(settings: Settings, arguments: tuple[str, ...], sentence: str) -> None:
    result = run(settings, "set", *arguments, "--yes")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_an_unknown_line_and_an_absent_version_are_refused(settings: Settings, tmp_path: Path) -> None:
    unknown = run(settings, "set", "--line", "line-9", "--threshold", "0.5", "--yes").exception
    assert isinstance(unknown, CastlineError)
    assert "Known lines: line-1, line-2" in str(unknown)
    elsewhere = settings.model_copy(update={"model": settings.model.model_copy(update={"root": tmp_path})})
    assert isinstance(run(elsewhere, "set", "--line", "line-1", "--threshold", "0.5", "--yes").exception, ModelError)
    assert read_settings(settings) is None


def test_a_simulation_compares_the_rules_on_pictures_of_both_classes(settings: Settings, tmp_path: Path) -> None:
    version = make_tiny_version(tmp_path / "versions", pictures=100)
    for number, name in enumerate(("ok", "defect") * 3):
        file = tmp_path / "pictures" / name / f"{number}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_jpeg(number))
    options = ("--model", str(version.folder), "--defect-share", "0.01", "--parts", "5000")
    result = json.loads(run(settings, "simulate", *options, "--data", str(tmp_path / "pictures"), "--json").stdout)
    assert result["pictures"] == 6
    passing, own, share = result["rules"].values()
    assert passing["cost_per_part"] == pytest.approx(0.1, abs=0.05)
    assert (passing["threshold"], own["threshold"]) == (None, 0.5)
    assert share["threshold"] == pytest.approx(0.9, abs=0.01), "costs of 10 to 1 and the change from 50 % to 1 % nearly cancel out"
    assert share["cost_interval"]["low"] <= share["cost_interval"]["high"]
    risky = run(settings, "simulate", *options, "--data", str(tmp_path / "pictures"), "--miss-risk", "0.1")
    assert "threshold for the share, miss risk 0.1: not simulated. " in risky.output
    assert "reviews (" in risky.output
    assert "Give either --split or --data." in run(settings, "simulate", *options).output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--threshold", "1"), "would call no part defective"),
        (("--threshold", "0"), "would call every part defective"),
        (("--miss-risk", "0.01"), "no pass threshold can be computed"),
    ],
)
def test_settings_that_an_inspector_could_not_apply_are_refused(settings: Settings, arguments: tuple[str, ...], sentence: str) -> None:
    refused = run(settings, "set", "--line", "line-1", *arguments, "--yes").exception
    assert isinstance(refused, ModelError)
    assert sentence in str(refused)
    assert read_settings(settings) is None


ARCHIVE = """
from datetime import UTC, datetime
from station.configuration import configure
from streams.settings import load_settings
configure(load_settings(None))
from station.archive.database import migrate_database
from station.archive.models import Part
migrate_database()
now = datetime(2026, 1, 31, tzinfo=UTC)
rows = [(0.001, "") for _ in range(970)] + [(0.999, "ok") for _ in range(20)] + [(0.999, "defect") for _ in range(10)]
Part.objects.bulk_create(
    Part(line="line-1", run=1, part=number, seen_at=now, label="ok", defect_probability=value, model="demo", review_label=label)
    for number, (value, label) in enumerate(rows)
)
"""


def test_the_share_of_defects_is_estimated_and_corrected_before_it_is_taken(make_settings: MakeSettings, tmp_path: Path) -> None:
    """The version calls 30 of 1,000 parts defective. People have looked at these 30, and 10 of them are defective."""
    settings = make_settings(lines=("line-1",), model={"version": "demo"}, station={"database": str(tmp_path / "station.sqlite3")})
    subprocess.run([sys.executable, "-c", ARCHIVE], env=make_environment(settings), timeout=120, check=True)
    command = [str(CASTLINE), "lines", "estimate", "line-1"]
    done = subprocess.run(command, env=make_environment(settings), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    uncorrected, corrected = (line for line in done.stdout.splitlines() if line.startswith("  share of defects ") and "95 %" in line)
    assert float(uncorrected.split(": ")[1].split("%")[0]) == pytest.approx(3, abs=0.3)
    assert float(corrected.split(": ")[1].split("%")[0]) == pytest.approx(1, abs=0.3)
    assert "line-1, version demo: 1000 parts since 2026-01-31T" in done.stdout
    assert ", 30 of them reviewed" in done.stdout
    assert "To use this share: castline lines set --line line-1 --defect-share 0.0" in done.stdout
    assert "share of defects that is set: none" in done.stdout
    assert read_settings(settings) is None
