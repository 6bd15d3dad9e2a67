"""Chooses how the trained networks vote: temperatures, weights, threshold and review band.

The weights minimise the cross-entropy on held-out validation pictures. The threshold minimises the costs of misses and false alarms on all
validation pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]  # no stubs

from models.inference.soft_vote import MIN_PROBABILITY, SoftVote, temper_probabilities
from models.registry.manifest import Costs, ReviewBand
from models.training.split import list_folds
from streams.errors import ModelError

TEMPERATURE_LIMITS = (0.5, 20.0)
WEIGHT_STEPS = 20
FOLDS = 5
# The threshold lies in the gap between the probabilities of two pictures. This share of the gap stays free at both ends, so that rounding
# does not change a label. Example: if the probabilities are 0.4 and 0.6, the threshold lies from 0.42 to 0.58.
GAP_MARGIN = 0.1
# The review band may extend at most this far, in log odds, beyond the outermost picture that lies in it. Without this limit, the band could
# reach far into a range of probabilities that no picture has.
MAX_LOGITS_BEYOND_PICTURE = 0.1
# Largest distance, in log odds, between the threshold and an end of the review band. With the threshold 0.5, this allows 0.05 to 0.95.
MAX_BAND_LOGITS = 3.0

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Combination:
    """A voting rule, and how well it works on the pictures on which it was chosen.

    - `cost`: mean cost per picture.
    - `cross_entropy`: how wrong the defect probabilities are, in nats. If there are enough pictures, it is measured on held-out pictures.
    - `member_costs`, `member_cross_entropies`: the cost and the cross-entropy of each network, if it decides alone with its best threshold.
    - `notes`: warnings and explanations for the person who trains the version.
    """

    vote: SoftVote
    cost: float
    member_costs: tuple[float, ...]
    cross_entropy: float
    member_cross_entropies: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def beats_members(self) -> bool:
        """True if the ensemble has lower costs than each network alone. If costs are equal, the ensemble needs a lower cross-entropy."""
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
    groups: npt.NDArray[np.int32] | None = None,
) -> Combination:
    """Chooses the temperatures, the weights, the threshold and the review band with which the networks `names` vote.

    - `probabilities` has shape (n, networks, classes), `labels` shape (n,).
    - `picture_weights`, shape (n,), gives the weight of each picture; None means 1 for all.
    - `groups`, shape (n,), are the groups of near-duplicates; None means that each picture is a group.
    - A `review_share` of 0.05 means that about 5 % of the pictures lie in the review band.

    The chosen weights have the lowest cross-entropy on held-out pictures (`compare_weights`). If no ensemble is better than one network
    alone, this network gets the weight 1, and `notes` says so.
    """
    is_defect: Flags = labels != ok_class
    counts = np.ones(len(labels)) if picture_weights is None else picture_weights
    temperatures = np.array(
        [choose_temperature(probabilities[:, member].astype(np.float64), labels, counts) for member in range(len(names))]
    )
    plain = SoftVote(tuple(names), np.ones(len(names)) / len(names), temperatures, 1.0, ok_class, 0.5, 0.5, 0.5)
    candidates = _candidate_weights(len(names))
    held_out = compare_weights(candidates, probabilities, labels, ok_class, counts, groups)
    # If `held_out` is None, there were too few pictures to compare the candidates. In this case, all networks get the same weight. In the
    # list, this candidate comes after the candidates with one network alone, so its index is the number of networks.
    best = min(len(names), len(candidates) - 1) if held_out is None else int(np.argmin(held_out))

    def rate(weights: Numbers) -> tuple[SoftVote, float, float]:
        return _choose_threshold_of(replace(plain, weights=weights), probabilities, labels, is_defect, costs, counts)

    alone = [rate(weights) for weights in np.eye(len(names))]
    vote, cost, cross_entropy = rate(candidates[best])
    band = choose_review_band(vote.compute_defect_probability(probabilities), vote.threshold, review_share)
    vote = replace(vote, low=band.low, high=band.high)
    member_entropies = tuple(rated[2] for rated in alone)
    if held_out is not None:
        cross_entropy, member_entropies = float(held_out[best]), tuple(float(value) for value in held_out[: len(names)])
    notes = [*_describe_weights(names, candidates, held_out), *_describe_threshold(vote, probabilities, is_defect, costs, counts, cost)]
    return Combination(vote, cost, tuple(rated[1] for rated in alone), cross_entropy, member_entropies, tuple(notes))


def compare_weights(
    candidates: Sequence[Numbers],
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    ok_class: int,
    counts: Numbers,
    groups: npt.NDArray[np.int32] | None = None,
) -> Numbers | None:
    """Returns the cross-entropy of the ensemble for each candidate. A candidate gives each network a weight.

    The result is in nats and has the shape (candidates,). It is None if there are too few pictures for two folds.

    The pictures are divided into folds, and near-duplicates stay in the same fold. The cross-entropy of a fold is computed with
    temperatures that were chosen on the pictures of the other folds.

    - `counts`, shape (n,): the weight of each picture.
    - `groups`, shape (n,): the groups of near-duplicates. None means that each picture is a group.
    """
    is_defect: Flags = labels != ok_class
    folds = list_folds(is_defect.astype(np.int32), np.arange(len(labels), dtype=np.int32) if groups is None else groups, FOLDS)
    if not folds or len(candidates) == 1:
        return None
    sums = np.zeros(len(candidates))
    for fold in folds:
        rest = ~fold
        tempered = [
            temper_probabilities(member, choose_temperature(member[rest], labels[rest], counts[rest]))
            for member in np.moveaxis(probabilities.astype(np.float64), 1, 0)
        ]
        for index, weights in enumerate(candidates):
            average = np.einsum("v,vnc->nc", weights, np.stack(tempered))
            temperature = choose_temperature(average[rest], labels[rest], counts[rest])
            probability = 1 - temper_probabilities(average[fold], temperature)[:, ok_class]
            sums[index] += (compute_log_losses(probability, is_defect[fold]) * counts[fold]).sum()
    result: Numbers = sums / counts.sum()
    return result


def choose_temperature(probabilities: Numbers, labels: npt.NDArray[np.int32], counts: Numbers | None = None) -> float:
    """Returns the temperature at which the cross-entropy of `probabilities` is lowest.

    `probabilities` has the shape (n, classes). `counts`, shape (n,), gives the weight of each picture; None means 1 for all.

    The temperature is at least 0.5. With a lower temperature, a network without errors on these pictures would be far too certain.
    """
    rows = np.arange(len(labels))

    def measure(log_temperature: float) -> float:
        of_truth = temper_probabilities(probabilities, float(np.exp(log_temperature)))[rows, labels]
        return float(np.average(-np.log(np.clip(of_truth, MIN_PROBABILITY, 1)), weights=counts))

    # The cross-entropy has a single minimum, because it is a convex function of 1 / temperature.
    found = minimize_scalar(measure, bounds=np.log(TEMPERATURE_LIMITS), method="bounded", options={"xatol": 1e-3})
    return round(float(np.exp(found.x)), 4)


def choose_threshold(probability: Numbers, is_defect: Flags, costs: Costs, counts: Numbers | None = None) -> tuple[float, float]:
    """Returns the threshold with the lowest cost of misses and false alarms, and the cost per picture at this threshold.

    `probability`, shape (n,), is the defect probability of each picture. `counts`, shape (n,), gives the weight of each picture; None means
    1 for all.

    - If several thresholds cost the same, the one nearest to false_alarm / (miss + false_alarm) in log odds is chosen.
    - The threshold is never equal to a picture's probability. Otherwise, the rounding of another runtime could change the label.
    - If possible, at least one good picture lies below the threshold, and at least one defective picture above it.
    """
    edges = np.unique([0.0, *probability, 1.0])
    counts = np.ones(len(probability)) if counts is None else counts
    misses = _sum_below(edges, probability[is_defect], counts[is_defect])
    alarms = counts[~is_defect].sum() - _sum_below(edges, probability[~is_defect], counts[~is_defect])
    spent = (costs.miss * misses + costs.false_alarm * alarms) / counts.sum()
    is_degenerate = (edges <= probability[~is_defect].min(initial=1)) | (edges > probability[is_defect].max(initial=0))
    if not is_degenerate.all():
        spent[is_degenerate] = np.inf
    ideal = costs.false_alarm / (costs.miss + costs.false_alarm)
    cheapest = np.flatnonzero(spent <= spent.min() + 1e-12)
    # `edges` holds 0, the probabilities of all pictures, and 1, in ascending order. All thresholds between two neighbouring edges give the
    # same labels, because no picture lies between the edges.
    lowest = np.where(cheapest > 0, edges[cheapest - 1], 0.0)
    margin = (edges[cheapest] - lowest) * GAP_MARGIN
    nearest = np.clip(ideal, lowest + margin, edges[cheapest] - margin)
    chosen = nearest[np.argmin(np.abs(_logit(nearest) - _logit(np.array(ideal))))]
    return float(chosen), float(spent.min())


def choose_review_band(probability: Numbers, threshold: float, share: float) -> ReviewBand:
    """Returns the review band around `threshold`. A `share` of 0.05 means that about 5 % of the pictures lie in the band.

    The threshold is the middle of the band in log odds. The ends of the band are never equal to the probability of a picture, because
    rounding could then move this picture into the band or out of it.
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
    """Finds the best temperature and threshold for the weights of `vote`.

    Returns a voting rule with these values, its cost and its cross-entropy.
    """
    vote = replace(vote, temperature=choose_temperature(vote.average(probabilities), labels, counts))
    probability = vote.compute_defect_probability(probabilities)
    threshold, cost = choose_threshold(probability, is_defect, costs, counts)
    cross_entropy = float(np.average(compute_log_losses(probability, is_defect), weights=counts))
    return replace(vote, threshold=threshold, low=threshold, high=threshold), cost, cross_entropy


