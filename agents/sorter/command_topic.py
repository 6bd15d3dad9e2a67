"""Reads the commands of the station from `castings.commands`, and writes the sorter's answers there.

Commands that were on the topic before the sorter started are never executed, because an earlier sorter can have executed them.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from agents.sorter.line_commands import LineCommands
from streams import metrics
from streams.commands import decode_command, make_command_record
from streams.errors import RecordError
from streams.identity import make_header_map
from streams.kafka import make_reader
from streams.kafka_thread import KafkaThread
from streams.operating_system import SYSTEM, OperatingSystem
from streams.record_producer import HANDLING_FAILED, ConsumedRecord, RecordProducer, make_dead_letter
from streams.records import Command, CommandAnswer, make_answer
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

ROLE = "sorter"
_POLL_MS = 200
# The sorter reads no further commands while its unfinished records take more memory than this. The memory of a record is estimated as the
# size of the record plus _RECORD_OVERHEAD_BYTES.
_MAX_OPEN_BYTES = 8 * 2**20
_RECORD_OVERHEAD_BYTES = 4096


class CommandTopic:
    """Executes the commands on the topic that are for the lines of this sorter. `start` must be called in the event loop.

    `open_reader` opens a consumer of Kafka.
    """

    def __init__(
        self,
        settings: Settings,
        commands: Mapping[str, LineCommands],
        producers: Mapping[str, RecordProducer],
        open_reader: Callable[..., Any] = make_reader,
        system: OperatingSystem = SYSTEM,
    ) -> None:
        self._settings = settings
        self._open_reader = open_reader
        self._commands = commands
        self._producers = producers
        self._names = TopicNames(settings.topics.prefix)
        # All sorters read a command for an unknown line, but only one of them must write its dead letter. This is the sorter of the first
        # line with a gate.
        gated = [line.name for line in settings.lines if line.gate is not None]
        self._lines_with_gate, self._reports_unknown = set(gated), bool(gated) and gated[0] in commands
        self._loop = asyncio.get_running_loop()
        # The records that the event loop has not finished yet, each with its estimated memory in bytes.
        self._open: dict[Future[None], int] = {}
        # Ids of the commands that were already answered when the sorter started.
        self._answered: frozenset[uuid.UUID] = frozenset()
        self._next_offset: int | None = None
        failure = f"Commands from the station cannot be read from {self._names.commands}."
        self._thread = KafkaThread("commands", self._follow, failure, system)

    def start(self) -> None:
        """Starts the thread that reads the topic."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._thread.stop()

    def _follow(self) -> None:
        """Follows the topic until `stop` is called. Raises KafkaError or OSError if Kafka fails."""
        consumer = self._open_reader(self._settings, "commands", auto_offset_reset="earliest")
        try:
            partition = TopicPartition(self._names.commands, 0)
            if not consumer.partitions_for_topic(partition.topic):
                raise KafkaError('The topic does not exist. Create it with "castline topics create"')
            consumer.assign([partition])
            if self._next_offset is None:
                end = self._read_history(consumer, partition)
                self._next_offset = end
            consumer.seek(partition, self._next_offset)
            self._thread.report_success()
            while not self._thread.is_stopping:
                for record in consumer.poll(timeout_ms=_POLL_MS).get(partition, ()):
                    self._next_offset = record.offset + 1
                    self._hand_over(_consumed(record), False)
        finally:
            consumer.close()

    def _read_history(self, consumer: Any, partition: TopicPartition) -> int:
        """Handles the records that were on the topic at the start. Returns the offset of the next record."""
        end: int = consumer.end_offsets([partition])[partition]
        # The topic is read twice: first to find the commands that have an answer, then to handle the records. The records are not kept in
        # memory between the two readings, because they can be large.
        answers = (command for _, command in self._read_commands(consumer, partition, end) if command.answer is not None)
        self._answered = frozenset(command.command_id for command in answers)
        for record, _ in self._read_commands(consumer, partition, end):
            self._hand_over(record, True)
        return end

    def _read_commands(self, consumer: Any, partition: TopicPartition, end: int) -> Iterator[tuple[ConsumedRecord, Command]]:
        """Yields the valid records of the topic before the offset `end`, each with its command."""
        consumer.seek_to_beginning(partition)
        while consumer.position(partition) < end and not self._thread.is_stopping:
            for polled in consumer.poll(timeout_ms=_POLL_MS).get(partition, ()):
                record = _consumed(polled)
                if record.offset < end and (command := self._decode(record)) is not None:
                    yield record, command

    def _hand_over(self, record: ConsumedRecord, is_old: bool) -> None:
        """Starts to handle a record in the event loop. Then waits while the unfinished records take more memory than _MAX_OPEN_BYTES."""
        handling = asyncio.run_coroutine_threadsafe(self._handle(record, is_old), self._loop)
        handling.add_done_callback(_log_failure)
        self._open[handling] = len(record.value or b"") + _RECORD_OVERHEAD_BYTES
        while not self._thread.is_stopping:
            for done in [handling for handling in self._open if handling.done()]:
                del self._open[done]
            if sum(self._open.values()) <= _MAX_OPEN_BYTES:
                return
            wait(self._open, timeout=_POLL_MS / 1000, return_when=FIRST_COMPLETED)

    def _decode(self, record: ConsumedRecord) -> Command | None:
        try:
            return decode_command(self._settings, record.key, record.value, record.headers)
        except RecordError:
            return None

    # The methods below run in the event loop.

    async def _handle(self, record: ConsumedRecord, is_old: bool) -> None:
        line = (record.key or b"").decode(errors="replace")
        commands = self._commands.get(line)
        try:
            command = decode_command(self._settings, record.key, record.value, record.headers)
            if line not in self._lines_with_gate:
                raise RecordError("other-line", f"No line with a gate has the name {line[:80]!r}.")
            await self._obey(command, commands, is_old)
        except RecordError as error:
            if commands is not None or (self._reports_unknown and line not in self._lines_with_gate):
                await self._write_dead_letter(record, "command", str(error))
        except Exception as error:
            log.exception("The sorter failed to execute a command, which becomes a dead letter.")
            await self._write_dead_letter(record, HANDLING_FAILED, f"The sorter failed on the command: {error!r}")

    async def _obey(self, command: Command, commands: LineCommands | None, is_old: bool) -> None:
        """Executes and answers a command. Ignores answers, commands for other sorters, and commands that were executed before."""
        if commands is None or command.answer is not None:
            return
        if is_old:
            commands.add_known(command)
            if command.command_id in self._answered:
                return
            sentence = "The command was not executed now, because it was sent before this sorter started. Send the command again."
            await self._answer(command, make_answer("expired", sentence))
        elif not commands.is_known(command):
            await self._answer(command, await commands.execute(command))
        else:
            log.warning("%s: a repeated command %s is ignored", command.line, command.command_id)

    async def _answer(self, command: Command, answer: CommandAnswer) -> None:
        record = make_command_record(self._settings, command.model_copy(update={"answer": answer}), ROLE)
        await self._producers[command.line].deliver([record])

    async def _write_dead_letter(self, record: ConsumedRecord, reason: str, detail: str) -> None:
        line = next(iter(self._commands))
        log.warning("A record on %s becomes a dead letter: %s", record.topic, detail)
        metrics.dead_letters.labels(line, reason).inc()
        await self._producers[line].deliver([make_dead_letter(self._names.dead_letters, record, ROLE, reason, detail)])


def _consumed(record: Any) -> ConsumedRecord:
    return ConsumedRecord(record.topic, record.partition, record.offset, record.key, record.value, make_header_map(record.headers))


def _log_failure(handling: Future[None]) -> None:
    if not handling.cancelled() and (error := handling.exception()) is not None:
        log.error("A record on the topic of commands was not handled.", exc_info=error)
