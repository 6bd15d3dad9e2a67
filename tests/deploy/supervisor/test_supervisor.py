"""The supervisor with real processes: those that die, hang, ignore SIGTERM, and one whose supervisor is killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.supervisor import FileExists, Journal, LinePrinted, PageReady, RestartPolicy, Role, State, Supervisor
from deploy.supervisor.prober import Prober, ProbeResult
from deploy.supervisor.role import ReadyCheck
from streams.health import HealthServer, ProcessHealth, ProgressWatchdog
from streams.settings import ServiceSettings

QUICK = RestartPolicy(first_s=0.05, longest_s=0.1, steady_s=60, give_up_after=3)
SAYS_READY = LinePrinted("ready")


def python(code: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-S", "-u", "-c", textwrap.dedent(code), *map(str, arguments))


SLEEPER = python("import time; print('ready'); time.sleep(600)")


def role(name: str, command: tuple[str, ...] = SLEEPER, **fields: Any) -> Role:
    return Role(name, command, **{"ready_check": SAYS_READY, "stage": 0, "stop_order": 0, "grace_s": 5.0, "restarts": QUICK, **fields})


@contextmanager
def supervising(
    *roles: Role, unhealthy_s: float = 15.0, silent_s: float = 8.0, silent_start_s: float = 60.0
) -> Iterator[tuple[Supervisor, io.StringIO]]:
    log = io.StringIO()
    supervisor = Supervisor(roles, Journal(log), unhealthy_s, silent_s, silent_start_s)
    try:
        yield supervisor, log
    finally:
        supervisor.kill_all()


def tick_until(supervisor: Supervisor, done: Callable[[], bool], within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, (
            f"not within {within_s} s: {[(name, managed.state) for name, managed in supervisor.processes.items()]}"
        )
        supervisor.tick()
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone(pids: list[int], within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@pytest.mark.real
def test_a_stage_starts_when_the_one_before_is_ready(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    first = role(
        "first",
        python("import sys, time, pathlib; time.sleep(0.5); pathlib.Path(sys.argv[1]).touch(); time.sleep(600)", flag),
        ready_check=FileExists(flag),
    )
    second = role("second", stage=1)
    with supervising(second, first) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
    written = log.getvalue()
    assert written.index("first ready") < written.index("second started")


@pytest.mark.real
def test_a_role_that_is_done_once_is_not_started_again() -> None:
    with supervising(role("topics", python("print('made')"), is_one_shot=True), role("worker", stage=1)) as (supervisor, _):
        tick_until(supervisor, lambda: supervisor.all_ready)
        assert supervisor.processes["topics"].state is State.ENDED
        assert supervisor.processes["topics"].starts == 1


@pytest.mark.real
def test_a_job_is_done_again_after_a_role_of_an_earlier_stage_was_restarted() -> None:
    """A broker that has lost its data folder starts without topics."""
    job = role("topics", python("print('made')"), stage=1, is_one_shot=True)
    with supervising(role("broker"), job, role("worker", stage=2)) as (supervisor, _):
        tick_until(supervisor, lambda: supervisor.all_ready)
        os.kill(supervisor.processes["broker"].pid, signal.SIGKILL)
        tick_until(supervisor, lambda: supervisor.processes["topics"].starts == 2)
        tick_until(supervisor, lambda: supervisor.all_ready)
        os.kill(supervisor.processes["worker"].pid, signal.SIGKILL)
        tick_until(supervisor, lambda: supervisor.processes["worker"].starts == 2 and supervisor.all_ready)
        assert supervisor.processes["topics"].starts == 2, "the topics do not depend on the worker"


@pytest.mark.real
def test_what_dies_is_started_again_and_the_log_says_why() -> None:
    with supervising(role("worker")) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        before = supervisor.processes["worker"].pid
        os.kill(before, signal.SIGKILL)
        tick_until(supervisor, lambda: supervisor.processes["worker"].starts == 2 and supervisor.all_ready)
        assert supervisor.processes["worker"].pid != before
    assert "worker ended by itself, signal 9; its last line was: ready; it is started again at once" in log.getvalue()


@pytest.mark.real
def test_what_keeps_dying_is_given_up_with_its_last_words() -> None:
    with supervising(role("worker", python("print('no camera'); raise SystemExit(3)"))) as (supervisor, log):
        tick_until(supervisor, lambda: bool(supervisor.failure))
        assert supervisor.failure == "worker cannot run: no camera"
        assert supervisor.processes["worker"].starts == 4
    assert "after 4 starts it is not started again" in log.getvalue()


@pytest.mark.real
def test_an_essential_role_whose_settings_are_wrong_is_not_retried() -> None:
    with supervising(role("broker", python("print('port in use'); raise SystemExit(3)"), is_essential=True)) as (supervisor, _):
        tick_until(supervisor, lambda: bool(supervisor.failure))
        assert supervisor.processes["broker"].starts == 1


@pytest.mark.real
def test_what_ignores_sigterm_is_killed_after_its_grace() -> None:
    stubborn = python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)")
    with supervising(role("stubborn", stubborn, grace_s=0.5)) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        pid = supervisor.processes["stubborn"].pid
        supervisor.stop()
        assert not alive(pid)
    assert log.getvalue().count("stubborn did not stop within 0.5 s of SIGTERM and is killed") == 1


class HangingLog(io.StringIO):
    """A log on a disk that hangs: from `is_hanging` on, each writer waits until `may_write` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hanging = False
        self.may_write = threading.Event()

    def flush(self) -> None:
        assert not self.is_hanging or self.may_write.wait(30)


