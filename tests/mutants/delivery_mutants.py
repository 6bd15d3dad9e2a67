"""The mutants of the delivery: each of them could lose a record, send it twice, or confirm it too early."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_PRODUCER, _REDRIVE = "streams/record_producer.py", "deploy/cli/dead_letter_redrive.py"
_INSPECTOR, _ARCHIVIST, _LOCALISER = "agents/inspector/inspector.py", "agents/archivist/archivist.py", "agents/localiser/localiser.py"
_GATEWAY, _SORTER = "agents/gateway/", "agents/sorter/"

_ACKNOWLEDGEMENTS = "tests/agents/test_acknowledgements.py"
_TEST_KILLS = "tests/plant/test_kills_between_steps.py"
_TEST_PRODUCER = "tests/streams/test_record_producer.py"
_TEST_JOURNAL = "tests/agents/sorter/test_journal.py"
_TEST_RECORDER = "tests/agents/sorter/test_outage_recorder.py"
_TEST_COMMIT = "tests/agents/gateway/test_spool.py"
_TEST_SENDER = "tests/agents/gateway/test_sender.py"
_TEST_RECORDS = "tests/agents/sorter/test_sorter_records.py"
_TEST_HOURS = "tests/streams/test_simulated_hours.py"

DELIVERY_MUTANTS = (
    # The producer of every role
    Mutant(
        "records given up after the first try",
        _PRODUCER,
        "            await asyncio.sleep(wait_s)\n",
        "            return replaced\n",
        _TEST_PRODUCER,
    ),
    Mutant(
        "delivery ends before Kafka's confirmation",
        _PRODUCER,
        "await asyncio.gather(*(confirmation for _, confirmation in sent), return_exceptions=True)",
        "[None for _ in sent]",
        _TEST_PRODUCER,
    ),
    Mutant(
        "confirmed records sent again after a failure",
        _PRODUCER,
        "        attempt.unconfirmed = failed + attempt.unconfirmed\n",
        "        attempt.unconfirmed = ([record for record, _ in sent] if attempt.error else []) + attempt.unconfirmed\n",
        _TEST_PRODUCER,
    ),
    Mutant(
        "failed record overtaken by later records",
        _PRODUCER,
        "attempt.unconfirmed = failed + attempt.unconfirmed",
        "attempt.unconfirmed = attempt.unconfirmed + failed",
        _TEST_PRODUCER,
    ),
    Mutant(
        "unknown error taken for a confirmation",
        _PRODUCER,
        "            elif isinstance(result, BaseException):\n                raise result\n",
        "",
        _TEST_PRODUCER,
    ),
    Mutant(
        "refused record gets no dead letter",
        _PRODUCER,
        "                letters.append(self._make_letter_of_refused(record, error))\n",
        "",
        _TEST_PRODUCER,
    ),
    # The worker
    Mutant(
        "producer does not wait for the brokers",
        "streams/worker.py",
        "producer_acks=-1",
        "producer_acks=0",
        "tests/plant/test_paused_broker.py",
    ),
    Mutant(
        "record acknowledged when the next record is read",
        "streams/worker.py",
        "            unacknowledged = stream.noack()\n",
        "            unacknowledged = stream\n",
        _TEST_KILLS,
    ),
    Mutant(
        "group without a commit starts at the end",
        "streams/consumed_offsets.py",
        "    if committed is None:\n        return StartOffset(log_start, 0, False)\n",
        "    if committed is None:\n        return StartOffset(log_end, 0, False)\n",
        "tests/streams/test_consumed_offsets.py -k oldest_record",
    ),
    Mutant(
        "expired records not reported",
        "streams/consumed_offsets.py",
        "max(0, log_start - committed), False)",
        "0, False)",
        "tests/streams/test_consumed_offsets.py -k oldest_record",
    ),
    Mutant(
        "refused commit taken as done",
        "streams/consumed_offsets.py",
        "            offsets.clear()\n",
        "            pass\n",
        _TEST_HOURS,
    ),
    Mutant(
        "records fetched during a seek are lost",
        "streams/consumed_offsets.py",
        "        self.stop_flow()\n",
        "",
        _TEST_HOURS,
    ),
    # The inspector
    Mutant(
        "picture acknowledged before its verdict is confirmed",
        _INSPECTOR,
        "                refused = await self._producer.deliver([*sent, *self._make_dead_letters(batch)])\n",
        "                [await record.received.acknowledge() for record in batch.records]\n"
        "                refused = await self._producer.deliver([*sent, *self._make_dead_letters(batch)])\n",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "picture acknowledged before its dead letter is confirmed",
        _INSPECTOR,
        "                refused = await self._producer.deliver([*sent, *self._make_dead_letters(batch)])\n",
        "                refused = await self._producer.deliver(sent)\n"
        "                self.letters = asyncio.create_task(self._producer.deliver(self._make_dead_letters(batch)))\n",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "expired pictures committed before their dead letter",
        _INSPECTOR,
        "await self._producer.deliver([replace(letter, headers=[*letter.headers, (EXPIRED_HEADER, str(expired.count).encode())])])",
        "self.report = asyncio.create_task(self._producer.deliver([letter]))",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "batch acknowledged before an earlier batch",
        _INSPECTOR,
        "            batch = await judging\n",
        "            if not judging.done() and await asyncio.sleep(0, result=True):\n"
        "                await self._deliveries.put(judging)\n"
        "                continue\n"
        "            batch = await judging\n",
        _ACKNOWLEDGEMENTS,
    ),
    # The archivist
    Mutant(
        "record acknowledged before the database has it",
        _ARCHIVIST,
        "            dead_letters += await self._archive_isolated(valid)\n",
        "            [await record.received.acknowledge() for record in pending]\n"
        "            dead_letters += await self._archive_isolated(valid)\n",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "database given up after the first try",
        _ARCHIVIST,
        "                if not error.retriable:\n                    raise\n",
        "                raise\n",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "archivist acknowledges before the dead letter",
        _ARCHIVIST,
        "                await self._producer.deliver(dead_letters)\n",
        "                self.letters = asyncio.create_task(self._producer.deliver(dead_letters))\n",
        _ACKNOWLEDGEMENTS,
    ),
    # The localiser
    Mutant(
        "finding not awaited before the acknowledgement",
        _LOCALISER,
        "        await self._deliver(verdict, finding)\n",
        "        self.delivery = asyncio.create_task(self._deliver(verdict, finding))\n",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "verdict acknowledged past an unfinished verdict",
        _LOCALISER,
        "        while waiting and waiting[0].is_finished:\n            first = waiting.popleft()\n",
        "        for first in [each for each in waiting if each.is_finished]:\n            waiting.remove(first)\n",
        _ACKNOWLEDGEMENTS,
    ),
    # From Kafka to the board
    Mutant(
        "verdict acknowledged before the board has it",
        _SORTER + "sorter.py",
        "            if not await handling:\n                break\n",
        "",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "verdict acknowledged past an earlier verdict",
        _SORTER + "sorter.py",
        "            received, handling = pair\n",
        "            received, handling = pair\n"
        "            if not handling.done() and await asyncio.sleep(0, result=True):\n"
        "                await self._accepted.put(pair)\n"
        "                continue\n",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "stopping sorter acknowledges a verdict that was not sent",
        _SORTER + "sorter.py",
        "refusal is None or (refusal.error.code != _STOPPING and await self._record_refusal(refusal))",
        "refusal is None or await self._record_refusal(refusal)",
        _ACKNOWLEDGEMENTS,
    ),
    Mutant(
        "sorter acknowledges before the dead letter",
        _SORTER + "sorter.py",
        "        await self._producer.deliver([make_dead_letter(self._names.dead_letters, record, ROLE, reason, detail)])\n",
        "        letter = make_dead_letter(self._names.dead_letters, record, ROLE, reason, detail)\n"
        "        self.letter = asyncio.create_task(self._producer.deliver([letter]))\n",
        _ACKNOWLEDGEMENTS,
    ),
    # From the board to the journal, and from the journal to Kafka
    Mutant(
        "journal not flushed to the disk",
        "streams/queue_file.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
        _TEST_JOURNAL,
    ),
    Mutant(
        "report acknowledged before the journal has it",
        _SORTER + "sorter.py",
        "            is_on_disk = await self._store(sortings, counted, runs[-1] if runs else None, reported)\n",
        "            [self._lane.acknowledge_event(event.event, event.run) for event in events if isinstance(event, PartSorted)]\n"
        "            is_on_disk = await self._store(sortings, counted, runs[-1] if runs else None, reported)\n",
        _TEST_JOURNAL,
    ),
    Mutant(
        "full disk: report acknowledged before Kafka has it",
        _SORTER + "journal_sender.py",
        "                await self._producer.deliver([self._make_record(sorting) for sorting in sortings])\n",
        "                self.direct = asyncio.create_task(self._producer.deliver([self._make_record(sorting) for sorting in sortings]))\n",
        _TEST_JOURNAL,
    ),
    Mutant(
        "full disk: record overtakes the journal",
        _SORTER + "journal_sender.py",
        "                await self._is_empty.wait()\n",
        "",
        _TEST_JOURNAL,
    ),
    Mutant(
        "journal's records removed before Kafka has them",
        _SORTER + "journal_sender.py",
        "                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])\n",
        "                await asyncio.to_thread(self._journal.remove_through, entries[-1].seq)\n"
        "                await self._producer.deliver([self._make_record(entry.sorting) for entry in entries])\n",
        _TEST_JOURNAL,
    ),
    Mutant(
        "records of an earlier process not sent",
        _SORTER + "journal_sender.py",
        "        self._has_records.set()\n\n    async def store(",
        "\n    async def store(",
        _TEST_JOURNAL,
    ),
    Mutant(
        "part report forgotten because the disk is full",
        _SORTER + "sorter.py",
        "                self._reports.put_back(reported)\n",
        "                pass\n",
        _TEST_JOURNAL,
    ),
    Mutant(
        "part report given up after the first try",
        _SORTER + "part_reports.py",
        "                if is_final:\n                    break\n",
        "                break\n",
        "tests/agents/sorter/test_part_reports.py",
    ),
    Mutant(
        "outage: report acknowledged before the journal has it",
        _SORTER + "outage_recorder.py",
        "                self._record_part(event)\n",
        "                self.lane.acknowledge_event(event.event, event.run)\n                self._record_part(event)\n",
        _TEST_RECORDER,
    ),
    Mutant(
        "outage: report acknowledged although the disk is full",
        _SORTER + "outage_recorder.py",
        "                self.lane.forget_event(event.event, event.run)\n            return\n",
        "                self.lane.forget_event(event.event, event.run)\n",
        _TEST_RECORDER,
    ),
    # The gateway
    Mutant(
        "camera's receipt before the flush",
        _GATEWAY + "spool.py",
        "        try:\n            self._spool.flush()\n",
        "        [on_flushed(None) for _, on_flushed in group]\n        try:\n            self._spool.flush()\n",
        _TEST_COMMIT,
    ),
    Mutant(
        "camera's receipt although the flush failed",
        _GATEWAY + "spool.py",
        "            failure = error\n",
        "            pass\n",
        _TEST_COMMIT,
    ),
    Mutant(
        "spool not flushed to the disk",
        _GATEWAY + "spool.py",
        "        os.fdatasync(self._write_ahead_file)\n",
        "        pass\n",
        "tests/agents/gateway/test_power_cut.py -k 'without'",
    ),
    Mutant(
        "picture deleted from the spool when it is sent",
        _GATEWAY + "sender.py",
        "            self._last_seq = picture.seq\n",
        "            self._last_seq = picture.seq\n            self._spool.remove([picture.seq])\n",
        _TEST_SENDER,
    ),
    Mutant(
        "picture deleted from the spool although Kafka failed",
        _GATEWAY + "sender.py",
        "[result.sent for result in results if result.error is None]",
        "[result.sent for result in results]",
        _TEST_SENDER,
    ),
    Mutant(
        "picture not sent again after a failure",
        _GATEWAY + "sender.py",
        "        if temporary_error is not None:\n            raise ChannelUnavailableError(",
        "        if temporary_error is not None:\n            ChannelUnavailableError(",
        _TEST_SENDER,
    ),
    Mutant(
        "single broker does not flush its records",
        "streams/topics.py",
        '{"flush.messages": "1"} if topics.replication == 1 else {}',
        "{}",
        "tests/agents/gateway/test_power_cut.py -k broker",
    ),
    # The whole way of a casting
    Mutant(
        "refused picture gets another part when it is sent again",
        _GATEWAY + "intake.py",
        "        return receipt if sha256 == pending.picture.sha256 else None\n",
        "        return None\n",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "repeat of a picture that waits for its part is its rival",
        _GATEWAY + "intake.py",
        "        if is_first:\n",
        "        if is_first or pending:\n",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "copy without key and time takes the part of a later casting",
        _GATEWAY + "intake.py",
        "        if not is_copy:\n",
        "        if not is_copy or pending:\n",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "copy after a restart takes the part of a later casting",
        _GATEWAY + "intake.py",
        "                self._untimed[key or _make_copy_key(sha256), sha256] = None\n",
        "                pass\n",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "copy of an abandoned picture takes the part of a later casting",
        _GATEWAY + "intake.py",
        "            self._note_arrival(*self._check_time(frame), frame.abandoned_sha256)\n",
        "",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "copy of a picture refused before its part report takes the part of a later casting",
        _GATEWAY + "intake.py",
        "            if pending.arrived_at is not None and not is_matched:\n",
        "            if pending.arrived_at is not None and not pending:\n",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "copy of a picture abandoned before a stop takes the part of a later casting",
        _GATEWAY + "intake.py",
        "            self._store_refused_checksums()\n",
        "            pass\n",
        "tests/agents/gateway/test_intake.py",
    ),
    Mutant(
        "copy of an upload abandoned many times takes the part of a later casting",
        _GATEWAY + "upload_camera.py",
        "            for surplus in copies[1:] or abandoned[_MAX_ABANDONED:]:\n",
        "            for surplus in abandoned[:-_MAX_ABANDONED]:\n",
        "tests/agents/gateway/test_upload_camera.py",
    ),
    Mutant(
        "reset closes parts that were counted after it",
        _SORTER + "sorter.py",
        "            keys = [key for key in self._ended_parts.pop(event.run, []) if self._states.last_sorting(*key) is None]\n",
        "            keys = self._states.unrecorded_parts(event.run)\n",
        _TEST_RECORDS,
    ),
    Mutant(
        "refused verdict recorded before the report of its part",
        _SORTER + "sorter.py",
        " and key not in self._reported:\n            await",
        ":\n            await",
        _TEST_RECORDS,
    ),
    Mutant(
        "late verdict recorded before the report of its part",
        _SORTER + "sorter.py",
        "        return any(run == key[0] and part <= key[1] for run, part in self._reported)\n",
        "        return False\n",
        _TEST_RECORDS,
    ),
    Mutant(
        "record of the outage recorder stays without its verdict",
        _SORTER + "sorter.py",
        "        await self._name_obeyed_verdicts()\n",
        "",
        _TEST_RECORDS,
    ),
    # The redrive of dead letters
    Mutant(
        "mark of a redrive before the record is confirmed",
        _REDRIVE,
        "            to = self._confirm(letter.topic, original.key, original.value, headers)\n            self._mark(letter, _SENT, to)\n",
        "            self._mark(letter, _SENT)\n            to = self._confirm(letter.topic, original.key, original.value, headers)\n",
        "tests/deploy/cli/test_dead_letters.py",
    ),
    Mutant(
        "redrive begins without a mark",
        _REDRIVE,
        "            self._mark(letter, _BEGUN)\n",
        "            pass\n",
        "tests/deploy/cli/test_dead_letters.py",
    ),
)
