"""The cascade: the small network decides alone where it is certain, and only the remaining pictures go through all networks.

Most pictures of a line are easy, so a cascade saves most of the computing time. Its verdicts are not exactly those of the whole
ensemble. `castline evaluate --cascade` measures the difference, and the setting `model.cascade` is off by default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.runtimes.runtime import Runtime
from models.inference.soft_vote import MIN_PROBABILITY, SoftVote, VoterProbabilities
from models.registry import Version
from models.registry.manifest import CascadeBand
from streams.errors import ModelError

# The band's odds lie this factor beyond the odds of the most certain picture for which the small network and the ensemble differ.
ODDS_MARGIN = 2.0


@dataclass(frozen=True)
class Cascade:
    """A runtime of two stages: the first voter sees every picture, the other voters only those inside the cascade band.

    `first_index` is the index of the first voter in `vote`, the voting rule of the whole ensemble.
    """

    name: str
    max_batch: int
    first: Runtime
    others: Runtime
    vote: SoftVote
    first_index: int
    band: CascadeBand

    def warm_up(self) -> None:
        """Computes every batch shape of both stages once."""
        self.first.warm_up()
        self.others.warm_up()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> VoterProbabilities:
        """Returns the voters' probabilities, shape (n, voters, classes). They are NaN for voters that were not asked.

        Input shape: (n, side_px, side_px), grey level 0..255, 1 <= n <= max_batch.
        """
        first = self.first.predict(pixels)
        probabilities = np.full((len(pixels), len(self.vote.names), first.shape[-1]), np.nan, np.float32)
        probabilities[:, self.first_index] = first[:, 0]
        doubtful = np.flatnonzero(~self.is_certain(probabilities))
        if len(doubtful):
            probabilities[doubtful[:, None], self._other_indices] = self.others.predict(pixels[doubtful])
        return probabilities

    def is_certain(self, probabilities: VoterProbabilities) -> npt.NDArray[np.bool_]:
        """Returns whether the first voter decides alone, for each picture, shape (n,)."""
        own = _compute_own_probability(self.vote, self.first_index, probabilities)
        result: npt.NDArray[np.bool_] = (own < self.band.low) | (own >= self.band.high)
        return result

    @property
    def all_voters(self) -> Runtime:
        """The same two stages as a runtime that asks every voter about every picture. The golden set is checked with it."""
        return _TwoStages(f"{self.name} asking all", self.max_batch, self.first, self.others, self.first_index, self._other_indices)

    @property
    def _other_indices(self) -> list[int]:
        return [index for index in range(len(self.vote.names)) if index != self.first_index]


@dataclass(frozen=True)
class _TwoStages:
    name: str
    max_batch: int
    first: Runtime
    others: Runtime
    first_index: int
    other_indices: list[int]

    def warm_up(self) -> None:
        self.first.warm_up()
        self.others.warm_up()

    def predict(self, pixels: npt.NDArray[np.uint8]) -> VoterProbabilities:
        first = self.first.predict(pixels)
        probabilities = np.empty((len(pixels), 1 + len(self.other_indices), first.shape[-1]), np.float32)
        probabilities[:, self.first_index], probabilities[:, self.other_indices] = first[:, 0], self.others.predict(pixels)
        return probabilities


def open_cascade(version: Version, open_stage: Callable[[Version], Runtime], limits: tuple[float, float] | None = None) -> Cascade:
    """Returns the cascade of `version`. `open_stage` opens the runtime of a version that was reduced to the voters of one stage.

    `limits`, the low and the high end of the band, take precedence over the band in the manifest.

    Raises ModelError if there is no band in either place, or the version has only one voter.
    """
    manifest, vote = version.manifest, SoftVote.from_manifest(version.manifest)
    band = manifest.cascade
    if limits:
        band = CascadeBand(voter=band.voter if band else _find_small_voter(version), low=limits[0], high=limits[1])
    if band is None:
        raise ModelError(
            f"The manifest of {version.folder} has no cascade band, as trainings record it. "
            "Set model.cascade_low and model.cascade_high, or pass --band."
        )
    if band.voter not in vote.names or len(vote.names) < 2:
        raise ModelError(f"{version.folder}: a cascade needs voters besides {band.voter}, found {', '.join(vote.names)}")
    first = open_stage(version.select_voters([band.voter]))
    others = open_stage(version.select_voters([name for name in vote.names if name != band.voter]))
    return Cascade(f"cascade-{others.name}", others.max_batch, first, others, vote, vote.names.index(band.voter), band)


def find_cascade_band(vote: SoftVote, voter: str, probabilities: VoterProbabilities) -> CascadeBand:
    """Returns the band outside which `voter` gives the label of the whole ensemble on all validation pictures, with a margin.

    `probabilities` are those of the validation pictures, shape (n, voters, classes).
    """
    index = vote.names.index(voter)
    own, combined = _compute_own_probability(vote, index, probabilities), vote.compute_defect_probability(probabilities)
    labels = np.array([vote.choose_label(float(probability)) for probability in combined])
    not_ok, not_defect = own[labels != "ok"], own[labels != "defect"]
    # The margin assumes that the next contradicting picture may lie as much further out again. The band always contains the
    # threshold and the review band.
    low = _scale_odds(min(float(not_ok.min(initial=1.0)), vote.low, vote.threshold), 1 / ODDS_MARGIN)
    high = _scale_odds(max(float(not_defect.max(initial=0.0)), vote.high, vote.threshold), ODDS_MARGIN)
    return CascadeBand(voter=voter, low=low, high=high)


def _compute_own_probability(vote: SoftVote, index: int, probabilities: VoterProbabilities) -> npt.NDArray[np.float64]:
    """Returns the defect probability of the voter at `index`, calibrated by its own temperature, shape (n,)."""
    result: npt.NDArray[np.float64] = vote.compute_votes(probabilities[:, index : index + 1], [index])[:, 0]
    return result


def _scale_odds(probability: float, factor: float) -> float:
    clipped = min(max(probability, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    odds = clipped / (1 - clipped) * factor
    return odds / (1 + odds)


def _find_small_voter(version: Version) -> str:
    names = [voter.name for voter in version.manifest.voters if voter.network == "lenet"]
    return names[0] if names else version.manifest.voters[0].name
