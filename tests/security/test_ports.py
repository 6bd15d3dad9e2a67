"""A program of another user listens at a port of the plant before the plant does."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from agents.gateway.web_server import start_site
from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.errors import BrokerError, SettingsError
from streams.port_holder import describe_holder
from streams.settings import Settings, load_settings
from tests.processes import CASTLINE
from tests.security.conftest import STRANGER, AskStranger
from tests.security.test_private_files import run_castline, write_settings
from tests.wired_line import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36


class FakeBroker(socketserver.ThreadingTCPServer):
    """Asks each client for its log-in by SASL PLAIN, as Kafka does, and keeps the user names and passwords."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), FakeConnection)
        self.log_ins: list[bytes] = []


class FakeConnection(socketserver.StreamRequestHandler):
    server: FakeBroker

    def handle(self) -> None:
        while size := self.rfile.read(4):
            request = self.rfile.read(*struct.unpack(">i", size))
            key, version, number = struct.unpack(">hhi", request[:8])
            if key == SASL_AUTHENTICATE:
                self.server.log_ins.append(request[8:])
                return
            if key == API_VERSIONS:
                versions = ((API_VERSIONS, 0, 0), (SASL_HANDSHAKE, 0, 1), (SASL_AUTHENTICATE, 0, 0), (3, 0, 4))
                # Kafka answers a version that it does not know with the error 35 and the layout of version 0.
                answer = struct.pack(">hi", 35 if version else 0, len(versions)) + b"".join(
                    struct.pack(">hhh", *version) for version in versions
                )
            else:
                answer = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
            self.wfile.write(struct.pack(">ii", 4 + len(answer), number) + answer)


@contextmanager
def faking_broker(port: int) -> Iterator[FakeBroker]:
    with FakeBroker(port) as fake:
        thread = threading.Thread(target=fake.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield fake
        finally:
            fake.shutdown()
            thread.join()


def settings_for(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": folder / "kafka"},
            "service": {"run_dir": folder / "run"},
            "lines": [{"name": "one"}],
        }
    )


def test_a_program_that_takes_the_port_before_kafka_gets_no_password(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    broker = EmbeddedBroker(settings)
    errors: list[BaseException] = []

    def start() -> None:
        try:
            broker.start()
        except BrokerError as error:
            errors.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    wait_until(lambda: bool(broker.pid), 60)
    with faking_broker(settings.broker.port) as fake:
        starting.join(120)
        assert not starting.is_alive()
    assert [log_in for log_in in fake.log_ins if b"\0broker\0" in log_in] == []
    assert str(settings.broker.port) in str(errors)


def test_a_plant_with_data_waits_for_its_port_and_names_its_holder(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    port = settings.broker.port
    broker = EmbeddedBroker(settings)
    broker.start()
    broker.stop(20)
    log = tmp_path / "broker-command.log"
    variables = {
        "CASTLINE_BROKER__PORT": str(port),
        "CASTLINE_BROKER__DATA_DIR": str(settings.broker.data_dir),
        "CASTLINE_SERVICE__RUN_DIR": str(settings.service.run_dir),
    }
    with faking_broker(port), log.open("wb") as output:
        process = subprocess.Popen(
            bound_command([CASTLINE, "broker"]), stdout=output, stderr=output, cwd=tmp_path, env={**os.environ, **variables}
        )
        try:
            wait_until(lambda: f"Port {port} is in use" in log.read_text() or process.poll() is not None, 60)
            time.sleep(2)
            assert process.poll() is None, log.read_text()
            assert log.read_text().count("is in use") == 1
        except BaseException:
            process.kill()
            raise
    try:
        wait_until(lambda: "Kafka ready at" in log.read_text() or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(60)


def test_the_holder_of_a_port_is_named(ask_stranger: AskStranger) -> None:
    port = free_ports(1)
    assert describe_holder(port) == "another program"

    def listen() -> str:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            listening.listen()
            return describe_holder(port)

    assert ask_stranger(listen) == f"a program of the user {pwd.getpwuid(STRANGER).pw_name}"


@pytest.mark.asyncio
async def test_gateway_and_station_name_the_holder_of_their_port(tmp_path: Path) -> None:
    holder = f"in use by a program of the user {pwd.getpwuid(os.geteuid()).pw_name}"
    file = write_settings(tmp_path)
    settings = load_settings(file, {})
    with socket.create_server(("127.0.0.1", settings.gateway.port)), pytest.raises(SettingsError, match=holder):
        await start_site(web.Application(), "127.0.0.1", settings.gateway.port)
    with socket.create_server(("127.0.0.1", settings.station.port)):
        refused = await asyncio.to_thread(run_castline, file, "station")
    assert refused.returncode == 3
    assert holder in refused.stderr
