"""Which version judges which line: precedence, history, what stays out and why, what is held in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import REGISTRY

from agents.inspector.judging import by_judge
from agents.inspector.model_switcher import Serving
from models.inference.ensemble import Ensemble
from models.inference.soft_vote import SoftVote
from models.registry import Version
from models.registry.manifest import Manifest
from streams import metrics
from streams.errors import ModelError
from streams.model_choices import ALL_LINES, ModelChoices
from streams.records import ModelChoice
from tests.image_topics import wait_for

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Still:
    """A runtime that is never asked: what is tested here is who would be."""

    name, max_batch = "still", 32

    def warm_up(self) -> None: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        raise AssertionError("nobody judges here")


def version(name: str, classes: Sequence[str] = ("ok", "defect")) -> Version:
    """A version of that name, as a manifest describes it."""
    manifest = {
        "version": name,
        "created": AT,
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


class Shelf:
    """Versions that can be found and opened, but for those whose name says otherwise."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.may_open = threading.Event()
        self.may_open.set()

    def find(self, name: str) -> Version:
        if name.startswith("tampered"):
            raise ModelError(f"{name}: expected another SHA-256")
        return version(name, ("ok", "crack", "pore") if name.startswith("kinds") else ("ok", "defect"))

    def open(self, found: Version) -> Ensemble:
        assert self.may_open.wait(10)
        self.opened.append(found.name)
        if found.name.startswith("odd"):
            raise ModelError(f"{found.name}: judges the golden set differently")
        if found.name.startswith("broken"):
            raise MemoryError
        return Ensemble(found, Still(), SoftVote.from_manifest(found.manifest))


def choice(line: str, name: str, shadow: str | None = None, previous: tuple[str, ...] = (), forced: bool = False) -> ModelChoice:
    return ModelChoice(line=line, version=name, shadow=shadow, chosen_by="somebody", chosen_at=AT, previous=previous, forced=forced)


def choices(*chosen: ModelChoice, default: str = "a") -> ModelChoices:
    return ModelChoices(default, {one.line: one for one in chosen})


LINES = ("line-1", "line-2")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def serving(shelf: Shelf) -> Iterator[Serving]:
    """A worker's, with version `a` in force on both lines by the settings."""
    begun = Serving(LINES, shelf.find, shelf.open)
    begun.begin(choices())
    yield begun
    begun.stop()


def in_force(serving: Serving) -> list[str]:
    return [serving.duties[line].judge.version_name for line in LINES]


def refusals(line: str, reason: str) -> float:
    return REGISTRY.get_sample_value("castline_model_refused_total", {"line": line, "reason": reason}) or 0


def test_a_lines_own_choice_goes_before_that_of_all_lines_and_that_before_the_settings() -> None:
    assert choices().find("line-1").version == "a"
    assert choices(choice(ALL_LINES, "b")).find("line-1").version == "b"
    both = choices(choice(ALL_LINES, "b"), choice("line-1", "c"))
    assert (both.find("line-1").version, both.find("line-2").version) == ("c", "b")


def test_the_topic_is_read_record_by_record_and_what_is_no_choice_changes_nothing() -> None:
    found = choices().with_record(b"*", choice(ALL_LINES, "b").encode())
    assert found.find("line-1").version == "b"
    assert found.with_record(b"*", b"{}") == found
    assert found.with_record(b"line-1", choice("line-2", "c").encode()) == found, "under another's key"
    assert found.with_record(b"*", None).find("line-1").version == "a", "taken back"


def test_a_roll_back_goes_back_step_by_step_and_choosing_twice_adds_no_step() -> None:
    now = choices()
    for name in ("b", "b", "c", "c"):
        now = now.with_record(b"line-1", now.make_choice("line-1", name, "me", AT).encode())
    assert now.find("line-1").version == "c"
    for name in ("b", "a"):
        now = now.with_record(b"line-1", now.make_roll_back("line-1", "me", AT).encode())
        assert now.find("line-1").version == name
    with pytest.raises(ModelError, match="no version to roll back to for line-1"):
        now.make_roll_back("line-1", "me", AT)


def test_a_choice_that_is_followed_serves_from_then_on(serving: Serving) -> None:
    assert in_force(serving) == ["a", "a"]
    serving.follow(choices(choice("line-2", "b")))
    wait_for(lambda: in_force(serving) == ["a", "b"], 5, "expected line-2 to have its own")


def test_while_a_version_is_opened_the_one_in_force_goes_on_and_of_several_choices_the_last_counts(shelf: Shelf, serving: Serving) -> None:
    shelf.may_open.clear()
    serving.follow(choices(choice(ALL_LINES, "b")))
    wait_for(lambda: serving._wanted is None, 5, "expected the choice to be taken up")
    for name in ("c", "d", "e"):
        serving.follow(choices(choice(ALL_LINES, name)))
    assert in_force(serving) == ["a", "a"]
    shelf.may_open.set()
    wait_for(lambda: in_force(serving) == ["e", "e"], 5, "expected the last choice in force")
    assert shelf.opened == ["a", "b", "e"]


