"""A golden part on a real plant: the archivist recognises its picture, and a person names another one."""

from __future__ import annotations

import hashlib
import time

import pytest
from playwright.sync_api import expect

from tests.station.browser.conftest import OpenPage
from tests.station.browser.plant import RunningStation, make_jpeg

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PATH = "/lines/line-2/golden-parts/"


def test_the_verdict_of_a_golden_part_is_compared_when_it_comes(page_of: OpenPage, station: RunningStation) -> None:
    page = page_of("engineer", PATH)
    page.get_by_label("Name").fill("cracked master")
    page.get_by_label("Right verdict").select_option("ok")  # wrong on purpose: the picture shows a defect
    page.get_by_label("Picture").fill(hashlib.sha256(make_jpeg(good=False)).hexdigest())
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("row", name="cracked master")).to_contain_text("never shown")
    part = station.camera.take_picture("line-2", good=False)
    deadline = time.monotonic() + 60
    while not page.get_by_role("link", name=f"{part.run}:{part.part}").count():
        assert time.monotonic() < deadline, f"expected a check of {part} after 60 s"
        time.sleep(0.2)
        page.reload()
    expect(page.get_by_role("row", name="cracked master").first).to_contain_text("wrong")
    operator = page_of("operator", PATH)
    operator.get_by_label("Part", exact=True).fill(str(station.camera.take_picture("line-2")))
    operator.get_by_role("button", name="Compare its verdict").click()
    expect(operator.get_by_role("status").first).to_contain_text("cracked master")
