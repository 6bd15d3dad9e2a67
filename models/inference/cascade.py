"""The cascade: the small network judges every picture first. If it is not certain, the other networks judge the picture too.

A cascade saves most of the computing time, but changes some verdicts. `castline evaluate --cascade` measures the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.line_threshold import DecisionRule
from models.inference.runtimes.runtime import Runtime
from models.inference.soft_vote import MIN_PROBABILITY, SoftVote, VoterProbabilities
from models.registry import Version
from models.registry.manifest import CascadeBand
from streams.errors import ModelError

# The cascade band is a range of defect probabilities in which the first network does not decide alone. For safety, the band is made wider:
# the odds at its low end are divided by this factor, and the odds at its high end are multiplied by it. Example: a low end of 0.2 has the
# odds 1:4. The new odds are 1:8, so the new low end is 1/9 = 0.11.
ODDS_MARGIN = 2.0
# Two thresholds whose difference is smaller than this value are treated as equal, because thresholds have rounding errors.
_SAME = 1e-9


@dataclass(frozen=True)
class Cascade:
    """A runtime of two stages. In the first stage, one network of the ensemble judges every picture.

    In the second stage, the other networks judge only the pictures about which the first network is not certain. These are the pictures
    inside the cascade band, a range of defect probabilities. `vote` is the voting rule of the version. The name of the first network is
    `vote.names[first_index]`.
    """

    name: str
    max_batch: int
    first: Runtime
    others: Runtime
    vote: SoftVote
    first_index: int
    band: CascadeBand

    def warm_up(self) -> None:
        """Lets both stages of the cascade compute a batch of each size once, because the first batch of a size takes longer."""
        self.first.warm_up()
        self.others.warm_up()

    def predict(self, pixels: npt.NDArray[np.uint8], rules: Sequence[DecisionRule | None] | None = None) -> VoterProbabilities:
        """Returns the class probabilities from each network (voter), shape (n, voters, classes).

        They are NaN for a network that did not judge the picture.

        Input shape: (n, side_px, side_px), grey level 0..255, 1 <= n <= max_batch. For `rules`, see `is_certain`.
        """
        first = self.first.predict(pixels)
        probabilities = np.full((len(pixels), len(self.vote.names), first.shape[-1]), np.nan, np.float32)
        probabilities[:, self.first_index] = first[:, 0]
        doubtful = np.flatnonzero(~self.is_certain(probabilities, rules))
        if len(doubtful):
            probabilities[doubtful[:, None], self._other_indices] = self.others.predict(pixels[doubtful])
        return probabilities

    def is_certain(self, probabilities: VoterProbabilities, rules: Sequence[DecisionRule | None] | None = None) -> npt.NDArray[np.bool_]:
        """Returns a mask, shape (n,), of the pictures about which the first network decides alone.

        The first network decides alone if its defect probability lies outside of the cascade band. `rules` holds for each picture the
        decision rule of its line, or None for the rule of the version.

        The cascade band was chosen for the rule of the version. If a line has a rule of its own, the cascade band is made wider, so that it
        also contains the threshold and the review band of the line.
        """
        own = _compute_own_probability(self.vote, self.first_index, probabilities)
        by_rule = {rule: self._widen_band(rule) for rule in set(rules or [None])}
        low, high = np.array([by_rule[rule] for rule in rules or [None] * len(own)]).T
        result: npt.NDArray[np.bool_] = (own < low) | (own >= high)
        return result

    def _widen_band(self, rule: DecisionRule | None) -> tuple[float, float]:
        if rule is None:
            return self.band.low, self.band.high
        pass_below, reject_from = min(rule.low, rule.threshold), max(rule.high, rule.threshold)
        low = min(self.band.low, _scale_odds(pass_below, 1 / ODDS_MARGIN))
        high = max(self.band.high, _scale_odds(reject_from, ODDS_MARGIN))
        # The cascade band was chosen for the thresholds of the version. If the line has a lower threshold, the band begins at the defect
        # probability 0. If the line has a higher threshold, the band ends at 1.
        if pass_below < min(self.vote.low, self.vote.threshold) - _SAME:
            low = -np.inf
        if reject_from > max(self.vote.high, self.vote.threshold) + _SAME:
            high = np.inf
        return low, high

    @property
    def all_voters(self) -> Runtime:
        """A runtime in which every network of the cascade judges every picture. The check of the golden set uses this runtime."""
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
    """Returns the cascade of `version`. `open_stage` opens a runtime with the networks of one stage.

    `limits` are the lowest and the highest defect probability at which the first network does not decide alone (cascade band). None means
    the band in the manifest. Raises ModelError if there is no band or no second network.
    """
    manifest, vote = version.manifest, SoftVote.from_manifest(version.manifest)
    band = manifest.cascade
    if limits:
        band = CascadeBand(voter=band.voter if band else _find_small_voter(version), low=limits[0], high=limits[1])
    if band is None:
        raise ModelError(
            f"The manifest of {version.folder} has no cascade band. Set model.cascade_low and model.cascade_high, or pass --band."
        )
    if band.voter not in vote.names or len(vote.names) < 2:
        raise ModelError(
            f"A cascade needs the network {band.voter} and at least one other network, but {version.folder} has only "
            f"{', '.join(vote.names)}. Switch the cascade off, or choose another version."
        )
    if np.count_nonzero(vote.weights) < 2:
        raise ModelError(
            f"A cascade needs two networks with a weight above 0. In {version.folder} one network decides alone, because the training "
            "found no better ensemble. Switch the cascade off, or choose another version."
        )
    first = open_stage(version.select_voters([band.voter]))
    others = open_stage(version.select_voters([name for name in vote.names if name != band.voter]))
    return Cascade(f"cascade-{others.name}", others.max_batch, first, others, vote, vote.names.index(band.voter), band)


def find_cascade_band(vote: SoftVote, voter: str, probabilities: VoterProbabilities) -> CascadeBand:
    """Returns the cascade band for the network `voter`: the range of its defect probabilities in which it does not decide alone.

    Outside of the band, `voter` gives every validation picture the same label as the ensemble. `probabilities`, shape (n, voters, classes),
    holds the class probabilities that each network gave to the validation pictures.
    """
    index = vote.names.index(voter)
    own, combined = _compute_own_probability(vote, index, probabilities), vote.compute_defect_probability(probabilities)
    labels = np.array([vote.choose_label(float(probability)) for probability in combined])
    not_ok, not_defect = own[labels != "ok"], own[labels != "defect"]
    # The cascade band contains the threshold and the review band. It also contains every validation picture to which `voter` alone gives
    # another label than the ensemble.
    low = _scale_odds(min(float(not_ok.min(initial=1.0)), vote.low, vote.threshold), 1 / ODDS_MARGIN)
    high = _scale_odds(max(float(not_defect.max(initial=0.0)), vote.high, vote.threshold), ODDS_MARGIN)
    return CascadeBand(voter=voter, low=low, high=high)


def _compute_own_probability(vote: SoftVote, index: int, probabilities: VoterProbabilities) -> npt.NDArray[np.float64]:
    """Returns the defect probabilities from one network alone, calibrated by the temperature of this network, shape (n,).

    `index` is the position of the network in `vote.names`.
    """
    result: npt.NDArray[np.float64] = vote.compute_votes(probabilities[:, index : index + 1], [index])[:, 0]
    return result


def _scale_odds(probability: float, factor: float) -> float:
    clipped = min(max(probability, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    odds = clipped / (1 - clipped) * factor
    return odds / (1 + odds)


def _find_small_voter(version: Version) -> str:
    names = [voter.name for voter in version.manifest.voters if voter.network == "lenet"]
    return names[0] if names else version.manifest.voters[0].name
