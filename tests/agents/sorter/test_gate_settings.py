"""The settings of gates: lines that share a board, contradictions that are refused at the start, and additional gates (grades)."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agents.sorter.decisions import BoardVerdict, board_verdict, grade_settings
from agents.sorter.teaching import change_gate
from streams.records import Label
from streams.settings import GateSettings, Settings
from tests.agents.sorter.test_decisions import NOW
from tests.fake_inspector import make_verdict

REVIEW = {"name": "review", "lane": 2, "takes": ["review"], "gate_mm": 250}
PLANT = {"use_plant": 1}
REWORK = {"name": "rework", "lane": 3, "takes": ["defect"], "least_probability": 0.95, "gate_mm": 400}


def plant(*gates: dict[str, object]) -> Settings:
    lines = [{"name": f"line-{number}", "gate": gate} for number, gate in enumerate(gates, 1)]
    return Settings.model_validate({"lines": lines})


def test_a_gate_names_its_board_and_its_additional_gates() -> None:
    gate = GateSettings.model_validate({"port": "/dev/serial/by-id/mega-1", "grades": [REVIEW, REWORK]})
    assert (gate.board_name, gate.grade_names) == ("mega-1", {2: "review", 3: "rework"})


def test_lines_with_the_same_port_share_a_board() -> None:
    settings = plant({"port": "a"}, {"port": "b"}, {"port": "a", "lane": 2})
    assert settings.lines_by_board() == [["line-1", "line-3"], ["line-2"]]
    assert settings.lines_by_board(["line-3"]) == [["line-1", "line-3"]]


@pytest.mark.parametrize(
    ("gates", "sentence"),
    [
        (({"port": "a"}, {"port": "a"}), "line-1 and line-2 both use lane 1"),
        (({"port": "a", "grades": [REVIEW]}, {"port": "a", "lane": 2}), "line-1 and line-2 both use lane 2"),
        (({"port": "a"}, {"port": "a", "lane": 2, "baud": 250000}), "but their speeds are 115200 and 250000 baud"),
        (({"port": "a", "lane": 2, "grades": [REVIEW]},), "its own lane, found 2 more than once"),
        (({"port": "a", "grades": [REVIEW, REVIEW | {"lane": 3}]},), "its own name, found review more than once"),
        (
            ({"port": "a", "board": PLANT}, {"port": "a", "lane": 3}),
            "line line-1 needs .* lane 3 .* line-2 already uses lane 3",
        ),
        (
            ({"port": "a", "lane": 4}, {"port": "a", "lane": 2, "board": PLANT}),
            "line line-2 needs .* line-1 already uses lane 4",
        ),
        (({"port": "a", "board": PLANT, "grades": [REWORK]},), "interface of the line line-1 needs the pins of lane 3"),
        (({"port": "a", "lane": 3, "board": PLANT},), "only the lanes 1 and 2 can have a plant interface"),
        (({"port": "a", "on_review": "pass", "grades": [REVIEW]},), "a part with the label review cannot reach the gate review"),
    ],
)
def test_contradicting_settings_are_refused_with_a_sentence(gates: tuple[dict[str, object], ...], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        plant(*gates)


@pytest.mark.parametrize(
    ("label", "probability", "expected"),
    [
        ("ok", 0.1, BoardVerdict("keep")),
        ("review", 0.5, BoardVerdict("divert", 2)),
        ("review", None, BoardVerdict("divert", 2)),
        ("defect", 0.97, BoardVerdict("divert", 3)),
        ("defect", 0.9, BoardVerdict("divert")),
    ],
)
def test_a_part_goes_to_the_first_gate_that_takes_it(label: Label, probability: float | None, expected: BoardVerdict) -> None:
    gate = GateSettings.model_validate({"port": "a", "grades": [REVIEW, REWORK]})
    verdict = make_verdict("line-1", 1, 1, label, NOW).model_copy(update={"defect_probability": probability})
    assert board_verdict(verdict, gate) == expected


def test_a_further_gate_is_configured_as_one_of_its_belt() -> None:
    gate = GateSettings.model_validate({"port": "a", "lane": 4, "safe": "pass", "grades": [REVIEW | {"board": {"servo_ms": 60}}]})
    (settings,) = grade_settings(gate).values()
    expected = {"lane_of": 4, "gate_mm": 250, "servo_ms": 60, "safe": "pass"}
    assert {key: settings.values[key] for key in expected} == expected


@pytest.mark.parametrize("name", ["bord.window_mm", "port.x"])
def test_a_change_of_a_setting_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"no setting {name}"):
        change_gate(GateSettings(port="/dev/board", travel_mm=600, belt_mm_per_s=1000), {name: 3})
