"""The wall while Kafka is away. The test stops and starts a broker of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from playwright.sync_api import Browser, expect

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.identity import PartId
from streams.settings import Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.processes import CastlineProcess
from tests.sample_records import make_verdict
from tests.station.browser.conftest import open_pages
from tests.station.browser.plant import create_account

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

# Time for the start of a broker and for the station to reconnect, on a busy machine.
RECONNECT_MS = 90_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "store": {"url": str(tmp_path / "store")},
            "station": {
                "port": free_ports(),
                "database": str(tmp_path / "station.sqlite3"),
                "secret_key_file": tmp_path / "station.key",
                "hosts": ("127.0.0.1",),
            },
            "lines": [{"name": "line-1"}],
        }
    )


@pytest.fixture
def broker(settings: Settings) -> Iterator[EmbeddedBroker]:
    """A running broker with the topics of the settings."""
    found = EmbeddedBroker(settings)
    found.start()
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    create_topics(admin, settings)
    admin.close()
    yield found
    found.stop(20)


def send_verdict(settings: Settings, number: int) -> PartId:
    """Sends a verdict on a part that was photographed just now, as an inspector does."""
    part, now = PartId("line-1", 1, number), datetime.now(UTC)
    names = TopicNames(settings.topics.prefix)
    verdict = make_verdict(part, names.images("line-1"), 0, number, captured_at=now, received_at=now, decided_at=now)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    producer.send(names.verdicts("line-1"), key=part.key, value=verdict.encode()).get(30)
    producer.close()
    return part


def test_the_wall_shows_that_kafka_is_away_and_recovers_by_itself(
    settings: Settings, broker: EmbeddedBroker, chromium: Browser, tmp_path: Path
) -> None:
    create_account(settings, "operator", "operator")
    with CastlineProcess(settings, tmp_path / "station.log", "station") as station_process:
        station_process.wait_ready()
        # The pictures of these verdicts do not exist, so failed requests for pictures are expected.
        with open_pages(f"http://127.0.0.1:{settings.station.port}", chromium) as page_of:
            page = page_of("operator", "/", expected=(404, 503))
            status, card = page.locator("#live-status"), page.locator("#line-line-1")
            expect(status).to_have_text("Live")
            first = send_verdict(settings, 2)
            expect(card.locator(f'a[href="/parts/line-1/1/{first.part}/"]')).to_be_visible()
            page.evaluate("window.sameDocument = true")
            broker.stop(20)
            expect(status.get_by_role("alert")).to_have_text(
                re.compile(r"Cut off from Kafka since \d\d:\d\d:\d\d\. This page shows the state at that time\.")
            )
            expect(card.locator(f'a[href="/parts/line-1/1/{first.part}/"]')).to_be_visible()
            late = page_of("operator", "/", expected=(404, 503))
            expect(late.locator("#live-status").get_by_role("alert")).to_contain_text("Cut off from Kafka since")
            broker.start()
            for one in (page, late):
                expect(one.locator("#live-status")).to_have_text("Live", timeout=RECONNECT_MS)
                expect(one.locator("#live-status").get_by_role("alert")).to_have_count(0)
            second = send_verdict(settings, 10)
            expect(card.locator(f'a[href="/parts/line-1/1/{second.part}/"]')).to_be_visible()
            assert page.evaluate("window.sameDocument") is True
        assert station_process.stop() == 0
        assert "Traceback" not in station_process.log()
