"""Runs a role on a real broker. The role stops between two steps of its delivery, so that a test can kill the role there.

The test writes a word to the standard input. After `before`, the worker stops before each delivery. After `after`, the worker stops between
each delivery and its acknowledgement. After `never`, the worker does not stop.

Before the worker stops, it commits the offsets of all acknowledged records and prints the word.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from faust.types import AppT

from agents.archivist.archivist import Archivist
from agents.inspector.inspector import Inspector
from streams.group_members import make_identity
from streams.object_store import ObjectStore
from streams.record_producer import ProducerRecord, RecordProducer
from streams.records import ArchivedRecord
from streams.settings import Settings, load_settings
from streams.worker import ConsumerGroup, RecordHandler, make_app, run_worker
from streams.worker_process import WorkerProcess, worker_process
from tests.agents.inspector.inspector_rig import RecordingRuntime, make_switcher
from tests.agents.sorter.test_sorter_records import Rig
from tests.processes import make_environment

Step = Literal["before", "after", "never"]


class Steps:
    """Holds the delivery at the step that the standard input names."""

    def __init__(self, app: AppT[Any]) -> None:
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._held: str = "never"
        threading.Thread(target=self._read_words, daemon=True).start()

    def _read_words(self) -> None:
        for line in sys.stdin:
            self._held = line.strip()
            print("understood", flush=True)

    async def reach(self, step: Step) -> None:
        if self._held == step:
            await self._app.consumer.commit()
            print(step, flush=True)
        while self._held == step:  # noqa: ASYNC110  The test waits for the printed line instead.
            await asyncio.sleep(0.01)

    def reach_in_thread(self, step: Step) -> None:
        """Does the same as `reach`. Must be called in a thread without an event loop."""
        asyncio.run_coroutine_threadsafe(self.reach(step), self._loop).result()


class SteppedProducer(RecordProducer):
    """The producer of a role, which stops before and after each delivery."""

    steps: Steps

    async def deliver(self, records: Sequence[ProducerRecord]) -> list[ProducerRecord]:
        await self.steps.reach("before")
        refused = await super().deliver(records)
        await self.steps.reach("after")
        return refused


class SteppedArchive:
    """Stands for the database of the archivist. It stores each record as a line of a file, and stops before and after each batch."""

    def __init__(self, file: Path, steps: Steps) -> None:
        self._file, self._steps = file, steps

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        self._steps.reach_in_thread("before")
        with self._file.open("a") as file:
            file.writelines(f"{record.part_id}\n" for record in records)
        self._steps.reach_in_thread("after")
        return len(records)


def make_handler(role: str, settings: Settings, folder: Path, producer: SteppedProducer) -> RecordHandler:
    if role == "archivist":
        return Archivist(settings, SteppedArchive(folder / "archive", producer.steps), producer, lambda *_: None)
    if role == "sorter":
        return Rig(folder, producer=producer, settings=settings).sorter
    switcher = make_switcher([line.name for line in settings.lines], RecordingRuntime())
    return Inspector(settings, switcher, ObjectStore(settings.store.url), producer, lambda *_: None)


async def serve(role: str, process: WorkerProcess, folder: Path) -> int:
    settings = process.settings
    identity = make_identity(settings, role, process.instance)
    app = make_app(settings, identity, 64)
    producer = SteppedProducer(app, settings, role, process.health.set_problem)
    producer.steps = Steps(app)
    group = ConsumerGroup(app, identity, make_handler(role, settings, folder, producer), settings, role, process.health)
    return await run_worker([group], role, 5)


class SteppedWorker:
    """Starts this module as a process, tells it where to stop, and kills it."""

    def __init__(self, role: str, settings: Settings, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.stepped_worker", role, str(folder)]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=make_environment(settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def __enter__(self) -> SteppedWorker:
        return self

    def __exit__(self, *_: object) -> None:
        """Kills the worker, so that it finishes and commits nothing."""
        self._process.kill()
        self._process.communicate()

    def hold(self, step: Step) -> None:
        """From now on, the worker stops at `step`. A worker that has stopped at another step goes on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        self.wait_for("understood")

    def wait_for(self, expected: str, count: int = 1) -> None:
        """Returns when the worker has stopped at the step `expected` in `count` deliveries."""
        assert self._process.stdout is not None
        for _ in range(count):
            assert self._process.stdout.readline().strip() == expected


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    with worker_process(load_settings(None), sys.argv[1], 0) as running:
        sys.exit(asyncio.run(serve(sys.argv[1], running, Path(sys.argv[2]))))
