"""From decoded pictures to verdicts: asks the ensemble, and isolates what it cannot judge. No clock, no I/O."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from agents.inspector.decoding import Arrival, Decoded
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from streams import metrics
from streams.errors import PictureError
from streams.records import ImageReference, Verdict, make_verdict_id

log = logging.getLogger(__name__)

INFERENCE_FAILED = "inference-failed"


class Judge(Protocol):
    """What judges: models.inference.ensemble.Ensemble, and in tests a typed fake that fails on purpose."""

    @property
    def version_name(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    def predict(self, pixels: npt.NDArray[np.uint8]) -> list[Prediction]: ...


AnyJudge = TypeVar("AnyJudge", bound=Judge)


@dataclass(frozen=True)
class Judged:
    """A decoded arrival with the opinion on it, or the reason why there is none."""

    decoded: Decoded
    opinion: Prediction | PictureError


def judge(batch: Sequence[Decoded], ensemble: Judge) -> list[Judged]:
    """Every arrival of `batch` judged, in its order. Unreadable pictures cost no inference; one that breaks it harms no other."""
    readable = [place for place, decoded in enumerate(batch) if isinstance(decoded.picture, DecodedPicture)]
    answers: dict[int, Prediction | PictureError] = dict(
        zip(readable, _opinions([batch[place] for place in readable], ensemble), strict=True)
    )
    judged = []
    for place, decoded in enumerate(batch):
        opinion = decoded.picture if isinstance(decoded.picture, PictureError) else answers[place]
        judged.append(Judged(decoded, opinion))
    return judged


def by_judge(judges: Sequence[AnyJudge]) -> list[tuple[AnyJudge, list[int]]]:
    """Each judge with the places at which it stands, rising."""
    places: dict[int, list[int]] = {}
    for place, one in enumerate(judges):
        places.setdefault(id(one), []).append(place)
    return [(judges[its[0]], its) for its in places.values()]


def _opinions(batch: list[Decoded], ensemble: Judge) -> list[Prediction | PictureError]:
    if not batch:
        return []
    try:
        return list(ensemble.predict(np.stack([_pixels(decoded) for decoded in batch])))
    except Exception as error:  # noqa: BLE001  the one place where a poison picture is isolated: whatever it broke
        if len(batch) == 1:
            return [PictureError(INFERENCE_FAILED, f"the networks failed on part {batch[0].arrival.part}: {error!r}")]
        metrics.batches_split.inc()
        log.warning("a batch of %d failed (%r): split to find the culprit", len(batch), error)
        half = len(batch) // 2
        return _opinions(batch[:half], ensemble) + _opinions(batch[half:], ensemble)


def _pixels(decoded: Decoded) -> npt.NDArray[np.uint8]:
    assert isinstance(decoded.picture, DecodedPicture)
    return decoded.picture.pixels


def verdict(judged: Judged, model: str, threshold: float, decided_at: datetime) -> Verdict:
    """The verdict on one judged arrival; `review` with the reason where the picture could not be judged."""
    decoded, arrival, opinion = judged.decoded, judged.decoded.arrival, judged.opinion
    return Verdict(
        line=arrival.part.line,
        run=arrival.part.run,
        part=arrival.part.part,
        verdict_id=make_verdict_id(arrival.part, decoded.sha256, model),
        label=opinion.label if isinstance(opinion, Prediction) else "review",
        defect_probability=opinion.defect_probability if isinstance(opinion, Prediction) else None,
        votes=opinion.votes if isinstance(opinion, Prediction) else {},
        threshold=threshold,
        model=model,
        reason=opinion.reason,
        overdue=arrival.deadline is not None and decided_at > arrival.deadline,
        captured_at=arrival.captured_at,
        received_at=arrival.received_at,
        decided_at=decided_at,
        image=_reference(arrival, decoded),
    )


def _reference(arrival: Arrival, decoded: Decoded) -> ImageReference:
    picture = decoded.picture
    return ImageReference(
        topic=arrival.came.topic,
        partition=arrival.came.partition,
        offset=arrival.came.offset,
        sha256=decoded.sha256,
        width_px=picture.width_px if isinstance(picture, DecodedPicture) else 0,
        height_px=picture.height_px if isinstance(picture, DecodedPicture) else 0,
    )


def networks_disagree(opinion: Prediction) -> bool:
    """Whether the networks, each asked alone at one half, would give different labels."""
    return len({vote >= 0.5 for vote in opinion.votes.values()}) > 1
