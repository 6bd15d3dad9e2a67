"""The small network alone where it is certain, the others for the rest: most of a line's pictures are plain.

What it says is measured against the whole ensemble (`castline evaluate --cascade`): it is another way to judge, not a faster way to the
same verdicts, and so is off until it is switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.ensemble import SMALLEST, Vote
from models.inference.runtimes.runtime import Runtime
from models.registry.manifest import Certainty
from models.registry.versions import Version
from streams.errors import ModelError

MARGIN = 2.0  # by which the odds must lie beyond those of the most certain picture that the ensemble judged otherwise


@dataclass(frozen=True)
class Cascade:
    """A runtime that asks the first voter about every picture and the others only where it is in doubt.

    Where a voter was not asked, its answers are not numbers (NaN). Each stage pads to its own fixed shapes.
    """

    name: str
    max_batch: int
    first: Runtime
    others: Runtime
    vote: Vote  # of the whole ensemble
    place: int  # of the first voter among them
    certainty: Certainty

    def warm_up(self) -> None:
        """Computes every batch shape of both stages once."""
        self.first.warm_up()
        self.others.warm_up()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Shape (n, voters, classes), NaN for the voters that were not asked."""
        first = self.first.predict(pixels)
        answers = np.full((len(pixels), len(self.vote.names), first.shape[-1]), np.nan, np.float32)
        answers[:, self.place] = first[:, 0]
        doubtful = np.flatnonzero(~self.certain(answers))
        if len(doubtful):
            answers[doubtful[:, None], self._rest] = self.others.predict(pixels[doubtful])
        return answers

    def certain(self, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Whether the first voter decides alone, shape (n,)."""
        own = own_probability(self.vote, self.place, answers)
        result: npt.NDArray[np.bool_] = (own < self.certainty.low) | (own >= self.certainty.high)
        return result

    @property
    def whole(self) -> Runtime:
        """The same two stages, all asked: what a golden set is judged with."""
        return _Whole(f"{self.name} asking all", self.max_batch, self.first, self.others, self.place, self._rest)

    @property
    def _rest(self) -> list[int]:
        return [index for index in range(len(self.vote.names)) if index != self.place]


@dataclass(frozen=True)
class _Whole:
    name: str
    max_batch: int
    first: Runtime
    others: Runtime
    place: int
    rest: list[int]

    def warm_up(self) -> None:
        self.first.warm_up()
        self.others.warm_up()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        first = self.first.predict(pixels)
        answers = np.empty((len(pixels), 1 + len(self.rest), first.shape[-1]), np.float32)
        answers[:, self.place], answers[:, self.rest] = first[:, 0], self.others.predict(pixels)
        return answers


def open_cascade(version: Version, opener: Callable[[Version], Runtime], band: tuple[float, float] | None = None) -> Cascade:
    """The cascade of `version`; `opener` opens the runtime of a part of its voters.

    `band` goes before what the version records. Raises ModelError when there is neither, and when there is one voter only.
    """
    manifest, vote = version.manifest, Vote.of(version.manifest)
    certainty = manifest.cascade
    if band:
        certainty = Certainty(voter=certainty.voter if certainty else _smallest(version), low=band[0], high=band[1])
    if certainty is None:
        raise ModelError(
            f"{version.folder}: expected a version that says where its small network is certain, as trainings record it; "
            "give the band by model.cascade_low and model.cascade_high, or by --band"
        )
    if certainty.voter not in vote.names or len(vote.names) < 2:
        raise ModelError(f"{version.folder}: expected voters besides {certainty.voter}, found {', '.join(vote.names)}")
    first, others = (opener(version.part(names)) for names in ((certainty.voter,), [n for n in vote.names if n != certainty.voter]))
    return Cascade(f"cascade-{others.name}", others.max_batch, first, others, vote, vote.names.index(certainty.voter), certainty)


def own_probability(vote: Vote, place: int, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The defect probability of the voter at `place`, calibrated by its own temperature, shape (n,)."""
    result: npt.NDArray[np.float64] = vote.voters_defect_probability(answers[:, place : place + 1], [place])[:, 0]
    return result


def certainty_of(vote: Vote, voter: str, answers: npt.NDArray[np.float32]) -> Certainty:
    """The band outside which `voter` says what the ensemble says on all validation pictures of `answers`, with a margin."""
    place = vote.names.index(voter)
    own, whole = own_probability(vote, place, answers), vote.defect_probability(answers)
    labels = np.array([vote.label(float(probability)) for probability in whole])
    contrary_low, contrary_high = own[labels != "ok"], own[labels != "defect"]
    # As if the next contrary picture were as much further out again; never beyond the label's own edges.
    low = _beyond(min(float(contrary_low.min(initial=1.0)), vote.low, vote.threshold), 1 / MARGIN)
    high = _beyond(max(float(contrary_high.max(initial=0.0)), vote.high, vote.threshold), MARGIN)
    return Certainty(voter=voter, low=low, high=high)


def _beyond(probability: float, factor: float) -> float:
    kept = min(max(probability, SMALLEST), 1 - SMALLEST)
    odds = kept / (1 - kept) * factor
    return odds / (1 + odds)


def _smallest(version: Version) -> str:
    names: Sequence[str] = [voter.name for voter in version.manifest.voters if voter.network == "lenet"]
    return names[0] if names else version.manifest.voters[0].name
