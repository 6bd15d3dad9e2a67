"""Starts the processes of all roles stage by stage, watches them, restarts those that die or hang, and stops them in order."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FrameType

from deploy.supervisor.journal import Journal
from deploy.supervisor.prober import Prober, ProbeResult
from deploy.supervisor.process import ChildProcess
from deploy.supervisor.role import Role, State
from streams.backoff import Backoff
from streams.errors import DuplicateProcessError

TICK_S = 0.1
_NOT_STARTED = 126  # the exit status that a shell gives to a command that it cannot run
_SETTINGS_AT_FAULT = 3  # exit status for wrong settings (EXIT_CODES in deploy/cli/main.py)


@dataclass
class ManagedProcess:
    """The state of one role, and its process if one runs. Times are in monotonic seconds.

    - `is_duplicate`: true if the last process ended because the same role already runs on another machine.
    - `grace_s`: how many seconds the process may go on after SIGTERM. Then, at the time `kill_at`, it is killed.
    - `waited_at`: when the process last waited for Kafka, for the database or for free space on a disk.
    - `is_replaced_healthy`: true if the supervisor has stopped a healthy process because it was not ready in time.
    """

    role: Role
    state: State = State.WAITING
    process: ChildProcess | None = None
    started_at: float = 0.0
    waited_at: float = 0.0
    ready_at: float = math.inf
    restart_at: float = 0.0
    kill_at: float = math.inf
    grace_s: float = 0.0
    was_ready: bool = False
    is_duplicate: bool = False
    is_replaced_healthy: bool = False
    starts: int = 0
    deaths: int = 0
    backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.role.restarts.first_s, self.role.restarts.longest_s)

    def compute_wait_s(self, status: int, now: float) -> float:
        """Notes that the process died with exit status `status`. Returns how many seconds to wait before its next start."""
        policy = self.role.restarts
        if self.is_replaced_healthy:
            return 0.0
        if now - self.ready_at >= policy.steady_s:
            self.backoff.succeeded()
            self.deaths = 0
        self.deaths += 1
        self.is_duplicate = status == DuplicateProcessError.EXIT_STATUS
        if self.is_duplicate:
            return policy.longest_s
        return self.backoff.failed() if self.deaths > 1 else 0.0

    def terminate(self, now: float, grace_s: float) -> None:
        """Sends SIGTERM to the process. If the process still runs `grace_s` seconds later, the supervisor kills the process."""
        assert self.process is not None
        self.grace_s, self.kill_at = grace_s, now + grace_s
        self.process.terminate()

    @property
    def pid(self) -> int:
        """The process id, or 0 while no process runs."""
        return self.process.pid if self.process else 0

    @property
    def is_running(self) -> bool:
        return self.process is not None

    @property
    def is_up(self) -> bool:
        """Whether the role is ready. A one-shot role is ready when its process has ended with status 0."""
        return self.state is (State.ENDED if self.role.is_one_shot else State.READY)


class Supervisor:
    """Starts, watches and stops the processes of one machine. Its methods must be called from the main thread.

    If a process dies again and again, `failure` names the process and the reason. Otherwise `failure` is empty.

    - `unhealthy_s`: if a process is unhealthy for more than this number of seconds, it gets SIGTERM.
    - `silent_s`: if a process does not answer for more than this number of seconds, it is killed, because it could not react to SIGTERM.
    - `silent_start_s`: the same for a process that is not ready yet. This time is longer, because a process answers late while it loads
      its libraries.
    """

    def __init__(
        self, roles: Iterable[Role], journal: Journal, unhealthy_s: float = 15.0, silent_s: float = 8.0, silent_start_s: float = 60.0
    ) -> None:
        self.processes = {role.name: ManagedProcess(role) for role in roles}
        self.prober = Prober()
        self.failure = ""
        self._journal = journal
        self._unhealthy_s = unhealthy_s
        self._silent_s = silent_s
        self._silent_start_s = silent_start_s
        self._is_stopping = False
        self.prober.start()

    @property
    def all_ready(self) -> bool:
        """Whether every role is ready. A one-shot role is ready when its process has ended with status 0."""
        return all(managed.is_up for managed in self.processes.values())

    def probe_result(self, name: str) -> ProbeResult | None:
        """Returns the latest health and metrics of role `name`, or None if they were not read yet."""
        managed = self.processes[name]
        return self.prober.result(managed.pid) if managed.is_running else None

    def tick(self, now: float | None = None) -> None:
        """Checks every process once. Restarts processes that died or hang, and starts the next stage."""
        now = time.monotonic() if now is None else now
        for managed in self.processes.values():
            self._reap(managed, now)
            self._check(managed, now)
            if managed.state is State.BACKING_OFF and now >= managed.restart_at and not self._is_stopping:
                self._start(managed, now)
        if not self._is_stopping:
            self._kill_overdue(self.processes.values(), now)
        if not self._is_stopping and not self.failure:
            self._start_next_stage(now)

    def run(self, until: Callable[[], bool]) -> None:
        """Calls `tick` ten times a second. Returns when the function `until` returns True, or when `failure` is set."""
        while not until() and not self.failure:
            self.tick()
            time.sleep(TICK_S)

    def stop(
        self,
        kill_now: Callable[[], bool] = lambda: False,
        before: int | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Stops the processes by SIGTERM in their `stop_order`. Kills a process that still runs after its `grace_s`.

        - `before`: only roles with a lower `stop_order` are stopped.
        - `kill_now`: when it returns True, all remaining processes are killed.
        - `meanwhile`: called repeatedly during the wait.
        """
        self._is_stopping = True
        for order in sorted({managed.role.stop_order for managed in self.processes.values()}):
            if before is not None and order >= before:
                return
            self._stop_together([managed for managed in self.processes.values() if managed.role.stop_order == order], kill_now, meanwhile)
        self.prober.close()

    def kill_all(self) -> None:
        """Kills all processes and waits until they have ended."""
        self._is_stopping = True
        self._wait_for_end(list(self.processes.values()), lambda: True, lambda: None)
        self.prober.close()

    def _start_next_stage(self, now: float) -> None:
        # A stage begins when all roles of lower stages have been ready at least once. No stage waits for a role that is restarted at this
        # moment, because workers reconnect to a restarted broker.
        for stage in sorted({managed.role.stage for managed in self.processes.values()}):
            in_stage = [managed for managed in self.processes.values() if managed.role.stage == stage]
            for managed in in_stage:
                if managed.state is State.WAITING:
                    self._start(managed, now)
            if not all(managed.was_ready or managed.is_duplicate for managed in in_stage):
                return

    def _start(self, managed: ManagedProcess, now: float) -> None:
        role = managed.role
        managed.starts += 1
        managed.started_at, managed.ready_at, managed.kill_at, managed.is_replaced_healthy = now, math.inf, math.inf, False
        try:
            managed.process = ChildProcess(role.command, self._journal.writer(role.name))
        except OSError as error:
            # The kernel can refuse a new process, for example because the machine has no free memory.
            self._handle_death(managed, _NOT_STARTED, f"Cannot start the process: {error.strerror}.", now)
            return
        managed.state = State.STARTING
        count = f" (start {managed.starts})" if managed.starts > 1 else ""
        self._journal.inform(f"{role.name} started, process {managed.pid}{count}")

    def _reap(self, managed: ManagedProcess, now: float) -> None:
        process = managed.process
        if process is None or (status := process.exit_status()) is None:
            return
        self.prober.remove(process.pid)
        managed.process = None
        if managed.state is State.STOPPING:
            managed.state = State.ENDED
            self._journal.inform(f"{managed.role.name} stopped, {_status_in_words(status)}")
        elif managed.role.is_one_shot and status == 0:
            managed.state, managed.was_ready = State.ENDED, True
            self._journal.inform(f"{managed.role.name} done")
        else:
            self._handle_death(managed, status, process.last_line(), now)

    def _handle_death(self, managed: ManagedProcess, status: int, last_line: str, now: float) -> None:
        role = managed.role
        sentence = f"{role.name} ended by itself, {_status_in_words(status)}; its last line was: {last_line}"
        wait_s = managed.compute_wait_s(status, now)
        is_out_of_tries = role.restarts.give_up_after is not None and managed.deaths > role.restarts.give_up_after
        cannot_run = role.is_essential and not managed.was_ready and status == _SETTINGS_AT_FAULT
        if self._is_stopping:
            managed.state = State.ENDED
            self._journal.inform(sentence)
        elif is_out_of_tries or cannot_run:
            managed.state = State.GIVEN_UP
            self._journal.warn(f"{sentence}; after {managed.starts} starts it is not started again")
            self.failure = self.failure or f"{role.name} cannot run: {last_line}"
        else:
            managed.state, managed.restart_at = State.BACKING_OFF, now + wait_s
            self._journal.warn(f"{sentence}; it is started again {f'in {wait_s:.1f} s' if wait_s else 'at once'}")

    def _check(self, managed: ManagedProcess, now: float) -> None:
        process = managed.process
        if process is None or self._is_stopping:
            return
        if managed.state is State.STARTING:
            self._check_start(managed, process, now)
        elif managed.state is State.READY:
            result = self.prober.result(process.pid)
            if result and result.silent_s(now) > self._silent_s:
                self._replace(managed, now, f"silent for {self._silent_s:g} s: {result.complaint}", grace_s=0.0)
            elif result and result.unhealthy_s(now) > self._unhealthy_s:
                self._replace(managed, now, f"unhealthy for {self._unhealthy_s:g} s: {result.complaint}")

    def _check_start(self, managed: ManagedProcess, process: ChildProcess, now: float) -> None:
        """Notes that a starting process is ready. Replaces a process that no longer answers, or that is not ready in time.

        The time is counted from the start, or from the last moment at which the process waited for something outside, such as Kafka.
        """
        role = managed.role
        if not role.is_one_shot and role.ready_check.is_ready(process, self.prober):
            managed.state, managed.was_ready, managed.ready_at, managed.is_duplicate = State.READY, True, now, False
            self._journal.inform(f"{role.name} ready after {now - managed.started_at:.1f} s")
            if managed.starts > 1:
                self._repeat_jobs(role.stage)
            return
        result = self.prober.result(process.pid)
        if result and result.is_waiting:
            managed.waited_at = now
        elif result and result.silent_s(now) > self._silent_start_s:
            self._replace(managed, now, f"silent for {self._silent_start_s:g} s during its start: {result.complaint}", grace_s=0.0)
        elif now - max(managed.started_at, managed.waited_at) > role.slow_start_s and managed.kill_at == math.inf:
            managed.is_replaced_healthy = result is not None and not result.complaint
            self._replace(managed, now, f"not ready {role.slow_start_s:g} s after its start")

    def _repeat_jobs(self, stage: int) -> None:
        """Runs all one-shot roles of the stages after `stage` again. A one-shot role does one job and ends.

        For example, if the broker (stage 0) was restarted without its data, the topics (stage 1) must be created again.
        """
        for managed in self.processes.values():
            if managed.role.is_one_shot and managed.role.stage > stage and managed.state is State.ENDED:
                managed.state = State.WAITING

    def _replace(self, managed: ManagedProcess, now: float, reason: str, grace_s: float | None = None) -> None:
        """Stops a process, so that the supervisor starts it again. A process that still runs after `grace_s` seconds is killed.

        If `grace_s` is None, the `grace_s` of the role applies.
        """
        if managed.kill_at < math.inf:
            return
        managed.terminate(now, managed.role.grace_s if grace_s is None else grace_s)
        self._journal.warn(f"{managed.role.name} is {reason}; it is stopped and started again")

    def _kill_overdue(self, group: Iterable[ManagedProcess], now: float) -> None:
        """Kills the processes that did not stop in time, and writes warnings afterwards, because the disk of the log can hang."""
        overdue = [(managed, process) for managed in group if (process := managed.process) and now > managed.kill_at]
        for managed, process in overdue:
            managed.kill_at = math.inf
            process.kill()
        for managed, _ in overdue:
            self._journal.warn(f"{managed.role.name} did not stop within {managed.grace_s:g} s of SIGTERM and is killed")

    def _stop_together(self, group: list[ManagedProcess], kill_now: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        now = time.monotonic()
        for managed in group:
            if managed.process:
                managed.state = State.STOPPING
                managed.terminate(now, managed.role.grace_s)
            elif managed.state is not State.GIVEN_UP:
                managed.state = State.ENDED
        self._wait_for_end(group, kill_now, meanwhile)

    def _wait_for_end(self, group: list[ManagedProcess], kill_now: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        while any(managed.is_running for managed in group):
            now = time.monotonic()
            for managed in group:
                if managed.process and kill_now():
                    managed.process.kill()
            self._kill_overdue(group, now)
            meanwhile()
            time.sleep(0.02)
            for managed in group:
                self._reap(managed, time.monotonic())


def _status_in_words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


class StopRequests:
    """Handles SIGTERM and SIGINT of this process. Make this object in the main thread.

    The first signal asks for an orderly stop, and the second kills at once.
    """

    def __init__(self) -> None:
        self._count = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)

    def is_stop_requested(self) -> bool:
        """Returns whether at least one signal has arrived."""
        return self._count > 0

    def is_kill_requested(self) -> bool:
        """Returns whether a second signal has arrived."""
        return self._count > 1

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._count += 1
