"""The plant of the campaign: a broker, two machines that each run a whole `castline up`, a board with two belts, and cameras."""

from __future__ import annotations

import json
import mmap
import os
import secrets
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import psutil
import tomli_w

from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from firmware import toolchain
from models.registry import BUNDLED_VERSIONS
from streams.settings import Settings, load_settings
from tests.campaign.camera import Camera, CastingPictures
from tests.campaign.sandbox import MachineNetwork, run_tool
from tests.campaign.scene import BOARD_PORT, GATED_LINES, SPARE_LINE, SPEED_MM_S, TRAVEL_MM
from tests.processes import CASTLINE

_GATEWAY_PORT, _STATION_PORT = 18080, 18000
# Machine A holds the spool and the sorters' journal on a small disk, and the broker has one of its own.
SPOOL_DISK_MB, BROKER_DISK_MB = 64, 700
# An operating system starts a service that has died after this many seconds.
_SERVICE_RESTART_S = 0.3
_ROLES_OF_A = ("inspector", "gateway", "sorter", "archivist", "station")


class Service:
    """A process that is started again when it ends, as systemd does, until `stop` is called."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.starts = 0
        self._command = command
        self._log = log
        self._environment = environment
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The process id, or 0 while no process runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._log.open("ab") as log:
                # The kernel kills the process when this thread ends. So the thread only ends after the process.
                # A session of its own, as a service has it: Ctrl-C reaches only the campaign, which stops its services in order.
                self._process = subprocess.Popen(
                    bound_command(self._command), env=self._environment, stdout=log, stderr=log, start_new_session=True
                )
            self.starts += 1
            self._process.wait()
            self._stopping.wait(_SERVICE_RESTART_S)

    def stop(self, within_s: float = 60) -> None:
        """Stops the process with SIGTERM, and kills it if it still runs after `within_s` seconds."""
        self._stopping.set()
        if (process := self._process) is not None:
            with suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.wait(within_s)
            process.kill()
        self._thread.join()


class FaultFile:
    """The clock error and the slowness of the disk of one machine, which `machine_faults.c` reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)

    def set_clock_offset_s(self, seconds: float) -> None:
        self._memory[:8] = struct.pack("<q", int(seconds * 1e9))

    def set_flush_delay_s(self, seconds: float) -> None:
        self._memory[8:] = struct.pack("<q", int(seconds * 1e6))


class Machine:
    """One PC of the plant. Its process `castline up` runs in a network namespace of its own."""

    def __init__(self, name: str, folder: Path, network: MachineNetwork, roles: tuple[str, ...]) -> None:
        self.name = name
        self.folder = folder
        self.network = network
        self.roles = roles
        self.faults = FaultFile(folder / "faults")
        self.settings: Settings
        self.service: Service

    @property
    def settings_file(self) -> Path:
        return self.folder / "castline.toml"

    def write_settings(self, sections: Mapping[str, Any]) -> None:
        self.settings_file.write_text(tomli_w.dumps(sections))
        self.settings = load_settings(self.settings_file)

    def start(self, library: Path, *options: str) -> None:
        command = self.network.enter(str(CASTLINE), "--settings", str(self.settings_file), "up", *options)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
        environment |= {"LD_PRELOAD": str(library), "CAMPAIGN_FAULTS": str(self.faults.path)}
        self.service = Service(self.name, command, self.folder / "up.log", environment)

    def list_targets(self) -> list[dict[str, Any]]:
        """Returns the health pages of the running roles: `address`, and the labels `role`, `instance_name` and `pid`."""
        return list_targets(self.settings.service.run_dir)

    def find_pid(self, role: str) -> int:
        """Returns the process id of a role, or of the supervisor for `up`; 0 if it does not run."""
        if role == "up":
            return self.service.pid
        return next((int(target["pid"]) for target in self.list_targets() if target["role"] == role), 0)


