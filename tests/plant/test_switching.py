"""Versions are chosen, shadowed, rejected and rolled back while pictures arrive, and recorded pictures are replayed; with a real broker."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from kafka import KafkaAdminClient, KafkaProducer

from deploy.cli import main as cli
from deploy.cli.replay import replay
from models.inference.ensemble import open_ensemble
from models.inference.runtimes.conversion import get_flatbuffer
from models.registry import open_registry
from streams.errors import CastlineError
from streams.identity import format_time
from streams.model_choices import ALL_LINES, ModelChoices, publish_model_choice, read_model_choices
from streams.object_store import ObjectStore
from streams.records import Verdict
from streams.settings import LineSettings, Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.image_topics import PICTURES, PictureProducer, count_by_part, read_verdicts, wait_for, wait_for_verdicts
from tests.processes import CASTLINE, CastlineProcess, make_environment
from tests.tiny_version import make_tiny_version

pytestmark = pytest.mark.real

SWITCHES = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions `a` (calls all parts defects), `b` (all ok), `c` (other picture size), `kinds` (other classes) and `tampered`."""
    folder = tmp_path_factory.mktemp("versions")
    switched = [
        make_tiny_version(folder, "a", threshold=0.0),
        make_tiny_version(folder, "b", threshold=1.0, seed=8),
        make_tiny_version(folder, "c", seed=9, side_px=48),
    ]
    for version in switched:
        get_flatbuffer(version, "float32")
    make_tiny_version(folder, "kinds", classes=("ok", "crack", "pore"))
    shutil.copytree(folder / "b", folder / "tampered")
    manifest = folder / "tampered" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": "b"', '"version": "tampered"'))
    weights = folder / "tampered" / "lenet.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    return folder


