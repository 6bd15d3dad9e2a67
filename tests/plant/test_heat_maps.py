"""Heat maps from a localiser process and the AlexNet of a version, with a real broker and object store."""

from __future__ import annotations

import io
import os
from pathlib import Path

from kafka import KafkaProducer
from PIL import Image

from streams.identity import PartId
from streams.object_store import ObjectStore
from streams.records import Finding
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import make_jpeg, read_topic, read_verdicts, wait_for
from tests.processes import CastlineProcess
from tests.sample_records import SamplePlant


def read_findings(settings: Settings, line: str) -> list[Finding]:
    return [Finding.decode(value or b"") for value in read_topic(settings, TopicNames(settings.topics.prefix).findings(line)).values]


def test_uploaded_pictures_get_heat_maps_beside_their_verdicts(make_settings: MakeSettings, models_root: Path, tmp_path: Path) -> None:
    settings = make_settings(
        lines=("line-1", "uploads"),
        model={"root": models_root, "version": "tiny", "runtime": "auto"},
        batch={"size": 4, "shapes": (1, 4)},
        inspector={"localiser_niceness": 5},
    )
    images = TopicNames(settings.topics.prefix).images("uploads")
    light = settings.model_copy(update={"model": settings.model.model_copy(update={"runtime": "litert"})})
    with (
        CastlineProcess(light, tmp_path / "log", "inspector") as inspector,
        CastlineProcess(settings, tmp_path / "localiser.log", "localiser") as localiser,
    ):
        inspector.wait_ready()
        localiser.wait_ready()
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        for part in range(1, 6):
            producer.send(images, key=f"uploads:1:{part}".encode(), value=make_jpeg(part)).get(10)
        producer.send(images, key=b"uploads:1:6", value=b"no picture").get(10)
        producer.close()
        wait_for(lambda: localiser.metric("castline_findings_total", line="uploads") == 5, 60, "expected five heat maps")
        assert "Version tiny makes heat maps" in localiser.log()
        assert localiser.metric("castline_findings_failed_total") == 0
        assert os.getpriority(os.PRIO_PROCESS, localiser.process.pid) >= 5, "no verdict waits for a heat map"
        assert localiser.stop() == 0
        assert inspector.stop() == 0
    verdicts = {verdict.part: verdict for verdict in read_verdicts(settings)}
    findings = read_findings(settings, "uploads")
    assert sorted(finding.part for finding in findings) == [1, 2, 3, 4, 5]
    for finding in findings:
        assert finding.verdict_id == verdicts[finding.part].verdict_id
        assert (finding.method, finding.model) == ("grad-cam", "tiny")
        assert finding.found_at > verdicts[finding.part].decided_at
        assert [box.score for box in finding.boxes] == sorted((box.score for box in finding.boxes), reverse=True)
        assert all(box.left_px + box.width_px <= 120 and box.top_px + box.height_px <= 120 for box in finding.boxes)
        with Image.open(io.BytesIO(ObjectStore(settings.store.url).fetch(finding.heat_map, "maps")), formats=("PNG",)) as heat_map:
            assert (heat_map.mode, heat_map.size) == ("L", (64, 64)), "a square picture has a map of the networks' size"


def test_a_localiser_that_is_killed_under_load_leaves_no_awaited_part_without_a_heat_map(
    make_settings: MakeSettings, models_root: Path, tmp_path: Path
) -> None:
    """On both lines people wait for the heat maps, so none may be dropped, however slow the machine is."""
    lines = ("line-1", "line-2")
    settings = make_settings(
        lines=lines,
        model={"root": models_root, "version": "tiny", "runtime": "auto"},
        inspector={"explain_lines": lines, "localiser_niceness": 0},
    )
    with CastlineProcess(settings, tmp_path / "log", "localiser") as localiser:
        localiser.wait_ready()
        plant = SamplePlant(settings, rate_per_s=10, findings=False)
        wait_for(lambda: localiser.metric("castline_findings_total") >= 10, 60, "expected the first heat maps")
        localiser.kill()
        parts = plant.finish()
        localiser.start()
        wait_for(lambda: _explained_parts(settings) == set(parts), 90, f"expected heat maps of {len(parts)} parts")
        assert localiser.stop() == 0
    findings = [finding for line in lines for finding in read_findings(settings, line)]
    assert len({(finding.part_id, finding.verdict_id, finding.heat_map) for finding in findings}) == len(parts), "a repeat changes nothing"
    store = ObjectStore(settings.store.url)
    assert all(store.fetch(finding.heat_map, "maps") for finding in findings)


def _explained_parts(settings: Settings) -> set[PartId]:
    return {finding.part_id for line in ("line-1", "line-2") for finding in read_findings(settings, line)}
