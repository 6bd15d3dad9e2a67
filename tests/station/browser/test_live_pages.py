"""The wall, uploads and models in a real browser before a real plant."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.station.browser.conftest import OpenPage, log_in
from tests.station.browser.plant import OTHER_VERSION, VERSION, Station, castings

pytestmark = pytest.mark.timeout(240)


def picture(good: bool, name: str) -> FilePayload:
    """A file as a person chooses it."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": castings()[0 if good else 1].jpeg()}


def test_a_wrong_password_is_refused_in_words(page_of: OpenPage) -> None:
    page = page_of(None, "/log-in/")
    log_in(page, "operator", "not the pass phrase")
    expect(page.get_by_role("alert")).to_contain_text("name or the password is wrong")
    expect(page).to_have_url(re.compile("/log-in/"))
    page.goto("/lines/line-1/")
    expect(page).to_have_url(re.compile("/log-in/"))


def test_the_wall_renews_itself(page_of: OpenPage, station: Station) -> None:
    page = page_of("operator", "/")
    expect(page.locator("#live-status")).to_have_text("Live")
    part = station.camera.photograph("line-1", good=False)
    card = page.locator("#line-line-1")
    mine = card.locator(f'a[href="/parts/line-1/{part.run}/{part.part}/"]')
    expect(mine.locator(".badge")).to_have_text("defect")
    expect(mine.locator("svg.boxes rect").first).to_be_attached()
    assert mine.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(card.locator(".figure.defect dd")).not_to_have_text("0")


def test_a_lines_page_shows_the_hour_and_the_faulty_castings(page_of: OpenPage, station: Station) -> None:
    page = page_of("operator", "/lines/line-2/")
    part = station.camera.photograph("line-2", good=False)
    expect(page.get_by_role("table").get_by_role("link", name=f"{part.run}:{part.part}", exact=True)).to_be_visible()
    expect(page.locator("svg.trend rect.defect").first).to_be_attached()


def test_an_uploaded_picture_gets_its_verdict_and_its_heat_map(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/")
    page.locator("#picture").set_input_files([picture(True, "good.jpeg"), picture(False, "bad <b>.jpeg")])
    good, bad = row(page, "good.jpeg"), row(page, "bad <b>.jpeg")
    expect(good.locator(".badge")).to_have_text("ok")
    expect(bad.locator(".badge")).to_have_text("defect")
    expect(bad.locator("img.heat")).to_be_attached()
    bad.get_by_role("link", name="bad <b>.jpeg").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("bad <b>.jpeg")
    expect(page.locator("#result")).to_contain_text("Vote of alexnet")
    heat = page.locator("#shown img.heat")
    assert heat.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.get_by_label("heat map").uncheck()
    expect(heat).to_be_hidden()


def test_files_that_are_no_pictures_are_refused_in_words_and_harm_no_other(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/", expected=(415, 422))
    tiff = io.BytesIO()
    Image.fromarray(castings()[0].pixels).save(tiff, "TIFF")
    files: list[FilePayload] = [
        {"name": "poem.jpeg", "mimeType": "image/jpeg", "buffer": b"not a picture at all"},
        {"name": "big.jpeg", "mimeType": "image/jpeg", "buffer": bytes(9 * 2**20)},
        {"name": "surface.tif", "mimeType": "image/tiff", "buffer": tiff.getvalue()},
    ]
    page.locator("#picture").set_input_files(files)
    expect(row(page, "poem.jpeg")).to_contain_text("This is no picture that can be judged")
    expect(row(page, "big.jpeg")).to_contain_text("it has 9.0 MB, at most 7.9 MB are taken")
    expect(row(page, "surface.tif").locator(".badge")).to_be_visible()
    assert row(page, "surface.tif").locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_pictures_can_be_dropped(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/")
    dropped = page.evaluate_handle(
        """async ([bytes]) => { const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array(bytes)], "dropped.jpeg", { type: "image/jpeg" })); return carried; }""",
        [list(castings()[0].jpeg())],
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": dropped})
    expect(row(page, "dropped.jpeg").locator(".badge")).to_have_text("ok")


def row(page: Page, name: str) -> Locator:
    """The first row of the file called `name`."""
    return page.locator("#rows tr", has=page.get_by_text(name, exact=True)).first


def test_a_version_is_chosen_and_rolled_back_and_both_stand_in_the_audit_log(page_of: OpenPage, station: Station) -> None:
    page = page_of("engineer", "/models/")
    page.get_by_label("Line", exact=True).select_option("line-2")
    page.get_by_label("Version", exact=True).select_option(OTHER_VERSION)
    page.get_by_role("button", name="Put in force").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Put {OTHER_VERSION} in force?")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status").first).to_contain_text(f"{OTHER_VERSION} is chosen for line-2")
    line = page.locator("tbody tr", has=page.get_by_role("rowheader", name="line-2", exact=True)).first
    for _ in range(60):
        station.camera.photograph("line-2")
        if OTHER_VERSION in line.locator("td").nth(2).inner_text():
            break
        page.wait_for_timeout(1000)
    expect(line.locator("td").nth(2)).to_contain_text(OTHER_VERSION)
    line.get_by_role("link", name=f"Roll back to {VERSION}").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status").first).to_contain_text(f"{VERSION} is chosen for line-2")
    log = page_of("administrator", "/audit/")
    expect(log.locator("main")).to_contain_text("model roll-back")
    expect(log.locator("main")).to_contain_text("model choose")


def test_who_may_not_choose_is_offered_nothing_and_refused(page_of: OpenPage) -> None:
    page = page_of("operator", "/models/", expected=(403,))
    expect(page.get_by_role("button", name="Put in force")).to_have_count(0)
    page.goto(f"/models/change?action=choose&line=line-1&version={OTHER_VERSION}")
    expect(page.locator("main")).to_contain_text("not allowed to choose model versions")
