"""Reviews by keyboard and mouse in a real browser on a real plant. The decisions arrive on the topic of reviews."""

from __future__ import annotations

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from streams.identity import PartId
from streams.kafka import read_to_end
from streams.records import Review
from streams.topics import TopicNames
from tests.station.browser.conftest import OpenPage
from tests.station.browser.plant import RunningStation
from tests.station.browser.test_access_for_all import find_serious_violations

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


def add_archived_part(station: RunningStation, good: bool = False) -> PartId:
    """Sends a picture and returns its part once the part is in the archive."""
    part = station.camera.take_picture("line-1", good=good)
    user, deadline = station.log_in("operator"), time.monotonic() + 60
    while user.get(part_url(part)).status_code != 200:
        assert time.monotonic() < deadline, f"expected {part} in the archive after 60 s"
        time.sleep(0.1)
    return part


def part_url(part: PartId) -> str:
    return f"/parts/{part.line}/{part.run}/{part.part}/"


def review_url(part: PartId) -> str:
    return f"/reviews/{part.line}/{part.run}/{part.part}/"


def read_reviews(station: RunningStation, part: PartId) -> list[Review | None]:
    """Returns all records about `part` on the topic of reviews, oldest first. None is the deletion of a review."""
    topic = TopicNames(station.settings.topics.prefix).reviews
    records = read_to_end(station.settings, "test", [topic])
    return [Review.decode(record.value) if record.value else None for record in records if record.key == part.key]


