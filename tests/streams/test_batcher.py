"""The micro-batcher: when a batch is due, which items it holds, and that its queue is bounded."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batcher import Batcher, choose_batch_size, compute_wait_s
from streams.settings import BatchSettings

LIMITS = BatchSettings(size=4, max_wait_s=0.5, shapes=(1, 2, 4), deadline_margin_s=0.3)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_full_batch_is_due_at_once() -> None:
    assert compute_wait_s(0.0, count=4, first_arrived_s=0.0, earliest_deadline_s=None, limits=LIMITS) == 0


def test_the_wait_of_a_batch_begins_with_the_arrival_of_its_first_picture() -> None:
    assert compute_wait_s(10.2, count=1, first_arrived_s=10.0, earliest_deadline_s=None, limits=LIMITS) == pytest.approx(0.3)
    assert compute_wait_s(10.6, count=1, first_arrived_s=10.0, earliest_deadline_s=None, limits=LIMITS) == 0


def test_a_batch_does_not_wait_longer_than_its_nearest_deadline_allows() -> None:
    assert compute_wait_s(10.0, count=1, first_arrived_s=10.0, earliest_deadline_s=10.4, limits=LIMITS) == pytest.approx(0.1)
    assert compute_wait_s(10.0, count=1, first_arrived_s=10.0, earliest_deadline_s=9.0, limits=LIMITS) == 0


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (100, 4)])
def test_a_batch_has_the_largest_size_that_needs_no_padding(count: int, size: int) -> None:
    assert choose_batch_size(count, LIMITS) == size


@given(
    count=st.integers(1, 8),
    first=st.floats(0, 100),
    later=st.floats(0, 10),
    deadline=st.none() | st.floats(0, 200),
)
def test_no_batch_waits_longer_than_max_wait(count: int, first: float, later: float, deadline: float | None) -> None:
    wait_s = compute_wait_s(first + later, count, first, deadline, LIMITS)
    assert 0 <= wait_s <= LIMITS.max_wait_s * (1 + 1e-9), "more than the rounding of floating-point numbers explains"


@pytest.mark.asyncio
async def test_batches_hold_at_most_size_items_in_the_order_of_arrival() -> None:
    batcher: Batcher[int] = Batcher(LIMITS, capacity=100, clock=Clock())
    for number in range(10):
        await batcher.put(number, None)
    batcher.close()
    batches = [[queued.item for queued in batch] for batch in [await batcher.get_batch() for _ in range(4)]]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


@pytest.mark.asyncio
async def test_a_single_picture_is_a_batch_after_max_wait() -> None:
    batcher: Batcher[int] = Batcher(LIMITS.model_copy(update={"max_wait_s": 0.05}), 100, asyncio.get_running_loop().time)
    await batcher.put(1, None)
    assert [queued.item for queued in await asyncio.wait_for(batcher.get_batch(), 5)] == [1]


@pytest.mark.asyncio
async def test_a_near_deadline_makes_the_whole_batch_due_at_once() -> None:
    clock = Clock()
    slow = LIMITS.model_copy(update={"max_wait_s": 5.0})
    batcher: Batcher[int] = Batcher(slow, 100, clock)
    await batcher.put(1, deadline_s=100.0)
    getting = asyncio.create_task(batcher.get_batch())
    await asyncio.sleep(0.05)
    assert not getting.done()
    await batcher.put(2, deadline_s=0.1)
    assert [queued.item for queued in await asyncio.wait_for(getting, 1)] == [1, 2]


@pytest.mark.asyncio
async def test_putting_waits_while_the_queue_is_full() -> None:
    batcher: Batcher[int] = Batcher(LIMITS, capacity=4, clock=Clock())
    for number in range(4):
        await batcher.put(number, None)
    fifth = asyncio.create_task(batcher.put(4, None))
    await asyncio.sleep(0.02)
    assert not fifth.done()
    assert len(batcher) == 4
    await batcher.get_batch()
    await asyncio.wait_for(fifth, 1)


@pytest.mark.asyncio
async def test_a_closed_batcher_accepts_no_item() -> None:
    batcher: Batcher[int] = Batcher(LIMITS, capacity=4, clock=Clock())
    batcher.close()
    late = asyncio.create_task(batcher.put(1, None))
    assert await batcher.get_batch() == []
    await asyncio.sleep(0.02)
    assert not late.done()
    late.cancel()
