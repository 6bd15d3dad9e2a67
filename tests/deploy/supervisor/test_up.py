"""`castline up`: the example's two lines, moved to free ports and folders, with simulated boards on their serial ports."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
from kafka import KafkaConsumer, TopicPartition

from deploy.supervisor import RestartPolicy
from deploy.supervisor.plant_roles import plant_roles
from deploy.supervisor.ports import free_ports
from models.registry import BUNDLED_VERSIONS
from models.synthetic import write_castings
from streams.kafka import make_client_arguments
from streams.settings import load_settings

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CASTLINE = Path(sys.executable).with_name("castline")
EXAMPLE = Path(__file__).parents[3] / "deploy" / "packaging" / "example" / "castline.toml"


def adapted(folder: Path) -> dict[str, Any]:
    """The example on this machine: its own folders, free ports, pictures replayed as the boards count, the project's weights."""
    values = tomllib.loads(EXAMPLE.read_text())
    values["broker"] |= {"port": free_ports(2), "data_dir": str(folder / "kafka")}
    values["service"]["run_dir"] = str(folder / "run")
    values["store"]["url"] = str(folder / "store")
    values.setdefault("sorter", {})["journal_dir"] = str(folder / "journal")
    values["gateway"] |= {"port": free_ports(), "spool_dir": str(folder / "spool")}
    values["inspector"]["localiser_niceness"] = 0
    # With LiteRT, neither the inspector nor the localiser imports TensorFlow.
    values["model"] = {"root": str(BUNDLED_VERSIONS), "version": "demo", "runtime": "litert"}
    values["station"] |= {"port": 0, "database": str(folder / "station.sqlite3"), "secret_key_file": str(folder / "station.key")}
    for line in values["lines"][:2]:
        line["camera"] = {"kind": "folder", "path": str(folder / "castings"), "trigger": "board", "match_window_s": 15}
        line["gate"]["port"] = str(folder / f"board-{line['name']}")
    return values


