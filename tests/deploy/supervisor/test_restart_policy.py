"""A process that keeps dying waits longer each time, up to a limit, and is given up if the policy says so."""

from __future__ import annotations

import pytest

from deploy.supervisor import Journal, LinePrinted, RestartPolicy, Role, State, Supervisor
from deploy.supervisor.supervisor import ManagedProcess


def waits_after(lives_s: list[float], policy: RestartPolicy, status: int = -9) -> list[float | None]:
    """Returns the wait after each death of a process that was ready for `lives_s`, or None from the death on that gave it up."""
    supervisor = Supervisor([Role("worker", (), LinePrinted("ready"), stage=0, stop_order=0, restarts=policy)], Journal())
    managed: ManagedProcess = supervisor.processes["worker"]
    now, waits = 0.0, list[float | None]()
    for life_s in lives_s:
        managed.started_at = managed.ready_at = now
        now += life_s
        supervisor._handle_death(managed, status, "nothing", now)
        waits.append(managed.restart_at - now if managed.state is State.BACKING_OFF else None)
    supervisor.kill_all()
    return waits


def test_the_first_death_waits_not_at_all_and_each_further_one_twice_as_long_up_to_the_limit() -> None:
    assert waits_after([1.0] * 6, RestartPolicy(first_s=0.5, longest_s=3, steady_s=60)) == pytest.approx([0, 0.5, 1, 2, 3, 3])


def test_a_process_that_was_ready_long_enough_is_started_at_once_again() -> None:
    assert waits_after([1, 1, 1, 60, 1], RestartPolicy(first_s=0.5, steady_s=60)) == pytest.approx([0, 0.5, 1, 0, 0.5])


def test_more_deaths_in_a_row_than_allowed_are_given_up() -> None:
    assert waits_after([1, 1, 1, 1], RestartPolicy(give_up_after=3))[2:] == [1.0, None]


def test_deaths_before_a_steady_life_do_not_count_towards_giving_up() -> None:
    policy = RestartPolicy(first_s=0.5, steady_s=60, give_up_after=3)
    assert waits_after([1, 1, 1, 60, 1, 1, 1], policy) == [0, 0.5, 1.0, 0, 0.5, 1.0, None]


def test_kills_half_a_minute_apart_never_make_the_broker_wait() -> None:
    assert waits_after([30.0] * 5, RestartPolicy()) == [0.0] * 5


def test_a_process_that_another_machine_already_runs_waits_the_longest_time() -> None:
    assert waits_after([0.0, 0.0], RestartPolicy(longest_s=30), status=4) == [30.0, 30.0]
