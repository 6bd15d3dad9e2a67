"""Regions of a line, drawn with the mouse, a finger and the keyboard in a real browser. The settings arrive on the topic of lines."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from streams.live_line_settings import read_live_line_settings
from streams.records import LiveLineSettings, Region
from tests.station.browser.conftest import OpenPage
from tests.station.browser.plant import RunningStation
from tests.station.browser.test_access_for_all import find_serious_violations

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PATH = "/lines/line-2/settings/"


def read_settings(station: RunningStation) -> LiveLineSettings:
    found = read_live_line_settings(station.settings, "test").find("line-2")
    assert found is not None
    return found


def locate(page: Page, x: float, y: float) -> tuple[float, float]:
    """Returns the place on the screen of the shares `x` and `y` of the picture."""
    area = page.locator("[data-drawing]").bounding_box()
    assert area
    return area["x"] + x * area["width"], area["y"] + y * area["height"]


def corners_of(region: Region) -> list[float]:
    return [value for corner in region.corners for value in (corner.x, corner.y)]


def test_regions_are_drawn_by_mouse_and_keyboard_undone_deleted_and_saved(page_of: OpenPage, station: RunningStation) -> None:
    station.camera.take_picture("line-2")
    page = page_of("engineer", PATH)
    while not page.locator("img.shot").count():  # the verdict arrives a moment later
        page.reload()
    assert page.locator("img.shot").evaluate("image => image.decode().then(() => image.naturalWidth)") == 300
    page.get_by_role("button", name="Draw a region to inspect").click()
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.3, 0.3), (0.9, 0.9), (0.1, 0.9)):
        page.mouse.click(*locate(page, x, y))
        if (x, y) == (0.3, 0.3):
            page.keyboard.press("Control+z")  # takes back the last corner
    page.mouse.click(*locate(page, 0.1, 0.1))  # the first corner closes the region
    expect(page.locator("[data-state]")).to_have_text("Region to inspect 1 is selected.")
    page.get_by_role("button", name="Draw a region to ignore").press("Enter")
    for keys in ("ArrowLeft Space", "ArrowRight ArrowRight ArrowRight ArrowRight ArrowRight Space", "ArrowDown ArrowDown Space", "Enter"):
        for key in keys.split():
            page.keyboard.press(key)
    expect(page.locator("[data-state]")).to_have_text("Region to ignore 1 is selected.")
    page.keyboard.press("n")
    page.keyboard.press("Shift+ArrowUp")
    page.get_by_role("button", name="Draw a region to ignore").click()
    for x, y in ((0.6, 0.6), (0.8, 0.6), (0.8, 0.8)):
        page.mouse.click(*locate(page, x, y))
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")
    expect(page.locator("[data-region-list] li")).to_have_count(2)
    assert find_serious_violations(Axe().run(page).response) == []
    page.get_by_label("Share of defects, %").fill("1.5")
    page.get_by_label("Scale, mm per pixel").fill("0,2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_contain_text("The settings of line-2 are saved.")
    saved = read_settings(station)
    assert (saved.set_by, saved.defect_share, saved.mm_per_px, saved.threshold) == ("engineer", 0.015, 0.2, None)
    (inspect,), (ignore,) = saved.inspect_regions, saved.ignore_regions
    assert corners_of(inspect) == pytest.approx([0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9], abs=0.01)
    assert corners_of(ignore) == pytest.approx([0.48, 0.498, 0.58, 0.5, 0.58, 0.54], abs=0.0001)
    audit = page_of("administrator", "/audit/")
    expect(audit.get_by_role("row", name="line settings").first).to_contain_text("inspect_regions")


def test_a_region_is_drawn_and_moved_with_a_finger(page_of: OpenPage, station: RunningStation) -> None:
    page = page_of("engineer", PATH, has_touch=True, viewport={"width": 768, "height": 1024})
    while page.locator("[data-region-list] button").count():
        page.locator("[data-region-list] button").first.tap()
        page.get_by_role("button", name="Delete").tap()
    page.get_by_role("button", name="Draw a region to inspect").tap()
    for x, y in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.8)):
        page.touchscreen.tap(*locate(page, x, y))
    page.get_by_role("button", name="Close the region").tap()
    page.mouse.move(*locate(page, 0.5, 0.4))
    page.mouse.down()
    page.mouse.move(*locate(page, 0.6, 0.5), steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Save").tap()
    expect(page.get_by_role("status").first).to_contain_text("The settings of line-2 are saved.")
    (region,) = read_settings(station).inspect_regions
    assert corners_of(region) == pytest.approx([0.3, 0.3, 0.9, 0.3, 0.6, 0.9], abs=0.01)


def test_a_page_that_another_person_made_old_saves_nothing(page_of: OpenPage, station: RunningStation) -> None:
    old = page_of("engineer", PATH, expected=(409,))
    new = page_of("administrator", PATH)
    new.get_by_label("Threshold").fill("0.6")
    new.get_by_role("button", name="Save").click()
    expect(new.get_by_role("status").first).to_contain_text("are saved")
    old.get_by_label("Threshold").fill("0.4")
    old.get_by_role("button", name="Save").click()
    expect(old.get_by_role("alert")).to_contain_text("administrator has changed the settings of this line since you opened this page.")
    expect(old.get_by_label("Threshold")).to_have_value("0.4")
    assert read_settings(station).threshold == 0.6


def test_the_estimated_share_of_defects_is_shown_with_its_effect_and_taken_by_a_button(page_of: OpenPage, station: RunningStation) -> None:
    for good in (True, True, True, False):
        station.camera.take_picture("line-2", good)
    page = page_of("engineer", PATH)
    estimate = page.locator("[data-estimate]")
    expect(estimate).to_be_visible()
    while not estimate.locator(".estimate").count():  # the archive receives the verdicts a moment later
        page.reload()
        expect(estimate).to_be_visible()
    expect(estimate).to_contain_text("With 95 % certainty, the share lies between")
    expect(estimate).to_contain_text("Fewer than 20 of these parts are reviewed")
    rejects = estimate.get_by_role("row", name="Good parts rejected per hour").get_by_role("cell")
    assert [float(text.replace(",", "")) >= 0 for text in rejects.all_inner_texts()] == [True, True]
    assert find_serious_violations(Axe().run(page).response) == []
    page.get_by_label("Threshold").fill("")
    page.get_by_label("Scale, mm per pixel").fill("0.3")
    button = page.get_by_role("button", name="Take this share")
    taken = float(button.get_attribute("value") or "")
    button.click()
    expect(page.get_by_role("status").first).to_contain_text("The settings of line-2 are saved.")
    saved = read_settings(station)
    assert saved.defect_share == pytest.approx(taken / 100)
    assert (saved.mm_per_px, saved.threshold) == (0.3, None)
    expect(page.get_by_label("Share of defects, %")).to_have_value(f"{taken:g}")