@pytest.mark.real
def test_processes_that_ignore_sigterm_are_killed_although_the_log_hangs() -> None:
    stubborn = python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)")
    log = HangingLog()
    supervisor = Supervisor([role(name, stubborn, grace_s=0.2) for name in ("one", "two")], Journal(log))
    tick_until(supervisor, lambda: supervisor.all_ready)
    pids = [managed.pid for managed in supervisor.processes.values()]

    def end_the_wait_when_all_are_dead() -> None:
        are_gone.append(gone(pids))
        log.may_write.set()

    are_gone = list[bool]()
    watcher = threading.Thread(target=end_the_wait_when_all_are_dead)
    log.is_hanging = True
    watcher.start()
    supervisor.stop()
    watcher.join()
    assert are_gone == [True]
    assert log.getvalue().count("did not stop within 0.2 s of SIGTERM and is killed") == 2


@pytest.mark.real
def test_an_insistent_stop_does_not_wait_for_the_grace() -> None:
    stubborn = python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)")
    with supervising(role("stubborn", stubborn, grace_s=300)) as (supervisor, _):
        tick_until(supervisor, lambda: supervisor.all_ready)
        began = time.monotonic()
        supervisor.stop(kill_now=lambda: True)
        assert time.monotonic() - began < 30
        assert supervisor.processes["stubborn"].state is State.ENDED


@pytest.mark.real
def test_roles_stop_in_their_order_and_a_part_of_them_can_be_left_running() -> None:
    roles = [role("broker", stop_order=9), role("gateway", stop_order=1), role("inspector", stop_order=2)]
    with supervising(*roles) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        supervisor.stop(before=9)
        assert alive(supervisor.processes["broker"].pid)
        supervisor.stop()
        assert supervisor.processes["broker"].state is State.ENDED
    stopped = [line.split()[3] for line in log.getvalue().splitlines() if " stopped, " in line]
    assert stopped == ["gateway", "inspector", "broker"]


@pytest.mark.real
def test_a_grandchild_left_behind_is_killed_with_its_group() -> None:
    parent = python(
        """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        print("ready", child.pid)
        time.sleep(600)
        """
    )
    with supervising(role("parent", parent)) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        grandchild = int(log.getvalue().split("| ready ")[1].split()[0])
        os.kill(supervisor.processes["parent"].pid, signal.SIGKILL)
        tick_until(supervisor, lambda: supervisor.processes["parent"].starts == 2)
        assert gone([grandchild])


@pytest.mark.real
def test_a_kill_reaches_a_grandchild_with_a_session_of_its_own() -> None:
    parent = python(
        """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        print("ready", child.pid)
        time.sleep(600)
        """
    )
    with supervising(role("parent", parent)) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        grandchild = int(log.getvalue().split("| ready ")[1].split()[0])
    assert gone([grandchild])


