"""A study on a real plant: made by the command line, labelled by keyboard in a real browser, and shown by the command line."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.processes import CASTLINE, make_environment
from tests.station.browser.conftest import OpenPage
from tests.station.browser.plant import RunningStation
from tests.station.browser.test_access_for_all import find_serious_violations

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PARTS = 5


def castline(station: RunningStation, *arguments: str) -> str:
    """Runs a `castline` command and returns its output."""
    command = [str(CASTLINE), *arguments]
    return subprocess.run(command, env=make_environment(station.settings), check=True, capture_output=True, text=True).stdout


def test_a_study_is_labelled_by_keyboard_and_its_result_is_shown(page_of: OpenPage, station: RunningStation) -> None:
    ids = [str(station.camera.take_picture("line-1", good=number % 2 == 0)) for number in range(PARTS)]
    user, deadline = station.log_in("operator"), time.monotonic() + 60
    while any(user.get(f"/parts/{part.replace(':', '/')}/").status_code != 200 for part in ids):
        assert time.monotonic() < deadline, "expected all parts in the archive after 60 s"
        time.sleep(0.1)
    arguments = [argument for part in ids for argument in ("--part", part)]
    made = castline(station, "study", "make", "browser", "--line", "line-1", "--person", "reviewer", *arguments)
    assert f"browser: {PARTS} parts, 2 rounds." in made
    assert json.loads(castline(station, "study", "show", "browser", "--json"))["results"] is None
    page = page_of("reviewer", "/studies/browser/answer")
    assert find_serious_violations(Axe().run(page).response) == []
    for done in range(2 * PARTS):
        expect(page.locator("[data-progress]")).to_contain_text(f"{done} of {2 * PARTS} answered")
        assert page.locator(".shot").evaluate("image => image.decode().then(() => image.naturalWidth)") == 300
        if done == 3:  # a person may correct the last answer
            page.keyboard.press("u")
            expect(page.locator("[data-progress]")).to_contain_text("2 of")
            page.keyboard.press("d")
            expect(page.locator("[data-progress]")).to_contain_text("3 of")
        page.keyboard.press("d" if done % 2 else "o")
    expect(page.get_by_role("row", name="reviewer and the model")).to_be_visible()
    assert find_serious_violations(Axe().run(page).response) == []
    assert "reviewer, one round with another: kappa" in castline(station, "study", "show", "browser")
    assert "browser: line-1, open; reviewer 10 of 10" in castline(station, "study", "list")
