"""What `castline board teach` computes from ten castings, and how it changes the settings file."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

import pytest

from deploy.cli.board_teach import TeachDialogue, _find_changes
from deploy.cli.settings_file import describe_changes, edit_gate
from deploy.cli.teach_figures import evaluate, propose_limits, propose_travel
from deploy.cli.teach_page import TeachRecord
from firmware.lane_settings import LaneSettings
from streams.errors import GateError
from streams.records import CommandAnswer, make_answer
from streams.settings import GateSettings

GATE = GateSettings(port="/dev/ttyACM0", travel_mm=720, belt_mm_per_s=500)


def castings(*travels_ms: int) -> list[dict[str, int | str]]:
    return [{"travel_ms": ms, "travel_steps": ms * 2, "length_ms": 160, "length_steps": 320} for ms in travels_ms]


TEN = castings(1198, 1199, 1199, 1200, 1200, 1200, 1201, 1201, 1202, 1204)


def test_one_outlier_of_ten_does_not_count() -> None:
    measured = evaluate(castings(1198, 1199, 1199, 1200, 1900, 1200, 1201, 1201, 1202, 1204), 0, GATE)
    assert measured.travel.outliers == (4,)
    assert abs(measured.travel.median - 600) < 1
    assert measured.travel.spread < 2


def test_the_longest_casting_is_none_of_the_outliers_and_none_without_a_known_length() -> None:
    # A casting that slips is long in time at both photo-eyes.
    ten = castings(1198, 1199, 1199, 1200, 1900, 1200, 1201, 1201, 1202, 1204)
    ten[4]["length_ms"], ten[7]["length_ms"] = 900, 0
    assert evaluate(ten, 0, GATE).longest_mm == 80


def test_castings_longer_than_the_distance_of_the_eyes_set_no_limits(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = [each | {"length_ms": 0, "length_steps": 0} for each in TEN]

    def ask(teach: str, **fields: object) -> CommandAnswer:
        seen: dict[str, dict[str, int | str]] = {"seen": {"eye1": 10, "eye2": 10}}
        return make_answer("done", "", values={f"casting {number}": each for number, each in enumerate(unknown, 1)} | seen)

    dialogue = TeachDialogue(ask, TeachRecord("line-1", "anna", datetime.now(UTC)), GATE, LaneSettings().values)
    dialogue.run(("travel",), 10, 60)
    assert dialogue.changes.keys() == {"travel_mm", "board.window_mm"}
    assert "The length of no casting is known" in capsys.readouterr().out


def test_castings_that_differ_too_much_are_refused() -> None:
    with pytest.raises(GateError, match=r"differ too much .* Nothing was written"):
        evaluate(castings(900, 1000, 1050, 1100, 1200, 1250, 1300, 1400, 1500, 1600), 0, GATE)


def test_with_an_encoder_the_step_gives_the_distance_and_the_speed() -> None:
    measured = evaluate(TEN, 250_000, GATE)
    proposal = propose_travel(measured, GATE, has_encoder=True)
    assert proposal == {"travel_mm": 600, "board.window_mm": 15, "belt_mm_per_s": 500.0}
    own = GATE.model_copy(update={"board": {"eye_gap_mm": 720}})
    assert propose_travel(measured, own, has_encoder=False)["board.eye_gap_mm"] == 600


def test_the_limits_suit_the_longest_casting_and_the_gate() -> None:
    limits = propose_limits(evaluate(TEN, 0, GATE), LaneSettings().values, window_mm=15, servo_ms=80)
    # The castings are 80 mm long. The gate stays out for 60 mm, and needs 40 mm of travel to return.
    assert limits == {"board.stuck_mm": 300, "board.spacing_mm": 100}


FILE = """# foundry
[[lines]]
name = "line-1"
[lines.gate]
port = "/dev/a"
travel_mm = 500

[[lines]]
name = "line-2"  # second
[lines.gate]
port = "/dev/b"  # by-path
travel_mm = 720  # ruler
{board}
# end
"""


@pytest.mark.parametrize(
    "board",
    [
        "",
        "# board = {}",
        "board = { window_mm = 40, safe = 'pass' }  # window",
        "board.window_mm = 40",
        "[lines.gate.board]\nwindow_mm = 40  # window\nencoder = 1",
    ],
)
def test_the_settings_file_keeps_its_comments_and_the_other_lines(board: str) -> None:
    before = FILE.format(board=board)
    changes = {"travel_mm": 600, "board.window_mm": 15, "board.stuck_mm": 300}
    after = edit_gate(before, "line-2", changes)
    first, second = tomllib.loads(after)["lines"]
    assert first == tomllib.loads(before)["lines"][0]
    assert (second["gate"]["travel_mm"], second["gate"]["board"]["window_mm"], second["gate"]["board"]["stuck_mm"]) == (600, 15, 300)
    for comment in ("# foundry", "# second", "# by-path", "# ruler", "# end", *(["# window"] if "# window" in board else [])):
        assert comment in after


def test_a_file_that_is_not_understood_is_left_to_a_person() -> None:
    unusual = FILE.format(board="").replace("[lines.gate]", "[ lines . gate ]")
    with pytest.raises(ValueError, match="was not found"):
        edit_gate(unusual, "line-2", {"travel_mm": 600})
    assert describe_changes("line-2", {"travel_mm": 600, "board.window_mm": 15}) == (
        "# line line-2\n[lines.gate]\ntravel_mm = 600\n[lines.gate.board]\nwindow_mm = 15"
    )


def test_a_travel_is_compared_with_the_one_that_the_board_uses(capsys: pytest.CaptureFixture[str]) -> None:
    """The file was changed after the start of the sorter, so the board still uses 600 mm."""
    file_gate, record = GATE.model_copy(update={"travel_mm": 650}), TeachRecord("line-1", "anna", datetime.now(UTC))
    used = LaneSettings({"eye_gap_mm": 600}).values
    assert _find_changes({"travel_mm": 650}, file_gate, used, record) == {"travel_mm": 650}
    assert _find_changes({"travel_mm": 600}, file_gate, used, record) == {"travel_mm": 600}, "the file must be corrected"
    assert record.changes == [("travel_mm", "600", "650"), ("travel_mm", "600", "600")]
    assert _find_changes({"travel_mm": 600}, file_gate.model_copy(update={"travel_mm": 600}), used, record) == {}
