"""What the inspector promises while people upload pictures: no camera's picture waits for an uploaded one."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from streams import metrics
from streams.records import Verdict
from tests.agents.inspector.inspector_rig import InspectorRig, RecordingRuntime, run_inspector
from tests.event_loop import wait_until


def read_lines(rig: InspectorRig) -> list[str]:
    """Returns the lines of the delivered verdicts, in order."""
    return [Verdict.decode(record.value or b"").line for record in rig.producer.records if ".verdicts." in record.topic]


def find_upload_decoder() -> psutil.Process:
    """Returns the process in which this process decodes uploaded pictures."""
    (child,) = [child for child in psutil.Process().children() if "models.pictures.decoder_process" in child.cmdline()]
    return child


@pytest.mark.asyncio
async def test_a_cameras_picture_never_waits_for_an_upload_that_is_being_decoded(tmp_path: Path) -> None:
    """One decoder thread, and one batch that has room for all pictures: an upload that is not ready may hold neither."""
    async with run_inspector(tmp_path, RecordingRuntime(defect_probability=0.1), decoders=1) as rig:
        await rig.send("uploads")
        await wait_until(lambda: read_lines(rig) == ["uploads"])
        decoder = find_upload_decoder()
        decoder.suspend()
        try:
            await rig.send("uploads")
            await rig.send("line-1", 3)
            await wait_until(lambda: len(read_lines(rig)) >= 4)
            assert read_lines(rig) == ["uploads"] + ["line-1"] * 3
        finally:
            decoder.resume()
    assert read_lines(rig)[4:] == ["uploads"], "the inspector judges every picture before it stops"


@pytest.mark.asyncio
async def test_a_verdict_that_kafka_refuses_is_not_counted(tmp_path: Path) -> None:
    def count() -> float:
        return sum(sample.value for family in metrics.verdicts.collect() for sample in family.samples if sample.name.endswith("_total"))

    async with run_inspector(tmp_path, RecordingRuntime()) as rig:
        rig.producer.refused_keys.add(b"line-1:1:2")
        before = count()
        await rig.send("line-1", 3)
        await wait_until(lambda: len(read_lines(rig)) == 3)
    assert count() - before == 2
