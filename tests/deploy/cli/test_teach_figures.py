"""What `castline board teach` computes from ten castings, and how it changes the settings file."""

from __future__ import annotations

import tomllib

import pytest

from deploy.cli.settings_file import describe_changes, edit_gate
from deploy.cli.teach_figures import evaluate, propose_limits, propose_travel
from firmware.lane_settings import LaneSettings
from streams.errors import GateError
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