@pytest.mark.real
def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    code = """
        import sys, time
        from deploy.supervisor import Journal, LinePrinted, Role, Supervisor
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)"
        roles = [Role(n, (sys.executable, "-S", "-u", "-c", stubborn), LinePrinted("ready"), 0, 0) for n in ("one", "two")]
        supervisor = Supervisor(roles, Journal())
        supervisor.run(until=lambda: supervisor.all_ready)
        print(*(managed.pid for managed in supervisor.processes.values()), flush=True)
        time.sleep(600)
        """
    outer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert outer.stdout is not None
        pids = [int(pid) for pid in outer.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
    finally:
        outer.kill()
        outer.communicate()
    assert gone(pids)


PAGES = """
    import http.server, json, os, pathlib, sys
    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            well = self.path != "/healthz" or not pathlib.Path(sys.argv[2]).exists()
            page = b"castline_gate_state{line=\\"line-1\\",state=\\"running\\"} 1.0\\ncastline_x_bucket{le=\\"1\\"} 3.0\\n"
            body = page if self.path == "/metrics" else b"3 pieces of work wait"
            self.send_response(200 if well else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *arguments): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    folder = pathlib.Path(sys.argv[1]) / "targets"
    folder.mkdir(exist_ok=True)
    target = {"targets": [f"127.0.0.1:{server.server_address[1]}"], "labels": {"pid": str(os.getpid())}}
    (folder / "worker.json").write_text(json.dumps([target]))
    server.serve_forever()
    """


@pytest.mark.real
def test_a_worker_is_ready_by_its_page_and_started_again_when_unhealthy_for_long(tmp_path: Path) -> None:
    ill = tmp_path / "ill"
    worker = role("worker", python(PAGES, tmp_path, ill), ready_check=PageReady(tmp_path))
    with supervising(worker, unhealthy_s=1.0) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        first = supervisor.processes["worker"].pid
        tick_until(supervisor, lambda: bool((result := supervisor.probe_result("worker")) and result.samples))
        result = supervisor.probe_result("worker")
        assert result is not None
        assert result.labels("castline_gate_state", "state", line="line-1") == ["running"]
        assert result.value("castline_x_bucket") == 0, "buckets are not kept"
        ill.touch()
        tick_until(supervisor, lambda: supervisor.processes["worker"].starts == 2)
        ill.unlink()
        tick_until(supervisor, lambda: supervisor.all_ready)
        assert supervisor.processes["worker"].pid != first
    assert "worker is unhealthy for 1 s: 3 pieces of work wait; it is stopped and started again" in log.getvalue()


@pytest.mark.real
def test_a_frozen_worker_is_killed_without_a_grace_time(tmp_path: Path) -> None:
    worker = role("worker", python(PAGES, tmp_path, tmp_path / "ill"), ready_check=PageReady(tmp_path), grace_s=600)
    with supervising(worker, silent_s=2.5) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.all_ready)
        frozen = supervisor.processes["worker"].pid
        os.kill(frozen, signal.SIGSTOP)
        tick_until(supervisor, lambda: supervisor.processes["worker"].starts == 2 and supervisor.all_ready)
        assert not alive(frozen)
    assert "worker is silent for 2.5 s" in log.getvalue()
    assert "worker did not stop within 0 s of SIGTERM and is killed" in log.getvalue()


@pytest.mark.real
def test_a_later_stage_does_not_wait_for_a_process_that_another_machine_runs(tmp_path: Path) -> None:
    duplicate = role("duplicate", python("import sys; print('The name is taken.'); sys.exit(4)"), restarts=RestartPolicy())
    with supervising(duplicate, role("later", stage=1)) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.processes["later"].is_up)
        assert supervisor.processes["duplicate"].starts == 1
    assert "status 4; its last line was: The name is taken.; it is started again in 30.0 s" in log.getvalue()


