"""Commands of people reach the board through the running sorter: by its socket and by Kafka, with a real broker and real processes."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner, Result
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from pydantic import SecretStr

from agents.sorter.command_socket import ask_sorter
from deploy.cli.main import castline
from deploy.supervisor.ports import free_ports
from streams.commands import SIGNATURE_HEADER, decode_command, make_command_record
from streams.identity import make_header_map
from streams.records import Command, make_command
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.processes import CastlineProcess, make_environment
from tests.wired_line import WiredLine, wait_until

LINE = "line-1"
KEY = "key of the plant, only for tests"


@dataclass
class RunningSorter:
    """A real sorter process at a simulated board with an empty belt. `settings` hold the key with which commands are signed."""

    settings: Settings
    line: WiredLine
    sorter: CastlineProcess

    def call(self, *arguments: str) -> Result:
        """Runs `castline board` with the settings of the sorter."""
        return CliRunner(env=make_environment(self.settings)).invoke(castline, ["board", *arguments], standalone_mode=False)

    def stop_belt(self, is_open: bool) -> None:
        self.line.line.board.lanes[0].change_estop(is_open, self.line.line.now_us)

    def oldest_fault(self) -> int:
        return self.line.line.board.lanes[0].faults.oldest

    def moves(self) -> int:
        """Returns how often the gate has left its rest position."""
        return self.line.line.board.lanes[0].gate.moves

    def raise_emergency_stop(self) -> None:
        """Opens and closes the emergency stop, which leaves fault 45."""
        self.stop_belt(True)
        wait_until(lambda: self.oldest_fault() == 45)
        self.stop_belt(False)


def write_secrets(folder: Path, **keys: str) -> Path:
    file = folder / "secrets.toml"
    file.write_text(tomli_w.dumps({"sorter": keys or {"command_key": KEY}}))
    return file


@pytest.fixture
def running(make_settings: MakeSettings, tmp_path: Path) -> Iterator[RunningSorter]:
    port = tmp_path / LINE
    settings = make_settings(
        lines=({"name": LINE, "gate": {"port": str(port), "travel_mm": 600, "belt_mm_per_s": 1000}},),
        gateway={"port": free_ports()},
        sorter={"command_key": KEY},
    )
    arguments = ("--settings", str(write_secrets(tmp_path)), "sorter", "--line", LINE)
    with ExitStack() as stack:
        line = stack.enter_context(WiredLine(port, parts=0))
        sorter = stack.enter_context(CastlineProcess(settings, tmp_path / "sorter.log", *arguments))
        yield RunningSorter(settings, line, sorter.wait_ready())


def test_a_fault_is_cleared_while_the_sorter_runs_and_the_board_is_not_reset(running: RunningSorter) -> None:
    board, run_dir = running.line.line.board, running.settings.service.run_dir
    first_run = board.run
    assert (run_dir / f"sorter-{LINE}.sock").stat().st_mode & 0o777 == 0o600
    running.stop_belt(True)
    wait_until(lambda: running.oldest_fault() == 45)
    assert running.call("status", "--line", LINE).return_value == 1
    assert "12 fault-present" in str(running.call("clear", "--line", LINE, "45").exception)
    assert "45 emergency-stop. Remove the cause" in str(running.call("acknowledge", "--line", LINE).exception)
    running.stop_belt(False)
    # The board believes the input only when it has been steady for some milliseconds.
    wait_until(lambda: "fault 45: cleared" in running.call("clear", "--line", LINE, "45").output)
    running.raise_emergency_stop()
    assert "have ended: 45 emergency-stop" in running.call("acknowledge", "--line", LINE).output
    assert running.oldest_fault() == 0
    # A gate that is still out does not leave its rest position again.
    wait_until(lambda: board.lanes[0].gate.pulse_us == 1000)
    moves = running.moves()
    assert "gate: done" in running.call("test", "gate", "--line", LINE).output
    wait_until(lambda: running.moves() == moves + 1)
    assert "eye_gap_mm = 600" in running.call("configure", "--line", LINE).output
    shown = running.call("monitor", "--once", "--port", running.settings.lines[0].gate.port).output  # type: ignore[union-attr]
    assert "fault 45 (emergency-stop) ended" in shown
    assert "eye 1 free" in shown
    assert board.run == first_run
    # The file of settings has changed since the start of the sorter.
    (line,) = running.settings.lines
    changed = line.model_copy(update={"gate": line.gate and line.gate.model_copy(update={"travel_mm": 650})})
    running.settings = running.settings.model_copy(update={"lines": (changed,)})
    assert "other settings than the file: eye_gap_mm. Restart the sorter" in str(running.call("configure", "--line", LINE).exception)


def test_a_socket_command_is_executed_once_and_never_late(running: RunningSorter) -> None:
    folder = running.settings.service.run_dir

    def outcome(command: Command) -> str:
        answered = ask_sorter(folder, command)
        assert answered is not None
        assert answered.answer is not None
        return answered.answer.outcome

    test = make_command(LINE, "test", "anna", 10, what="gate")
    assert [outcome(test), outcome(test)] == ["done", "refused"]
    old = datetime.now(UTC) - timedelta(seconds=30)
    assert (
        outcome(test.model_copy(update={"command_id": uuid.uuid4(), "asked_at": old, "valid_until": old + timedelta(seconds=20)}))
        == "expired"
    )
    future = datetime.now(UTC) + timedelta(seconds=30)
    late = {"command_id": uuid.uuid4(), "asked_at": future, "valid_until": future + timedelta(seconds=20)}
    assert outcome(test.model_copy(update=late)) == "refused"
    wait_until(lambda: running.line.line.board.lanes[0].gate.pulse_us == 1000)
    assert running.moves() == 1


def test_a_board_that_is_away_and_a_second_sorter_give_sentences_and_a_pause_outlives_the_sorter(
    running: RunningSorter, tmp_path: Path
) -> None:
    second = CastlineProcess(running.settings, tmp_path / "second.log", "sorter", "--line", LINE)
    assert second.process.wait(60) == 3
    assert "Another sorter of line-1 runs on this machine" in second.log()
    running.line.pull()
    wait_until(lambda: running.sorter.page("/readyz")[0] == 503)
    result = running.call("test", "gate", "--line", LINE)
    assert "There is no serial port" in str(result.exception)
    assert "Connect the board" in running.sorter.page("/readyz")[1]
    running.line.plug()
    running.sorter.wait_ready()
    assert "The gate of line-1 is running" in running.call("status", "--line", LINE).output
    assert running.moves() == 0
    # A pause lasts over a restart, until somebody resumes.
    assert "line-1 is paused" in running.call("pause", "--line", LINE).output
    running.sorter.kill()
    # At each stop of the unit, systemd deletes the folder service.run_dir.
    shutil.rmtree(running.settings.service.run_dir)
    running.sorter.start()
    running.sorter.wait_ready()
    assert "is paused: by " in running.call("status", "--line", LINE).output
    assert "not paused" in running.call("resume", "--line", LINE).output
    assert "is paused" not in running.call("status", "--line", LINE).output


def with_keys(settings: Settings, keys: dict[str, str]) -> Settings:
    secrets = {name: SecretStr(keys.get(name, "")) for name in ("command_key", "second_command_key")}
    return settings.model_copy(update={"sorter": settings.sorter.model_copy(update=secrets)})


@dataclass
class CommandClient:
    """Sends commands as the station does, and reads the topic `castings.commands` and the dead letters."""

    settings: Settings

    def send(self, command: Command, settings: Settings | None = None) -> None:
        record = make_command_record(settings or self.settings, command, "station")
        self.send_raw(record.key, record.value, record.headers)

    def send_raw(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap)
        producer.send(TopicNames(self.settings.topics.prefix).commands, value, key, headers).get(10)
        producer.close()

    def answers(self, to: str = "") -> list[Command]:
        """Returns the answers so far, or those to the command with the id `to`. Each has a valid signature."""
        topic = TopicNames(self.settings.topics.prefix).commands
        records = self._read([TopicPartition(topic, 0)])
        return [
            decode_command(self.settings, record.key, record.value, make_header_map(record.headers))
            for record in records
            if b'"answer":{' in (record.value or b"") and to.encode() in record.value
        ]

    def dead_letters(self) -> list[str]:
        """Returns the details of all dead letters with the reason `command`."""
        topic = TopicNames(self.settings.topics.prefix).dead_letters
        headers = [make_header_map(record.headers) for record in self._read([TopicPartition(topic, number) for number in range(4)])]
        return [header["dead-detail"].decode() for header in headers if header["dead-reason"] == b"command"]

    def _read(self, partitions: list[TopicPartition]) -> list[Any]:
        consumer = KafkaConsumer(bootstrap_servers=self.settings.bootstrap, enable_auto_commit=False)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        records: list[Any] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            records += [record for found in consumer.poll(timeout_ms=200).values() for record in found]
        consumer.close()
        return records


def wait_for(condition: Callable[[], object], within_s: float = 30) -> None:
    give_up_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.2)


def test_a_short_command_key_is_replaced_and_every_command_is_executed(running: RunningSorter, tmp_path: Path) -> None:
    new_key = "n" * 32
    short = {"command_key": "short", "second_command_key": new_key}
    steps = [short, {"command_key": new_key, "second_command_key": "short"}, {"command_key": new_key}]
    client = CommandClient(running.settings)
    for step, keys in enumerate(steps):
        write_secrets(tmp_path, **keys)
        running.sorter.stop()
        running.sorter.start()
        running.sorter.wait_ready()
        # The station can be one step behind the sorter or one step ahead.
        for of_station in steps[max(0, step - 1) : step + 2]:
            client.settings = with_keys(running.settings, of_station)
            command = make_command(LINE, "status", "anna", 10)
            client.send(command)
            wait_for(partial(client.answers, str(command.command_id)))
            (answered,) = client.answers(str(command.command_id))
            assert answered.answer is not None
            assert answered.answer.outcome == "done"
    assert client.dead_letters() == []
    client.send(make_command(LINE, "status", "mallory", 10), with_keys(running.settings, short))
    wait_for(lambda: len(client.dead_letters()) == 1)


def test_commands_on_kafka_are_executed_at_most_once_and_forged_ones_become_dead_letters(running: RunningSorter) -> None:
    client = CommandClient(running.settings)
    running.raise_emergency_stop()
    acknowledge = make_command(LINE, "acknowledge", "anna", 10)
    client.send(acknowledge)
    wait_for(lambda: len(client.answers()) == 1)
    (answer,) = client.answers()
    assert (answer.command_id, answer.answer and answer.answer.outcome) == (acknowledge.command_id, "done")
    assert running.oldest_fault() == 0
    moves = running.moves()
    swing = make_command(LINE, "test", "anna", 30, what="gate")
    client.send(make_command(LINE, "test", "mallory", 30, what="gate"), with_keys(running.settings, {"command_key": "wrong"}))
    signed = make_command_record(running.settings, swing, "station")
    unsigned = [header for header in signed.headers if header[0] != SIGNATURE_HEADER]
    client.send_raw(signed.key, signed.value, unsigned)
    client.send_raw(b"line-2", signed.value, signed.headers)
    client.send_raw(signed.key, b"{", signed.headers)
    for _ in range(3):
        client.send(swing)
    wait_for(lambda: len(client.answers()) == 2 and len(client.dead_letters()) == 4)
    wait_until(lambda: running.moves() == moves + 1)
    # A sorter that is killed and started again does not execute the command again, although the command is still valid.
    running.sorter.kill()
    missed = make_command(LINE, "test", "anna", 30, what="gate")
    client.send(missed)
    running.sorter.start()
    running.sorter.wait_ready()
    client.send(swing)
    wait_for(lambda: len(client.answers()) == 3)
    assert client.answers()[-1].command_id == missed.command_id
    assert client.answers()[-1].answer.outcome == "expired"  # type: ignore[union-attr]
    last = make_command(LINE, "status", "anna", 10)
    client.send(last)
    wait_for(lambda: client.answers()[-1].command_id == last.command_id)
    assert running.moves() == moves + 1
    assert json.loads(client.answers()[-1].encode())["answer"]["values"]["gate"]["moves"] == moves + 1
