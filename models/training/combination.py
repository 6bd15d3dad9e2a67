"""Chooses how the trained networks vote: temperatures, weights, threshold and review band, from the costs of mistakes.

All are chosen on the probabilities that the networks give for the validation pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.inference.soft_vote import MIN_PROBABILITY, SoftVote, temper_probabilities
from models.registry.manifest import Costs, ReviewBand

# Temperatures that are tried, 2.5 % apart. Some hundred pictures cannot tell finer steps apart.
TEMPERATURES = np.geomspace(0.5, 20.0, 150)
# Weights of two networks are tried in steps of one twentieth.
WEIGHT_STEPS = 20
# A threshold between two pictures keeps away from both by this share of the gap.
GAP_MARGIN = 0.1
# The review band reaches at most this many logits beyond its last picture.
MAX_LOGITS_BEYOND_PICTURE = 0.1
# The review band reaches at most this many logits from the threshold, a factor of 20 in the odds.
MAX_BAND_LOGITS = 3.0

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Combination:
    """A voting rule, and what it costs on the pictures it was chosen on.

    `cost` is per picture. `cross_entropy` is that of "defect or not", in nats. `member_costs` and `member_cross_entropies` hold the same
    for each network alone, at a threshold of its own.
    """

    vote: SoftVote
    cost: float
    member_costs: tuple[float, ...]
    cross_entropy: float
    member_cross_entropies: tuple[float, ...]

    @property
    def beats_members(self) -> bool:
        """Whether the ensemble costs less than each network alone, or costs the same and has the lower cross-entropy."""
        members = zip(self.member_costs, self.member_cross_entropies, strict=True)
        return all((self.cost, self.cross_entropy) < member for member in members)


def choose_combination(
    names: Sequence[str],
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    ok_class: int,
    costs: Costs,
    review_share: float,
    picture_weights: Numbers | None = None,
) -> Combination:
    """Returns the cheapest combination of the networks `names`.

    `probabilities` has shape (n, networks, classes), `labels` shape (n,). `picture_weights`, shape (n,), says how much each picture
    counts; None means 1. `review_share` of the pictures fall into the review band.
    """
    is_defect: Flags = labels != ok_class
    counts = np.ones(len(labels)) if picture_weights is None else picture_weights
    members = range(len(names))
    temperatures = np.array([choose_temperature(probabilities[:, member].astype(np.float64), labels, counts) for member in members])
    plain = SoftVote(tuple(names), np.ones(len(names)) / len(names), temperatures, 1.0, ok_class, 0.5, 0.5, 0.5)

    def rate(weights: Numbers) -> tuple[SoftVote, float, float]:
        return _choose_threshold_of(replace(plain, weights=weights), probabilities, labels, is_defect, costs, counts)

    alone = [rate(np.eye(len(names))[member]) for member in members]
    vote, cost, cross_entropy = min(map(rate, _candidate_weights(len(names))), key=lambda rated: (rated[1], rated[2]))
    band = choose_review_band(vote.compute_defect_probability(probabilities), vote.threshold, review_share)
    vote = replace(vote, low=band.low, high=band.high)
    return Combination(vote, cost, tuple(rated[1] for rated in alone), cross_entropy, tuple(rated[2] for rated in alone))


def choose_temperature(probabilities: Numbers, labels: npt.NDArray[np.int32], counts: Numbers | None = None) -> float:
    """Returns the divisor of the logits of `probabilities`, shape (n, classes), that gives the lowest cross-entropy.

    `counts`, shape (n,), says how much each picture counts; None means 1. The temperature is never below 0.5: on some hundred pictures
    without an error the best temperature would be 0, and every later mistake would be made with full certainty.
    """
    of_truth = [temper_probabilities(probabilities, temperature)[np.arange(len(labels)), labels] for temperature in TEMPERATURES]
    losses = [np.average(-np.log(np.clip(shares, MIN_PROBABILITY, 1)), weights=counts) for shares in of_truth]
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)


def choose_threshold(probability: Numbers, is_defect: Flags, costs: Costs, counts: Numbers | None = None) -> tuple[float, float]:
    """Returns the cheapest threshold for the defect `probability`, shape (n,), and its cost per picture.

    `counts`, shape (n,), says how much each picture counts; None means 1. Among thresholds of the same cost, the one nearest (in odds) to
    false alarm / (miss + false alarm) is chosen, because calibrated probabilities would ask for that one. A threshold never lies
    at a picture, because the rounding of another runtime would then change the picture's label.
    """
    edges = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    counts = np.ones(len(probability)) if counts is None else counts
    misses = _sum_below(edges, probability[is_defect], counts[is_defect])
    alarms = counts[~is_defect].sum() - _sum_below(edges, probability[~is_defect], counts[~is_defect])
    spent = (costs.miss * misses + costs.false_alarm * alarms) / counts.sum()
    ideal = costs.false_alarm / (costs.miss + costs.false_alarm)
    cheapest = np.flatnonzero(spent <= spent.min() + 1e-12)
    # All thresholds above edges[k - 1] and up to edges[k] give the same labels.
    lowest = np.where(cheapest > 0, edges[cheapest - 1], 0.0)
    margin = (edges[cheapest] - lowest) * GAP_MARGIN
    nearest = np.clip(ideal, lowest + margin, edges[cheapest] - margin)
    chosen = nearest[np.argmin(np.abs(_logit(nearest) - _logit(np.array(ideal))))]
    return float(chosen), float(spent.min())


def choose_review_band(probability: Numbers, threshold: float, share: float) -> ReviewBand:
    """Returns the band around `threshold` that holds `share` of the pictures, equally wide in odds to both sides.

    The band ends between two pictures.
    """
    inside = int(share * len(probability))
    if inside == 0:
        return ReviewBand(low=threshold, high=threshold)
    middle = float(_logit(np.array(threshold)))
    distance = np.abs(_logit(probability) - middle)
    last = np.sort(distance)[inside - 1]
    next_outside = distance[distance > last].min(initial=np.inf)
    width = float(min(MAX_BAND_LOGITS, (last + next_outside) / 2, last + MAX_LOGITS_BEYOND_PICTURE))
    low, high = (1 / (1 + np.exp(-(middle + side * width))) for side in (-1, 1))
    return ReviewBand(low=min(float(low), threshold), high=max(float(high), threshold))


def _choose_threshold_of(
    vote: SoftVote, probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], is_defect: Flags, costs: Costs, counts: Numbers
) -> tuple[SoftVote, float, float]:
    """Returns `vote` with its best temperature and threshold, its cost per picture and its cross-entropy."""
    vote = replace(vote, temperature=choose_temperature(vote.average(probabilities), labels, counts))
    probability = vote.compute_defect_probability(probabilities)
    threshold, cost = choose_threshold(probability, is_defect, costs, counts)
    of_truth = np.where(is_defect, probability, 1 - probability)
    cross_entropy = float(np.average(-np.log(np.clip(of_truth, MIN_PROBABILITY, 1)), weights=counts))
    return replace(vote, threshold=threshold, low=threshold, high=threshold), cost, cross_entropy


def _candidate_weights(networks: int) -> list[Numbers]:
    """Returns the weights to try. Each has the sum 1 and gives every network a share."""
    if networks == 1:
        return [np.ones(1)]
    if networks > 2:
        return [np.ones(networks) / networks]
    return [np.array([step, WEIGHT_STEPS - step]) / WEIGHT_STEPS for step in range(1, WEIGHT_STEPS)]


def _sum_below(edges: Numbers, probability: Numbers, counts: Numbers) -> Numbers:
    """Returns for each edge the sum of the counts of the pictures whose probability is lower."""
    order = np.argsort(probability)
    sums = np.concatenate([[0.0], np.cumsum(counts[order])])
    result: Numbers = sums[np.searchsorted(probability[order], edges, side="left")]
    return result


def _logit(probability: Numbers) -> Numbers:
    clipped = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    result: Numbers = np.log(clipped / (1 - clipped))
    return result
