"""Which version judges which line: precedence, history, rejected versions, and the versions in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import REGISTRY

from agents.inspector.model_switcher import ModelSwitcher
from models.inference.ensemble import Ensemble
from models.inference.soft_vote import SoftVote
from models.registry import Version
from models.registry.manifest import Manifest
from streams import metrics
from streams.errors import ModelError, RecordError
from streams.model_choices import ALL_LINES, ModelChoices
from streams.records import ModelChoice
from tests.image_topics import wait_for

CHOSEN_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
LINES = ("line-1", "line-2")


class UnusedRuntime:
    """A runtime that is never called, because the tests only look at which ensemble would be called."""

    name, max_batch = "unused", 32

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise AssertionError("no picture is judged here")


def make_version(name: str, classes: Sequence[str] = ("ok", "defect")) -> Version:
    """A version of that name, as a manifest describes it. It has no files."""
    manifest = {
        "version": name,
        "created": CHOSEN_AT,
        "classes": classes,
        "ok_class": 0,
        "preprocessing": {"side_px": 64},
        "voters": [{"name": "lenet", "network": "lenet", "weights_file": "w.h5", "side_px": 32}],
        "threshold": 0.5,
        "band": {"low": 0.5, "high": 0.5},
        "costs": {"miss": 1, "false_alarm": 1},
        "golden": {"file": "g.npz"},
        "data": {"sha256": "0" * 64, "pictures": {}, "split": "none"},
        "figures": {},
        "command": "none",
        "files": {file: {"sha256": "0" * 64, "bytes": 0} for file in ("w.h5", "g.npz")},
    }
    return Version(Path(name), Manifest.model_validate(manifest))


class FakeRegistry:
    """Finds and opens a version of every name. Names that begin with tampered, kinds, odd or broken stand for faulty versions."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.may_open = threading.Event()
        self.may_open.set()

    def find(self, name: str) -> Version:
        if name.startswith("tampered"):
            raise ModelError(f"{name}: expected another SHA-256")
        return make_version(name, ("ok", "crack", "pore") if name.startswith("kinds") else ("ok", "defect"))

    def open(self, version: Version) -> Ensemble:
        assert self.may_open.wait(10)
        self.opened.append(version.name)
        if version.name.startswith("odd"):
            raise ModelError(f"{version.name}: judges the golden set differently")
        if version.name.startswith("broken"):
            raise MemoryError
        return Ensemble(version, UnusedRuntime(), SoftVote.from_manifest(version.manifest))


def make_choice(line: str, name: str, shadow: str | None = None, previous: tuple[str, ...] = (), forced: bool = False) -> ModelChoice:
    return ModelChoice(line=line, version=name, shadow=shadow, chosen_by="somebody", chosen_at=CHOSEN_AT, previous=previous, forced=forced)


def make_choices(*choices: ModelChoice, default: str = "a") -> ModelChoices:
    return ModelChoices(default, {choice.line: choice for choice in choices})


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def switcher(registry: FakeRegistry) -> Iterator[ModelSwitcher]:
    """A started switcher. Both lines have version `a` from the settings."""
    switcher = ModelSwitcher(LINES, registry.find, registry.open)
    switcher.start(make_choices())
    yield switcher
    switcher.stop()


def current_versions(switcher: ModelSwitcher) -> list[str]:
    return [switcher.assignments[line].ensemble.version_name for line in LINES]


def count_rejections(line: str, reason: str) -> float:
    return REGISTRY.get_sample_value("castline_model_refused_total", {"line": line, "reason": reason}) or 0


def test_the_choice_of_a_line_precedes_that_of_all_lines_which_precedes_the_settings() -> None:
    assert make_choices().find("line-1").version == "a"
    assert make_choices(make_choice(ALL_LINES, "b")).find("line-1").version == "b"
    both = make_choices(make_choice(ALL_LINES, "b"), make_choice("line-1", "c"))
    assert (both.find("line-1").version, both.find("line-2").version) == ("c", "b")


def test_the_topic_is_read_record_by_record_and_an_invalid_record_is_refused() -> None:
    choices = make_choices().with_record(b"*", make_choice(ALL_LINES, "b").encode())
    assert choices.find("line-1").version == "b"
    for key, value in ((b"*", b"{}"), (b"line-1", make_choice("line-2", "c").encode())):
        with pytest.raises(RecordError):
            choices.with_record(key, value)
    assert choices.with_record(b"*", None).find("line-1").version == "a", "an empty value removes the choice"


def test_a_roll_back_goes_back_step_by_step_and_choosing_twice_adds_no_step() -> None:
    choices = make_choices()
    for name in ("b", "b", "c", "c"):
        choices = choices.with_record(b"line-1", choices.make_choice("line-1", name, "me", CHOSEN_AT).encode())
    assert choices.find("line-1").version == "c"
    for name in ("b", "a"):
        choices = choices.with_record(b"line-1", choices.make_roll_back("line-1", "me", CHOSEN_AT).encode())
        assert choices.find("line-1").version == name
    with pytest.raises(ModelError, match="no version to roll back to for line-1"):
        choices.make_roll_back("line-1", "me", CHOSEN_AT)


def test_a_choice_is_followed_while_the_switcher_runs(switcher: ModelSwitcher) -> None:
    assert current_versions(switcher) == ["a", "a"]
    switcher.follow(make_choices(make_choice("line-2", "b")))
    wait_for(lambda: current_versions(switcher) == ["a", "b"], 5, "expected line-2 to have its own version")


