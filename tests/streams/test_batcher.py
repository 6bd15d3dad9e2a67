"""The micro-batcher: when a batch goes, what is in it, and that it never grows without bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batcher import Batcher, choose_batch_size, compute_wait_s
from streams.settings import BatchSettings

LIMITS = BatchSettings(size=4, max_wait_s=0.5, shapes=(1, 2, 4), deadline_margin_s=0.3)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_full_batch_goes_at_once() -> None:
    assert compute_wait_s(0.0, count=4, first_arrived_s=0.0, earliest_deadline_s=None, limits=LIMITS) == 0


def test_a_lonely_picture_waits_for_company_from_its_own_arrival_on() -> None:
    assert compute_wait_s(10.2, count=1, first_arrived_s=10.0, earliest_deadline_s=None, limits=LIMITS) == pytest.approx(0.3)
    assert compute_wait_s(10.6, count=1, first_arrived_s=10.0, earliest_deadline_s=None, limits=LIMITS) == 0


def test_a_batch_does_not_wait_past_what_its_nearest_deadline_leaves() -> None:
    assert compute_wait_s(10.0, count=1, first_arrived_s=10.0, earliest_deadline_s=10.4, limits=LIMITS) == pytest.approx(0.1)
    assert compute_wait_s(10.0, count=1, first_arrived_s=10.0, earliest_deadline_s=9.0, limits=LIMITS) == 0


@pytest.mark.parametrize(("waiting", "goes"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (100, 4)])
def test_a_batch_fills_a_shape_so_that_nothing_is_computed_for_padding(waiting: int, goes: int) -> None:
    assert choose_batch_size(waiting, LIMITS) == goes


@given(
    count=st.integers(1, 8),
    first=st.floats(0, 100),
    later=st.floats(0, 10),
    deadline=st.none() | st.floats(0, 200),
)
def test_no_batch_waits_longer_than_max_wait(count: int, first: float, later: float, deadline: float | None) -> None:
    left = compute_wait_s(first + later, count, first, deadline, LIMITS)
    assert 0 <= left <= LIMITS.max_wait_s


@pytest.mark.asyncio
async def test_batches_hold_at_most_size_items_in_the_order_of_arrival() -> None:
    batcher: Batcher[int] = Batcher(LIMITS, capacity=100, clock=Clock())
    for number in range(10):
        await batcher.put(number, None)
    batcher.close()
    taken = [[waiting.item for waiting in batch] for batch in [await batcher.get_batch() for _ in range(4)]]
    assert taken == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


@pytest.mark.asyncio
async def test_a_single_picture_goes_after_max_wait_without_company() -> None:
    batcher: Batcher[int] = Batcher(LIMITS.model_copy(update={"max_wait_s": 0.05}), 100, asyncio.get_running_loop().time)
    await batcher.put(1, None)
    assert [waiting.item for waiting in await asyncio.wait_for(batcher.get_batch(), 5)] == [1]


@pytest.mark.asyncio
async def test_a_picture_with_a_near_deadline_takes_the_waiting_ones_with_it_at_once() -> None:
    clock = Clock()
    slow = LIMITS.model_copy(update={"max_wait_s": 5.0})
    batcher: Batcher[int] = Batcher(slow, 100, clock)
    await batcher.put(1, deadline_s=100.0)
    taking = asyncio.create_task(batcher.get_batch())
    await asyncio.sleep(0.05)
    assert not taking.done()
    await batcher.put(2, deadline_s=0.1)
    assert [waiting.item for waiting in await asyncio.wait_for(taking, 1)] == [1, 2]


@pytest.mark.asyncio
async def test_the_writer_waits_while_the_batcher_is_full() -> None:
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
async def test_a_closed_batcher_takes_nothing_more() -> None:
    batcher: Batcher[int] = Batcher(LIMITS, capacity=4, clock=Clock())
    batcher.close()
    late = asyncio.create_task(batcher.put(1, None))
    assert await batcher.get_batch() == []
    await asyncio.sleep(0.02)
    assert not late.done()
    late.cancel()