@pytest.mark.parametrize("status", [200, 503])
def test_pages_that_break_off_in_the_middle_do_not_blind_the_prober(status: int) -> None:
    """A process that is killed while it answers: the look after it must still be taken."""
    broken: list[str] = []

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            whole = self.path in broken
            self.send_response(200 if whole else status)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"well" if whole else b"we")
            if not whole:
                broken.append(self.path)

        def log_message(self, format: str, *arguments: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prober = Prober(every_s=0.02)
    prober.add(1, f"127.0.0.1:{server.server_address[1]}")
    prober.start()
    try:
        until = time.monotonic() + 20
        while (result := prober.result(1)) is None or not result.is_ready:
            assert time.monotonic() < until, f"after {broken}: {result}"
            time.sleep(0.02)
        assert broken == ["/healthz", "/readyz", "/metrics"]
    finally:
        prober.close()
        server.shutdown()
        server.server_close()


def test_a_process_that_waits_for_a_person_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """The sorters start after the gateway, and a camera's latency can be measured only while they run."""
    health = ProcessHealth("gateway", ProgressWatchdog(30))
    health.set_person_problem("run castline gateway measure line-1", "latency")
    prober = Prober(every_s=0.02)
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "gateway-1") as server:
        prober.add(1, server.address)
        prober.start()
        try:
            time.sleep(0.2)
            assert (result := prober.result(1)) is not None
            assert not result.is_ready, "the process has not started yet"
            health.set_ready()
            until = time.monotonic() + 20
            while (result := prober.result(1)) is None or not result.is_ready:
                assert time.monotonic() < until
                time.sleep(0.02)
        finally:
            prober.close()


# A process whose page /readyz says for what it waits, as in the file of the second argument. It is ready when the file is empty.
WAITING = """
    import http.server, json, os, pathlib, sys
    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            waits_for = pathlib.Path(sys.argv[2]).read_text() if self.path == "/readyz" else ""
            self.send_response(503 if waits_for else 200)
            self.send_header("X-Castline-Waits-For", waits_for)
            self.send_header("Content-Length", "0")
            self.end_headers()
        def log_message(self, *arguments): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    folder = pathlib.Path(sys.argv[1]) / "targets"
    folder.mkdir(exist_ok=True)
    target = {"targets": [f"127.0.0.1:{server.server_address[1]}"], "labels": {"pid": str(os.getpid())}}
    (folder / f"worker-{os.getpid()}.json").write_text(json.dumps([target]))
    server.serve_forever()
    """


@pytest.mark.real
@pytest.mark.parametrize("ready_check", [PageReady, partial(LinePrinted, "never")])
def test_a_start_that_waits_for_kafka_or_the_disk_is_not_too_slow(tmp_path: Path, ready_check: Callable[[Path], ReadyCheck]) -> None:
    waits_for = tmp_path / "waits-for"
    waits_for.write_text("outside")
    worker = role("worker", python(WAITING, tmp_path, waits_for), ready_check=ready_check(tmp_path), slow_start_s=2.0)
    with supervising(worker) as (supervisor, log):
        managed, ends_s = supervisor.processes["worker"], time.monotonic() + 5
        tick_until(supervisor, lambda: time.monotonic() > ends_s)
        assert managed.starts == 1
        waits_for.write_text("-")
        tick_until(supervisor, lambda: managed.starts == 3)
        assert managed.deaths == 0, "the supervisor has replaced a healthy process, which did not die by itself"
    assert log.getvalue().count("it is started again at once") == 2


def test_an_unhealthy_process_counts_as_silent_only_from_its_first_lost_answer_on() -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    prober = Prober(every_s=0.02)
    prober.add(1, f"127.0.0.1:{server.server_address[1]}")
    prober.start()

    def probe_until(done: Callable[[ProbeResult], bool]) -> ProbeResult:
        until = time.monotonic() + 20
        while (result := prober.result(1)) is None or not done(result):
            assert time.monotonic() < until, result
            time.sleep(0.02)
        return result

    try:
        probe_until(lambda result: result.unhealthy_s(time.monotonic()) > 0.5)
        server.shutdown()
        server.server_close()
        silent = probe_until(lambda result: result.silent_since is not None)
        assert silent.unhealthy_since is not None
        assert silent.silent_since is not None
        assert silent.silent_since - silent.unhealthy_since > 0.5
    finally:
        prober.close()