def build_machine_faults(folder: Path) -> Path:
    """Compiles `machine_faults.c` into `folder`, and returns the library."""
    library = folder / "machine_faults.so"
    run_tool("gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(Path(__file__).with_name("machine_faults.c")), "-ldl")
    return library


def list_targets(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the health pages that the files in `run_dir` name, if the process of the page still runs."""
    targets = []
    for file in sorted((run_dir / "targets").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, psutil.Error):
            (entry,) = json.loads(file.read_text())
            # The file of a killed process stays, and its process id may belong to another program by now.
            if any(word.endswith("castline") for word in psutil.Process(int(entry["labels"]["pid"])).cmdline()):
                targets.append({"address": entry["targets"][0], **entry["labels"]})
    return targets


class Plant:
    """The whole plant in `folder`. Its truth goes to `castings.jsonl` and `uploads.jsonl` there."""

    def __init__(self, folder: Path, seed: int, rate_per_s: float) -> None:
        self.folder = folder
        self.seed = seed
        self._rate_per_s = rate_per_s
        self._token = secrets.token_hex(16)
        self.machines: Mapping[str, Machine] = MappingProxyType({})
        self.cameras: dict[str, Camera] = {}
        # Topic, partition and offset of the records that the campaign itself has written to Kafka.
        self.injected: set[tuple[str, int, int]] = set()
        self._stack = ExitStack()

    @property
    def broker_disk(self) -> Path:
        return self.folder / "broker-disk"

    @property
    def spool_disk(self) -> Path:
        return self.folder / "spool-disk"

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.broker_settings.broker.port}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            firmware = toolchain.build_firmware()
            assert firmware.exists()
            toolchain.build_runner()
            pictures = CastingPictures(self.seed)
            library = build_machine_faults(self.folder)
            for disk, size_mb in ((self.broker_disk, BROKER_DISK_MB), (self.spool_disk, SPOOL_DISK_MB)):
                disk.mkdir()
                run_tool("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(disk))
                stack.callback(run_tool, "umount", "--lazy", str(disk))
            self._start_broker(stack)
            self._start_machines(stack, library)
            self._start_world(stack, pictures)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def _start_broker(self, stack: ExitStack) -> None:
        folder = self.folder / "broker"
        folder.mkdir()
        file = folder / "castline.toml"
        sections = {
            "broker": {"port": free_ports(2), "data_dir": str(self.broker_disk / "kafka"), "access": "open", "heap_mb": 256},
            "service": {"machine": "broker", "run_dir": str(folder / "run"), "log_format": "text"},
            "lines": [{"name": line} for line in (*GATED_LINES, SPARE_LINE)],
        }
        file.write_text(tomli_w.dumps(sections))
        self.broker_settings = load_settings(file)
        self.broker = Service("broker", [str(CASTLINE), "--settings", str(file), "broker"], folder / "broker.log", os.environ)
        stack.callback(self.broker.stop)

    def _start_machines(self, stack: ExitStack, library: Path) -> None:
        machines = {}
        for number, (name, roles) in enumerate({"a": _ROLES_OF_A, "b": ("inspector",)}.items(), 1):
            folder = self.folder / name
            folder.mkdir()
            network = stack.enter_context(MachineNetwork(number, self.broker_settings.broker.port))
            machines[name] = Machine(name, folder, network, roles)
        self.machines = MappingProxyType(machines)
        a, b = machines["a"], machines["b"]
        a.write_settings(self._make_sections(a, [self._make_line(line) for line in GATED_LINES] + [{"name": SPARE_LINE}]))
        b.write_settings(self._make_sections(b, [{"name": line} for line in (*GATED_LINES, SPARE_LINE)]))
        for machine, options in ((a, ()), (b, ("--no-station",))):
            machine.start(library, *options)
            stack.callback(machine.service.stop)

    def _make_line(self, line: str) -> dict[str, Any]:
        gate = {
            "port": str(self.folder / BOARD_PORT),
            "lane": GATED_LINES.index(line) + 1,
            "travel_mm": int(TRAVEL_MM),
            "belt_mm_per_s": SPEED_MM_S,
        }
        # A picture waits longer for its part than usual, because the sorter's report comes late after a fault.
        camera = {"kind": "http", "trigger": "board", "latency_s": 0.02, "match_window_s": 5.0}
        return {"name": line, "token": self._token, "camera": camera, "gate": gate}

    def _make_sections(self, machine: Machine, lines: list[dict[str, Any]]) -> dict[str, Any]:
        folder, host = machine.folder, machine.network.host
        return {
            "kafka": {"bootstrap": self.bootstrap},
            "service": {"site": "campaign", "machine": machine.name, "host": host, "run_dir": str(folder / "run"), "log_format": "text"},
            "gateway": {"host": host, "port": _GATEWAY_PORT, "token": self._token, "spool_dir": str(self.spool_disk / "spool")},
            "sorter": {"journal_dir": str(folder / "journal")},
            "store": {"url": str(self.folder / "store")},
            "model": {"root": str(BUNDLED_VERSIONS), "version": "demo", "runtime": "openvino", "threads": 1},
            "inspector": {"localise": False},
            "station": {
                "host": host,
                "port": _STATION_PORT,
                "database": str(folder / "station.sqlite3"),
                "secret_key_file": str(folder / "station.key"),
            },
            "lines": lines,
        }

    def _start_world(self, stack: ExitStack, pictures: CastingPictures) -> None:
        url = f"http://{self.machines['a'].network.host}:{_GATEWAY_PORT}"
        uploads = stack.enter_context((self.folder / "uploads.jsonl").open("a"))
        for line in GATED_LINES:
            self.cameras[line] = stack.enter_context(Camera(line, f"{url}/lines/{line}/pictures", self._token, pictures, uploads))
        command = [sys.executable, "-m", "tests.campaign.world", str(self.folder), str(self._rate_per_s), str(self.seed)]
        log = stack.enter_context((self.folder / "world.log").open("ab"))
        pipe = subprocess.PIPE
        self._world = subprocess.Popen(bound_command(command), stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True)
        stack.callback(self._world.wait)
        stack.callback(self._world.kill)
        threading.Thread(target=self._pass_triggers, name="triggers", daemon=True).start()

    def _pass_triggers(self) -> None:
        assert self._world.stdout is not None
        for text in self._world.stdout:
            trigger = json.loads(text)
            self.cameras[trigger["line"]].trigger(trigger)

    def tell_world(self, command: str) -> None:
        """Sends `unplug`, `plug`, `reset` or `stop` to the world."""
        assert self._world.stdin is not None
        self._world.stdin.write(command + "\n")
        self._world.stdin.flush()

    def stop_world(self, within_s: float = 60) -> None:
        """Puts no more castings on the belts, and returns when the belts are empty."""
        self.tell_world("stop")
        self._world.wait(within_s)

    @property
    def is_world_running(self) -> bool:
        return self._world.poll() is None

    def list_broker_targets(self) -> list[dict[str, Any]]:
        return list_targets(self.broker_settings.service.run_dir)

    def find_broker_pids(self) -> list[int]:
        """Returns the process ids of the command `castline broker` and of Kafka's Java process, as far as they run."""
        if not (pid := self.broker.pid):
            return []
        with suppress(psutil.NoSuchProcess):
            return [pid, *(child.pid for child in psutil.Process(pid).children())]
        return []

    def list_processes(self) -> list[dict[str, Any]]:
        """Returns `machine`, `role`, `slot` and `pid` of each running process of the plant."""
        found = [
            {"machine": "broker", "role": "broker", "slot": f"broker-{number}", "pid": pid}
            for number, pid in enumerate(self.find_broker_pids(), 1)
        ]
        for machine in self.machines.values():
            if pid := machine.service.pid:
                found.append({"machine": machine.name, "role": "up", "slot": "up-1", "pid": pid})
            for target in machine.list_targets():
                found.append({"machine": machine.name, "role": target["role"], "slot": target["instance_name"], "pid": int(target["pid"])})
        return found

    def send_signal(self, pid: int, number: signal.Signals) -> None:
        """Sends a signal to a process of the plant, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def wait_for(self, condition: Callable[[], object], within_s: float, what: str) -> None:
        """Waits until `condition()` is true. Raises TimeoutError with `what` after `within_s` seconds."""
        give_up_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{what}: not within {within_s:.0f} s")
            time.sleep(0.2)
