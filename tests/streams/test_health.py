"""Health judges progress, not life; readiness says what is missing."""

from __future__ import annotations

import json
import socket
import struct
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.settings import ServiceSettings


class Clock:
    """Seconds that pass only when told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_waiting_work_without_progress_is_unhealthy_and_progress_heals() -> None:
    clock = Clock()
    watchdog = ProgressWatchdog(stall_s=30, clock=clock)
    watchdog.set_pending(5)
    clock.now_s = 31
    assert watchdog.find_stall() == "5 pieces of work wait and none was finished for 31 s (limit 30 s)"
    watchdog.record_progress()
    assert watchdog.find_stall() == ""


def test_an_idle_process_is_healthy_however_long_and_new_work_gets_its_time() -> None:
    clock = Clock()
    watchdog = ProgressWatchdog(stall_s=30, clock=clock)
    clock.now_s = 10_000
    assert watchdog.find_stall() == ""
    watchdog.set_pending(1)
    assert watchdog.find_stall() == ""
    clock.now_s += 31
    assert watchdog.find_stall() != ""


def test_a_process_is_ready_only_when_nothing_is_missing() -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    assert health.check_readiness() == (503, "starting")
    health.set_not_ready("no Kafka", "kafka")
    health.set_ready()
    assert health.check_readiness() == (503, "no Kafka")
    health.set_ready("kafka")
    assert health.check_readiness() == (200, "ready")


def test_two_workers_never_share_a_slot_and_a_free_one_is_taken_again(tmp_path: Path) -> None:
    first, second = InstanceSlot(tmp_path, "inspector"), InstanceSlot(tmp_path, "inspector")
    assert (str(first), str(second)) == ("inspector-1", "inspector-2")
    first.release()
    third = InstanceSlot(tmp_path, "inspector")
    assert str(third) == "inspector-1"
    second.release()
    third.release()


def test_the_pages_are_served_and_prometheus_finds_them(tmp_path: Path) -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "test-1") as server:
        (target,) = json.loads((tmp_path / "targets" / "test-1.json").read_text())
        assert target["targets"] == [server.address]
        assert target["labels"]["role"] == "test"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{server.address}/readyz", timeout=5)
        assert refused.value.code == 503
        refused.value.close()
        with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok\n"
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=5) as answer:
            assert b"# TYPE castline_verdicts_total counter" in answer.read()
    assert not (tmp_path / "targets" / "test-1.json").exists()


def test_who_hangs_up_before_the_answer_leaves_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    asked: list[int] = []

    def slow() -> str:
        asked.append(1)
        time.sleep(0.3)
        return ""

    health.add_check(slow)
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "test-1") as server:
        host, port = server.address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            while not asked:
                time.sleep(0.01)
            # Closing with no time to linger resets the connection.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.6)
        with urllib.request.urlopen(f"http://{server.address}/healthz") as answer:
            assert answer.status == 200
    assert "Traceback" not in capfd.readouterr().err
