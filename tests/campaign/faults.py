"""The faults of the campaign. Each one knows how it begins and how it ends, and leaves nothing behind after its end."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, ClassVar

import psutil
import requests
from kafka.errors import KafkaError

from tests.campaign.plant import Machine, Plant
from tests.campaign.poison import send_bad_pictures, send_large_pictures, send_records
from tests.campaign.scene import GATED_LINES

# A full disk keeps this much free, because a foreign program would also stop somewhere.
_REST_BYTES = 64 * 1024
_FILL_ATTEMPTS = 20
_NEARLY_FULL_SHARE, _ALARM_S = 0.05, 3.0
# How long a fault waits for a target that another fault has just ended.
_TARGET_WITHIN_S = 10.0


class FaultError(Exception):
    """The fault could not be injected."""


@dataclass
class Fault(ABC):
    """A fault at `target` with random details from `seed`.

    - `TARGETS`: where the fault can strike.
    - `LASTING_S`: least and largest time between begin and end.
    - `LIMIT`: the longest silence of a line that the fault may cause, and from when it counts. None if it is only stated.
    - `LOSES`: what the stated order of the plant may drop in this fault.
    - `found_at`: when the process of the target was found, in seconds since 1970, or 0.
    """

    target: str
    seed: int
    found_at: float = 0.0

    KIND: ClassVar[str]
    TARGETS: ClassVar[tuple[str, ...]]
    LASTING_S: ClassVar[tuple[float, float]] = (1.0, 1.0)
    LIMIT: ClassVar[tuple[float, str] | None] = None
    LOSES: ClassVar[str | None] = None

    @abstractmethod
    def begin(self, plant: Plant) -> None:
        """Begins the fault. Raises FaultError if that is not possible."""

    def end(self, plant: Plant) -> None:
        """Ends the fault and makes good what a person would make good."""
        del plant  # A killed process needs nothing: its supervisor starts it again.

    def _find(self, plant: Plant) -> int:
        """Returns the process id of the target, such as `a/inspector`. Waits for a target that another fault has just ended."""
        machine, _, role = self.target.partition("/")
        until_s = time.monotonic() + _TARGET_WITHIN_S
        while time.monotonic() < until_s:
            pids = plant.find_broker_pids() if machine == "broker" else []
            pid = pids[-1] if pids else plant.machines[machine].find_pid(role) if machine in plant.machines else 0
            if pid:
                self.found_at = time.time()
                return pid
            time.sleep(0.1)
        raise FaultError(f"{self.target} does not run")

    def _machine(self, plant: Plant) -> Machine:
        return plant.machines[self.target.partition("/")[0]]


class _Kill(Fault):
    def begin(self, plant: Plant) -> None:
        plant.send_signal(self._find(plant), signal.SIGKILL)


class KillInspector(_Kill):
    KIND, TARGETS, LIMIT = "kill-inspector", ("a/inspector", "b/inspector"), (5.0, "begin")


class KillGateway(_Kill):
    KIND, TARGETS, LIMIT = "kill-gateway", ("a/gateway",), (5.0, "begin")


class KillSorter(_Kill):
    KIND, TARGETS = "kill-sorter", ("a/sorter",)


class KillArchivist(_Kill):
    KIND, TARGETS = "kill-archivist", ("a/archivist",)


class KillStation(_Kill):
    KIND, TARGETS = "kill-station", ("a/station",)


class KillSupervisor(_Kill):
    """All processes of the machine die with their supervisor, which the operating system starts again."""

    KIND, TARGETS = "kill-supervisor", ("a/up", "b/up")


class KillBroker(_Kill):
    KIND, TARGETS, LIMIT = "kill-broker", ("broker",), (10.0, "begin")


class _Freeze(Fault):
    LASTING_S = (3.0, 14.0)
    _pid = 0

    def begin(self, plant: Plant) -> None:
        self._pid = self._find(plant)
        plant.send_signal(self._pid, signal.SIGSTOP)

    def end(self, plant: Plant) -> None:
        plant.send_signal(self._pid, signal.SIGCONT)


class FreezeInspector(_Freeze):
    KIND, TARGETS, LIMIT = "freeze-inspector", ("a/inspector", "b/inspector"), (15.0, "begin")


class FreezeGateway(_Freeze):
    KIND, TARGETS = "freeze-gateway", ("a/gateway",)


class FreezeSorter(_Freeze):
    KIND, TARGETS = "freeze-sorter", ("a/sorter",)


class FreezeBroker(_Freeze):
    KIND, TARGETS = "freeze-broker", ("broker",)


class OutOfMemory(Fault):
    """The process gets no more memory: each larger allocation fails."""

    KIND, TARGETS = "out-of-memory", ("a/inspector", "b/inspector", "a/gateway", "a/sorter", "a/archivist", "a/station")
    LASTING_S = (4.0, 8.0)
    _pid = 0

    def begin(self, plant: Plant) -> None:
        self._pid = self._find(plant)
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            size = psutil.Process(self._pid).memory_info().vms
            resource.prlimit(self._pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

    def end(self, plant: Plant) -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(self._pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class OutOfMemoryKill(_Kill):
    """The kernel kills the process as one that uses too much memory. The process sees the same as with kill -9."""

    KIND, TARGETS = "out-of-memory-kill", ("a/inspector", "b/inspector", "a/gateway", "a/sorter", "a/archivist", "a/station")


class _FillDisk(Fault):
    """First leaves a twentieth of the disk free, so that an alarm can come before the end. Then fills the disk."""

    LASTING_S = (6.0, 14.0)
    LIMIT = (10.0, "end")

    def _disk(self, plant: Plant) -> Path:
        raise NotImplementedError

    def begin(self, plant: Plant) -> None:
        disk = self._disk(plant)
        with (disk / "foreign").open("wb") as file:
            # The plant writes meanwhile, so the room may be gone when it is taken.
            for _ in range(_FILL_ATTEMPTS):
                with suppress(OSError):
                    if file.tell() == 0:
                        _take_room(file, disk, _NEARLY_FULL_SHARE)
                        time.sleep(_ALARM_S)
                    _take_room(file, disk, 0.0)
                    return
        self.end(plant)
        raise FaultError(f"{disk} cannot be filled")

    def end(self, plant: Plant) -> None:
        (self._disk(plant) / "foreign").unlink(missing_ok=True)


def _take_room(file: IO[bytes], disk: Path, rest_share: float) -> None:
    """Makes `file` so large that only the share `rest_share` of the disk is free, or nearly nothing. Raises OSError if it has no room."""
    status = os.statvfs(disk)
    rest = max(_REST_BYTES, int(rest_share * status.f_blocks * status.f_frsize))
    if (size := status.f_bavail * status.f_frsize - rest) > 0:
        os.posix_fallocate(file.fileno(), file.tell(), size)
        file.seek(size, os.SEEK_CUR)


class FillSpoolDisk(_FillDisk):
    KIND, TARGETS = "disk-full-spool", ("a/spool",)

    def _disk(self, plant: Plant) -> Path:
        return plant.spool_disk


class FillBrokerDisk(_FillDisk):
    KIND, TARGETS, LOSES = "disk-full-broker", ("broker",), "the oldest images, those that were judged first"

    def _disk(self, plant: Plant) -> Path:
        return plant.broker_disk


class SlowDisk(Fault):
    """Each flush to a disk of the machine takes longer."""

    KIND, TARGETS, LASTING_S = "slow-disk", ("a/disk",), (5.0, 15.0)

    def begin(self, plant: Plant) -> None:
        self._machine(plant).faults.set_flush_delay_s(random.Random(self.seed).choice((0.05, 0.2, 1.0)))

    def end(self, plant: Plant) -> None:
        self._machine(plant).faults.set_flush_delay_s(0)


class StepClock(Fault):
    """The clock of a machine jumps, and jumps back at the end."""

    KIND, TARGETS, LASTING_S = "clock-step", ("a/clock", "b/clock"), (5.0, 15.0)

    def begin(self, plant: Plant) -> None:
        self._machine(plant).faults.set_clock_offset_s(random.Random(self.seed).choice((-7200.0, -60.0, -2.0, 2.0, 60.0, 7200.0)))

    def end(self, plant: Plant) -> None:
        self._machine(plant).faults.set_clock_offset_s(0)


class StepCameraClock(Fault):
    KIND, TARGETS, LASTING_S = "camera-clock-step", GATED_LINES, (5.0, 15.0)

    def begin(self, plant: Plant) -> None:
        plant.cameras[self.target].clock_error_s = random.Random(self.seed).choice((-3600.0, -5.0, 5.0, 3600.0))

    def end(self, plant: Plant) -> None:
        plant.cameras[self.target].clock_error_s = 0


class CutNetwork(Fault):
    """The cable of a machine is pulled. At machine A, cameras and broker are out of reach; at B, the broker is."""

    KIND, TARGETS, LASTING_S, LIMIT = "network-cut", ("a/network", "b/network"), (3.0, 20.0), (15.0, "end")

    def begin(self, plant: Plant) -> None:
        self._machine(plant).network.pull_cable()

    def end(self, plant: Plant) -> None:
        self._machine(plant).network.plug_cable()


class CameraAway(Fault):
    KIND, TARGETS, LASTING_S = "camera-away", GATED_LINES, (5.0, 15.0)

    def begin(self, plant: Plant) -> None:
        plant.cameras[self.target].is_away = True

    def end(self, plant: Plant) -> None:
        plant.cameras[self.target].is_away = False


class BoardUnplugged(Fault):
    """The serial cable is pulled. The board has a supply of its own and goes on."""

    KIND, TARGETS, LASTING_S = "board-unplugged", ("board",), (2.0, 12.0)

    def begin(self, plant: Plant) -> None:
        plant.tell_world("unplug")

    def end(self, plant: Plant) -> None:
        plant.tell_world("plug")


class BoardReset(Fault):
    KIND, TARGETS = "board-reset", ("board",)

    def begin(self, plant: Plant) -> None:
        plant.tell_world("reset")


class _Poison(Fault):
    """Sends odd things in a thread, so that a plant that does not answer holds nobody up."""

    LASTING_S = (4.0, 4.0)
    _thread: threading.Thread | None = None
    _problem = ""

    def _send(self, plant: Plant) -> None:
        raise NotImplementedError

    def begin(self, plant: Plant) -> None:
        self._thread = threading.Thread(target=self._run, args=(plant,), daemon=True)
        self._thread.start()

    def end(self, plant: Plant) -> None:
        assert self._thread is not None
        self._thread.join(60)
        if self._thread.is_alive():
            raise FaultError("the poison was not taken within 60 s")
        if self._problem:
            raise FaultError(self._problem)

    def _run(self, plant: Plant) -> None:
        try:
            self._send(plant)
        except (KafkaError, requests.RequestException) as error:
            self._problem = f"the poison could not be sent: {error}"


class PoisonPictures(_Poison):
    """Uploads files that are no pictures, damaged and huge ones, as the camera of a line."""

    KIND, TARGETS = "poison-pictures", GATED_LINES

    def _send(self, plant: Plant) -> None:
        send_bad_pictures(plant, self.target, self.seed, 6)


class PoisonLarge(_Poison):
    """Writes compressed records to a topic of pictures that are larger than the broker's limit for the bytes of a record."""

    KIND, TARGETS = "poison-large", GATED_LINES

    def _send(self, plant: Plant) -> None:
        send_large_pictures(plant, self.target, self.seed)


class PoisonRecords(_Poison):
    """Writes damaged records, with odd times among them, to a topic."""

    KIND, TARGETS = "poison-records", ("images", "verdicts", "sorted", "findings", "dead-letters", "reviews", "models", "lines", "commands")

    def _send(self, plant: Plant) -> None:
        send_records(plant, self.target, self.seed, 12)


FAULTS: Mapping[str, type[Fault]] = MappingProxyType(
    {
        fault.KIND: fault
        for fault in (
            *(KillInspector, KillGateway, KillSorter, KillArchivist, KillStation, KillSupervisor, KillBroker),
            *(FreezeInspector, FreezeGateway, FreezeSorter, FreezeBroker),
            *(OutOfMemory, OutOfMemoryKill, FillSpoolDisk, FillBrokerDisk, SlowDisk),
            *(StepClock, StepCameraClock, CutNetwork, CameraAway, BoardUnplugged, BoardReset),
            *(PoisonPictures, PoisonLarge, PoisonRecords),
        )
    }
)
