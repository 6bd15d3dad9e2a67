"""Makes predictions from the class probabilities of all networks: weighted soft vote, calibration, threshold and review band.

The module uses only NumPy. The results of all runtimes pass through it, so all runtimes decide in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.registry.manifest import Manifest
from streams.records import ANOMALY

# The class probabilities from each network (voter), shape (n, voters, classes). The probabilities of all classes sum to 1. They are NaN for
# a network that did not judge the picture.
VoterProbabilities = npt.NDArray[np.float32]
Label = Literal["ok", "defect", "review"]

IN_DOUBT = "doubt"
# Verdicts contain scaled scores. On this scale, the cut-off of every scorer is 0.5.
SCALED_CUT_OFF = 0.5

# Smaller probabilities are raised to this value before their logarithm is taken, because 0 has no logarithm.
MIN_PROBABILITY = 1e-7


@dataclass(frozen=True, slots=True)
class Prediction:
    """The ensemble's result for one picture.

    - `defect_probability`: calibrated. None if the version has no networks.
    - `votes`: the defect probability from each network, by the name of the network.
    - `scores`: the score from each scorer, which has learned from good parts alone, by the name of the scorer.
    - `reason`: empty unless the label is `review`.
    - `kind`: kind of the largest defect.
    """

    label: Label
    defect_probability: float | None
    votes: dict[str, float]
    reason: str = ""
    kind: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def is_anomaly(self) -> bool:
        """True if at least one scorer gave the picture a score above the cut-off."""
        return any(score > SCALED_CUT_OFF for score in self.scores.values())

    def add_score(self, name: str, score: float) -> Prediction:
        """Returns a copy of the prediction with the score, 0..1, of one more scorer. A scorer has learned from good parts alone.

        In a version without networks, a score above the cut-off turns `ok` into `review`. In other versions, the label does not change.
        """
        added = replace(self, scores={**self.scores, name: score})
        if self.defect_probability is None and self.label == "ok" and added.is_anomaly:
            return replace(added, label="review", reason=ANOMALY)
        return added

    @property
    def rank(self) -> float:
        """A number from 0 (good) to 1 (defective), for sorting: the defect probability, or the largest score if there are no networks."""
        return max(self.scores.values()) if self.defect_probability is None else self.defect_probability


@dataclass(frozen=True, slots=True)
class SoftVote:
    """The rule by which the networks of a version vote about a picture. The manifest contains this rule.

    - `weights`, shape (voters,): the weight of each network in the vote. The weights sum to 1.
    - `temperatures`, shape (voters,): the calibration of each network.
    - `temperature`: the calibration of the combined vote.
    - `low`, `high`: the ends of the review band.
    """

    names: tuple[str, ...]
    weights: npt.NDArray[np.float64]
    temperatures: npt.NDArray[np.float64]
    temperature: float
    ok_class: int
    threshold: float
    low: float
    high: float

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> SoftVote:
        """Returns the voting rule that `manifest` describes."""
        weights = np.array([voter.weight for voter in manifest.voters])
        return cls(
            names=tuple(voter.name for voter in manifest.voters),
            weights=weights / weights.sum() if len(weights) else weights,
            temperatures=np.array([voter.temperature for voter in manifest.voters]),
            temperature=manifest.temperature,
            ok_class=manifest.ok_class,
            threshold=manifest.threshold,
            low=manifest.band.low,
            high=manifest.band.high,
        )

    def predict(self, probabilities: VoterProbabilities) -> list[Prediction]:
        """Returns one prediction for each picture of `probabilities`, shape (n, voters, classes), in order.

        Raises ValueError if `probabilities` does not come from as many networks as the version has.
        """
        if probabilities.ndim != 3 or probabilities.shape[1] != len(self.names):
            raise ValueError(f"expected probabilities of shape (n, {len(self.names)}, classes), received {probabilities.shape}")
        predictions = []
        votes = self.compute_votes(probabilities)
        for row, probability in zip(votes, self.compute_defect_probability(probabilities), strict=True):
            label = self.choose_label(float(probability))
            by_name = {name: float(vote) for name, vote in zip(self.names, row, strict=True) if not np.isnan(vote)}
            predictions.append(Prediction(label, float(probability), by_name, IN_DOUBT if label == "review" else ""))
        return predictions

    def compute_votes(self, probabilities: VoterProbabilities, voters: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
        """Returns the defect probability from each network (voter), shape (n, voters). Each network is calibrated by its own temperature.

        If `probabilities` contains only some of the version's networks, `voters` gives their indices.
        """
        return 1 - self._temper_voters(probabilities, slice(None) if voters is None else list(voters))[..., self.ok_class]

    def compute_defect_probability(self, probabilities: VoterProbabilities) -> npt.NDArray[np.float64]:
        """Returns the calibrated defect probability of each picture, shape (n,): 1 minus the probability of the good class.

        The version's `temperature` is used only if all networks judged a picture, because it fits only their combined vote.
        """
        has_all_voters = ~np.isnan(probabilities).any(axis=(1, 2))
        temperatures = np.where(has_all_voters, self.temperature, 1.0)[:, None]
        return 1 - temper_probabilities(self.average(probabilities), temperatures)[..., self.ok_class]

    def average(self, probabilities: VoterProbabilities) -> npt.NDArray[np.float64]:
        """Returns the weighted mean of the class probabilities from all networks, shape (n, classes).

        Networks that did not judge a picture (NaN) are left out. The mean is not calibrated by the version's `temperature`.
        """
        is_asked: npt.NDArray[np.bool_] = np.logical_not(np.isnan(probabilities).any(axis=-1))
        weights = self.weights * is_asked
        weights = weights / weights.sum(axis=1, keepdims=True)
        tempered = np.where(is_asked[..., None], self._temper_voters(probabilities), 0)
        result: npt.NDArray[np.float64] = np.einsum("nv,nvc->nc", weights, tempered)
        return result

    def choose_label(self, defect_probability: float) -> Label:
        """Returns the label of a part: `review` inside the review band. Outside it, the threshold decides between `defect` and `ok`."""
        return choose_label(defect_probability, self.threshold, self.low, self.high)

    def _temper_voters(self, probabilities: VoterProbabilities, voters: slice | list[int] = slice(None)) -> npt.NDArray[np.float64]:
        return temper_probabilities(probabilities.astype(np.float64), self.temperatures[voters][None, :, None])


def choose_label(defect_probability: float, threshold: float, low: float, high: float) -> Label:
    """Returns `review` if `low` <= `defect_probability` < `high`.

    Any other probability gives `defect` if it is at least `threshold`, and `ok` if it is smaller.
    """
    if low <= defect_probability < high:
        return "review"
    return "defect" if defect_probability >= threshold else "ok"


def temper_probabilities(probabilities: npt.NDArray[np.float64], temperature: float | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divides the logits of `probabilities` by `temperature`. The last axis holds the classes.

    The most probable class stays the most probable one.
    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    scaled = np.log(np.clip(probabilities, MIN_PROBABILITY, 1)) / temperature
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return result
