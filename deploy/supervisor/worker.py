"""What every long-running role does around its work: signals, its slot, its health pages, and waiting for Kafka and its topics."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from streams.errors import SettingsError
from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.kafka import wait_for_kafka
from streams.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """A process that has begun. `instance` is its stable name on this machine; `stopping` is set by SIGTERM and SIGINT."""

    settings: Settings
    role: str
    instance: str
    health: ProcessHealth
    stopping: threading.Event

    def say(self, why: str) -> None:
        """Not ready yet, to the health page and the log."""
        self.health.set_not_ready(why)
        log.warning(why)

    def wait_for_topics(self, wanted: Iterable[str]) -> bool:
        """Returns once Kafka answers; False when told to stop meanwhile. Raises SettingsError: when one of `wanted` is missing."""
        self.health.set_not_ready("waiting for Kafka")
        admin = wait_for_kafka(self.settings, self.role, self.say, self.stopping.is_set)
        if admin is None:
            return False
        try:
            present = {topic["name"] for topic in admin.describe_topics(None)}
        finally:
            admin.close()
        if missing := [topic for topic in wanted if topic not in present]:
            raise SettingsError(
                f"expected the topics {', '.join(missing)}, found none of that name; make them with: castline topics create"
            )
        return not self.stopping.is_set()


def told_to_stop() -> threading.Event:
    """Set by the first SIGTERM or SIGINT."""
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    return stopping


@contextmanager
def working(settings: Settings, role: str, port: int, slot_name: str = "") -> Iterator[Worker]:
    """Begins the role and serves its health at `port` (0: a free one) for as long as the block lasts.

    `slot_name` tells processes of one role apart that do not share their work.
    """
    stopping = told_to_stop()
    slot = InstanceSlot(settings.service.run_dir, slot_name or role)
    health = ProcessHealth(role, ProgressWatchdog(settings.service.stall_s))
    with HealthServer(health, settings.service, str(slot), port) as pages:
        log.info("%s serves its health at %s", slot, pages.address)
        yield Worker(settings, role, str(slot), health, stopping)
