"""Fixtures for all tests: one real Kafka broker for the session, settings for each test, and the order of tests that need much time."""

from __future__ import annotations

import gc
import os
import random
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from kafka import KafkaAdminClient
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams import supervision
from streams.complaints import Complaints
from streams.settings import BrokerSettings, LineSettings, Settings
from streams.topic_creation import create_topics

# The real pictures are not part of the project. Tests that need them are skipped on machines without them.
REAL_PICTURES = Path(__file__).parents[2] / "shared" / "data"
needs_real_pictures = pytest.mark.skipif(not REAL_PICTURES.is_dir(), reason="the real pictures are not on this machine")

# By default the same code is always tested with the same examples, and no example has a time limit, so that a test run on a slow machine
# gives the same result. HYPOTHESIS_PROFILE=search draws new examples.
for _profile, _is_fixed in (("fixed", True), ("search", False)):
    hypothesis_settings.register_profile(
        _profile, deadline=None, derandomize=_is_fixed, suppress_health_check=[HealthCheck.too_slow], print_blob=not _is_fixed
    )
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# The threads of a Kafka client draw random numbers at any time. They get a generator of their own. Otherwise they would change the numbers
# that other tests draw from Python's generator, for example for the first weights of a network.
_random_of_kafka = random.Random()
for _name, _module in list(sys.modules.items()):
    if _name.startswith("kafka.") and getattr(_module, "random", None) is random:
        _module.random = _random_of_kafka  # type: ignore[attr-defined]

# These tests run whole plants in real time. On two processors, two of them at once would delay each other's gates.
# The browser tests share one plant, which a second test process would have to start again.
SERIAL_TESTS = (
    "tests/deploy/demo/test_demo_run.py",
    "tests/deploy/supervisor/test_up.py",
    "tests/dashboards/test_live.py",
    "tests/plant/test_firmware_over_kafka.py",
    "tests/station/browser/",
)


class SerialFileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no type annotations.
    """Runs the tests of one file in one process, one after the other, and all files of SERIAL_TESTS in the same process."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return SERIAL_TESTS[0] if file.startswith(SERIAL_TESTS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Makes pytest-xdist distribute the tests with `SerialFileScheduling`."""
    return SerialFileScheduling(config, log)


# While tests are collected, almost no object becomes garbage, so the garbage collector only costs time.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Excludes all objects of the collection from garbage collection, because they live as long as the session."""
    gc.freeze()
    gc.enable()


# Fixtures that start a broker, a database, a browser, an S3 server or TensorFlow.
REAL_FIXTURES = {"kafka_port", "postgres", "chromium", "s3_endpoint", "models_root"}


# In a module with this line, all tests are real.
_ONLY_REAL = re.compile(r"^pytestmark = \[?pytest\.mark\.real\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keeps `make test-fast` from importing modules whose tests are all real. Each process would spend seconds on importing TensorFlow."""
    is_module = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return (config.option.markexpr == "not real" and is_module and bool(_ONLY_REAL.search(collection_path.read_text("utf-8")))) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests as `real`, so that `make test-fast` can leave them out.

    This function marks each test that uses one of REAL_FIXTURES, or a board that runs the firmware's C++ code. A test that starts
    processes, brokers, boards or training runs itself is marked where it is defined. So is a test that learns from pictures or takes
    seconds of processor time.
    """
    for item in items:
        if isinstance(item, pytest.Function):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if parameters.get("rig", "python") != "python" or not REAL_FIXTURES.isdisjoint(item.fixturenames):
                item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def kafka_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Starts a real Apache Kafka for the session and returns its port."""
    settings = Settings(broker=BrokerSettings(port=free_ports(2), data_dir=tmp_path_factory.mktemp("kafka"), access="open"))
    # No test kills this broker. So its session with the controller may be long, and a busy machine may pause the broker for seconds.
    broker = EmbeddedBroker(settings, properties={"broker.heartbeat.interval.ms": "2000", "broker.session.timeout.ms": "18000"})
    broker.start()
    yield settings.broker.port
    broker.stop(20)


@pytest.fixture(scope="session")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder that holds the small, untrained model version `tiny`.

    Most tests with a running inspector compute this version with LiteRT, because an inspector with TensorFlow needs four seconds of
    processor time more to start. The version is already converted for LiteRT.
    """
    # Imported here, because they import TensorFlow, which only some tests need.
    from models.inference.runtimes.conversion import get_flatbuffer
    from tests.tiny_version import make_tiny_version

    root = tmp_path_factory.mktemp("versions")
    get_flatbuffer(make_tiny_version(root), "float32")
    return root


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a real server of the S3 protocol on loopback, which keeps its objects in memory."""
    from moto.server import ThreadedMotoServer  # takes long to import

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_versions(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty folder of model versions on S3. The S3 client and the user's cache are configured by the environment."""
    import fsspec

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "plant")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # a server that is not there is asked once
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"plant-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").makedirs(bucket)
    return f"s3://{bucket}/versions"


@pytest.fixture(autouse=True)
def same_priority() -> Iterator[None]:
    """Restores the priority of this process after each test, because some commands change it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield
    if os.getpriority(os.PRIO_PROCESS, 0) != before:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture(autouse=True)
def no_thread_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts each test without faults of threads, because a process shows such faults for ten minutes."""
    monkeypatch.setattr(supervision, "_faults", Complaints())


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(kafka_port: int, tmp_path: Path) -> MakeSettings:
    """Returns a function that makes settings for the session's broker, with a topic prefix and folders of their own, and creates the
    topics.

    Example: `make_settings(lines=("line-1", "line-2"), batch={"size": 8})`. Sections are mappings, and lines are names or mappings.
    """
    prefix = f"t{uuid.uuid4().hex[:12]}"

    def make(lines: tuple[str | dict[str, object], ...] = ("line-1",), **sections: dict[str, object]) -> Settings:
        content: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap": f"127.0.0.1:{kafka_port}"},
            "topics": {"prefix": prefix},
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "gateway": {"spool_dir": tmp_path / "spool", "port": 0},
            "sorter": {"journal_dir": tmp_path / "journal"},
            "store": {"url": str(tmp_path / "store")},
        }
        for name, values in sections.items():
            content[name] = {**content.get(name, {}), **values}
        line_settings = [LineSettings.model_validate({"name": line} if isinstance(line, str) else line) for line in lines]
        settings = Settings.model_validate({**content, "lines": line_settings})
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        try:
            create_topics(admin, settings)
        finally:
            admin.close()
        return settings

    return make
