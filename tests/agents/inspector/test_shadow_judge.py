"""The queue of pictures for shadow versions is limited in bytes."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agents.inspector.shadow_judge import ShadowJudge, ShadowSample
from models.inference.ensemble import Ensemble
from streams import metrics
from tests.agents.inspector.images import make_judged_image

SHADOW = cast(Ensemble, SimpleNamespace(max_batch=32))
LARGE = 20 * 2**20


def make_sample(record_bytes: int) -> ShadowSample:
    judged = make_judged_image("line-1", 1, np.zeros((8, 8), np.uint8))
    record = judged.decoded.record
    record = replace(record, source=replace(record.source, value=bytes(record_bytes)))
    return ShadowSample(replace(judged, decoded=replace(judged.decoded, record=record)), SHADOW, SHADOW)


@pytest.mark.asyncio
async def test_pictures_for_a_shadow_version_are_dropped_when_their_records_are_too_large_together() -> None:
    judge = ShadowJudge(cast(Executor, None), lambda: False, cast(Any, None), cast(Any, None))
    dropped = metrics.shadow_dropped.labels("line-1")
    before = dropped._value.get()
    judge.add_samples([make_sample(LARGE) for _ in range(5)])
    assert dropped._value.get() - before == 3, "a picture is accepted while the waiting ones have less than 32 MiB"
    assert [sample.size_bytes for sample in judge._take_batch()] == [LARGE, LARGE]
    judge.add_samples([make_sample(LARGE)])
    assert len(judge._take_batch()) == 1, "a batch that was taken frees its bytes"
