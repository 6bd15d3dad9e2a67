"""From the voters' probabilities to an opinion on each picture: weighted soft vote, calibration, threshold, band of doubt.

Pure numpy: no network and no clock. What is decided here is the same for every runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.registry.manifest import Manifest

Probabilities = npt.NDArray[np.float32]
Label = Literal["ok", "defect", "review"]

IN_DOUBT = "doubt"  # reason of a `review`: the probability lies within the band
SMALLEST = 1e-7  # a probability of 0 has no logarithm


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the ensemble thinks of one picture; `reason` says why it is for review and is empty otherwise."""

    label: Label
    defect_probability: float  # calibrated, 0..1
    votes: dict[str, float]  # own defect probability of each voter that was asked, by its name
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """How the voters' answers become one: a manifest's numbers as arrays of shape (voters,)."""

    names: tuple[str, ...]
    weights: npt.NDArray[np.float64]  # sum 1
    temperatures: npt.NDArray[np.float64]
    temperature: float
    ok_class: int
    threshold: float
    low: float
    high: float

    @classmethod
    def of(cls, manifest: Manifest) -> Vote:
        """The vote that `manifest` describes."""
        weights = np.array([voter.weight for voter in manifest.voters])
        return cls(
            names=tuple(voter.name for voter in manifest.voters),
            weights=weights / weights.sum(),
            temperatures=np.array([voter.temperature for voter in manifest.voters]),
            temperature=manifest.temperature,
            ok_class=manifest.ok_class,
            threshold=manifest.threshold,
            low=manifest.band.low,
            high=manifest.band.high,
        )

    def voters_defect_probability(self, answers: Probabilities, places: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
        """Shape (n, voters) from answers of shape (n, voters, classes); `places` says whose they are where not all voters are there."""
        return 1 - self._tempered(answers, slice(None) if places is None else list(places))[..., self.ok_class]

    def defect_probability(self, answers: Probabilities) -> npt.NDArray[np.float64]:
        """Shape (n,), calibrated: 1 - P(ok), so that any number of kinds of defect count as defects.

        The vote's own temperature is that of all voters together: where one alone was asked, it is calibrated already.
        """
        together = ~np.isnan(answers).any(axis=(1, 2))
        return 1 - temper(self.mixed(answers), np.where(together, self.temperature, 1.0)[:, None])[..., self.ok_class]

    def mixed(self, answers: Probabilities) -> npt.NDArray[np.float64]:
        """The weighted mean of the voters, before its own calibration, shape (n, classes).

        A voter whose answers are not numbers was not asked: the others' weights then sum to 1.
        """
        asked: npt.NDArray[np.bool_] = np.logical_not(np.isnan(answers).any(axis=-1))
        shares = self.weights * asked
        shares = shares / shares.sum(axis=1, keepdims=True)
        result: npt.NDArray[np.float64] = np.einsum("nv,nvc->nc", shares, np.where(asked[..., None], self._tempered(answers), 0))
        return result

    def label(self, defect_probability: float) -> Label:
        """The band of doubt goes before the threshold."""
        if self.low <= defect_probability < self.high:
            return "review"
        return "defect" if defect_probability >= self.threshold else "ok"

    def opinions(self, answers: Probabilities) -> list[Opinion]:
        """One opinion for each picture of `answers`, shape (n, voters, classes), in order."""
        if answers.ndim != 3 or answers.shape[1] != len(self.names):
            raise ValueError(f"expected answers of shape (n, {len(self.names)}, classes), received {answers.shape}")
        found = []
        votes = self.voters_defect_probability(answers)
        for row, probability in zip(votes, self.defect_probability(answers), strict=True):
            label = self.label(float(probability))
            named = {name: float(vote) for name, vote in zip(self.names, row, strict=True) if not np.isnan(vote)}
            found.append(Opinion(label, float(probability), named, IN_DOUBT if label == "review" else ""))
        return found

    def _tempered(self, answers: Probabilities, places: slice | list[int] = slice(None)) -> npt.NDArray[np.float64]:
        return temper(answers.astype(np.float64), self.temperatures[places][None, :, None])


def temper(probabilities: npt.NDArray[np.float64], temperature: float | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities whose logits are divided by `temperature`, along the last axis (Guo et al., ICML 2017, section 4.2).

    Above 1 they become less certain, below 1 more; their order and, at 1, they themselves stay.
    """
    scaled = np.log(np.clip(probabilities, SMALLEST, 1)) / temperature
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return result