def _candidate_weights(networks: int) -> list[Numbers]:
    """Returns the weights to try: each network alone, equal weights and, for two networks, unequal weights. Weights sum to 1."""
    alone, equal = list(np.eye(networks)), np.ones(networks) / networks
    if networks == 1:
        return alone
    steps = [step for step in range(1, WEIGHT_STEPS) if 2 * step != WEIGHT_STEPS] if networks == 2 else []
    return [*alone, equal, *(np.array([step, WEIGHT_STEPS - step]) / WEIGHT_STEPS for step in steps)]


def _describe_weights(names: Sequence[str], candidates: Sequence[Numbers], held_out: Numbers | None) -> list[str]:
    """Returns sentences that explain unusual weights to a person, or an empty list.

    Weights are unusual if one network has the whole weight, or if there are too few pictures to compare weights.
    """
    if len(names) == 1:
        return []
    if held_out is None:
        return [
            "The validation pictures are too few to compare weights on held-out pictures, so all networks have the same weight. Add "
            "pictures of other good and other defective castings."
        ]
    best = int(np.argmin(held_out))
    if best >= len(names):
        return []
    ensembles = float(held_out[len(names) :].min())
    return [
        f"On held-out validation pictures, no ensemble is better than {names[best]} alone (cross-entropy {held_out[best]:.4f}, best "
        f"ensemble {ensembles:.4f} nats). So {names[best]} decides alone, and the other networks have the weight 0."
    ]


