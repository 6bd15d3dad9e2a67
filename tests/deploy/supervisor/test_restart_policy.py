"""A process that keeps dying waits longer each time, up to a limit, and is given up if the policy says so."""

from __future__ import annotations

import pytest

from deploy.supervisor import Journal, LinePrinted, RestartPolicy, Role, State, Supervisor
from deploy.supervisor.supervisor import ManagedProcess


def waits_after(lives_s: list[float], policy: RestartPolicy) -> list[float | None]:
    """Returns the wait after each death of a process that lived for `lives_s`, or None from the death on that gave it up."""
    supervisor = Supervisor([Role("worker", (), LinePrinted("ready"), stage=0, stop_order=0, restarts=policy)], Journal())
    managed: ManagedProcess = supervisor.processes["worker"]
    now, waits = 0.0, list[float | None]()
    for life_s in lives_s:
        managed.started_at, now = now, now + life_s
        supervisor._handle_death(managed, -9, "nothing", now)
        waits.append(managed.restart_at - now if managed.state is State.BACKING_OFF else None)
    supervisor.kill_all()
    return waits


def test_each_death_in_a_row_waits_twice_as_long_up_to_the_limit() -> None:
    assert waits_after([1.0] * 5, RestartPolicy(first_s=0.5, longest_s=3, steady_s=60)) == pytest.approx([0.5, 1, 2, 3, 3])


def test_a_steady_life_starts_with_the_first_wait_again() -> None:
    assert waits_after([1, 1, 1, 60, 1], RestartPolicy(first_s=0.5, steady_s=60)) == pytest.approx([0.5, 1, 2, 0.5, 1])


def test_more_deaths_in_a_row_than_allowed_are_given_up() -> None:
    assert waits_after([1, 1, 1, 1], RestartPolicy(give_up_after=3))[2:] == [2.0, None]


def test_deaths_before_a_steady_life_do_not_count_towards_giving_up() -> None:
    policy = RestartPolicy(first_s=0.5, steady_s=60, give_up_after=3)
    assert waits_after([1, 1, 1, 60, 1, 1, 1], policy) == [0.5, 1.0, 2.0, 0.5, 1.0, 2.0, None]
