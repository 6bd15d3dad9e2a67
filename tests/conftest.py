"""What all tests share: one real broker for the session, settings of their own, and ports that are free."""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.settings import BrokerSettings, LineSettings, Settings
from streams.topics import create_topics

# Real pictures are not part of the project: what needs them is skipped, with this sentence, where they are absent.
REAL_PICTURES = Path(__file__).parents[2] / "shared" / "data"
needs_real_pictures = pytest.mark.skipif(not REAL_PICTURES.is_dir(), reason="the real pictures are not on this machine")

# Whole plants in real time, and the storm of requests: two of them at once on two processors would starve each other's gates.
# The pages in a browser have one plant for all of them, which a second process would have to start again.
ONE_AFTER_THE_OTHER = (
    "tests/deploy/demo/test_demo.py",
    "tests/deploy/supervisor/test_up.py",
    "tests/dashboards/test_live.py",
    "tests/plant/test_firmware_over_kafka.py",
    "tests/station/browser/",
)


class Turns(LoadFileScheduling):  # type: ignore[misc]  # xdist comes without types
    """A file's tests run in one process one after the other, and so do all those of ONE_AFTER_THE_OTHER."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return ONE_AFTER_THE_OTHER[0] if file.startswith(ONE_AFTER_THE_OTHER) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Decides which process runs which tests."""
    return Turns(config, log)


# Until all tests are collected nothing that is made is let go; what is there then stays.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Thousands of tests and the libraries that they import need not be searched for garbage while they run."""
    gc.freeze()
    gc.enable()


# Fixtures that start a broker, a database, a browser, an S3 server or TensorFlow.
REAL_FIXTURES = {"kafka_port", "postgres", "chromium", "s3_endpoint", "models_root"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests as `real`, so that `make test-fast` can leave them out.

    A test is real if it uses one of REAL_FIXTURES, or a board that runs the firmware's C++ code. A module whose tests start
    processes, brokers, boards or training runs themselves says so: `pytestmark = pytest.mark.real`.
    """
    for item in items:
        if isinstance(item, pytest.Function):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if parameters.get("rig") in ("core", "avr") or not REAL_FIXTURES.isdisjoint(item.fixturenames):
                item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def kafka_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real Apache Kafka that lives as long as the session."""
    settings = Settings(broker=BrokerSettings(port=free_ports(2), data_dir=tmp_path_factory.mktemp("kafka")))
    broker = EmbeddedBroker(settings)
    broker.start()
    yield settings.broker.port
    broker.stop(20)


@pytest.fixture(scope="session")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the version `tiny`: whole, small and untrained."""
    from tests.tiny_version import make_tiny_version  # imports TensorFlow: only the tests that judge wait for it

    root = tmp_path_factory.mktemp("versions")
    make_tiny_version(root)
    return root


@pytest.fixture(autouse=True)
def same_precedence() -> Iterator[None]:
    """A command that a test calls in this process may take or give up precedence: the next test begins as the first did."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield
    if os.getpriority(os.PRIO_PROCESS, 0) != before:
        os.setpriority(os.PRIO_PROCESS, 0, before)


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(kafka_port: int, tmp_path: Path) -> MakeSettings:
    """Makes settings on the session's broker with a topic prefix and folders that no other test uses, and their topics.

    `make_settings(lines=("line-1", "line-2"), batch={"size": 8})`: sections are given as mappings, lines as names or mappings.
    """
    prefix = f"t{uuid.uuid4().hex[:12]}"

    def make(lines: tuple[str | dict[str, object], ...] = ("line-1",), **sections: dict[str, object]) -> Settings:
        given: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap": f"127.0.0.1:{kafka_port}"},
            "topics": {"prefix": prefix},
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "gateway": {"spool_dir": tmp_path / "spool", "port": 0},
            "store": {"url": str(tmp_path / "store")},
        }
        for name, values in sections.items():
            given[name] = {**given.get(name, {}), **values}
        named = [LineSettings.model_validate({"name": line} if isinstance(line, str) else line) for line in lines]
        settings = Settings.model_validate({**given, "lines": named})
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        try:
            create_topics(admin, settings)
        finally:
            admin.close()
        return settings

    return make
