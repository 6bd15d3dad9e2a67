"""The wall, the uploads and the models in a real browser on a real plant."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.station.browser.conftest import OpenPage, log_in
from tests.station.browser.plant import OTHER_VERSION, VERSION, RunningStation, make_jpeg

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


def make_file(good: bool, name: str) -> FilePayload:
    """Returns a picture file for the upload field."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": make_jpeg(good)}


def test_a_wrong_password_is_refused(page_of: OpenPage) -> None:
    page = page_of(None, "/log-in/")
    log_in(page, "operator", "not the pass phrase")
    expect(page.get_by_role("alert")).to_contain_text("name or the password is wrong")
    expect(page).to_have_url(re.compile("/log-in/"))
    page.goto("/lines/line-1/")
    expect(page).to_have_url(re.compile("/log-in/"))


def test_the_wall_shows_a_new_part(page_of: OpenPage, station: RunningStation) -> None:
    page = page_of("operator", "/")
    expect(page.locator("#live-status")).to_have_text("Live")
    part = station.camera.take_picture("line-1", good=False)
    card = page.locator("#line-line-1")
    part_link = card.locator(f'a[href="/parts/line-1/{part.run}/{part.part}/"]')
    expect(part_link.locator(".badge")).to_have_text("defect")
    # The localiser prepares its networks for the first heat map, which takes long while other tests run.
    expect(part_link.locator("svg.boxes rect").first).to_be_attached(timeout=120_000)
    assert part_link.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(card.locator(".figure.defect dd")).not_to_have_text("0")


def test_the_page_of_a_line_shows_the_trend_and_the_faulty_parts(page_of: OpenPage, station: RunningStation) -> None:
    page = page_of("operator", "/lines/line-2/")
    part = station.camera.take_picture("line-2", good=False)
    expect(page.get_by_role("table").get_by_role("link", name=f"{part.run}:{part.part}", exact=True)).to_be_visible()
    expect(page.locator("svg.trend rect.defect").first).to_be_attached()


def test_an_uploaded_picture_gets_its_verdict_and_its_heat_map(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/")
    page.locator("#picture").set_input_files([make_file(True, "good.jpeg"), make_file(False, "bad <b>.jpeg")])
    good, bad = find_row(page, "good.jpeg"), find_row(page, "bad <b>.jpeg")
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


def test_files_that_are_no_pictures_are_refused_and_other_files_accepted(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/", expected=(415, 422))
    tiff = io.BytesIO()
    Image.open(io.BytesIO(make_jpeg())).convert("L").save(tiff, "TIFF")
    files: list[FilePayload] = [
        {"name": "poem.jpeg", "mimeType": "image/jpeg", "buffer": b"not a picture at all"},
        {"name": "big.jpeg", "mimeType": "image/jpeg", "buffer": bytes(9 * 2**20)},
        {"name": "surface.tif", "mimeType": "image/tiff", "buffer": tiff.getvalue()},
    ]
    page.locator("#picture").set_input_files(files)
    expect(find_row(page, "poem.jpeg")).to_contain_text("The file is no picture that can be judged")
    expect(find_row(page, "big.jpeg")).to_contain_text("it has 9.0 MB, at most 7.9 MB are allowed")
    expect(find_row(page, "surface.tif").locator(".badge")).to_be_visible()
    assert find_row(page, "surface.tif").locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_pictures_can_be_dropped(page_of: OpenPage) -> None:
    page = page_of("reviewer", "/uploads/")
    dropped = page.evaluate_handle(
        """async ([bytes]) => { const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array(bytes)], "dropped.jpeg", { type: "image/jpeg" })); return carried; }""",
        [list(make_jpeg())],
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": dropped})
    expect(find_row(page, "dropped.jpeg").locator(".badge")).to_have_text("ok")


def find_row(page: Page, name: str) -> Locator:
    """Returns the first table row of the uploaded file `name`."""
    return page.locator("#rows tr", has=page.get_by_text(name, exact=True)).first


def test_a_version_is_chosen_and_rolled_back_with_entries_in_the_audit_log(page_of: OpenPage, station: RunningStation) -> None:
    page = page_of("engineer", "/models/")
    page.get_by_label("Line", exact=True).select_option("line-2")
    page.get_by_label("Version", exact=True).select_option(OTHER_VERSION)
    page.get_by_role("button", name="Put in force").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Put {OTHER_VERSION} in force?")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status").first).to_contain_text(f"{OTHER_VERSION} is chosen for line-2")
    line = page.locator("tbody tr", has=page.get_by_role("rowheader", name="line-2", exact=True)).first
    for _ in range(60):
        station.camera.take_picture("line-2")
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


def test_an_operator_sees_no_button_to_choose_a_version_and_is_refused(page_of: OpenPage) -> None:
    page = page_of("operator", "/models/", expected=(403,))
    expect(page.get_by_role("button", name="Put in force")).to_have_count(0)
    page.goto(f"/models/change?action=choose&line=line-1&version={OTHER_VERSION}")
    expect(page.locator("main")).to_contain_text("not allowed to choose model versions")
