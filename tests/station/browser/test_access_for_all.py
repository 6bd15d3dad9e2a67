"""Accessibility: every page is checked by axe-core in light and dark colours, on the width of a tablet, and by keyboard."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.station.browser.conftest import OpenPage
from tests.station.browser.plant import OTHER_VERSION, RunningStation, make_jpeg

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PAGES = (
    "/",
    "/lines/line-1/",
    "/lines/line-1/settings/",
    "/lines/line-1/golden-parts/",
    "/uploads/",
    "/api/",
    "/models/",
    "/models/version/demo/",
    "/models/version/demo/card",
    f"/models/change?action=choose&line=line-1&version={OTHER_VERSION}",
    "/history/",
    "/history/?label=nonsense",
    "/reviews/",
    "/reviews/agreement/",
    "/studies/",
    "/reviews/data-sets/",
    "/reports/",
    "/reports/?line=nonsense",
    "/account/",
    "/accounts/",
    "/audit/",
)


# The dark scheme changes only the colours, so only the contrast is checked again.
RULES: dict[Literal["light", "dark"], dict[str, Any]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}


def find_serious_violations(found: dict[str, Any]) -> list[str]:
    """Returns the violations that axe-core calls serious or critical, with the elements concerned."""
    return [
        f"{one['id']}: {', '.join(node['html'][:120] for node in one['nodes'][:3])}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def check_page(page: Page, path: str) -> dict[str, list[str]]:
    """Returns the serious violations of the page at `path`, by colour scheme and path."""
    page.goto(path)
    found = {}
    for scheme, rules in RULES.items():
        page.emulate_media(color_scheme=scheme)
        if faults := find_serious_violations(Axe().run(page, options=rules).response):
            found[f"{scheme} {path}"] = faults
    return found


def test_axe_finds_no_serious_violation_on_any_page(page_of: OpenPage, station: RunningStation) -> None:
    part = station.camera.take_picture("line-1", good=False)
    page = page_of("administrator", "/uploads/")
    page.locator("#picture").set_input_files({"name": "bad.jpeg", "mimeType": "image/jpeg", "buffer": make_jpeg(good=False)})
    expect(page.locator("#rows tr[data-state=explained]").first).to_be_visible()
    result = page.locator("#rows a.thumb").first.get_attribute("href")
    assert result
    found: dict[str, list[str]] = {}
    for path in (*PAGES, result, f"/parts/line-1/{part.run}/{part.part}/"):
        found |= check_page(page, path)
    found |= check_page(page_of(None, "/log-in/"), "/log-in/")
    assert found == {}


def test_no_page_is_wider_than_a_tablet(page_of: OpenPage) -> None:
    page = page_of("administrator", "/", viewport={"width": 768, "height": 1024})
    wide = {}
    for path in PAGES:
        page.goto(path)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 768:
            wide[path] = width
    assert wide == {}


def test_the_upload_field_is_reached_by_keyboard(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#picture")).to_be_focused()