@pytest.mark.parametrize(("name", "reason"), [("tampered", "files"), ("kinds", "classes"), ("odd", "warm-up"), ("broken", "warm-up")])
def test_a_version_that_may_not_serve_stays_out_and_the_next_can_come(serving: Serving, name: str, reason: str) -> None:
    before = refusals("line-1", reason)
    serving.follow(choices(choice(ALL_LINES, name, previous=("a",))))
    wait_for(lambda: refusals("line-2", reason) > 0 and refusals("line-1", reason) == before + 1, 5, "expected it to be refused")
    assert in_force(serving) == ["a", "a"]
    serving.follow(choices(choice(ALL_LINES, "b")))
    wait_for(lambda: in_force(serving) == ["b", "b"], 5, "expected the next")


def test_a_version_that_fails_is_tried_once_for_all_lines_and_again_when_it_is_chosen_again(shelf: Shelf, serving: Serving) -> None:
    before = refusals("line-2", "warm-up")
    for times in (1, 2):
        serving.follow(choices(choice(ALL_LINES, "odd")))
        wait_for(lambda times=times: refusals("line-2", "warm-up") == before + times, 5, "expected it to be refused")  # type: ignore[misc]
    assert shelf.opened == ["a", "odd", "odd"]


def test_other_classes_come_in_by_force_alone(serving: Serving) -> None:
    serving.follow(choices(choice(ALL_LINES, "kinds", forced=True)))
    wait_for(lambda: in_force(serving) == ["kinds", "kinds"], 5, "expected what was forced")


def test_a_worker_that_starts_takes_what_was_in_force_before_when_the_chosen_cannot_serve(shelf: Shelf) -> None:
    begun = Serving(LINES, shelf.find, shelf.open)
    begun.begin(choices(choice("line-1", "tampered", previous=("odd", "b")), choice("line-2", "kinds", previous=("c",))))
    begun.stop()
    assert in_force(begun) == ["b", "c"]


def test_a_worker_without_any_whole_version_does_not_start(shelf: Shelf) -> None:
    with pytest.raises(ModelError, match="expected another SHA-256"):
        Serving(LINES, shelf.find, shelf.open).begin(choices(default="tampered"))


def test_only_what_serves_and_the_one_just_relieved_are_held(shelf: Shelf, serving: Serving) -> None:
    for name in ("b", "c", "d"):
        serving.follow(choices(choice(ALL_LINES, name)))
        wait_for(lambda name=name: in_force(serving) == [name, name], 5, "expected it in force")  # type: ignore[misc]
    assert sorted(serving.held) == ["c", "d"]
    serving.follow(choices(choice(ALL_LINES, "c")))
    wait_for(lambda: in_force(serving) == ["c", "c"], 5, "expected it in force")
    assert shelf.opened == ["a", "b", "c", "d"], "the way back takes no time"


def test_a_shadow_stands_beside_the_judge_and_one_that_fails_harms_nobody(serving: Serving) -> None:
    serving.follow(choices(choice("line-1", "a", shadow="b"), choice("line-2", "c", shadow="tampered")))
    wait_for(lambda: in_force(serving) == ["a", "c"] and serving.duties["line-1"].shadow is not None, 5, "expected judge and shadow")
    shadow = serving.duties["line-1"].shadow
    assert shadow is not None
    assert shadow.version_name == "b"
    assert serving.duties["line-2"].shadow is None
    serving.follow(choices(choice("line-1", "b")))
    wait_for(lambda: in_force(serving) == ["b", "a"], 5, "expected the shadow in force and line-2 on the settings again")
    assert serving.duties["line-1"].shadow is None


def test_the_metrics_name_what_is_in_force_and_nothing_else(shelf: Shelf) -> None:
    begun = Serving(("line-9",), shelf.find, shelf.open)
    begun.begin(choices())
    begun.follow(choices(choice("line-9", "b", shadow="c")))
    wait_for(lambda: begun.duties["line-9"].shadow is not None, 5, "expected judge and shadow")
    begun.stop()
    for gauge, name in ((metrics.model_info, "b"), (metrics.model_shadow_info, "c")):
        (family,) = gauge.collect()
        assert [sample.labels["model"] for sample in family.samples if sample.labels["line"] == "line-9"] == [name]


def test_pictures_of_lines_with_the_same_version_are_judged_in_one_call() -> None:
    a, b = (Ensemble(version(name), Still(), SoftVote.from_manifest(version(name).manifest)) for name in "ab")
    assert by_judge([a, b, a, a, b]) == [(a, [0, 2, 3]), (b, [1, 4])]
