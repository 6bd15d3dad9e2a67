"""The end of the gateway as a process, while the disk of a spool, the log or the object store does not answer."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession

from agents.gateway.spool import Spool, SpoolBudget
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from tests.agents.gateway.camera_line import make_jpeg, wait_until
from tests.conftest import MakeSettings
from tests.processes import CASTLINE, CastlineProcess, get_page

pytestmark = pytest.mark.real

# `castline gateway` on a disk that no longer answers for line-1 when a file with the name of the first argument exists.
DISK_OF_LINE_1_HANGS = """
import sys
import threading
from pathlib import Path
from agents.gateway import gateway
from deploy.cli.main import main

hangs = Path(sys.argv.pop(1))

class HangingSpool(gateway.Spool):
    def _find_receipt(self, key):
        if self.line == "line-1" and hangs.exists():
            threading.Event().wait()
        return super()._find_receipt(key)

gateway.Spool = HangingSpool
main()
"""
# More part reports than asyncio's own threads, of which there are at most 32.
MANY = 40


def write_settings(tmp_path: Path, *lines: str) -> Path:
    """Writes the settings of HTTP cameras whose parts a board counts. Kafka does not run."""
    file = tmp_path / "castline.toml"
    sections = f"""
        [broker]
        port = {free_ports(2)}
        [service]
        run_dir = "{tmp_path}/run"
        grace_s = 3
        [gateway]
        spool_dir = "{tmp_path}/spool"
        port = 0
        token = "secret"
        connections_per_address = 200
        """
    for line in lines:
        sections += f"""
        [[lines]]
        name = "{line}"
        token = "upload"
        camera = {{ kind = "http", trigger = "board", latency_s = 0.0, match_window_s = 60.0 }}
        """
    file.write_text(sections)
    return file


def find_health_page(tmp_path: Path) -> str:
    (entry,) = json.loads((tmp_path / "run/targets/gateway-1.json").read_text())
    return f"http://{entry['targets'][0]}"


async def upload(session: ClientSession, url: str, text: str, headers: dict[str, str] | None = None) -> int:
    headers = {"Authorization": "Bearer upload", "Content-Type": "image/jpeg", **(headers or {})}
    async with session.post(f"{url}/pictures", data=make_jpeg(text), headers=headers) as answer:
        return answer.status


async def report(session: ClientSession, url: str, number: int) -> int:
    body = {"run": 9, "part": number, "captured_at": (datetime.now(UTC) - timedelta(seconds=300)).isoformat()}
    async with session.post(f"{url}/parts", json=body, headers={"Authorization": "Bearer secret"}) as answer:
        return answer.status


def test_a_disk_that_hangs_for_one_line_stops_neither_another_line_nor_its_end(tmp_path: Path) -> None:
    settings, hangs, address = write_settings(tmp_path, "line-1", "line-2"), tmp_path / "hangs", tmp_path / "run/gateways/line-2"
    command = [sys.executable, "-c", DISK_OF_LINE_1_HANGS, str(hangs), "--settings", str(settings), "gateway"]

    def reads(page: str, text: str) -> bool:
        return text in get_page(f"{find_health_page(tmp_path)}{page}")[1]

    async def pass_parts() -> int:
        """Uploads a picture of line-2, which waits for its part. Then the disk hangs. Returns the answer to a report of line-2."""
        url = f"{address.read_text().strip()}/lines"
        async with ClientSession() as session:
            waiting = [asyncio.create_task(upload(session, f"{url}/line-2", "waits for its part"))]
            await asyncio.to_thread(wait_until, lambda: reads("/metrics", 'castline_pictures_received_total{line="line-2"} 1.0'), 20)
            hangs.touch()
            waiting += [asyncio.create_task(report(session, f"{url}/line-1", number)) for number in range(1, MANY + 1)]
            await asyncio.to_thread(wait_until, lambda: reads("/readyz", "the spool of line-1 has not finished"), 20)
            status = await report(session, f"{url}/line-2", 1)
            gateway.terminate()
            for answer in waiting:
                with suppress(Exception):
                    await answer
        return status

    with (tmp_path / "gateway.log").open("wb") as log, subprocess.Popen(bound_command(command), stdout=log, stderr=log) as gateway:
        try:
            wait_until(address.exists, 40)
            assert asyncio.run(pass_parts()) == 202
            assert gateway.wait(40) == 1
        finally:
            gateway.kill()
    log_of_line = {line: text for text in (tmp_path / "gateway.log").read_text().splitlines() for line in ("line-1", "line-2")
                   if f"The gateway of {line} ends by force" in text}  # fmt: skip
    assert "The disk of the spool has not answered for" in log_of_line["line-1"]
    assert "disk" not in log_of_line["line-2"]
    spool = Spool(tmp_path / "spool", "line-2", SpoolBudget(2**30))
    assert spool.waiting_count == 1
    spool.close()


def test_a_log_that_hangs_does_not_stop_the_end_of_the_gateway(tmp_path: Path) -> None:
    """Nobody reads the pipe of the log any more, as when `castline up --log` waits for its disk. The event loop waits for the log."""
    settings, address = write_settings(tmp_path, "line-1"), tmp_path / "run/gateways/line-1"
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2**16)
    with subprocess.Popen(bound_command([str(CASTLINE), "--settings", str(settings), "gateway"]), stdout=writer, stderr=writer) as gateway:
        try:
            wait_until(address.exists, 40)
            filler = os.open(f"/dev/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
            with suppress(BlockingIOError):
                while True:
                    os.write(filler, b"x")

            async def upload_through_an_unknown_proxy() -> None:
                async with ClientSession() as session:
                    url = f"{address.read_text().strip()}/lines/line-1"
                    await asyncio.wait_for(upload(session, url, "a picture", {"X-Forwarded-For": "192.0.2.1"}), 2)

            with pytest.raises(TimeoutError):
                asyncio.run(upload_through_an_unknown_proxy())
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(40) == 1
        finally:
            gateway.kill()
            for descriptor in (reader, writer, filler):
                os.close(descriptor)


def test_an_object_store_that_does_not_answer_forces_no_end_however_many_lines_there_are(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    names = [f"line-{number}" for number in range(1, 6)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(make_jpeg("casting" * 500))
    camera = {"kind": "folder", "path": str(tmp_path / "in"), "rate_per_s": 5}
    settings = make_settings(lines=tuple({"name": name, "camera": camera} for name in names))
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.settimeout(60)
        silent = Settings.model_validate(
            settings.model_dump(exclude_none=True)
            | {
                "store": {"url": "s3://bucket/castline"},
                "pictures": {"inline_bytes": 1024},
                "service": {"run_dir": tmp_path / "run", "grace_s": 2},
            }
        )
        credentials = {"AWS_ACCESS_KEY_ID": "plant", "AWS_SECRET_ACCESS_KEY": "secret of the test", "AWS_DEFAULT_REGION": "us-east-1"}
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.getsockname()[1]}", **credentials}
        with CastlineProcess(silent, tmp_path / "gateway.log", "gateway", environment=environment) as gateway:
            with ExitStack() as stack:
                # Each line waits for the answer to its first picture.
                for _ in names:
                    stack.enter_context(store.accept()[0])
                assert gateway.stop() == 0
            assert "by force" not in gateway.log()
