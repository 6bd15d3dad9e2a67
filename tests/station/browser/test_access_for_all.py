"""Every page judged by axe-core, in light and in dark; the whole station on a tablet and by keyboard."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.station.browser.conftest import OpenPage
from tests.station.browser.plant import OTHER_VERSION, Station, castings

pytestmark = pytest.mark.timeout(240)

PAGES = (
    "/",
    "/lines/line-1/",
    "/uploads/",
    "/api/",
    "/models/",
    "/models/version/demo/",
    f"/models/change?action=choose&line=line-1&version={OTHER_VERSION}",
    "/history/",
    "/history/?label=nonsense",
    "/reviews/",
    "/reviews/agreement/",
    "/reviews/data-sets/",
    "/reports/",
    "/reports/?line=nonsense",
    "/account/",
    "/accounts/",
    "/audit/",
)


# In the dark only the colours are others.
RULES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}


def serious(found: dict[str, Any]) -> list[str]:
    """What axe-core calls serious or critical, with the elements."""
    return [
        f"{one['id']}: {', '.join(node['html'][:120] for node in one['nodes'][:3])}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_on_any_page(page_of: OpenPage, station: Station, scheme: str) -> None:
    part = station.camera.photograph("line-1", good=False)
    page = page_of("administrator", "/uploads/", color_scheme=scheme)
    page.locator("#picture").set_input_files({"name": "bad.jpeg", "mimeType": "image/jpeg", "buffer": castings()[1].jpeg()})
    expect(page.locator("#rows tr[data-state=explained]").first).to_be_visible()
    result = page.locator("#rows a.thumb").first.get_attribute("href")
    assert result
    found, axe = {}, Axe()
    for path in (*PAGES, result, f"/parts/line-1/{part.run}/{part.part}/"):
        page.goto(path)
        if faults := serious(axe.run(page, options=RULES[scheme]).response):
            found[path] = faults
    stranger = page_of(None, "/log-in/", color_scheme=scheme)
    if faults := serious(axe.run(stranger, options=RULES[scheme]).response):
        found["/log-in/"] = faults
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


def test_a_picture_is_sent_with_the_keyboard_alone(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#picture")).to_be_focused()
