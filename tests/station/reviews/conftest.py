"""Fixtures of the review: the topic of reviews, and parts that wait for a person."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from station.archive.models import Part
from station.reviews.candidates import CandidateQueue
from tests.station.conftest import SETTINGS, MakePart
from tests.station.reviews.records import ReviewTopic

MakeWaitingPart = Callable[..., Part]


@pytest.fixture
def topic() -> ReviewTopic:
    return ReviewTopic()


@pytest.fixture
def waiting(part: MakePart) -> MakeWaitingPart:
    """Makes a part that waits for a person's review. `fields` override the columns."""

    def make(**fields: object) -> Part:
        row = part(**{"label": "review", "reason": "doubt", "defect_probability": 0.48, "picture": "pictures/00/x", **fields})
        queue = CandidateQueue(SETTINGS)
        queue.add(queue.select([row]))
        return row

    return make
