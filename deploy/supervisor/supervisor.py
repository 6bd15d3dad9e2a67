"""Starts roles stage by stage, watches them, starts again what dies, and stops them in order.

Single-threaded: whoever owns it calls `tick` about ten times a second from the main thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from deploy.supervisor.journal import Journal
from deploy.supervisor.probes import Prober, Sight
from deploy.supervisor.process import Running
from deploy.supervisor.role import Role, State

TICK_S = 0.1
_SETTINGS_AT_FAULT = 3  # see EXIT_CODES in deploy/cli/main.py


@dataclass
class Post:
    """One role and what has become of it. Times are monotonic seconds."""

    role: Role
    state: State = State.WAITING
    process: Running | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    stop_by: float = math.inf
    was_ready: bool = False
    lives_s: list[float] = field(default_factory=list)
    starts: int = 0

    @property
    def pid(self) -> int:
        """Process id, 0 while none runs."""
        return self.process.pid if self.process else 0

    @property
    def alive(self) -> bool:
        return self.process is not None


class Supervisor:
    """Owns the processes of one machine. `failure` is a sentence once a role that all need cannot run."""

    def __init__(self, roles: Iterable[Role], journal: Journal, unhealthy_s: float = 15.0) -> None:
        self.posts = {role.name: Post(role) for role in roles}
        self.prober = Prober()
        self.failure = ""
        self._journal = journal
        self._unhealthy_s = unhealthy_s
        self._stopping = False
        self.prober.start()

    @property
    def all_ready(self) -> bool:
        """Every role is ready, or has done what it had to do once."""
        return all(self._is_up(post) for post in self.posts.values())

    def sight(self, name: str) -> Sight | None:
        """What was last read from the role's pages; None where it has none yet."""
        post = self.posts[name]
        return self.prober.sight(post.pid) if post.alive else None

    def tick(self, now: float | None = None) -> None:
        """One look at every process: burials, restarts, readiness, health, and the next stage."""
        now = time.monotonic() if now is None else now
        for post in self.posts.values():
            self._bury(post, now)
            self._watch(post, now)
            if post.state is State.BACKING_OFF and now >= post.start_again_at and not self._stopping:
                self._start(post, now)
        if not self._stopping and not self.failure:
            self._start_next_stage(now)

    def run(self, until: Callable[[], bool]) -> None:
        """Ticks until `until` says so or `failure` is set."""
        while not until() and not self.failure:
            self.tick()
            time.sleep(TICK_S)

    def stop(
        self, at_once: Callable[[], bool] = lambda: False, before: int | None = None, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Stops the roles in the order of their `stops`, those with a number from `before` on excepted; SIGKILL after their grace.

        `at_once` is asked all the time: when it says yes, those that are to be stopped are killed. `meanwhile` is called while waiting.
        """
        self._stopping = True
        for number in sorted({post.role.stops for post in self.posts.values()}):
            if before is not None and number >= before:
                return
            self._stop_together([post for post in self.posts.values() if post.role.stops == number], at_once, meanwhile)
        self.prober.close()

    def kill_all(self) -> None:
        """SIGKILL to everything, and waits for its end."""
        self._stopping = True
        self._wait_for(list(self.posts.values()), lambda: True, lambda: None)
        self.prober.close()

    def _is_up(self, post: Post) -> bool:
        return post.state is (State.ENDED if post.role.once else State.READY)

    def _start_next_stage(self, now: float) -> None:
        # A later stage waits for the first readiness only: when the broker is restarted, the workers go on by themselves.
        for stage in sorted({post.role.stage for post in self.posts.values()}):
            posts = [post for post in self.posts.values() if post.role.stage == stage]
            for post in posts:
                if post.state is State.WAITING:
                    self._start(post, now)
            if not all(post.was_ready for post in posts):
                return

    def _start(self, post: Post, now: float) -> None:
        role = post.role
        post.process = Running(role.command, self._journal.of(role.name))
        post.state, post.started_at, post.stop_by = State.STARTING, now, math.inf
        post.starts += 1
        self._journal.say(f"{role.name} started, process {post.pid}" + (f" (start {post.starts})" if post.starts > 1 else ""))

    def _bury(self, post: Post, now: float) -> None:
        process = post.process
        if process is None or (status := process.exit_status()) is None:
            return
        self.prober.forget(process.pid)
        post.process = None
        if post.state is State.STOPPING:
            post.state = State.ENDED
            self._journal.say(f"{post.role.name} stopped, {_how(status)}")
        elif post.role.once and status == 0:
            post.state, post.was_ready = State.ENDED, True
            self._journal.say(f"{post.role.name} done")
        else:
            self._after_death(post, status, process.last_words(), now)

    def _after_death(self, post: Post, status: int, last_words: str, now: float) -> None:
        role = post.role
        sentence = f"{role.name} ended by itself, {_how(status)}; it last said: {last_words}"
        post.lives_s.append(now - post.started_at)
        wait_s = role.backoff.wait_s(post.lives_s)
        hopeless = role.essential and not post.was_ready and status == _SETTINGS_AT_FAULT
        if self._stopping:
            post.state = State.ENDED
            self._journal.say(sentence)
        elif wait_s is None or hopeless:
            post.state = State.GIVEN_UP
            self._journal.warn(f"{sentence}; given up after {post.starts} starts")
            self.failure = self.failure or f"{role.name} cannot run: {last_words}"
        else:
            post.state, post.start_again_at = State.BACKING_OFF, now + wait_s
            self._journal.warn(f"{sentence}; it is started again in {wait_s:.1f} s")

    def _watch(self, post: Post, now: float) -> None:
        process, role = post.process, post.role
        if process is None or self._stopping:
            return
        if post.state is State.STARTING:
            if not role.once and role.gate.is_open(process, self.prober):
                post.state, post.was_ready = State.READY, True
                self._journal.say(f"{role.name} ready after {now - post.started_at:.1f} s")
            elif now - post.started_at > role.slow_start_s:
                self._replace(post, now, f"not ready {role.slow_start_s:g} s after its start")
        elif post.state is State.READY:
            sight = self.prober.sight(process.pid)
            if sight and sight.unhealthy_since is not None and now - sight.unhealthy_since > self._unhealthy_s:
                self._replace(post, now, f"unhealthy for {self._unhealthy_s:g} s: {sight.complaint}")
        self._kill_when_over(post, now)

    def _replace(self, post: Post, now: float, why: str) -> None:
        # Its death is then one like any other: counted, waited for, started again.
        if post.stop_by < math.inf:
            return
        assert post.process is not None
        self._journal.warn(f"{post.role.name} is {why}; it is stopped and started again")
        post.process.terminate()
        post.stop_by = now + post.role.grace_s

    def _kill_when_over(self, post: Post, now: float) -> None:
        if post.process and now > post.stop_by:
            self._journal.warn(f"{post.role.name} did not stop within {post.role.grace_s:g} s of SIGTERM, killed")
            post.stop_by = math.inf
            post.process.kill()

    def _stop_together(self, posts: list[Post], at_once: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        now = time.monotonic()
        for post in posts:
            if post.process:
                post.state, post.stop_by = State.STOPPING, now + post.role.grace_s
                post.process.terminate()
            elif post.state is not State.GIVEN_UP:
                post.state = State.ENDED
        self._wait_for(posts, at_once, meanwhile)

    def _wait_for(self, posts: list[Post], at_once: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        while any(post.alive for post in posts):
            now = time.monotonic()
            for post in posts:
                if post.process and at_once():
                    post.process.kill()
                self._kill_when_over(post, now)
            meanwhile()
            time.sleep(0.02)
            for post in posts:
                self._bury(post, time.monotonic())


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