def test_while_a_version_is_opened_the_one_in_force_goes_on_and_of_several_choices_the_last_counts(
    registry: FakeRegistry, switcher: ModelSwitcher
) -> None:
    registry.may_open.clear()
    switcher.follow(make_choices(make_choice(ALL_LINES, "b")))
    wait_for(lambda: switcher._next_choices is None, 5, "expected the thread to take the choice")
    for name in ("c", "d", "e"):
        switcher.follow(make_choices(make_choice(ALL_LINES, name)))
    assert current_versions(switcher) == ["a", "a"]
    registry.may_open.set()
    wait_for(lambda: current_versions(switcher) == ["e", "e"], 5, "expected the last choice to be in force")
    assert registry.opened == ["a", "b", "e"]


@pytest.mark.parametrize(("name", "reason"), [("tampered", "files"), ("kinds", "classes"), ("odd", "warm-up"), ("broken", "warm-up")])
def test_a_rejected_version_does_not_judge_and_the_next_choice_is_followed(switcher: ModelSwitcher, name: str, reason: str) -> None:
    before = count_rejections("line-1", reason)
    switcher.follow(make_choices(make_choice(ALL_LINES, name, previous=("a",))))
    wait_for(lambda: count_rejections("line-2", reason) > 0 and count_rejections("line-1", reason) == before + 1, 5, "expected a rejection")
    assert current_versions(switcher) == ["a", "a"]
    switcher.follow(make_choices(make_choice(ALL_LINES, "b")))
    wait_for(lambda: current_versions(switcher) == ["b", "b"], 5, "expected the next choice to be in force")


def test_a_faulty_version_is_tried_once_for_all_lines_and_again_when_it_is_chosen_again(
    registry: FakeRegistry, switcher: ModelSwitcher
) -> None:
    before = count_rejections("line-2", "warm-up")
    for times in (1, 2):
        switcher.follow(make_choices(make_choice(ALL_LINES, "odd")))
        wait_for(lambda times=times: count_rejections("line-2", "warm-up") == before + times, 5, "expected a rejection")  # type: ignore[misc]
    assert registry.opened == ["a", "odd", "odd"]


def test_a_version_with_other_classes_needs_a_forced_choice(switcher: ModelSwitcher) -> None:
    switcher.follow(make_choices(make_choice(ALL_LINES, "kinds", forced=True)))
    wait_for(lambda: current_versions(switcher) == ["kinds", "kinds"], 5, "expected the forced version to be in force")


def test_a_worker_that_starts_takes_what_was_in_force_before_when_the_chosen_cannot_serve(registry: FakeRegistry) -> None:
    switcher = ModelSwitcher(LINES, registry.find, registry.open)
    tampered, kinds = make_choice("line-1", "tampered", previous=("odd", "b")), make_choice("line-2", "kinds", previous=("c",))
    switcher.start(make_choices(tampered, kinds))
    switcher.stop()
    assert current_versions(switcher) == ["b", "c"]


def test_a_worker_without_any_whole_version_does_not_start(registry: FakeRegistry) -> None:
    with pytest.raises(ModelError, match="expected another SHA-256"):
        ModelSwitcher(LINES, registry.find, registry.open).start(make_choices(default="tampered"))


def test_only_the_current_version_and_the_one_before_stay_in_memory(registry: FakeRegistry, switcher: ModelSwitcher) -> None:
    for name in ("b", "c", "d"):
        switcher.follow(make_choices(make_choice(ALL_LINES, name)))
        wait_for(lambda name=name: current_versions(switcher) == [name, name], 5, "expected the version to be in force")  # type: ignore[misc]
    assert sorted(switcher.loaded_versions) == ["c", "d"]
    switcher.follow(make_choices(make_choice(ALL_LINES, "c")))
    wait_for(lambda: current_versions(switcher) == ["c", "c"], 5, "expected the version to be in force")
    assert registry.opened == ["a", "b", "c", "d"], "the version before is not opened again"


def test_a_shadow_version_is_assigned_beside_the_current_one_and_a_rejected_one_changes_nothing(switcher: ModelSwitcher) -> None:
    switcher.follow(make_choices(make_choice("line-1", "a", shadow="b"), make_choice("line-2", "c", shadow="tampered")))
    wait_for(
        lambda: current_versions(switcher) == ["a", "c"] and switcher.assignments["line-1"].shadow is not None,
        5,
        "expected a current version and a shadow version",
    )
    shadow = switcher.assignments["line-1"].shadow
    assert shadow is not None
    assert shadow.version_name == "b"
    assert switcher.assignments["line-2"].shadow is None
    switcher.follow(make_choices(make_choice("line-1", "b")))
    wait_for(lambda: current_versions(switcher) == ["b", "a"], 5, "expected the shadow version on line-1 and the setting on line-2")
    assert switcher.assignments["line-1"].shadow is None


def test_the_metrics_name_the_assigned_versions_only(registry: FakeRegistry) -> None:
    switcher = ModelSwitcher(("line-9",), registry.find, registry.open)
    switcher.start(make_choices())
    switcher.follow(make_choices(make_choice("line-9", "b", shadow="c")))
    wait_for(lambda: switcher.assignments["line-9"].shadow is not None, 5, "expected a current version and a shadow version")
    switcher.stop()
    for gauge, name in ((metrics.model_info, "b"), (metrics.model_shadow_info, "c")):
        (family,) = gauge.collect()
        assert [sample.labels["model"] for sample in family.samples if sample.labels["line"] == "line-9"] == [name]
