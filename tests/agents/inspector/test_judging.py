"""From decoded pictures to verdicts: order, isolation of the culprit, what an unreadable picture becomes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from agents.inspector.decoding import Decoded, receive
from agents.inspector.judging import INFERENCE_FAILED, judge, verdict
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from streams.errors import PictureError
from streams.record_producer import ConsumedRecord
from streams.settings import GateSettings, LineSettings

TAKEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
LINE = LineSettings(name="line-1", gate=GateSettings(port="/dev/null", travel_mm=1000, belt_mm_per_s=500))
POISON = 255  # a picture of this grey breaks the fake below, alone or in company


class Fragile:
    """Calls a picture a defect by its grey level, and breaks down over poison: real networks cannot be made to on purpose."""

    version_name = "fragile"
    threshold = 0.5

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, pixels: npt.NDArray[np.uint8]) -> list[Prediction]:
        self.calls.append(len(pixels))
        greys = pixels[:, 0, 0]
        if (greys == POISON).any():
            raise RuntimeError("poisoned")
        return [Prediction("defect" if grey >= 128 else "ok", float(grey) / 255, {"alexnet": 0.9, "lenet": 0.1}) for grey in greys]


def decoded(part: int, grey: int | None, captured_at: datetime = TAKEN) -> Decoded:
    """Part `part` with a picture of one grey level; an unreadable one for None."""
    came = ConsumedRecord("castings.images.line-1", 0, part, f"line-1:1:{part}".encode(), b"", {})
    arrival = receive(came, LINE, captured_at, captured_at)
    if grey is None:
        return Decoded(arrival, "0" * 64, PictureError("truncated", "half a picture"))
    return Decoded(arrival, "0" * 64, DecodedPicture(np.full((8, 8), grey, np.uint8), 300, 200))


def greys_of(batch: Sequence[int | None]) -> list[Decoded]:
    return [decoded(part, grey) for part, grey in enumerate(batch, start=1)]


@given(st.lists(st.sampled_from([None, 0, 10, 127, 128, 200, POISON]), max_size=40))
def test_one_bad_picture_harms_one_picture(greys: list[int | None]) -> None:
    judged = judge(greys_of(greys), Fragile())
    assert [one.decoded.arrival.part.part for one in judged] == list(range(1, len(greys) + 1))
    for grey, one in zip(greys, judged, strict=True):
        if grey is None:
            assert isinstance(one.opinion, PictureError)
            assert one.opinion.reason == "truncated"
        elif grey == POISON:
            assert isinstance(one.opinion, PictureError)
            assert one.opinion.reason == INFERENCE_FAILED
        else:
            assert isinstance(one.opinion, Prediction)
            assert one.opinion.label == ("defect" if grey >= 128 else "ok")


def test_a_clean_batch_is_one_call_and_a_culprit_costs_a_few_more() -> None:
    clean, poisoned = Fragile(), Fragile()
    judge(greys_of([0] * 32), clean)
    assert clean.calls == [32]
    judge(greys_of([0] * 31 + [POISON]), poisoned)
    assert poisoned.calls == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_unreadable_pictures_cost_no_inference() -> None:
    networks = Fragile()
    judge(greys_of([None, None]), networks)
    assert networks.calls == []


def test_a_verdict_says_everything_about_a_judged_picture() -> None:
    (one,) = judge(greys_of([200]), Fragile())
    found = verdict(one, "v1", 0.5, TAKEN + timedelta(seconds=0.1))
    assert (found.label, found.reason, found.overdue) == ("defect", "", False)
    assert found.votes == {"alexnet": 0.9, "lenet": 0.1}
    assert (found.image.width_px, found.image.height_px, found.image.offset) == (300, 200, 1)
    again = verdict(one, "v1", 0.5, TAKEN + timedelta(seconds=5))
    assert again.verdict_id == found.verdict_id, "a repeat is recognised"
    assert verdict(one, "v2", 0.5, TAKEN).verdict_id != found.verdict_id


def test_an_unreadable_picture_becomes_a_review_with_its_reason() -> None:
    (one,) = judge(greys_of([None]), Fragile())
    found = verdict(one, "v1", 0.5, TAKEN)
    assert (found.label, found.reason, found.defect_probability, found.votes) == ("review", "truncated", None, {})


def test_a_verdict_after_the_last_useful_moment_is_marked_overdue() -> None:
    """2 s of travel less 0.2 s for the way back to the board."""
    (one,) = judge(greys_of([0]), Fragile())
    assert not verdict(one, "v1", 0.5, TAKEN + timedelta(seconds=1.79)).overdue
    assert verdict(one, "v1", 0.5, TAKEN + timedelta(seconds=1.81)).overdue
