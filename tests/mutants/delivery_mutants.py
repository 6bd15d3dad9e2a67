"""The mutants of the delivery: each of them could lose a record, send it twice, or confirm it too early."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_SORTER, _GATEWAY = "agents/sorter/", "agents/gateway/"
_JOURNAL = "tests/agents/sorter/test_journal.py"

DELIVERY_MUTANTS = (
    # From the board to the journal, and from the journal to Kafka
    Mutant(
        "journal not flushed to the disk", "streams/queue_file.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL", _JOURNAL
    ),
    Mutant(
        "report acknowledged before the journal has it",
        _SORTER + "sorter.py",
        "            is_on_disk = await self._store(sortings, counted, runs[-1] if runs else None, reported)\n",
        "            [self._lane.acknowledge_event(event.event, event.run) for event in events if isinstance(event, PartSorted)]\n"
        "            is_on_disk = await self._store(sortings, counted, runs[-1] if runs else None, reported)\n",
        _JOURNAL,
    ),
    Mutant(
        "journal's records removed before Kafka has them",
        _SORTER + "journal_sender.py",
        "                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])\n",
        "                await asyncio.to_thread(self._journal.remove_through, entries[-1].seq)\n"
        "                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])\n",
        _JOURNAL,
    ),
)
