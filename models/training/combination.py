"""Chooses how the trained networks vote: temperatures, weights, threshold and review band.

The choice minimises the costs of misses and false alarms on the validation pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.inference.soft_vote import MIN_PROBABILITY, SoftVote, temper_probabilities
from models.registry.manifest import Costs, ReviewBand

# The temperatures that are tried. Each is 2.5 % higher than the one before. With a few hundred pictures, smaller steps make no difference.
TEMPERATURES = np.geomspace(0.5, 20.0, 150)
# The weights of two networks are tried in steps of 1/20.
WEIGHT_STEPS = 20
# A threshold lies between the probabilities of two pictures. Its distance from each of them is at least this share of the gap between
# them. With 0.1, a threshold between 0.4 and 0.6 is at least 0.42 and at most 0.58.
GAP_MARGIN = 0.1
# The review band contains the pictures nearest to the threshold. Its ends are at most this far (in log odds) beyond the outermost of these
# pictures.
MAX_LOGITS_BEYOND_PICTURE = 0.1
# The review band ends at most this far (in log odds) from the threshold. A distance of 3 is a factor of 20 in the odds.
MAX_BAND_LOGITS = 3.0

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Combination:
    """A voting rule, and how well it works on the pictures on which it was chosen.

    `cost` is the mean cost per picture. `cross_entropy` is the cross-entropy of the two classes "defective" and "good", in nats.
    `member_costs` and `member_cross_entropies` are the same figures for each network alone, with the best threshold for this network.
    """

    vote: SoftVote
    cost: float
    member_costs: tuple[float, ...]
    cross_entropy: float
    member_cross_entropies: tuple[float, ...]

    @property
    def beats_members(self) -> bool:
        """True if the ensemble's errors cost less than those of each network alone. If the costs are equal, the cross-entropies decide."""
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
    """Returns the combination of the networks `names` that has the lowest cost.

    `probabilities` has shape (n, networks, classes), `labels` shape (n,). `picture_weights`, shape (n,), gives the weight of each
    picture; None means 1 for all. A `review_share` of 0.05 means that about 5 % of the pictures lie in the review band.
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
    """Returns the temperature that calibrates `probabilities` best. Dividing the logits by it gives the lowest cross-entropy.

    `probabilities` has shape (n, classes). `counts`, shape (n,), gives the weight of each picture; None means 1 for all.

    The temperature is at least 0.5. If the networks make no error on the pictures, the best temperature would be nearly 0. With such a
    temperature, the ensemble would be completely certain even of its errors on other pictures.
    """
    of_truth = [temper_probabilities(probabilities, temperature)[np.arange(len(labels)), labels] for temperature in TEMPERATURES]
    losses = [np.average(-np.log(np.clip(shares, MIN_PROBABILITY, 1)), weights=counts) for shares in of_truth]
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)


def choose_threshold(probability: Numbers, is_defect: Flags, costs: Costs, counts: Numbers | None = None) -> tuple[float, float]:
    """Returns the threshold at which misses and false alarms together cost least, and what they cost per picture at this threshold.

    `probability`, shape (n,), is the defect probability of each picture. `counts`, shape (n,), gives the weight of each picture; None means
    1 for all.

    If several thresholds have the same cost, the function chooses the one that is nearest (in log odds) to false_alarm / (miss +
    false_alarm), where `miss` and `false_alarm` are their costs. If the probabilities were perfectly calibrated, this quotient would be the
    best threshold.

    The threshold never equals the probability of a picture. Otherwise another runtime, which rounds differently, could change the label
    of this picture.
    """
    edges = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    counts = np.ones(len(probability)) if counts is None else counts
    misses = _sum_below(edges, probability[is_defect], counts[is_defect])
    alarms = counts[~is_defect].sum() - _sum_below(edges, probability[~is_defect], counts[~is_defect])
    spent = (costs.miss * misses + costs.false_alarm * alarms) / counts.sum()
    ideal = costs.false_alarm / (costs.miss + costs.false_alarm)
    cheapest = np.flatnonzero(spent <= spent.min() + 1e-12)
    # `edges` are the sorted probabilities. All thresholds above edges[k - 1] and up to edges[k] give the same labels.
    lowest = np.where(cheapest > 0, edges[cheapest - 1], 0.0)
    margin = (edges[cheapest] - lowest) * GAP_MARGIN
    nearest = np.clip(ideal, lowest + margin, edges[cheapest] - margin)
    chosen = nearest[np.argmin(np.abs(_logit(nearest) - _logit(np.array(ideal))))]
    return float(chosen), float(spent.min())


def choose_review_band(probability: Numbers, threshold: float, share: float) -> ReviewBand:
    """Returns the review band around `threshold`. A `share` of 0.05 means that about 5 % of the pictures lie in the band.

    In log odds, the threshold is the middle of the band. The constants MAX_BAND_LOGITS and MAX_LOGITS_BEYOND_PICTURE limit its width. No
    picture has a probability that is equal to an end of the band, because rounding could change the label of this picture.
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
    """Chooses the best temperature and threshold for `vote`. Returns the changed rule, its cost per picture and its cross-entropy."""
    vote = replace(vote, temperature=choose_temperature(vote.average(probabilities), labels, counts))
    probability = vote.compute_defect_probability(probabilities)
    threshold, cost = choose_threshold(probability, is_defect, costs, counts)
    of_truth = np.where(is_defect, probability, 1 - probability)
    cross_entropy = float(np.average(-np.log(np.clip(of_truth, MIN_PROBABILITY, 1)), weights=counts))
    return replace(vote, threshold=threshold, low=threshold, high=threshold), cost, cross_entropy


def _candidate_weights(networks: int) -> list[Numbers]:
    """Returns the combinations of weights to try. Each has one weight above 0 for each network, and its weights sum to 1."""
    if networks == 1:
        return [np.ones(1)]
    if networks > 2:
        return [np.ones(networks) / networks]
    return [np.array([step, WEIGHT_STEPS - step]) / WEIGHT_STEPS for step in range(1, WEIGHT_STEPS)]


def _sum_below(edges: Numbers, probability: Numbers, counts: Numbers) -> Numbers:
    """Returns for each threshold in `edges` the sum of the `counts` of the pictures whose probability is below the threshold."""
    order = np.argsort(probability)
    sums = np.concatenate([[0.0], np.cumsum(counts[order])])
    result: Numbers = sums[np.searchsorted(probability[order], edges, side="left")]
    return result


def _logit(probability: Numbers) -> Numbers:
    clipped = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    result: Numbers = np.log(clipped / (1 - clipped))
    return result
