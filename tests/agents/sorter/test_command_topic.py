"""The sorter reads no further commands while it works on large ones."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agents.sorter.command_topic import CommandTopic
from streams.record_producer import ConsumedRecord
from tests.conftest import MakeSettings


@pytest.mark.asyncio
async def test_large_records_on_the_topic_of_commands_wait_until_earlier_ones_are_handled(make_settings: MakeSettings) -> None:
    settings = make_settings()
    topic = CommandTopic(settings, {}, {})
    handed_over: list[int] = []

    def hand_over() -> None:
        for offset in range(6):
            topic._hand_over(ConsumedRecord("castings.commands", 0, offset, b"line-1", bytes(5 * 2**20), {}), False)
            handed_over.append(offset)

    reader = threading.Thread(target=hand_over)
    reader.start()
    # The event loop does not run during this call, so no record is handled.
    reader.join(1)
    assert reader.is_alive()
    assert handed_over == [0], "the second record exceeds the limit of 8 MiB, so the reader waits after it"
    await asyncio.to_thread(reader.join)
    assert handed_over == [0, 1, 2, 3, 4, 5]
