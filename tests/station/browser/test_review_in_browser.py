"""Reviewing as people do it: by keys and mouse, before a real plant; what they decide is on the topic of reviews."""

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
from tests.station.browser.plant import Station
from tests.station.browser.test_access_for_all import serious

pytestmark = pytest.mark.timeout(240)


def archived(station: Station, good: bool = False) -> PartId:
    """A casting that was photographed, judged, and is in the archive."""
    part = station.camera.photograph("line-1", good=good)
    person, deadline = station.person("operator"), time.monotonic() + 60
    while person.get(address(part)).status_code != 200:
        assert time.monotonic() < deadline, f"expected {part} in the archive after 60 s"
        time.sleep(0.1)
    return part


def address(part: PartId) -> str:
    return f"/parts/{part.line}/{part.run}/{part.part}/"


def bench(part: PartId) -> str:
    return f"/reviews/{part.line}/{part.run}/{part.part}/"


def reviews(station: Station, part: PartId) -> list[Review | None]:
    """What the topic holds of `part`, oldest first; None where its review was deleted."""
    topic = TopicNames(station.settings.topics.prefix).reviews
    records = read_to_end(station.settings, "test", [topic])
    return [Review.decode(record.value) if record.value else None for record in records if record.key == part.key]


def draw(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Draws with the mouse; shares of the picture."""
    area = page.locator("[data-drawing]").bounding_box()
    assert area
    page.mouse.move(area["x"] + left * area["width"], area["y"] + top * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + right * area["width"], area["y"] + bottom * area["height"], steps=4)
    page.mouse.up()


def ready(page: Page, part: PartId) -> None:
    """The bench shows `part`, and its picture."""
    expect(page.locator("[data-form]")).to_have_attribute("data-part", str(part))
    assert page.locator(".shot").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_defect_drawn_and_typed_is_on_the_topic_and_can_be_taken_back(page_of: OpenPage, station: Station) -> None:
    part = archived(station)
    page = page_of("reviewer", bench(part))
    ready(page, part)
    while page.locator("[data-box-list] li").count():  # what the model found is taken away by keyboard
        page.get_by_role("button", name=re.compile("^Remove")).first.press("Enter")
    draw(page, 0.10, 0.20, 0.50, 0.60)
    page.keyboard.press("4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    draw(page, 0.70, 0.70, 0.80, 0.80)
    page.keyboard.press("Delete")
    expect(page.locator("[data-box-list] li")).to_have_count(1)
    assert serious(Axe().run(page).response) == []
    page.keyboard.press("d")
    expect(page.locator("[data-announcement]")).to_have_text(f"{part}: defect (chipping).")
    (said,) = reviews(station, part)
    assert said is not None
    assert (said.label, said.kinds, said.reviewer) == ("defect", ("chipping",), "reviewer")
    (box,) = said.boxes
    side_px = 300
    expected = [0.1 * side_px + 1, 0.2 * side_px, 0.4 * side_px, 0.4 * side_px + 1]
    assert [box.left_px, box.top_px, box.width_px, box.height_px] == pytest.approx(expected, abs=2)
    assert box.kind == "chipping"
    page.keyboard.press("u")
    expect(page.locator("[data-announcement]")).to_have_text(f"The decision about {part} is undone. It was defect.")
    ready(page, part)
    assert reviews(station, part)[-1] is None


def test_who_contradicts_the_model_is_seconded_and_a_third_decides(page_of: OpenPage, station: Station) -> None:
    part = archived(station)
    first = page_of("reviewer", bench(part))
    ready(first, part)
    first.keyboard.press("o")
    expect(first.locator("[data-announcement]")).to_have_text(f"{part}: ok.")
    second = page_of("engineer", "/reviews/")
    ready(second, part)
    expect(second.locator("[data-why]")).to_contain_text("second opinion")
    expect(second.locator("main")).not_to_contain_text("diverted")
    second.keyboard.press("d")
    expect(second.locator("[data-announcement]")).to_have_text(f"{part}: defect.")
    third = page_of("administrator", "/reviews/")
    ready(third, part)
    expect(third.locator("[data-why]")).to_contain_text("third opinion")
    third.keyboard.press("5")
    third.keyboard.press("d")
    expect(third.locator("[data-announcement]")).to_have_text(f"{part}: defect (flash).")
    assert [(one.reviewer, one.label) for one in reviews(station, part) if one] == [
        ("reviewer", "ok"),
        ("engineer", "defect"),
        ("administrator", "defect"),
    ]
    third.goto(address(part))
    expect(third.get_by_role("table").filter(has_text="administrator").first).to_be_visible()
    third.goto("/reviews/agreement/")
    expect(third.get_by_role("row", name=re.compile("engineer, reviewer"))).to_be_visible()
    assert serious(Axe().run(third).response) == []


def test_a_refused_decision_leaves_the_marks_on_the_page(page_of: OpenPage, station: Station) -> None:
    part = archived(station)
    page = page_of("reviewer", bench(part), expected=(503,))
    ready(page, part)
    draw(page, 0.2, 0.2, 0.4, 0.4)
    many = page.locator("[data-box-list] li").count()
    page.route("**/reviews/**", lambda route: route.fulfill(status=503, content_type="text/plain", body="Kafka did not take it."))
    page.keyboard.press("d")
    expect(page.get_by_role("alert")).to_have_text("Kafka did not take it.")
    expect(page.locator("[data-box-list] li")).to_have_count(many)
    page.unroute("**/reviews/**")
    page.keyboard.press("d")
    expect(page.locator("[data-announcement]")).to_have_text(f"{part}: defect.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_history_is_worked_by_keyboard_and_a_part_tells_its_story(page_of: OpenPage, station: Station) -> None:
    part = archived(station)
    page = page_of("operator", f"/history/?part={part}")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(address(part))))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Part {part}")
    expect(page.get_by_role("row", name=re.compile("judged"))).to_contain_text("label defect")
    assert page.locator(".shot").evaluate("image => image.decode().then(() => image.naturalWidth)") == 300


def test_the_report_counts_the_castings_and_prints_on_paper(page_of: OpenPage, station: Station) -> None:
    archived(station)
    page = page_of("operator", "/reports/?shift=day")
    expect(page.locator(".report")).to_contain_text("Day report, all lines")
    expect(page.locator(".report svg rect.defect").first).to_be_attached()
    page.emulate_media(media="print")
    expect(page.locator("header.bar")).to_be_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="screen")
    page.goto("/reviews/agreement/")
    assert serious(Axe().run(page).response) == []


def test_a_data_set_is_made_of_what_people_said(page_of: OpenPage, station: Station) -> None:
    part = archived(station)
    page = page_of("reviewer", bench(part))
    ready(page, part)
    page.keyboard.press("d")
    expect(page.locator("[data-announcement]")).to_have_text(f"{part}: defect.")
    page.goto("/reviews/data-sets/")
    made = page.get_by_role("link", name=re.compile(r"^reviews-\d{4}-.*\.zip$"))
    deadline = time.monotonic() + 60
    while not made.count():  # the archive hears of a decision a moment later, and says until then that there is nothing to put in
        assert time.monotonic() < deadline, "expected the decision in the archive after 60 s"
        with page.expect_navigation():
            page.get_by_role("button", name="Make a data set").click()
    expect(page.get_by_role("table")).to_contain_text("castline train --data")
    assert serious(Axe().run(page).response) == []
    with page.expect_download() as download:
        made.first.click()
    assert download.value.suggested_filename.endswith(".zip")
