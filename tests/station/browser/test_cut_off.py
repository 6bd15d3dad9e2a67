"""The wall while Kafka is away, before a broker of its own that the test stops and starts."""

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
from streams.topics import TopicNames, create_topics
from tests.processes import CastlineProcess
from tests.sample_records import make_verdict
from tests.station.browser.conftest import pages_of
from tests.station.browser.plant import make_account

pytestmark = pytest.mark.timeout(300)

# A broker's start, and the station finding it, on a machine that is busy with other things.
BACK_MS = 90_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka"},
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
    """Running, with its topics."""
    found = EmbeddedBroker(settings)
    found.start()
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    create_topics(admin, settings)
    admin.close()
    yield found
    found.stop(20)


def judge(settings: Settings, number: int) -> PartId:
    """A verdict on a casting of this moment, as an inspector sends it."""
    part, now = PartId("line-1", 1, number), datetime.now(UTC)
    names = TopicNames(settings.topics.prefix)
    verdict = make_verdict(part, names.images("line-1"), 0, number, captured_at=now, received_at=now, decided_at=now)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    producer.send(names.verdicts("line-1"), key=part.key, value=verdict.encode()).get(30)
    producer.close()
    return part


def test_the_wall_says_that_it_is_cut_off_from_kafka_and_recovers_by_itself(
    settings: Settings, broker: EmbeddedBroker, chromium: Browser, tmp_path: Path
) -> None:
    make_account(settings, "operator", "operator")
    with CastlineProcess(settings, tmp_path / "station.log", "station") as served:
        served.wait_ready()
        # The pictures of these verdicts lie nowhere: what a browser says of them is expected.
        with pages_of(f"http://127.0.0.1:{settings.station.port}", chromium) as page_of:
            page = page_of("operator", "/", expected=(404, 503))
            status, card = page.locator("#live-status"), page.locator("#line-line-1")
            expect(status).to_have_text("Live")
            first = judge(settings, 2)
            expect(card.locator(f'a[href="/parts/line-1/1/{first.part}/"]')).to_be_visible()
            page.evaluate("window.sameDocument = true")
            broker.stop(20)
            expect(status.get_by_role("alert")).to_have_text(
                re.compile(r"Cut off from Kafka since \d\d:\d\d:\d\d: what is shown is not of now\.")
            )
            expect(card.locator(f'a[href="/parts/line-1/1/{first.part}/"]')).to_be_visible()
            late = page_of("operator", "/", expected=(404, 503))
            expect(late.locator("#live-status").get_by_role("alert")).to_contain_text("Cut off from Kafka since")
            broker.start()
            for one in (page, late):
                expect(one.locator("#live-status")).to_have_text("Live", timeout=BACK_MS)
                expect(one.locator("#live-status").get_by_role("alert")).to_have_count(0)
            second = judge(settings, 10)
            expect(card.locator(f'a[href="/parts/line-1/1/{second.part}/"]')).to_be_visible()
            assert page.evaluate("window.sameDocument") is True
        assert served.stop() == 0
        assert "Traceback" not in served.log()
