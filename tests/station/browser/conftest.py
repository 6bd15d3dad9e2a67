"""The station as users have it: a real broker, inspector with the bundled version, localiser, archivist, station, and Chromium."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kafka import KafkaAdminClient
from playwright.sync_api import Browser, Page, StorageState, expect, sync_playwright

from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topic_creation import create_topics
from tests.debian import find_program
from tests.processes import CastlineProcess
from tests.station.browser.plant import LINES, PASSWORD, ROLES, VERSION, KafkaCamera, RunningStation, copy_versions, create_account


@pytest.fixture(scope="package")
def station(kafka_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStation]:
    """The running plant of all tests in this package. The accounts have the names of their roles and the password PASSWORD."""
    folder = tmp_path_factory.mktemp("plant")
    copy_versions(folder / "versions")
    settings = _settings(folder, kafka_port)
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    create_topics(admin, settings)
    admin.close()
    with ExitStack() as stack:
        inspector = stack.enter_context(CastlineProcess(settings, folder / "inspector.log", "inspector"))
        localiser = stack.enter_context(CastlineProcess(settings, folder / "localiser.log", "localiser"))
        station_process = stack.enter_context(CastlineProcess(settings, folder / "station.log", "station")).wait_ready()
        archivist = stack.enter_context(CastlineProcess(settings, folder / "archivist.log", "archivist"))
        with ThreadPoolExecutor() as executor:
            list(executor.map(lambda role: create_account(settings, role, role), ROLES))
        archivist.wait_ready()
        inspector.wait_ready(180)
        localiser.wait_ready(180)
        camera = KafkaCamera(settings)
        stack.callback(camera.close)
        yield RunningStation(settings, f"http://127.0.0.1:{settings.station.port}", camera, station_process.process.pid)
        log = station_process.log()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]


def _settings(folder: Path, kafka_port: int) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"bootstrap": f"127.0.0.1:{kafka_port}"},
            "topics": {"prefix": f"t{uuid.uuid4().hex[:12]}"},
            "service": {"run_dir": folder / "run", "log_format": "text"},
            "store": {"url": str(folder / "store")},
            "model": {"root": folder / "versions", "version": VERSION},
            "inspector": {"localiser_niceness": 0},
            "review": {"data_sets": folder / "data-sets"},
            "station": {
                "port": free_ports(),
                "database": str(folder / "station.sqlite3"),
                "secret_key_file": folder / "station.key",
                "hosts": ("127.0.0.1",),
                "uploads_per_minute": 6000,
            },
            "lines": [{"name": name} for name in (*LINES, "uploads")],
        }
    )


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Chromium, closed after the last test of this package, because no other test may run an event loop while Playwright runs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


# The default time-out is too short for a machine that runs other tests at the same time.
expect.set_options(timeout=30_000)

OpenPage = Callable[..., Page]

# The cookies of each address and role after the first log-in. Checking a password takes half a second of processor time.
_sessions: dict[tuple[str, str], StorageState] = {}


@pytest.fixture
def page_of(station: RunningStation, chromium: Browser) -> Iterator[OpenPage]:
    """Opens pages of the running station: `page_of("engineer", "/models/")`, or `page_of(None, "/")` without a log-in. See `open_pages`."""
    with open_pages(station.address, chromium) as open_page:
        yield open_page


@contextmanager
def open_pages(address: str, chromium: Browser) -> Iterator[OpenPage]:
    """Opens pages of the station at `address`. A role that has logged in before keeps its session.

    At the end of the block, the test fails if the browser reported errors of scripts, violations of the content security policy, failed
    requests whose status is not in `expected`, or requests to another machine.
    """
    faults: list[str] = []
    contexts = []

    def open_page(role: str | None, path: str, expected: tuple[int, ...] = (), **options: object) -> Page:
        session = _sessions.get((address, role)) if role else None
        context = chromium.new_context(base_url=address, storage_state=session, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        if role and session is None:
            log_in(page, role)
            page.wait_for_url(lambda url: urlsplit(url).path != "/log-in/")
            _sessions[address, role] = context.storage_state()
        page.on(
            "console",
            lambda message: faults.append(f"{page.url}: {message.text}") if _is_fault(message.type, message.text, expected) else None,
        )
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda request: faults.append(f"request to another machine: {request.url}") if _leaves_station(request.url, address) else None,
        )
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def log_in(page: Page, role: str, password: str = PASSWORD) -> None:
    page.goto("/log-in/")
    page.get_by_label("Name").fill(role)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def _is_fault(kind: str, text: str, expected: tuple[int, ...]) -> bool:
    return kind in ("error", "warning") and not any(f"status of {code}" in text for code in expected)


def _leaves_station(url: str, address: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("blob", "data") and f"{parts.scheme}://{parts.netloc}" != address
