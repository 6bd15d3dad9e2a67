"""The health pages: /healthz checks progress, /readyz names what is missing."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog, remove_stale_targets
from streams.settings import ServiceSettings


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_pending_work_without_progress_is_a_stall_and_progress_ends_it() -> None:
    clock = Clock()
    watchdog = ProgressWatchdog(stall_s=30, clock=clock)
    watchdog.set_pending(5)
    clock.now_s = 31
    assert watchdog.find_stall() == "5 pieces of work wait and none was finished for 31 s (limit 30 s)"
    watchdog.record_progress()
    assert watchdog.find_stall() == ""


def test_an_idle_process_is_never_stalled_and_new_work_restarts_the_timer() -> None:
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


def test_a_complaint_is_shown_and_leaves_the_process_healthy() -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    complaint, problem = "", ""
    health.add_complaint_check(lambda: complaint)
    health.add_check(lambda: problem)
    assert health.check_health() == (200, "ok")
    complaint = "the clock of the camera is wrong"
    assert health.check_health() == (200, "ok, but: the clock of the camera is wrong")
    problem = "the camera gives no pictures"
    assert health.check_health() == (503, "the camera gives no pictures; the clock of the camera is wrong")


def test_a_process_waits_for_a_person_only_if_nothing_else_is_missing() -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    health.set_person_problem("run castline gateway measure line-1", "latency")
    assert not health.waits_for_person(), "it is starting, too"
    health.set_ready()
    assert health.waits_for_person()
    assert health.check_readiness() == (503, "run castline gateway measure line-1")
    health.set_person_problem("", "latency")
    assert not health.waits_for_person()
    assert health.check_readiness() == (200, "ready")


def test_a_process_says_whether_it_waits_for_something_that_a_restart_does_not_change() -> None:
    health = ProcessHealth("archivist", ProgressWatchdog(30))
    assert health.describe_wait() == "", "it is starting"
    health.set_waiting("waiting for the database")
    assert health.describe_wait() == "outside"
    health.set_not_ready("loading the models")
    assert health.describe_wait() == ""
    for topic in ("kafka", "disk", "kafka line-1", "journal line-1"):
        health.set_problem("does not answer", topic)
        assert health.describe_wait() == "outside"
        health.set_problem("", topic)
        assert health.describe_wait() == ""
    health.set_ready()
    health.set_person_problem("run castline gateway measure line-1", "latency")
    assert health.describe_wait() == "person"


def test_only_a_problem_of_the_work_itself_excuses_work_that_waits() -> None:
    clock = Clock()
    health = ProcessHealth("gateway", ProgressWatchdog(30, clock))
    health.watchdog.set_pending(1)
    for topic, status in (("producer", 200), ("disk", 503), ("pictures", 503), ("database", 200)):
        clock.now_s += 31
        health.set_problem("does not work", topic)
        assert health.check_health()[0] == status, topic


def test_only_addresses_of_ended_processes_are_deleted(tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    (targets / "gateway-1.json").write_text("[]")
    slot = InstanceSlot(tmp_path, "sorter")
    with HealthServer(ProcessHealth("sorter", ProgressWatchdog(30)), ServiceSettings(run_dir=tmp_path), str(slot)):
        remove_stale_targets(tmp_path)
        assert [file.name for file in targets.iterdir()] == ["sorter-1.json"]
    slot.release()


def test_two_workers_never_share_a_slot_and_a_released_slot_is_used_again(tmp_path: Path) -> None:
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
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"http://{server.address}/readyz", timeout=5)
        assert error.value.code == 503
        error.value.close()
        with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=5) as response:
            assert response.read() == b"ok\n"
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=5) as response:
            assert b"# TYPE castline_verdicts_total counter" in response.read()
    assert not (tmp_path / "targets" / "test-1.json").exists()


def test_a_client_that_disconnects_before_the_response_causes_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    calls: list[int] = []

    def slow() -> str:
        calls.append(1)
        time.sleep(0.3)
        return ""

    health.add_check(slow)
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "test-1") as server:
        host, port = server.address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            while not calls:
                time.sleep(0.01)
            # With a linger time of 0 the closing resets the connection.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.6)
        with urllib.request.urlopen(f"http://{server.address}/healthz") as response:
            assert response.status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_silent_connections_have_few_threads_end_soon_and_keep_nobody_out(tmp_path: Path) -> None:
    health = ProcessHealth("test", ProgressWatchdog(30))
    threads = threading.active_count()
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "test-1", connection_time_s=1.0) as server, ExitStack() as stack:
        place = ("127.0.0.1", server.port)
        silent = [stack.enter_context(socket.create_connection(place, source_address=(f"127.0.1.{n % 6 + 1}", 0))) for n in range(200)]
        for connection in silent[-10:]:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=5) as response:
            assert response.status == 200
        assert threading.active_count() - threads < 100
        for connection in silent:
            connection.settimeout(10)
            with suppress(ConnectionError):
                assert connection.recv(100) == b""


def test_the_page_of_the_metrics_is_made_again_only_after_a_pause(tmp_path: Path) -> None:
    health, checks = ProcessHealth("test", ProgressWatchdog(30)), list[float]()

    def check_slowly() -> str:
        checks.append(time.monotonic())
        time.sleep(0.05)
        return ""

    health.add_check(check_slowly)
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "test-1") as server:
        began_s = time.monotonic()
        for _ in range(30):
            with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=5) as response:
                assert b"castline_process_ready" in response.read()
        took_s = time.monotonic() - began_s
    # Each making takes at least 0.05 s, and the pause after it nine times as long.
    assert 1 <= len(checks) <= 1 + took_s / 0.5