@pytest.fixture(scope="module")
def plant(kafka_port: int, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Six lines that share one inspector, two lines for each test, because the start of an inspector takes ten seconds."""
    folder = tmp_path_factory.mktemp("plant")
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap": f"127.0.0.1:{kafka_port}"},
            "topics": {"prefix": "switching", "image_partitions": 2},
            "service": {"run_dir": folder / "run", "log_format": "text"},
            "store": {"url": str(folder / "store")},
            "model": {"root": root, "version": "a", "runtime": "litert"},
            "batch": {"size": 16, "shapes": (16,)},
            "lines": [{"name": f"line-{number}"} for number in range(1, 7)],
        }
    )
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    create_topics(admin, settings)
    admin.close()
    return settings


@pytest.fixture(scope="module")
def inspector(plant: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CastlineProcess]:
    with CastlineProcess(plant, tmp_path_factory.mktemp("inspector") / "log", "inspector") as started:
        yield started.wait_ready()


def select_lines(plant: Settings, *lines: str) -> Settings:
    """The plant's settings with some of its lines only."""
    return plant.model_copy(update={"lines": tuple(plant.find_line(line) for line in lines)})


def castline(settings: Settings, *arguments: str) -> str:
    """Runs `castline` within this process. Returns its output, or its error message."""
    result = CliRunner().invoke(cli.castline, arguments, env=make_environment(settings), standalone_mode=False)
    if isinstance(result.exception, CastlineError):
        return str(result.exception)
    assert result.exception is None, f"{arguments} ended with {result.exception!r}: {result.output}"
    return result.stdout


def castline_process(settings: Settings, *arguments: str, status: int = 0) -> str:
    """Runs a `castline` process that must end with `status`. Returns its output, or its error messages if it fails."""
    result = subprocess.run(
        [CASTLINE, *arguments], env=make_environment(settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == status, f"{arguments} ended with {result.returncode}: {result.stdout}{result.stderr}"
    return result.stdout if status == 0 else result.stderr


def choose(settings: Settings, choices: ModelChoices, line: str, version: str) -> ModelChoices:
    """Publishes the choice that `castline models choose` would make, without the seconds that a process takes."""
    choice = choices.make_choice(line, version, "the test", datetime.now(UTC))
    publish_model_choice(settings, choice, "models")
    return choices.with_record(line.encode(), choice.encode())


def assign_a(plant: Settings, inspector: CastlineProcess, *lines: LineSettings) -> ModelChoices:
    """Assigns `a` to each of `lines`, whatever the other tests choose for all lines."""
    choices = ModelChoices("a")
    for line in lines:
        choices = choose(plant, choices, line.name, "a")
        wait_for(lambda line=line: is_current(inspector, line.name, "a"), 60, "expected a in force")  # type: ignore[misc]
    return choices


def is_current(inspector: CastlineProcess, line: str, version: str) -> bool:
    return inspector.metric("castline_model_info", line=line, model=version) == 1


def read_resident_mb(role: CastlineProcess) -> float:
    return float(psutil.Process(role.process.pid).memory_info().rss) / 1e6


def select_verdicts(verdicts: list[Verdict], line: str) -> list[Verdict]:
    """The verdicts of `line` in the order of its topic."""
    return [verdict for verdict in verdicts if verdict.line == line]


def test_twenty_switches_under_load_leave_every_picture_one_verdict_of_the_version_in_force(
    plant: Settings, inspector: CastlineProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three versions take turns and two fit in memory, so every switch loads a version. line-2 keeps `a` and shares the batches."""
    settings = select_lines(plant, "line-1", "line-2")
    memory_mb = read_resident_mb(inspector)
    choices = choose(settings, ModelChoices("a"), "line-2", "a")
    feed = PictureProducer(settings, rate_per_s=25)
    wait_for(lambda: len(feed.parts) > 25, 30, "expected the feed to run")
    order, durations_s = ["a"], []
    for number in range(1, SWITCHES + 1):
        version = "abc"[number % 3]
        start_s = time.monotonic()
        choices = choose(settings, choices, ALL_LINES, version)
        wait_for(lambda version=version: is_current(inspector, "line-1", version), 60, f"expected {version} in force")  # type: ignore[misc]
        durations_s.append(time.monotonic() - start_s)
        order.append(version)
        judged = inspector.metric("castline_verdicts_total", line="line-1", model=version)
        wait_for(
            lambda version=version, judged=judged: inspector.metric("castline_verdicts_total", line="line-1", model=version) > judged,  # type: ignore[misc]
            30,
            f"expected verdicts of {version}",
        )
    parts = feed.finish()
    found = wait_for_verdicts(settings, len(parts))
    growth_mb = read_resident_mb(inspector) - memory_mb
    assert count_by_part(found) == dict.fromkeys(parts, 1), "one verdict each, none missing, none repeated"
    assert [version for version, _ in groupby(verdict.model for verdict in select_verdicts(found, "line-1"))] == order
    assert {verdict.model for verdict in select_verdicts(found, "line-2")} == {"a"}
    labels = {version: {verdict.label for verdict in found if verdict.model == version} for version in "ab"}
    assert labels == {"a": {"defect"}, "b": {"ok"}}, "the verdict names the version that judged"
    assert {verdict.threshold for verdict in found if verdict.model == "c"} == {0.5}
    ages_s = sorted((verdict.decided_at - verdict.captured_at).total_seconds() for verdict in found)
    with capsys.disabled():
        print(
            f"\n{SWITCHES} switches under {len(parts)} pictures: {min(durations_s):.1f} to {max(durations_s):.1f} s from choice to force; "
            f"age of a verdict p50 {ages_s[len(ages_s) // 2] * 1000:.0f} ms, p99 {ages_s[len(ages_s) * 99 // 100] * 1000:.0f} ms, "
            f"largest {ages_s[-1] * 1000:.0f} ms; memory {memory_mb:.0f} MB and {growth_mb:.0f} MB more"
        )


def test_rejected_versions_do_not_judge_and_are_logged_and_the_commands_choose_show_and_roll_back(
    plant: Settings, inspector: CastlineProcess
) -> None:
    settings = select_lines(plant, "line-3", "line-4")
    choices = assign_a(plant, inspector, *settings.lines)
    feed = PictureProducer(settings, rate_per_s=20)
    # The command refuses bad versions. If another program chooses them nevertheless, the inspector rejects them.
    assert "lenet.weights.h5 is damaged or was tampered with: its SHA-256" in castline_process(
        settings, "models", "choose", "tampered", status=3
    )
    assert "The present version of line-3, a, has defect, ok" in castline(settings, "models", "choose", "kinds", "--line", "line-3")
    assert "no line 'line-9'. Known lines: line-1, line-2, line-3, line-4, line-5, line-6." in castline(
        plant, "models", "choose", "b", "--line", "line-9"
    )
    for version, reason in (("tampered", "files"), ("absent", "files"), ("kinds", "classes")):
        before = inspector.metric("castline_model_refused_total", line="line-3", reason=reason)
        choices = choose(settings, choices, "line-3", version)
        wait_for(
            lambda reason=reason, before=before: inspector.metric("castline_model_refused_total", line="line-3", reason=reason) > before,  # type: ignore[misc]
            30,
            f"expected {version} to be refused",
        )
        assert f"Version {version} is rejected for line-3. Consequence: version a goes on judging. Reason: " in inspector.log()
    assert inspector.page("/healthz") == (200, "ok\n")
    status = json.loads(castline(settings, "models", "status", "--json"))
    assert [(row["version"], row["chosen_for"], row["state"]) for row in status] == [
        ("kinds", "line-3", "verified"),
        ("a", "line-4", "verified"),
    ]
    assert "line-3: b is chosen (before: kinds)" in castline(settings, "models", "choose", "b", "--line", "line-3", "--force")
    wait_for(lambda: is_current(inspector, "line-3", "b"), 60, "expected b in force")
    assert "as before" in castline(settings, "models", "choose", "b", "--line", "line-3")
    choices = read_model_choices(settings, "test")
    assert choices.by_key["line-3"].previous == ("kinds", "absent", "tampered", "a"), "choosing twice adds one step"
    publish_model_choice(settings, choices.by_key["line-3"].model_copy(update={"previous": ("a",)}), "models")
    assert "line-3: a is chosen (before: b)" in castline(settings, "models", "roll-back", "--line", "line-3")
    wait_for(lambda: is_current(inspector, "line-3", "a"), 60, "expected a in force again")
    assert "There is no version to roll back to" in castline(settings, "models", "roll-back", "--line", "line-3")
    parts = feed.finish()
    found = wait_for_verdicts(settings, len(parts))
    assert count_by_part(found) == dict.fromkeys(parts, 1)
    assert {verdict.model for verdict in found} == {"a", "b"}
    assert {verdict.model for verdict in select_verdicts(found, "line-4")} == {"a"}


def test_a_shadow_version_is_counted_and_publishes_no_verdict_and_a_replay_finds_the_same_labels(
    plant: Settings, inspector: CastlineProcess
) -> None:
    settings = select_lines(plant, "line-5", "line-6")
    assign_a(plant, inspector, *settings.lines)
    start = datetime.now(UTC) - timedelta(seconds=1)
    for line in settings.lines:
        assert "a is chosen, with b as its shadow" in castline(settings, "models", "shadow", "b", "--line", line.name)
    wait_for(lambda: inspector.metric("castline_model_shadow_info", model="b") == 2, 60, "expected b beside both lines")
    feed = PictureProducer(settings, rate_per_s=10)
    wait_for(lambda: len(feed.parts) >= 30, 30, "expected the feed to run")
    parts = feed.finish()
    large = ObjectStore(settings.store.url).put(PICTURES[0])
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    producer.send(TopicNames(settings.topics.prefix).images("line-5"), key=b"line-5:9:1", headers=[("claim", large.encode())]).get(10)
    producer.send(TopicNames(settings.topics.prefix).images("line-5"), key=b"line-5:9:2", value=b"no picture").get(10)
    producer.close()
    found = wait_for_verdicts(settings, len(parts) + 2)
    # The picture that cannot be decoded is not judged by any version.
    sample_count = len(parts) + 1
    wait_for(
        lambda: inspector.metric("castline_shadow_judged_total") + inspector.metric("castline_shadow_dropped_total") == sample_count,
        30,
        "expected the shadow to judge in its idle time",
    )
    judged = inspector.metric("castline_shadow_judged_total", model="b")
    assert judged > sample_count / 2
    assert inspector.metric("castline_shadow_disagreements_total", model="b") == judged
    assert "Part line-5:9:1: version a gives the label defect" in inspector.log()
    assert {verdict.model for verdict in found} == {"a"}
    assert "a is chosen (as before)" in castline(settings, "models", "shadow", "none", "--line", "line-5")
    wait_for(lambda: inspector.metric("castline_model_shadow_info") == 1, 30, "expected no shadow on line-5")
    before = len(read_verdicts(settings))
    arguments = ("replay", "--from", format_time(start), "--model", "b", "--json")
    report = json.loads(castline_process(settings, *arguments))
    counts = {name: report[name] for name in ("pictures", "same", "without_verdict", "nameless", "changes")}
    assert counts == {
        "pictures": sample_count + 1,
        "same": 1,
        "without_verdict": 0,
        "nameless": 0,
        "changes": {"defect -> ok": sample_count},
    }
    assert {change["part"] for change in report["parts"]} == {*parts, "line-5:9:1"}
    assert len(read_verdicts(settings)) == before, "a replay publishes nothing"
    until = start + timedelta(seconds=0.1)
    ensemble = open_ensemble(open_registry(settings.model.root).open_version("b"), "litert", (1,))
    assert list(replay(settings, ["line-5"], start, until, ensemble)) == [], "no picture came in this time"
