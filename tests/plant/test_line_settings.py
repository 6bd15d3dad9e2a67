"""People change the settings of a line while its inspector runs; with a real broker and real processes."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaProducer

from models.inference.line_threshold import choose_line_threshold
from models.inference.runtimes.conversion import get_flatbuffer
from models.registry import Version
from streams.live_line_settings import publish_live_line_settings, read_live_line_settings
from streams.records import LiveLineSettings, Verdict, make_verdict_id
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import PICTURES, wait_for_verdicts
from tests.processes import CASTLINE, CastlineProcess, make_environment
from tests.tiny_version import make_tiny_version

pytestmark = pytest.mark.real


@pytest.fixture
def version(tmp_path: Path) -> Version:
    made = make_tiny_version(tmp_path / "versions", pictures=100)
    get_flatbuffer(made, "float32")
    return made


@pytest.fixture
def settings(make_settings: MakeSettings, version: Version) -> Settings:
    return make_settings(
        lines=("line-1", "line-2"),
        model={"root": version.folder.parent, "version": "tiny", "runtime": "litert"},
        batch={"size": 16, "shapes": (1, 16)},
    )


def set_line(settings: Settings, *arguments: str) -> None:
    command = [str(CASTLINE), "lines", "set", "--line", "line-1", *arguments, "--yes"]
    subprocess.run(command, env=make_environment(settings), check=True, capture_output=True, timeout=60)


def make_judge(settings: Settings) -> Callable[[str], Verdict]:
    """Returns a function that sends one more picture to a line, always the same one, and waits for its verdict."""
    numbers = itertools.count(1)

    def judge(line: str) -> Verdict:
        number = next(numbers)
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        producer.send(TopicNames(settings.topics.prefix).images(line), key=f"{line}:1:{number}".encode(), value=PICTURES[0]).get(10)
        producer.close()
        (verdict,) = [one for one in wait_for_verdicts(settings, number) if one.part == number]
        return verdict

    return judge


def judge_until(judge: Callable[[str], Verdict], threshold: float) -> Verdict:
    """Judges pictures of line-1 until this threshold decides, and returns the first such verdict."""
    deadline_s = time.monotonic() + 30
    while (verdict := judge("line-1")).threshold != pytest.approx(threshold):
        assert time.monotonic() < deadline_s, f"expected the threshold {threshold} to decide within 30 s"
    return verdict


def test_settings_change_the_verdicts_of_a_running_inspector_and_are_kept_over_its_restart(
    settings: Settings, version: Version, tmp_path: Path
) -> None:
    judge = make_judge(settings)
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        unset = judge("line-1")
        probability = unset.defect_probability
        assert probability is not None
        assert (unset.threshold, unset.decision) == (0.5, "")
        assert unset.verdict_id == make_verdict_id(unset.part_id, unset.image.sha256, "tiny"), "the id that earlier releases gave it"

        strict, lenient = probability / 2, (1 + probability) / 2
        for threshold, label in ((strict, "defect"), (lenient, "ok")):
            set_line(settings, "--threshold", str(threshold))
            verdict = judge_until(judge, threshold)
            assert verdict.label == label
            assert verdict.defect_probability == pytest.approx(probability, abs=1e-5)
            assert verdict.verdict_id == make_verdict_id(verdict.part_id, verdict.image.sha256, "tiny", verdict.decision)
        assert judge("line-2").decision == "", "the other line keeps the threshold of the version"

        inspector.kill()
        inspector.start()
        inspector.wait_ready()
        first = judge("line-1")
        assert first.threshold == pytest.approx(lenient), "the setting decides from the first picture on"
        assert first.decision == verdict.decision

        set_line(settings, "--clear", "threshold", "--defect-share", "0.01")
        judge_until(judge, choose_line_threshold(version.manifest, 0.01))
        set_line(settings, "--clear", "defect-share")
        assert judge_until(judge, 0.5).decision == ""


def test_a_setting_that_the_broker_confirmed_is_read_back(settings: Settings) -> None:
    record = LiveLineSettings(line="line-2", mm_per_px=0.25, set_by="anna", set_at=datetime(2026, 1, 31, tzinfo=UTC))
    publish_live_line_settings(settings, record, "test")
    assert read_live_line_settings(settings, "test").by_line == {"line-2": record}
