"""A backlog of large records takes no more memory than `kafka.buffer_bytes` allows, in the inspector and in the archivist."""

from __future__ import annotations

from pathlib import Path

from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import read_topic, wait_for
from tests.large_records import BUFFER_BYTES, LARGEST_GROWTH, RECORDS, PeakMemory, send_large_records
from tests.processes import CastlineProcess

LINE = "line-1"


def test_large_pictures_and_verdicts_become_dead_letters_within_the_memory_of_the_setting(
    make_settings: MakeSettings, models_root: Path, tmp_path: Path
) -> None:
    settings = make_settings(
        model={"root": models_root, "version": "tiny", "runtime": "litert"},
        topics={"image_partitions": 1},
        kafka={"buffer_bytes": BUFFER_BYTES},
    )
    names = TopicNames(settings.topics.prefix)
    with (
        CastlineProcess(settings, tmp_path / "inspector.log", "inspector") as inspector,
        CastlineProcess(settings, tmp_path / "archivist.log", "archivist") as archivist,
    ):
        peaks = [PeakMemory(role.wait_ready().process.pid) for role in (inspector, archivist)]
        send_large_records(settings, names.images(LINE), LINE)
        send_large_records(settings, names.verdicts(LINE), LINE)
        # The archivist makes no dead letters of the inspector's verdicts, which are small and valid.
        wait_for(lambda: len(read_topic(settings, names.dead_letters).values) >= 2 * RECORDS, 120, "all dead letters")
        assert [peak.growth() < LARGEST_GROWTH for peak in peaks] == [True, True]
