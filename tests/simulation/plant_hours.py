"""One seed of the whole plant: castings, camera, gateway, inspectors, sorter and board, failures, and the check of each casting."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
from aiokafka import TopicPartition
from PIL import Image

from agents.inspector.model_switcher import ModelSwitcher
from agents.sorter.decisions import ACTIONS
from agents.sorter.part_states import MAX_RUN
from firmware.board import faults
from streams import metrics
from streams.commands import make_command_record
from streams.identity import PartId, format_time
from streams.records import Command, Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames
from tests.agents.inspector.inspector_rig import RecordingRuntime, make_switcher
from tests.simulation.board_line import BoardLine, Casting, CountingBoard
from tests.simulation.broker import Broker, Commit, Weather
from tests.simulation.inspector_hours import SeedResult
from tests.simulation.roles import LINE, Disk, GatewayProcess, HttpAnswer, SorterProcess
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_processes import VirtualSystem
from tests.simulation.workers import SimulatedWorker

_NAMES = TopicNames("castings")
_PARTS_TOKEN, _CAMERA_TOKEN = "parts", "camera"
_LATENCY_S = 0.1
# After the last failure, the plant must be in order within this time in virtual seconds.
_RECOVERY_S = 90.0
# After a restart, the gateway assigns no picture before it knows two parts, because it does not know the distance to the part before.
_FIRST_CASTINGS, _CALM_CASTINGS = 2, 3
_HTTP_TIMEOUT_S = 20.0
_INSPECTORS = 2


class BrightnessRuntime(RecordingRuntime):
    """A runtime that judges bright pictures as defects."""

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        is_bright = pixels.reshape(len(pixels), -1).mean(axis=1) > 127
        probability = np.where(is_bright, 0.95, 0.02).astype(np.float32)
        return np.stack([1 - probability, probability], axis=1)[:, None, :]


@cache
def _get_switcher() -> ModelSwitcher:
    return make_switcher((LINE,), BrightnessRuntime())


@cache
def _make_base_picture(is_defect: bool) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 100, (32, 32), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(150 if is_defect else 0)).save(file, "JPEG")
    return file.getvalue()


def make_casting_picture(casting: Casting) -> bytes:
    """Returns the picture of a casting. A comment in the JPEG makes it different from all other pictures."""
    base, comment = _make_base_picture(casting.is_defect), f"casting {casting.number}".encode()
    return base[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]


@cache
def _make_settings(folder: Path, image_partitions: int) -> Settings:
    camera = {"kind": "http", "trigger": "board", "latency_s": _LATENCY_S}
    return Settings.model_validate(
        {
            "lines": [
                {
                    "name": LINE,
                    "token": _CAMERA_TOKEN,
                    "camera": camera,
                    "gate": {"port": "/dev/board-1", "travel_mm": 600, "belt_mm_per_s": 200},
                }
            ],
            "batch": {"size": 4, "shapes": (1, 2, 4), "max_wait_s": 0.05},
            "inspector": {"buffer": 8},
            "topics": {"image_partitions": image_partitions},
            "kafka": {"bootstrap": "simulated:9092"},
            "gateway": {"token": _PARTS_TOKEN},
            "store": {"url": str(folder)},
            "service": {"run_dir": folder},
        }
    )


@dataclass
class Upload:
    """The upload of a picture, and the part id that the gateway confirmed."""

    casting: Casting
    began_s: float
    receipts: list[PartId] = field(default_factory=list)
    is_done: bool = False
    ended_s: float = 0.0


Role = GatewayProcess | SorterProcess | SimulatedWorker


class PlantHours:
    """The plant of one seed: one line with a board, its camera and all roles on the way of a casting."""

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop) -> None:
        self.result = SeedResult(seed)
        self._loop = loop
        self._choice = random.Random(loop.choice.random())
        self._settings = _make_settings(folder, self._choice.choice((1, 2)))
        self._folder = folder / f"seed-{seed}-{uuid.uuid4()}"
        self._system = VirtualSystem(loop)
        partitions = {_NAMES.images(LINE): self._settings.topics.image_partitions, _NAMES.verdicts(LINE): 1}
        self.broker = Broker(loop, partitions)
        self.broker.on_commit = self._check_commit
        gate = self._settings.find_line(LINE).gate
        assert gate is not None
        self.line = BoardLine(loop, gate.travel_s, self._take_picture, random.Random(self._choice.random()))
        self._spool_disk = Disk(random.Random(self._choice.random()))
        self._journal_disk = Disk(random.Random(self._choice.random()))
        self._http_loss = 0.0
        # When the spool's disk was full or failed, and when a gateway has ended.
        self._spool_troubles: list[tuple[float, float]] = []
        self._gateway_ends: list[float] = []
        self._uploads: dict[int, Upload] = {}
        self._calm: list[Casting] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._answered: set[bytes] = set()
        self._read_count = 0
        self._is_over = False
        self._unmatched_before = _count_unmatched()

    async def run(self) -> None:
        self.line.start()
        self._gateway = self._make_gateway()
        self._sorter = self._make_sorter()
        self._inspectors = [self._make_inspector(number) for number in range(1, self._choice.randint(1, _INSPECTORS) + 1)]
        for role in self._list_roles():
            role.start()
        self._begin(self._supervise())
        if await self._wait_until(self._is_in_order, "The plant has not started"):
            belt = asyncio.create_task(self._move_belt(self._choice.randint(6, 20)))
            while not belt.done():
                await asyncio.sleep(self._choice.uniform(0.1, 3.0))
                self._choose_event()
            self._end_failures()
            if await self._wait_until(self._is_finished, "After the last failure, the plant is not in order"):
                self._calm = (await self._move_belt(_FIRST_CASTINGS + _CALM_CASTINGS))[_FIRST_CASTINGS:]
                await self._wait_until(self._is_finished, "After the calm castings, the plant is not in order")
        self._is_over = True
        Judge(self).check()

    # The processes and their supervisor

    def _list_roles(self) -> list[Role]:
        return [self._gateway, self._sorter, *self._inspectors]

    def _make_gateway(self) -> GatewayProcess:
        return GatewayProcess(self._settings, self.broker, self._system, self._spool_disk, self._folder / "spool")

    def _make_sorter(self) -> SorterProcess:
        folder, settings = self._folder / "sorter", self._settings
        settings = settings.model_copy(update={"sorter": settings.sorter.model_copy(update={"journal_dir": folder})})
        return SorterProcess(settings, self.broker, self._system, self._journal_disk, folder, self.line, self._post)

    def _make_inspector(self, number: int) -> SimulatedWorker:
        return SimulatedWorker(number, self._settings, self.broker, _get_switcher())

    async def _supervise(self) -> None:
        """Starts each process again that has ended, and acknowledges faults of the board, as a person would."""
        fault_since_s = self._loop.time()
        while not self._is_over:
            await asyncio.sleep(0.25)
            if self._has_ended(self._gateway):
                self._gateway_ends.append(self._loop.time())
                self._gateway = self._make_gateway()
                self._gateway.start()
            if self._has_ended(self._sorter):
                self._sorter = self._make_sorter()
                self._sorter.start()
            for index, inspector in enumerate(self._inspectors):
                if self._has_ended(inspector):
                    self._inspectors[index] = self._make_inspector(inspector.number)
                    self._inspectors[index].start()
            if not self._clearable_faults():
                fault_since_s = self._loop.time()
            elif self._loop.time() - fault_since_s > 2.0:
                fault_since_s = self._loop.time()
                self._acknowledge()

    def _has_ended(self, role: Role) -> bool:
        """Returns whether a process has ended. Ends a process that has crashed."""
        if role.has_crashed and not role.has_ended:
            self.result.counts["crashes"] += 1
            role.kill()
        return role.has_ended

    def _clearable_faults(self) -> list[int]:
        return [code for code in self.line.board.lanes[0].faults.codes if faults.ENDS_BY[code] == "CLEAR"]

    def _acknowledge(self) -> None:
        """Writes a command on the topic, as the station does."""
        if self._sorter.is_ready and not self.broker.weather.is_away:
            now = self._system.now()
            command = Command(
                command_id=uuid.UUID(int=self._choice.getrandbits(128)),
                line=LINE,
                action="acknowledge",
                asked_by="a person",
                asked_at=now,
                valid_until=now + timedelta(seconds=10),
            )
            record = make_command_record(self._settings, command, "station")
            self.broker.append(record.topic, record.key, record.value, record.headers)
            self.result.counts["acknowledgements"] += 1

    # The castings and the camera

    async def _move_belt(self, castings: int) -> list[Casting]:
        """Puts castings on the belt, and waits until the last one has passed the gate."""
        placed = []
        for _ in range(castings):
            await asyncio.sleep(self._choice.uniform(0.5, 1.8))
            placed.append(self.line.add_casting(self._choice.random() < 0.4))
        await asyncio.sleep(self.line.travel_s + 0.5)
        return placed

    def _take_picture(self, casting: Casting) -> None:
        if casting.number in self._uploads:
            self.result.faults.append(f"The board has triggered the camera twice for casting {casting.number}.")
            return
        upload = self._uploads[casting.number] = Upload(casting, self._loop.time())
        captured_s = self._system.now_s() - (self._loop.time() - casting.at_eye1_s) + _LATENCY_S + self._choice.uniform(-0.02, 0.02)
        self._begin(self._upload(upload, datetime.fromtimestamp(captured_s, UTC)))

    async def _upload(self, upload: Upload, captured_at: datetime) -> None:
        """Uploads a picture, and repeats this until the gateway has confirmed the picture, and sometimes once more."""
        headers = {
            "Content-Type": "image/jpeg",
            "X-Captured-At": format_time(captured_at),
            "Idempotency-Key": f"casting {upload.casting.number}",
        }
        repeats = self._choice.random() < 0.1
        await asyncio.sleep(self._choice.uniform(0.02, 0.15))
        while not upload.is_done:
            try:
                answer = await self._post("pictures", _CAMERA_TOKEN, headers, make_casting_picture(upload.casting))
            except (aiohttp.ClientError, TimeoutError):
                answer = None
            if answer is not None and answer.status == 201:
                upload.receipts.append(PartId.parse(answer.body["part"]))
                upload.ended_s = self._loop.time()
                upload.is_done, repeats = not repeats, False
            elif answer is not None and answer.status not in (503, 507):
                self.result.faults.append(f"The gateway has answered {answer.status} to the picture of casting {upload.casting.number}.")
                return
            else:
                self.result.counts["repeated uploads"] += 1
            await asyncio.sleep(self._choice.uniform(0.1, 0.6))

    async def _post(self, path: str, token: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        await asyncio.sleep(self._choice.uniform(0.001, 0.03))
        if self._choice.random() < self._http_loss:
            raise aiohttp.ClientConnectionError("The request was lost.")
        answer = await asyncio.wait_for(self._gateway.request(path, token, headers, body), _HTTP_TIMEOUT_S)
        await asyncio.sleep(self._choice.uniform(0.001, 0.03))
        if self._choice.random() < self._http_loss:
            raise TimeoutError
        return answer

    # The failures

    def _choose_event(self) -> None:
        events: dict[Callable[[], None], int] = {
            self._kill: 4,
            self._stop: 2,
            self._change_weather: 6,
            self._rebalance: 2,
            self._reset_board: 1,
            self._unplug_board: 2,
            self._damage_frames: 1,
            self._fill_disk: 2,
            self._lose_requests: 2,
        }
        self._choice.choices(list(events), weights=list(events.values()))[0]()

    def _choose_role(self) -> Role:
        return self._choice.choice(self._list_roles())

    def _kill(self) -> None:
        role = self._choose_role()
        if not role.has_ended:
            role.kill()
            self.result.counts[f"killed {type(role).__name__}"] += 1

    def _stop(self) -> None:
        role = self._choose_role()
        if role.is_ready:
            role.stop()
            self.result.counts[f"stopped {type(role).__name__}"] += 1

    def _change_weather(self) -> None:
        choice = self._choice
        self.broker.weather = choice.choice(
            (
                Weather(),
                Weather(fail=choice.uniform(0.0, 0.5), longest_delay_s=choice.uniform(0.01, 0.5)),
                Weather(lose_answer=choice.uniform(0.0, 0.5), longest_delay_s=choice.uniform(0.01, 0.5)),
                Weather(is_away=True),
            )
        )
        self.result.counts["changes of the weather"] += 1

    def _rebalance(self) -> None:
        group = self._choice.choice(self.broker.list_groups())
        group.rebalance()
        if self._choice.random() < 0.5:
            self._loop.call_later(self._choice.uniform(0.0, 1.0), group.rebalance)
        self.result.counts["rebalances"] += 1

    def _reset_board(self) -> None:
        if self._choice.random() < 0.3:
            self.line.exchange()
            self.result.counts["exchanges of the board"] += 1
        else:
            self.line.reset("power")
            self.result.counts["resets of the board"] += 1

    def _unplug_board(self) -> None:
        self.line.unplug(self._choice.uniform(0.1, 6.0))
        self.result.counts["unplugged"] += 1

    def _damage_frames(self) -> None:
        self.line.damage = self._choice.uniform(0.0, 0.3)
        self._loop.call_later(self._choice.uniform(0.5, 4.0), self._repair_line)
        self.result.counts["damaged serial lines"] += 1

    def _repair_line(self) -> None:
        self.line.damage = 0.0

    def _fill_disk(self) -> None:
        disk = self._choice.choice((self._spool_disk, self._journal_disk))
        disk.is_full, disk.flush_fails = self._choice.choice(((True, False), (True, False), (False, True)))
        lasts_s = self._choice.uniform(0.2, 5.0)
        self._loop.call_later(lasts_s, disk.repair)
        if disk is self._spool_disk:
            self._spool_troubles.append((self._loop.time(), self._loop.time() + lasts_s))
        self.result.counts["full disks"] += 1

    def _lose_requests(self) -> None:
        self._http_loss = self._choice.uniform(0.0, 0.7)
        self._loop.call_later(self._choice.uniform(0.5, 4.0), self._repair_network)
        self.result.counts["lost requests"] += 1

    def _repair_network(self) -> None:
        self._http_loss = 0.0

    def _end_failures(self) -> None:
        self.broker.weather = Weather()
        self.line.is_unplugged = False
        self._repair_line()
        self._repair_network()
        self._spool_disk.repair()
        self._journal_disk.repair()

    # What the plant waits for

    async def _wait_until(self, is_reached: Callable[[], str], problem: str) -> bool:
        """Waits until `is_reached` returns "". Reports a fault and returns False if this takes too long."""
        give_up_s = self._loop.time() + _RECOVERY_S
        while reason := is_reached():
            if self._loop.time() > give_up_s:
                self.result.faults.append(f"{problem} within {_RECOVERY_S:.0f} s: {reason}")
                return False
            await asyncio.sleep(0.2)
        return True

    def _is_in_order(self) -> str:
        lane = self.line.board.lanes[0]
        checks = {
            "the gateway is not ready": self._gateway.is_ready,
            "the sorter is not ready": self._sorter.is_ready,
            "an inspector is not ready": all(inspector.is_ready for inspector in self._inspectors),
            f"the board is {lane.state}, with the faults {lane.faults.codes}": lane.state == "running",
        }
        return next((problem for problem, is_good in checks.items() if not is_good), "")

    def _is_finished(self) -> str:
        """Returns why the castings are not finished, or ""."""
        return (
            self._is_in_order()
            or next((f"the picture of casting {number} is not confirmed" for number, one in self._uploads.items() if not one.is_done), "")
            or ("pictures wait in the spool" if self._gateway.spool is not None and self._gateway.spool.sendable_count else "")
            or self._find_uncommitted()
            or Judge(self).find_unrecorded()
        )

    def _find_uncommitted(self) -> str:
        committed = {place: offset for group in self.broker.list_groups() for place, offset in group.committed.items()}
        for topic in self.broker.partitions:
            for partition in range(self.broker.partitions[topic]):
                place = TopicPartition(topic, partition)
                if committed.get(place, 0) != len(self.broker.logs[place]):
                    return f"{topic}/{partition} has {len(self.broker.logs[place])} records and the commit {committed.get(place)}"
        return ""

    def _check_commit(self, commit: Commit) -> None:
        """A committed picture must have its verdict on the broker."""
        if commit.place.topic != _NAMES.images(LINE):
            return
        log = self.broker.logs[TopicPartition(_NAMES.verdicts(LINE), 0)]
        self._answered |= {record.key or b"" for record in log[self._read_count :]}
        self._read_count = len(log)
        for record in self.broker.logs[commit.place][: commit.offset]:
            if record.key not in self._answered:
                self.result.faults.append(f"The picture {record.key!r} was committed before its verdict.")

    def _begin(self, work: Any) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.result.faults.append(f"The simulation failed: {error!r}")

    def may_have_several_parts(self, upload: Upload) -> bool:
        """Returns whether the disk has refused the picture, and the gateway ended before the camera sent the picture again.

        The part of a refused picture is known only to the process that has refused it.
        """
        is_refused = any(began_s <= upload.ended_s and upload.began_s <= ended_s for began_s, ended_s in self._spool_troubles)
        return is_refused and any(upload.began_s <= end_s <= upload.ended_s for end_s in self._gateway_ends)

    @property
    def counted_unmatched(self) -> int:
        """How many castings without a part number the sorters have counted, for the alert `PartsNotTracked`."""
        return _count_unmatched() - self._unmatched_before

    @property
    def uploads(self) -> Mapping[int, Upload]:
        """The uploads by the number of their casting."""
        return self._uploads

    @property
    def calm(self) -> list[Casting]:
        """The castings after the last failure."""
        return self._calm

    @property
    def unhandled(self) -> list[str]:
        return self._loop.unhandled


def _count_unmatched() -> int:
    return sum(
        int(sample.value)
        for sample in next(iter(metrics.parts_sorted.collect())).samples
        if sample.name.endswith("_total") and sample.labels["line"] == LINE and sample.labels["reason"] == "unmatched"
    )


class Judge:
    """Compares what has happened on the belt with the records on the topics."""

    def __init__(self, plant: PlantHours) -> None:
        self._plant = plant
        self._faults = plant.result.faults
        self._counts = plant.result.counts
        self._verdicts: dict[PartId, list[Verdict]] = defaultdict(list)
        self._sortings: dict[PartId, list[Sorting]] = defaultdict(list)
        for record in plant.broker.read(_NAMES.verdicts(LINE)):
            verdict = Verdict.decode(record.value or b"")
            self._verdicts[verdict.part_id].append(verdict)
        for record in plant.broker.read(_NAMES.sorted(LINE)):
            sorting = Sorting.decode(record.value or b"")
            self._sortings[sorting.part_id].append(sorting)

    def find_unrecorded(self) -> str:
        """Returns a part that was counted or judged and has no sorting record, or ""."""
        parts = [*(part for _, _, part in self._counted_parts()), *self._verdicts]
        return next((f"{part} has no sorting record" for part in parts if part not in self._sortings), "")

    def _counted_parts(self) -> list[tuple[CountingBoard, int, PartId]]:
        """Returns the parts that need a record: those of the present board, and those that are in the journal."""
        boards = self._plant.line.boards
        return [
            (board, part, PartId(LINE, board.run, part))
            for board in boards
            for part in board.counted
            if board is boards[-1] or (board.number, PartId(LINE, board.run, part)) in self._plant.line.stored
        ]

    def check(self) -> None:
        self._faults += self._plant.line.faults
        self._faults += [f"The event loop reported: {error}" for error in self._plant.unhandled]
        keys = Counter(part for _, _, part in self._counted_parts())
        self._faults += [f"Two castings have the number {part}." for part, number in keys.items() if number > 1]
        self._check_pictures()
        self._check_commands()
        for board, part, part_id in self._counted_parts():
            self._check_part(board, part, part_id)
        self._check_unrecorded_castings()
        for casting in self._plant.calm:
            self._check_calm(casting)
        self._plant.result.trace = self._make_trace()

    def _check_pictures(self) -> None:
        """Each confirmed picture has one part, one verdict, and the part of its own casting."""
        stored: dict[bytes, set[PartId]] = defaultdict(set)
        for record in self._plant.broker.read(_NAMES.images(LINE)):
            stored[record.value or b""].add(PartId.parse((record.key or b"").decode()))
        for upload in self._plant.uploads.values():
            casting = upload.casting
            parts = stored[make_casting_picture(casting)]
            self._counts["pictures"] += 1
            is_one = len(parts) <= 1 or self._plant.may_have_several_parts(upload)
            if not is_one or not set(upload.receipts) <= parts or (parts and not upload.receipts):
                self._faults.append(f"The picture of casting {casting.number} has the parts {parts}, confirmed as {upload.receipts}.")
            for part in parts:
                own = PartId(LINE, casting.board.run, casting.part) if casting.board is not None else None
                self._counts["pictures without a part of the board"] += part.run > MAX_RUN
                if part.run <= MAX_RUN and part != own:
                    self._faults.append(f"The picture of casting {casting.number}, which is part {own}, was assigned to part {part}.")
                verdicts = self._verdicts.get(part, [])
                if len({verdict.verdict_id for verdict in verdicts}) != 1:
                    self._faults.append(f"The picture of casting {casting.number} has {len(verdicts)} verdicts.")
                elif verdicts[0].label != ("defect" if casting.is_defect else "ok"):
                    self._faults.append(f"The verdict of casting {casting.number} is {verdicts[0].label} {verdicts[0].reason}.")
        known = {part for parts in stored.values() for part in parts}
        self._faults += [f"{part} has a verdict and no picture." for part in self._verdicts if part not in known]

    def _check_unrecorded_castings(self) -> None:
        """If only the board knew the number of a casting, a record of its picture shows that the casting was lost.

        A casting without any number is counted at the gate. A reset deletes the reports of the board, so only the last board is checked.
        """
        for upload in self._plant.uploads.values():
            casting = upload.casting
            own = [PartId(LINE, casting.board.run, casting.part)] if casting.board is not None else []
            recorded = [part for part in (*own, *upload.receipts) if part in self._sortings]
            self._counts["castings whose number only the board knew"] += not set(own) & set(recorded)
            if not recorded:
                self._faults.append(f"Casting {casting.number} has no sorting record, neither as {own} nor as {upload.receipts}.")
            if recorded and not set(own) & set(recorded) and any(self._sortings[part][-1].action != "untracked" for part in recorded):
                self._faults.append(f"The picture of casting {casting.number} has a record with an action, but not under {own}.")
        unmatched, counted = self._plant.line.board.unmatched, self._plant.counted_unmatched
        self._counts["castings that reached the gate without a number"] += unmatched
        if counted < unmatched:
            self._faults.append(f"{unmatched} castings without a number have passed the present board, but {counted} were counted.")

    def _check_commands(self) -> None:
        """Each command has an answer, and repeated answers are equal."""
        outcomes: dict[uuid.UUID, set[str]] = defaultdict(set)
        for record in self._plant.broker.read(_NAMES.commands):
            command = Command.decode(record.value or b"")
            outcomes[command.command_id] |= {command.answer.outcome} if command.answer else set()
        self._faults += [f"The command {one} has the answers {found}." for one, found in outcomes.items() if len(found) != 1]

    def _check_part(self, board: CountingBoard, part: int, part_id: PartId) -> None:
        """A counted part has one gate action, and its records agree with the action and with the verdict."""
        reports, sortings = board.reports.get(part, []), self._sortings.get(part_id, [])
        self._counts["parts"] += 1
        if len(reports) > 1:
            self._faults.append(f"The board has reported {part_id} {len(reports)} times.")
        if not sortings:
            self._faults.append(f"{part_id} has no sorting record. The board has reported {reports}.")
            return
        if len({(sorting.event, sorting.action) for sorting in sortings}) > 1:
            found = [(sorting.event, sorting.action, sorting.reason) for sorting in sortings]
            self._faults.append(f"{part_id} has contradicting sorting records: {found}.")
            return
        # A producer that repeats a refused record can change the order of two records of a part. The record with the verdict counts.
        last = next((sorting for sorting in reversed(sortings) if sorting.verdict_id is not None), sortings[-1])
        self._counts[f"parts: {last.reason}"] += 1
        if last.action == "untracked" and last.reason != "taken-off":
            # A board that stays away for longer than 20 s gets the record "late-verdict" before anybody knows that it was reset meanwhile.
            if board is self._plant.line.board or last.reason not in ("board-restarted", "late-verdict"):
                self._faults.append(f"{part_id} is {last.reason}, although the board was not reset. Its reports: {reports}.")
            return
        if not reports:
            self._faults.append(f"{part_id} has a sorting record with event {last.event}, but the board has not reported it.")
            return
        self._check_action(part_id, last, reports[0].decision.action, reports[0].decision.reason, reports[0].moved)

    def _check_action(self, part_id: PartId, last: Sorting, action: str, reason: str, moved: bool) -> None:
        if (last.action, last.gate_moved) != (ACTIONS[action], moved):
            self._faults.append(f"{part_id} is {last.action} in its record, but the board's action was {action}.")
        if reason != "verdict":
            return
        verdict = next(iter(self._verdicts.get(part_id, [])), None)
        if verdict is None:
            self._faults.append(f"The board obeyed a verdict on {part_id}, which has none.")
        elif action != ("pass" if verdict.label == "ok" else "divert"):
            self._faults.append(f"The verdict on {part_id} is {verdict.label}, but the action was {action}.")
        elif last.verdict_id != verdict.verdict_id:
            self._faults.append(f"The board obeyed a verdict on {part_id}, but its record names the verdict {last.verdict_id}.")

    def _check_calm(self, casting: Casting) -> None:
        """After the last failure, each casting is judged in time and leaves on the right side."""
        part = PartId(LINE, casting.board.run, casting.part) if casting.board is not None else None
        sortings = self._sortings.get(part, []) if part is not None else []
        expected = "diverted" if casting.is_defect else "passed"
        if not sortings or (sortings[-1].reason, sortings[-1].action) != ("verdict", expected):
            found = [(sorting.reason, sorting.action) for sorting in sortings]
            self._faults.append(f"Casting {casting.number} after the last failure is part {part}. Its records: {found}, not {expected}.")

    def _make_trace(self) -> str:
        """Returns a checksum of all records and commits, without random ids and times of the real clock."""
        broker = self._plant.broker
        stored = [
            (tuple(place), record.offset, record.key, record.timestamp) for place in sorted(broker.logs) for record in broker.logs[place]
        ]
        commits = [(commit.group, tuple(commit.place), commit.offset, round(commit.at_s, 6)) for commit in broker.commits]
        return hashlib.sha256(repr((stored, commits)).encode()).hexdigest()[:16]


def run_plant_hours(seed: int, folder: Path) -> SeedResult:
    """Runs one seed and returns what it found."""
    loop = VirtualLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        plant = PlantHours(seed, folder, loop)
        loop.run_until_complete(plant.run())
    finally:
        loop.end()
    return plant.result