def draw_box(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Draws a box with the mouse. The coordinates are shares (0..1) of the picture's width and height."""
    area = page.locator("[data-drawing]").bounding_box()
    assert area
    page.mouse.move(area["x"] + left * area["width"], area["y"] + top * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + right * area["width"], area["y"] + bottom * area["height"], steps=4)
    page.mouse.up()


def reserve(page: Page) -> Page:
    """Presses the button that reserves a part, and returns the page."""
    page.get_by_role("button", name=re.compile("^Review (this|the next) part$")).click()
    page.locator("[data-form]").wait_for()
    page.wait_for_load_state("load")  # the script of the page, which handles the keys, has run then
    return page


def expect_part(page: Page, part: PartId) -> None:
    """Waits until the review page shows `part` and its picture."""
    expect(page.locator("[data-form]")).to_have_attribute("data-part", str(part))
    assert page.locator(".shot").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_defect_with_box_and_type_is_sent_and_can_be_undone(page_of: OpenPage, station: RunningStation) -> None:
    part = add_archived_part(station)
    page = reserve(page_of("reviewer", review_url(part)))
    expect_part(page, part)
    while page.locator("[data-box-list] li").count():  # removes the boxes of the model by keyboard
        page.get_by_role("button", name=re.compile("^Remove")).first.press("Enter")
    draw_box(page, 0.10, 0.20, 0.50, 0.60)
    page.keyboard.press("4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    draw_box(page, 0.70, 0.70, 0.80, 0.80)
    page.keyboard.press("Delete")
    expect(page.locator("[data-box-list] li")).to_have_count(1)
    assert find_serious_violations(Axe().run(page).response) == []
    page.keyboard.press("d")
    expect(page.locator("[data-announcement]")).to_have_text(f"{part}: defect (chipping).")
    (review,) = read_reviews(station, part)
    assert review is not None
    assert (review.label, review.kinds, review.reviewer) == ("defect", ("chipping",), "reviewer")
    (box,) = review.boxes
    side_px = 300
    expected = [0.1 * side_px + 1, 0.2 * side_px, 0.4 * side_px, 0.4 * side_px + 1]
    assert [box.left_px, box.top_px, box.width_px, box.height_px] == pytest.approx(expected, abs=2)
    assert box.kind == "chipping"
    page.keyboard.press("u")
    expect(page.locator("[data-announcement]")).to_have_text(f"The decision about {part} is undone. It was defect.")
    expect_part(page, part)
    assert read_reviews(station, part)[-1] is None


def test_a_contradiction_of_the_model_asks_a_second_and_a_third_reviewer(page_of: OpenPage, station: RunningStation) -> None:
    part = add_archived_part(station)
    first = reserve(page_of("reviewer", part_url(part)))
    expect_part(first, part)
    first.keyboard.press("o")
    expect(first.locator("[data-announcement]")).to_have_text(f"{part}: ok.")
    second = reserve(page_of("engineer", "/reviews/"))
    expect_part(second, part)
    expect(second.locator("[data-why]")).to_contain_text("second opinion")
    expect(second.locator("main")).not_to_contain_text("diverted")
    second.keyboard.press("d")
    expect(second.locator("[data-announcement]")).to_have_text(f"{part}: defect.")
    third = reserve(page_of("administrator", "/reviews/"))
    expect_part(third, part)
    expect(third.locator("[data-why]")).to_contain_text("third opinion")
    third.keyboard.press("5")
    third.keyboard.press("d")
    expect(third.locator("[data-announcement]")).to_have_text(f"{part}: defect (flash).")
    assert [(one.reviewer, one.label) for one in read_reviews(station, part) if one] == [
        ("reviewer", "ok"),
        ("engineer", "defect"),
        ("administrator", "defect"),
    ]
    third.goto(part_url(part))
    expect(third.get_by_role("table").filter(has_text="administrator").first).to_be_visible()
    third.goto("/reviews/agreement/")
    expect(third.get_by_role("row", name=re.compile("engineer, reviewer"))).to_be_visible()
    assert find_serious_violations(Axe().run(third).response) == []


def test_the_pages_of_a_part_show_the_training_pictures_that_look_like_it(page_of: OpenPage, station: RunningStation) -> None:
    part = add_archived_part(station)
    page = page_of("reviewer", part_url(part))
    pictures = page.locator(".nearest img")
    expect(pictures).to_have_count(6)
    assert pictures.first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert find_serious_violations(Axe().run(page).response) == []
    page.goto(review_url(part))
    reserve(page)
    for key in ("d", "u"):  # the answer to a decision replaces the piece of the page
        before = page.locator("[data-announcement]").text_content() or ""
        page.keyboard.press(key)
        expect(page.locator("[data-announcement]")).not_to_have_text(before)
    expect_part(page, part)
    expect(pictures).to_have_count(0)
    page.get_by_text("Why this verdict").click()
    expect(pictures).to_have_count(6)


def test_a_refused_decision_leaves_the_boxes_on_the_page(page_of: OpenPage, station: RunningStation) -> None:
    part = add_archived_part(station)
    page = reserve(page_of("reviewer", review_url(part), expected=(503,)))
    expect_part(page, part)
    draw_box(page, 0.2, 0.2, 0.4, 0.4)
    many = page.locator("[data-box-list] li").count()
    page.route("**/reviews/**", lambda route: route.fulfill(status=503, content_type="text/plain", body="Kafka did not take it."))
    page.keyboard.press("d")
    expect(page.get_by_role("alert")).to_have_text("Kafka did not take it.")
    expect(page.locator("[data-box-list] li")).to_have_count(many)
    page.unroute("**/reviews/**")
    page.keyboard.press("d")
    expect(page.locator("[data-announcement]")).to_have_text(f"{part}: defect.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_history_opens_a_part_by_keyboard(page_of: OpenPage, station: RunningStation) -> None:
    part = add_archived_part(station)
    page = page_of("operator", f"/history/?part={part}")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(part_url(part))))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Part {part}")
    expect(page.get_by_role("row", name=re.compile("judged"))).to_contain_text("label defect")
    assert page.locator(".shot").evaluate("image => image.decode().then(() => image.naturalWidth)") == 300


def test_the_report_counts_parts_and_prints_on_a4(page_of: OpenPage, station: RunningStation) -> None:
    add_archived_part(station)
    page = page_of("operator", "/reports/?shift=day")
    expect(page.locator(".report")).to_contain_text("Day report, all lines")
    expect(page.locator(".report svg rect.defect").first).to_be_attached()
    page.emulate_media(media="print")
    expect(page.locator("header.bar")).to_be_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="screen")
    page.goto("/reviews/agreement/")
    assert find_serious_violations(Axe().run(page).response) == []


def test_a_data_set_is_made_of_the_reviews(page_of: OpenPage, station: RunningStation) -> None:
    part = add_archived_part(station)
    page = reserve(page_of("reviewer", review_url(part)))
    expect_part(page, part)
    page.keyboard.press("d")
    expect(page.locator("[data-announcement]")).to_have_text(f"{part}: defect.")
    page.goto("/reviews/data-sets/")
    made = page.get_by_role("link", name=re.compile(r"^reviews-\d{4}-.*\.zip$"))
    deadline = time.monotonic() + 60
    while not made.count():  # the archive receives the decision a moment later
        assert time.monotonic() < deadline, "expected the decision in the archive after 60 s"
        with page.expect_navigation():
            page.get_by_role("button", name="Make a data set").click()
    expect(page.get_by_role("table")).to_contain_text("castline train --data")
    assert find_serious_violations(Axe().run(page).response) == []
    with page.expect_download() as download:
        made.first.click()
    assert download.value.suggested_filename.endswith(".zip")
