"""Takes the screenshots of the station's pages in `docs/screens/`, with `python -m docs.screens`. This takes some minutes.

The pictures show a running demo. The browser is Debian's Chromium, or the program in the environment variable CHROMIUM.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from deploy.cli.demo import CASTINGS_SEED
from deploy.demo.foundry import StationLogIn, render_castings
from deploy.supervisor import castline_command

SCREENS = Path(__file__).parent / "screens"
_MAX_BYTES = 150_000
# JPEG qualities, tried in this order until the file of a picture is smaller than _MAX_BYTES.
_JPEG_QUALITIES = (85, 75, 60, 45)
_DESKTOP = {"width": 1280, "height": 860}
_TABLET = {"width": 820, "height": 1100}
_LOG_IN_LINE = re.compile(r"station: (http://\S+/)\s+log in as (\S+), password (\S+)")
_TIMEOUT_MS = 60_000
# How long the demo runs before the first screenshot. After this time, every line has had some defects.
_SETTLE_MS = 60_000
# How long to wait until a person's decision is in the archive. The decision gets there through Kafka.
_ARCHIVED_MS = 8000
# How long to wait until a page has loaded its pictures. A page loads its text first.
_PICTURES_MS = 2500


@contextmanager
def run_demo() -> Iterator[StationLogIn]:
    """Runs a demo until the `with` block ends. Yields the address, the account and the password of its station."""
    command = castline_command("demo", "--plain", "--boards", "python", "--rate", "0.7", "--seconds", "1200")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _read_log_in(process)
        finally:
            process.send_signal(signal.SIGINT)
            # The first SIGINT makes the demo end with an audit, and the second one makes it end at once.
            process.send_signal(signal.SIGINT)


def _read_log_in(process: subprocess.Popen[str]) -> StationLogIn:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _LOG_IN_LINE.search(line):
            return StationLogIn(found[1], found[2], found[3])
    raise RuntimeError("The demo ended before it printed the address of its station. Run castline demo to see why.")


def take_all_pictures(browser: Browser, station: StationLogIn, castings: Path) -> None:
    """Takes pictures of the station: every page in light colours, the page "wall" also in dark colours, and two pages on a tablet."""
    page = _log_in(browser, station, _DESKTOP, take_picture=True)
    page.goto("/")
    page.wait_for_timeout(_SETTLE_MS)
    _take_picture(page, "wall")
    _visit(page, "/lines/line-1/", "line")
    page.goto("/lines/line-1/settings/")
    page.locator("[data-estimate]").wait_for()
    _take_picture(page, "line-settings")
    page.mouse.wheel(0, 2 * _DESKTOP["height"])
    _take_picture(page, "line-settings-estimate")
    _visit(page, "/lines/line-1/golden-parts/", "golden-parts")
    _visit(page, "/history/", "history")
    part = page.locator("tr:has(.badge.defect) a").first.get_attribute("href")
    if part:
        _visit(page, part, "part")
        page.locator(".nearest img").first.wait_for()
        page.mouse.wheel(0, 2 * _DESKTOP["height"])
        _take_picture(page, "part-nearest")
    page.goto("/reviews/")
    page.get_by_role("button", name="Review the next part").click()
    page.locator("[data-form]").wait_for()
    _take_picture(page, "reviews")
    page.get_by_text("Why this verdict").click()
    page.locator(".nearest img").first.wait_for()
    _take_picture(page, "review-why")
    _review_some_parts(page)
    _visit(page, "/reviews/agreement/", "agreement")
    page.goto("/reviews/data-sets/")
    page.get_by_role("button", name="Make a data set").click()
    _take_picture(page, "data-sets")
    _visit(page, "/reports/", "reports")
    _visit(page, "/models/", "models")
    _visit(page, "/models/version/demo/", "version")
    _visit(page, "/models/version/demo/card", "model-card")
    _visit(page, "/studies/", "studies")
    _visit(page, "/audit/", "audit")
    _visit(page, "/accounts/", "accounts")
    _visit(page, "/api/", "api")
    _upload_some_pictures(page, castings)
    _visit(_log_in(browser, station, _DESKTOP, dark=True), "/", "wall-dark")
    _visit(_log_in(browser, station, _TABLET), "/", "wall-tablet")
    _visit(_log_in(browser, station, _TABLET), "/lines/line-1/", "line-tablet")


def _log_in(browser: Browser, station: StationLogIn, size: dict[str, int], dark: bool = False, take_picture: bool = False) -> Page:
    context = browser.new_context(
        base_url=station.address,
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if dark else "light",
    )
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MS)
    page.goto("/log-in/")
    if take_picture:
        _take_picture(page, "log-in")
    page.get_by_label("Name").fill(station.account)
    page.get_by_label("Password").fill(station.password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")
    return page


def _review_some_parts(page: Page) -> None:
    """Labels some parts, because the page "Agreement" would be empty otherwise. One of the labels contradicts the model."""
    for key in "ddod":
        page.goto("/reviews/")
        announcement = page.locator("[data-announcement]")
        before = announcement.text_content() or ""
        page.locator("body").press(key)
        expect(announcement).not_to_have_text(before, timeout=_TIMEOUT_MS)
    page.wait_for_timeout(_ARCHIVED_MS)


def _upload_some_pictures(page: Page, castings: Path) -> None:
    page.goto("/uploads/")
    defective, good = sorted((castings / "def_front").iterdir())[:3], sorted((castings / "ok_front").iterdir())[:2]
    page.locator("#picture").set_input_files([*good, *defective])
    explained = page.locator("#rows tr[data-state=explained]")
    explained.nth(len(defective) - 1).wait_for(timeout=_TIMEOUT_MS)
    _take_picture(page, "uploads")
    explained.locator(".name a").first.click()
    _take_picture(page, "upload")


def _visit(page: Page, path: str, name: str) -> None:
    page.goto(path)
    _take_picture(page, name)


def _take_picture(page: Page, name: str) -> None:
    """Waits until the pictures of the page are loaded, and writes a screenshot to `docs/screens/<name>.jpeg`."""
    page.wait_for_timeout(_PICTURES_MS)
    for _ in range(40):
        # Playwright's `wait_for_function` is not used, because it evaluates text as code. The content security policy of the pages
        # forbids such code.
        if page.evaluate("[...document.images].every((image) => image.complete || image.loading === 'lazy')"):
            break
        page.wait_for_timeout(250)
    screenshot = Image.open(io.BytesIO(page.screenshot(type="png"))).convert("RGB")
    for quality in _JPEG_QUALITIES:
        buffer = io.BytesIO()
        screenshot.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() < _MAX_BYTES:
            break
    file = SCREENS / f"{name}.jpeg"
    file.write_bytes(buffer.getvalue())
    print(f"{file.name}: {buffer.tell() // 1000} kB", flush=True)


def main() -> int:
    """Runs the command line. Returns 3 if there is no browser, otherwise 0."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("There is no Chromium. Install it with: sudo apt-get install chromium", file=sys.stderr)
        return 3
    castings = render_castings(CASTINGS_SEED, lambda done, total: None)
    SCREENS.mkdir(exist_ok=True)
    with run_demo() as station, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take_all_pictures(browser, station, castings)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
