"""Tests that every record that the inspector and the sorter produce is valid by its published schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import get_args

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.gate.lane import PartSorted
from agents.inspector.decoding import DecodedImage, read_image_record
from agents.inspector.judging import JudgedImage
from agents.inspector.judging import make_verdict as make_inspector_verdict
from agents.sorter.decisions import make_late_sorting, make_sorting, make_untracked_sorting
from agents.sorter.part_states import PartState
from firmware.protocol import WORDS
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from streams.errors import PictureError
from streams.record_producer import ConsumedRecord
from streams.records import Label, Sorting, SortingReason, Verdict
from streams.settings import LineSettings
from tests.docs.validator import make_validator

VERDICTS, SORTINGS = make_validator(Verdict), make_validator(Sorting)
TAKEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
shares = st.floats(0, 1)
counts = st.integers(1, 2**31)
labels: st.SearchStrategy[Label] = st.sampled_from(get_args(Label))
# The clock of a board may be wrong, so its times can be any.
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
predictions = st.one_of(
    st.builds(Prediction, labels, shares, st.fixed_dictionaries({"alexnet": shares, "lenet": shares}), st.sampled_from(["", "doubt"])),
    st.builds(PictureError, st.sampled_from(["truncated", "too-large"]), st.text(max_size=20)),
)


@given(counts, counts, predictions, shares, times)
def test_any_verdict_of_the_inspector_is_valid(
    run: int, part: int, prediction: Prediction | PictureError, threshold: float, decided_at: datetime
) -> None:
    produced = make_verdict(run, part, prediction, threshold, decided_at)
    VERDICTS.validate(json.loads(produced.encode()))
    assert Verdict.decode(produced.encode()) == produced


def make_verdict(run: int, part: int, prediction: Prediction | PictureError, threshold: float, decided_at: datetime) -> Verdict:
    record = ConsumedRecord("castings.images.line-1", 3, 17, f"line-1:{run}:{part}".encode(), b"", {})
    image = read_image_record(record, LineSettings(name="line-1", deadline_s=1), TAKEN, TAKEN + timedelta(seconds=0.01))
    picture = prediction if isinstance(prediction, PictureError) else DecodedPicture(np.zeros((8, 8), np.uint8), 300, 200)
    return make_inspector_verdict(JudgedImage(DecodedImage(image, "0" * 64, picture), prediction), "v1", threshold, decided_at)


@given(
    st.integers(1, 2**31),
    counts,
    counts,
    st.sampled_from(WORDS["action"]),
    st.sampled_from(WORDS["reason"]),
    st.booleans(),
    st.none() | times,
    st.booleans(),
    labels,
    st.integers(0, 99),
)
def test_any_sorting_of_a_part_that_the_board_reports_is_valid(
    event: int,
    run: int,
    part: int,
    action: str,
    reason: str,
    moved: bool,
    answered_at: datetime | None,
    late: bool,
    label: Label,
    code: int,
) -> None:
    known_verdict = make_verdict(run, part, Prediction(label, 0.5, {}), 0.5, TAKEN)
    state = PartState(counted_at=TAKEN, answered_at=answered_at, is_late=late)
    state.set_verdict(known_verdict)
    reported = PartSorted(event, run, part, action, reason, moved, event % 65536, None, TAKEN)
    first = make_sorting(reported, state, "line-1", "line-1", code, TAKEN)
    again = make_late_sorting(first, known_verdict, TAKEN + timedelta(seconds=1))
    for produced in (first, again):
        SORTINGS.validate(json.loads(produced.encode()))
        assert Sorting.decode(produced.encode()) == produced
    assert (again.board, again.run, again.event) == (first.board, first.run, first.event), "readers must recognise the repeated event"


@given(counts, counts, st.sampled_from(get_args(SortingReason)), st.integers(0, 99))
def test_any_sorting_of_a_part_that_the_board_does_not_know_is_valid(run: int, part: int, reason: SortingReason, code: int) -> None:
    produced = make_untracked_sorting(PartState(), "line-1", run, part, "line-1", reason, code, TAKEN)
    SORTINGS.validate(json.loads(produced.encode()))
    assert Sorting.decode(produced.encode()) == produced