class Up:
    """`castline up` on settings in `folder`, its output in a file."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = folder / "castline.toml"
        self.settings.write_text(tomli_w.dumps(values))
        self.output = folder / "up.txt"
        self.process = self.start("up")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.output.open("a") as output:
            command = [sys.executable, str(CASTLINE), "--settings", str(self.settings), *arguments]
            return subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder, start_new_session=True)

    @property
    def log_text(self) -> str:
        return self.output.read_text()

    def wait_until(self, done: Callable[[], bool], within_s: float = 120) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert self.process.poll() is None, self.log_text
            assert time.monotonic() < end, self.log_text
            time.sleep(0.2)

    def records(self, topic: str) -> int:
        consumer = KafkaConsumer(**make_client_arguments(load_settings(self.settings), "test"), group_id=None)
        try:
            return int(consumer.end_offsets([TopicPartition(topic, 0)])[TopicPartition(topic, 0)])
        finally:
            consumer.close()

    def pid_of(self, instance: str) -> int:
        (target,) = json.loads((self.folder / "run" / "targets" / f"{instance}.json").read_text())
        return int(target["labels"]["pid"])

    def leaves_nothing(self, *but: subprocess.Popen[bytes]) -> bool:
        expected = {process.pid for process in but}
        named = [process for process in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(process.info["cmdline"] or ())]
        _, alive = psutil.wait_procs([process for process in named if process.pid not in expected], timeout=15)
        return not alive


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to be ended with the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_the_examples_two_lines_run_recover_and_stop(tmp_path: Path, running: list[subprocess.Popen[bytes]]) -> None:
    write_castings(tmp_path / "castings", 12, seed=3)
    up = Up(tmp_path, adapted(tmp_path))
    running.append(up.process)
    # The boards are plugged in late: the sorters wait for them.
    up.wait_until(lambda: "sorter line-2 started" in up.log_text)
    assert "line-1: there is no board at" in up.log_text
    boards = [up.start("board", "simulate", "--line", line, "--rate", "1") for line in ("line-1", "line-2")]
    running += boards
    up.wait_until(lambda: "all processes are ready; lines: line-1, line-2, uploads" in up.log_text)
    up.wait_until(lambda: all(up.records(f"castings.sorted.{line}") >= 3 for line in ("line-1", "line-2")))

    # The example has no gateway.token, so gateway and sorters made one.
    assert "answered 401" not in up.log_text

    os.kill(up.pid_of("gateway-1"), signal.SIGKILL)
    up.wait_until(lambda: up.log_text.count("gateway ready") == 2)
    seen = up.records("castings.verdicts.line-1")
    up.wait_until(lambda: up.records("castings.verdicts.line-1") > seen + 1)

    second = subprocess.run(
        [sys.executable, str(CASTLINE), "--settings", str(up.settings), "up"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert second.returncode == 3
    assert "Another `castline up` runs" in second.stderr

    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(90) == 0, up.log_text
    stopped = [line.split()[3] for line in up.log_text.splitlines() if " stopped, " in line]
    assert stopped[0] == "gateway"
    assert stopped[1] == "inspector-1"
    assert set(stopped[-3:-1]) == {"archivist", "station"}
    assert stopped[-1] == "broker"
    # On a busy machine the localiser may not end in time, because it has the lowest priority. Then it is killed, which loses nothing.
    killed = [line for line in up.log_text.splitlines() if "is killed" in line]
    assert [line for line in killed if "localiser" not in line] == []
    assert up.leaves_nothing(*boards)


def test_a_killed_up_leaves_no_process(tmp_path: Path, running: list[subprocess.Popen[bytes]]) -> None:
    write_castings(tmp_path / "castings", 2, seed=3)
    up = Up(tmp_path, adapted(tmp_path))
    running.append(up.process)
    up.wait_until(lambda: "topics done" in up.log_text)
    up.process.kill()
    up.process.wait()
    assert up.leaves_nothing()


def refused(folder: Path, values: dict[str, Any]) -> str:
    (folder / "castline.toml").write_text(tomli_w.dumps(values))
    found = subprocess.run([sys.executable, str(CASTLINE), "up"], capture_output=True, text=True, check=False, cwd=folder, timeout=60)
    assert found.returncode == 3, found.stdout + found.stderr
    return found.stderr


def test_settings_without_a_line_are_refused(tmp_path: Path) -> None:
    assert "The settings define no production line" in refused(tmp_path, {})


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    values = adapted(tmp_path)
    values["inspector"]["localiser_niceness"] = 0
    values["model"] = {"root": str(tmp_path / "models"), "version": "line-a"}
    assert f"There is no version 'line-a' in {tmp_path / 'models'}" in refused(tmp_path, values)


def test_an_embedded_broker_with_tls_is_refused(tmp_path: Path) -> None:
    values = adapted(tmp_path)
    values["kafka"]["security"] = "tls"
    assert "kafka.security is tls, but the embedded broker protects its connections itself" in refused(tmp_path, values)


def test_a_foreign_data_folder_ends_it_with_the_brokers_sentence(tmp_path: Path) -> None:
    values = adapted(tmp_path)
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "holiday.txt").write_text("not Kafka's")
    assert "holds files that are not the data of a broker" in refused(tmp_path, values)


def test_the_service_unit_runs_up_and_waits_longer_than_all_graces(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(Path(__file__).parents[3] / "deploy" / "packaging" / "systemd" / "castline.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith("castline --settings /etc/castline/castline.toml up")
    # The graces of what is stopped one after the other, in the example's settings.
    file = tmp_path / "castline.toml"
    file.write_text(EXAMPLE.read_text())
    roles = plant_roles(file, load_settings(file, {}), 1, RestartPolicy())
    graces = {stops: max(role.grace_s for role in roles if role.stop_order == stops) for stops in {role.stop_order for role in roles}}
    assert int(service["TimeoutStopSec"]) > sum(graces.values())
    # Exit statuses that no restart mends.
    assert service["RestartPreventExitStatus"].split() == ["2", "3"]


def test_a_sorter_waits_for_gateway_and_inspectors_but_not_for_archivist_and_station(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text(EXAMPLE.read_text())
    stages = {role.name: role.stage for role in plant_roles(file, load_settings(file, {}), 1, RestartPolicy())}
    sorter = min(stage for name, stage in stages.items() if name.startswith("sorter"))
    assert max(stages["gateway"], stages["inspector-1"]) < sorter
    assert stages["archivist"] == stages["station"] == sorter