def _describe_threshold(
    vote: SoftVote, probabilities: npt.NDArray[np.float32], is_defect: Flags, costs: Costs, counts: Numbers, cost: float
) -> list[str]:
    """Returns a warning in a list if the networks are of little use. Otherwise returns an empty list.

    The networks are of little use if it would cost less to give all validation pictures the same label.
    """
    share = float(counts[is_defect].sum() / counts.sum())
    degenerate, name = min((costs.false_alarm * (1 - share), "every part"), (costs.miss * share, "no part"))
    if degenerate >= cost:
        return []
    called = float((vote.compute_defect_probability(probabilities) >= vote.threshold).mean())
    return [
        f"With the costs of this training, a version that calls {name} defective would be the cheapest: {degenerate:.4f} for each picture, "
        f"instead of {cost:.4f}. Such a version is of no use, so the threshold {vote.threshold:.4f} was chosen. It calls {called:.1%} of "
        "the validation pictures defective. The networks do not tell good and defective parts apart well enough. Train for more epochs, or "
        "add pictures."
    ]


def expect_separation(probability: Numbers, is_defect: Flags) -> None:
    """Raises ModelError unless at least one defective picture has a higher defect probability than at least one good picture.

    Otherwise, no threshold could tell defective pictures from good ones.

    `probability`, shape (n,), holds the defect probabilities of the pictures. `is_defect`, shape (n,), is True for defective pictures.
    """
    good, bad = probability[~is_defect].min(initial=1), probability[is_defect].max(initial=0)
    if bad <= good:
        raise ModelError(
            "No defective validation picture has a higher defect probability than a good picture. The highest probability of a defective "
            f"picture is {bad:.4f}, and the lowest probability of a good picture is {good:.4f}. So no threshold tells them apart. Train "
            "for more epochs, or add pictures of clear defects."
        )


def compute_log_losses(probability: Numbers, is_defect: Flags) -> Numbers:
    """Returns for each picture the negative logarithm of the probability of its true class (good or defective), in nats."""
    result: Numbers = -np.log(np.clip(np.where(is_defect, probability, 1 - probability), MIN_PROBABILITY, 1))
    return result


def _sum_below(edges: Numbers, probability: Numbers, counts: Numbers) -> Numbers:
    order = np.argsort(probability)
    sums = np.concatenate([[0.0], np.cumsum(counts[order])])
    result: Numbers = sums[np.searchsorted(probability[order], edges, side="left")]
    return result


def _logit(probability: Numbers) -> Numbers:
    clipped = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    result: Numbers = np.log(clipped / (1 - clipped))
    return result
