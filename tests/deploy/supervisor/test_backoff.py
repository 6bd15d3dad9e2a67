"""How long a dying process waits: longer each time, never past the limit, anew after a quiet life."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploy.supervisor import Backoff

lives = st.lists(st.floats(0, 1e6), max_size=60)
policies = st.builds(
    Backoff,
    first_s=st.floats(0.01, 10),
    factor=st.floats(1, 10),
    most_s=st.floats(10, 600),
    quiet_s=st.floats(1, 1000),
    most_in_row=st.none() | st.integers(1, 50),
)


def test_a_process_that_never_died_waits_for_nothing() -> None:
    assert Backoff().wait_s([]) == 0


def test_each_death_in_a_row_waits_twice_as_long_up_to_the_limit() -> None:
    policy = Backoff(first_s=0.5, factor=2, most_s=3, quiet_s=60)
    assert [policy.wait_s([1.0] * count) for count in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_a_quiet_life_begins_anew() -> None:
    policy = Backoff(first_s=0.5, quiet_s=60)
    assert policy.wait_s([1, 1, 1, 60]) == 0.5
    assert policy.wait_s([1, 1, 1, 60, 1]) == 1.0


def test_more_deaths_in_a_row_than_allowed_are_given_up() -> None:
    policy = Backoff(most_in_row=3)
    assert policy.wait_s([1, 1, 1]) is not None
    assert policy.wait_s([1, 1, 1, 1]) is None
    assert policy.wait_s([1, 1, 1, 1, 1e6]) is not None


def test_years_of_dying_overflow_nothing() -> None:
    assert Backoff(most_s=30).wait_s([0.0] * 100_000) == 30


@given(policies, lives)
def test_a_wait_lies_between_first_and_most(policy: Backoff, lives_s: list[float]) -> None:
    wait_s = policy.wait_s(lives_s)
    if wait_s is None:
        assert policy.most_in_row is not None
        assert policy.in_row(lives_s) > policy.most_in_row
    elif lives_s:
        assert min(policy.first_s, policy.most_s) <= wait_s <= policy.most_s
    else:
        assert wait_s == 0


@given(policies, lives, st.floats(0, 0.99))
def test_one_more_short_life_never_shortens_the_wait(policy: Backoff, lives_s: list[float], life_s: float) -> None:
    before, after = policy.wait_s(lives_s), policy.wait_s([*lives_s, life_s])
    assert after is None or (before is not None and after >= before)


@given(policies, lives, lives)
def test_what_was_before_a_quiet_life_is_forgotten(policy: Backoff, one: list[float], other: list[float]) -> None:
    recent = [policy.quiet_s, 0.0, 0.0]
    assert policy.wait_s(one + recent) == policy.wait_s(other + recent)
