"""What the inspector promises while people upload pictures: no camera's picture waits for an uploaded one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from streams import metrics
from streams.records import Verdict
from tests.agents.inspector.inspector_rig import InspectorRig, RecordingRuntime, run_inspector
from tests.encoded_pictures import make_large_png
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


@pytest.mark.asyncio
@pytest.mark.real
async def test_large_uploads_stop_no_line(tmp_path: Path) -> None:
    """24 uploads of a small file with 49.7 megapixels, and 75 with 14.7 megapixels, beside a camera with five pictures a second."""
    bomb, allowed = make_large_png(7050), make_large_png(3840)
    async with run_inspector(tmp_path, RecordingRuntime(defect_probability=0.1), buffer=64) as rig:
        await rig.send("line-1")
        await wait_until(lambda: read_lines(rig) == ["line-1"])
        for _ in range(24):
            await rig.send("uploads", picture=bomb)
        ages_s = []
        for number in range(25):
            for _ in range(3):
                await asyncio.wait_for(rig.send("uploads", picture=allowed), 10)
            began_s = time.monotonic()
            await rig.send("line-1")
            await wait_until(lambda wanted=number + 2: read_lines(rig).count("line-1") == wanted)  # type: ignore[misc]
            ages_s.append(time.monotonic() - began_s)
            await asyncio.sleep(max(0.0, 0.2 - ages_s[-1]))
        assert sorted(ages_s)[-3] < 2, ages_s
    # Every upload has its verdict. The large ones, and those for which no time was left, have the label `review`.
    verdicts = [Verdict.decode(record.value or b"") for record in rig.producer.records if record.topic.endswith(".verdicts.uploads")]
    assert len(verdicts) == 24 + 75
    assert all(verdict.label == "review" for verdict in verdicts[:24])
