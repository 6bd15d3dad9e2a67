"""Photographs every page of the station over a running demo of rendered castings: `python -m docs.screens`, some minutes.

Chromium is Debian's, or the one that CHROMIUM names. The pictures lie in `docs/screens/`, each below 150 kB.
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

from deploy.supervisor import castline_command

SCREENS = Path(__file__).parent / "screens"
_LARGEST_BYTES = 150_000
_SIZE = {"width": 1280, "height": 860}
_TABLET = {"width": 820, "height": 1100}
_LINK = re.compile(r"station: (http://\S+/)\s+log in as (\S+), password (\S+)")
# The first verdicts are a second old then, and every line has some defects.
_SETTLE_MS = 60_000
_ARCHIVED_MS = 8000  # a decision goes over Kafka into the archive


@contextmanager
def demo() -> Iterator[tuple[str, str, str]]:
    """A running demo: its station's address, and an account with its password."""
    command = castline_command("demo", "--plain", "--boards", "python", "--rate", "0.7", "--seconds", "1200")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _link(process)
        finally:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)  # the second: without the audit


def _link(process: subprocess.Popen[str]) -> tuple[str, str, str]:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _LINK.search(line):
            return found[1], found[2], found[3]
    raise RuntimeError("expected the demo to tell where its station is, it ended")


def photograph_all(browser: Browser, address: str, account: str, password: str, castings: Path) -> None:
    """All pages in light, the wall in dark and on a tablet as well."""
    page = _logged_in(browser, address, account, password)
    page.goto("/")
    page.wait_for_timeout(_SETTLE_MS)
    _photograph(page, "wall")
    _see(page, "/lines/line-1/", "line")
    _see(page, "/history/", "history")
    part = page.locator("tr:has(.badge.defect) a").first.get_attribute("href")
    if part:
        _see(page, part, "part")
    _see(page, "/reviews/", "reviews")
    _decide(page)
    _see(page, "/reviews/agreement/", "agreement")
    page.goto("/reviews/data-sets/")
    page.get_by_role("button", name="Make a data set").click()
    _photograph(page, "data-sets")
    _see(page, "/reports/", "reports")
    _see(page, "/models/", "models")
    _see(page, "/models/version/demo/", "version")
    _see(page, "/audit/", "audit")
    _see(page, "/accounts/", "accounts")
    _see(page, "/api/", "api")
    page.goto("/uploads/")
    bad, good = sorted((castings / "def_front").iterdir())[:3], sorted((castings / "ok_front").iterdir())[:2]
    page.locator("#picture").set_input_files([*good, *bad])
    page.locator("#rows tr[data-state=explained]").nth(len(bad) - 1).wait_for(timeout=60_000)
    _photograph(page, "uploads")
    page.locator("#rows tr[data-state=explained] .name a").first.click()
    _photograph(page, "upload")
    dark = _logged_in(browser, address, account, password, dark=True)
    _see(dark, "/", "wall-dark")
    _see(_logged_in(browser, address, account, password, _TABLET), "/", "wall-tablet")
    _see(_logged_in(browser, address, account, password, _TABLET), "/lines/line-1/", "line-tablet")


def _logged_in(browser: Browser, address: str, account: str, password: str, size: dict[str, int] | None = None, dark: bool = False) -> Page:
    shown = size or _SIZE
    context = browser.new_context(
        base_url=address, viewport={"width": shown["width"], "height": shown["height"]}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto("/log-in/")
    if size is None and not dark:
        _photograph(page, "log-in")
    page.get_by_label("Name").fill(account)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")
    return page


def _decide(page: Page) -> None:
    """Labels some parts, so that the pages of what people said have something to show; one of them contradicts the model."""
    for key in "ddod":
        page.goto("/reviews/")
        said = page.locator("[data-announcement]")
        before = said.text_content() or ""
        page.locator("body").press(key)
        expect(said).not_to_have_text(before, timeout=60_000)
    page.wait_for_timeout(_ARCHIVED_MS)


def _see(page: Page, path: str, name: str) -> None:
    page.goto(path)
    _photograph(page, name)


def _photograph(page: Page, name: str) -> None:
    """What is on the screen now, with its pictures there."""
    page.wait_for_timeout(2500)  # pictures are fetched after the page
    for _ in range(40):
        # Not wait_for_function: the pages' security policy forbids what it does.
        if page.evaluate("[...document.images].every((image) => image.complete || image.loading === 'lazy')"):
            break
        page.wait_for_timeout(250)
    value = page.screenshot(type="png")
    for quality in (85, 75, 60, 45):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(value)).convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() < _LARGEST_BYTES:
            break
    file = SCREENS / f"{name}.jpeg"
    file.write_bytes(buffer.getvalue())
    print(f"{file.name}: {buffer.tell() // 1000} kB", flush=True)


def main() -> int:
    """Exit status: 0 done; 3 without a browser."""
    from deploy.cli.demo import CASTINGS_SEED
    from deploy.demo.castings import cached_castings

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("chromium is missing; on Debian or Ubuntu: sudo apt-get install chromium", file=sys.stderr)
        return 3
    castings = cached_castings(CASTINGS_SEED, lambda: None)
    SCREENS.mkdir(exist_ok=True)
    with demo() as (address, account, password), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        photograph_all(browser, address, account, password, castings)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
