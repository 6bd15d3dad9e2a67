"""The command `castline models status` says with which picture decoder and with which pictures a version was made."""

from __future__ import annotations

import subprocess

import pytest

from streams.settings import Settings
from tests.conftest import MakeSettings
from tests.processes import CASTLINE, make_environment

pytestmark = pytest.mark.real

SENTENCE = "This version was made with picture decoder 1, but this program has picture decoder"


def castline(settings: Settings, *arguments: str) -> str:
    """Runs a `castline` command and returns its output."""
    return subprocess.run([CASTLINE, *arguments], env=make_environment(settings), check=True, capture_output=True, text=True).stdout


def test_the_status_of_a_version_names_its_older_picture_decoder_and_that_it_has_seen_no_photograph(make_settings: MakeSettings) -> None:
    """The bundled version was made by release 0.1.0."""
    settings = make_settings(lines=("line-1",), model={"version": "demo"})
    status = castline(settings, "models", "status")
    assert SENTENCE in status
    assert "Version demo has learned from rendered pictures only." in status


def test_what_is_expected_of_a_version_is_shown_before_it_is_chosen(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("line-1", "line-2"), model={"version": "demo"})
    shown = castline(settings, "models", "choose", "demo", "--line", "line-1", "--parts-per-hour", "500", "--dry-run")
    assert "Expected on line-1 at 500 parts an hour and " in shown
    before, after = (line for line in shown.splitlines() if "good parts rejected" in line)
    assert before.split() == ["now", *after.split()[1:]]
    assert "line-2" not in shown
    assert "is chosen" not in shown


def test_a_version_that_has_seen_no_photograph_says_so_when_it_is_chosen(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("line-1",), model={"version": "demo"})
    chosen = subprocess.run(
        [CASTLINE, "models", "choose", "demo"], env=make_environment(settings), check=True, capture_output=True, text=True
    )
    assert "Version demo has learned from rendered pictures only." in chosen.stderr
    assert "demo is chosen" in chosen.stdout