@pytest.mark.real
def test_a_worker_that_no_longer_answers_during_its_start_is_killed(tmp_path: Path) -> None:
    waits_for = tmp_path / "waits-for"
    waits_for.write_text("-")
    worker = role("worker", python(WAITING, tmp_path, waits_for), ready_check=PageReady(tmp_path), grace_s=600)
    with supervising(worker, silent_start_s=2.5) as (supervisor, log):
        managed = supervisor.processes["worker"]
        tick_until(supervisor, lambda: (result := supervisor.probe_result("worker")) is not None and result.samples_at > 0)
        frozen = managed.pid
        os.kill(frozen, signal.SIGSTOP)
        tick_until(supervisor, lambda: managed.starts >= 2)
        waits_for.write_text("")
        tick_until(supervisor, lambda: supervisor.all_ready)
        assert not alive(frozen)
    assert "worker is silent for 2.5 s during its start" in log.getvalue()


@pytest.mark.real
def test_a_process_that_cannot_be_made_is_tried_again_and_the_others_go_on() -> None:
    # Linux refuses so long an argument.
    large = role("large", (sys.executable, "x" * 3_000_000), restarts=RestartPolicy(first_s=0.05, longest_s=0.1))
    with supervising(large, role("worker")) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.processes["worker"].is_up and supervisor.processes["large"].starts > 3)
        assert supervisor.failure == ""
    assert "Cannot start the process: Argument list too long.; it is started again in 0.1 s" in log.getvalue()


@pytest.mark.real
def test_an_old_address_with_the_same_process_id_delays_no_start(tmp_path: Path) -> None:
    worker = role("worker", python(PAGES, tmp_path, tmp_path / "ill"), ready_check=PageReady(tmp_path))
    with supervising(worker) as (supervisor, _):
        supervisor.tick()
        stale = json.dumps([{"targets": ["127.0.0.1:9"], "labels": {"pid": str(supervisor.processes["worker"].pid)}}])
        (tmp_path / "targets").mkdir(exist_ok=True)
        old = tmp_path / "targets" / "gateway-1.json"
        old.write_text(stale)
        os.utime(old, (1, 1))
        supervisor.prober.add(supervisor.processes["worker"].pid, "127.0.0.1:9")
        tick_until(supervisor, lambda: supervisor.all_ready)


@pytest.mark.real
def test_a_worker_that_never_gets_ready_is_started_again() -> None:
    mute = python("import time; time.sleep(600)")
    with supervising(role("mute", mute, slow_start_s=0.3)) as (supervisor, log):
        tick_until(supervisor, lambda: supervisor.processes["mute"].starts == 2)
    assert "mute is not ready 0.3 s after its start" in log.getvalue()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with supervising(role("worker", (str(tmp_path / "nowhere"),))) as (supervisor, _):
        tick_until(supervisor, lambda: bool(supervisor.failure))
        assert supervisor.failure == f"worker cannot run: Cannot run {tmp_path / 'nowhere'}: No such file or directory."


@pytest.mark.real
def test_the_log_names_the_role_and_leaves_json_as_it_is() -> None:
    line = json.dumps({"message": "judged", "part": "line-1:7:1"})
    with supervising(role("worker", python("import sys, time; print(sys.argv[1]); print('ready'); time.sleep(600)", line))) as (
        supervisor,
        log,
    ):
        tick_until(supervisor, lambda: supervisor.all_ready)
    (found,) = [written for written in log.getvalue().splitlines() if written.startswith("worker ") and "judged" in written]
    assert json.loads(found.split(" | ", 1)[1]) == json.loads(line)


@pytest.mark.real
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_insists(signum: signal.Signals) -> None:
    code = """
        import time
        from deploy.supervisor import StopRequests
        requests = StopRequests()
        print("ready", flush=True)
        while not requests.is_stop_requested(): time.sleep(0.01)
        print("asked", requests.is_kill_requested(), flush=True)
        while not requests.is_kill_requested(): time.sleep(0.01)
        print("insisted", flush=True)
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        assert process.stdout.readline() == "asked False\n"
        process.send_signal(signum)
        assert process.stdout.readline() == "insisted\n"
    finally:
        process.kill()
        process.communicate()
