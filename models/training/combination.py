"""From the voters' answers on validation pictures: temperatures, weights, threshold and band of doubt, by what mistakes cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.inference.ensemble import SMALLEST, Vote, temper
from models.registry.manifest import Band, Costs

TEMPERATURES = np.geomspace(0.5, 20.0, 150)  # 2.5 % apart: finer than some hundred pictures can tell
STEPS = 20  # the weights are tried in twentieths
MARGIN = 0.1  # of the gap between two pictures, that a threshold keeps from both
MOST_GAP = 0.1  # logits: the band goes no further than this beyond the last picture in it
MOST_DOUBT = 3.0  # logits: the band never reaches further from the threshold than a factor of 20 in the odds

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Combination:
    """How the voters are combined and what it costs, per picture, on the pictures it was chosen on."""

    vote: Vote
    cost: float  # of the ensemble
    voters_cost: tuple[float, ...]  # of each voter alone, at a threshold of its own
    loss: float  # cross-entropy of defect or not, nats
    voters_loss: tuple[float, ...]

    @property
    def better(self) -> bool:
        """Whether the ensemble is better than each voter: cheaper, or as cheap and surer."""
        return all((self.cost, self.loss) < alone for alone in zip(self.voters_cost, self.voters_loss, strict=True))


def combine(
    names: Sequence[str],
    answers: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    ok_class: int,
    costs: Costs,
    review_share: float,
    weights: Numbers | None = None,
) -> Combination:
    """The best combination for `answers`, shape (n, voters, classes), of pictures with the true `labels`, shape (n,).

    `weights`, shape (n,), say what each picture counts; 1 where they are absent.
    """
    bad: Flags = labels != ok_class
    counts = np.ones(len(labels)) if weights is None else weights
    temperatures = np.array([best_temperature(answers[:, v].astype(np.float64), labels, counts) for v in range(len(names))])
    plain = Vote(tuple(names), np.ones(len(names)) / len(names), temperatures, 1.0, ok_class, 0.5, 0.5, 0.5)
    tried = [_judged(replace(plain, weights=shares), answers, labels, bad, costs, counts) for shares in _weights(len(names))]
    alone = [_judged(replace(plain, weights=np.eye(len(names))[v]), answers, labels, bad, costs, counts) for v in range(len(names))]
    vote, cost, loss = min(tried, key=lambda each: (each[1], each[2]))
    band = doubt(vote.defect_probability(answers), vote.threshold, review_share)
    vote = replace(vote, low=band.low, high=band.high)
    return Combination(vote, cost, tuple(each[1] for each in alone), loss, tuple(each[2] for each in alone))


def best_temperature(probabilities: Numbers, labels: npt.NDArray[np.int32], counts: Numbers | None = None) -> float:
    """What the logits of `probabilities`, shape (n, classes), are to be divided by for the lowest cross-entropy.

    `counts`, shape (n,): what each picture counts; 1 where absent.

    Not below 0.5: on some hundred pictures without an error the best temperature would be 0, and every later mistake certain.
    """
    of_truth = [temper(probabilities, temperature)[np.arange(len(labels)), labels] for temperature in TEMPERATURES]
    losses = [np.average(-np.log(np.clip(each, SMALLEST, 1)), weights=counts) for each in of_truth]
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)


def best_threshold(probability: Numbers, bad: Flags, costs: Costs, counts: Numbers | None = None) -> tuple[float, float]:
    """The cheapest threshold for `probability`, shape (n,), and its cost per picture; `counts` as in `best_temperature`.

    Between thresholds of the same cost the one nearest (in odds) to what calibrated probabilities would ask for is taken:
    false alarm / (miss + false alarm); never at a picture itself, which another runtime's rounding would then turn.
    """
    edges = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    counts = np.ones(len(probability)) if counts is None else counts
    misses = _below(edges, probability[bad], counts[bad])
    alarms = counts[~bad].sum() - _below(edges, probability[~bad], counts[~bad])
    spent = (costs.miss * misses + costs.false_alarm * alarms) / counts.sum()
    ideal = costs.false_alarm / (costs.miss + costs.false_alarm)
    cheapest = np.flatnonzero(spent <= spent.min() + 1e-12)
    # a threshold at edges[k] acts the same down to just above edges[k - 1]
    lowest = np.where(cheapest > 0, edges[cheapest - 1], 0.0)
    aside = (edges[cheapest] - lowest) * MARGIN
    nearest = np.clip(ideal, lowest + aside, edges[cheapest] - aside)
    chosen = nearest[np.argmin(np.abs(_logit(nearest) - _logit(np.array(ideal))))]
    return float(chosen), float(spent.min())


def _below(edges: Numbers, probability: Numbers, counts: Numbers) -> Numbers:
    """How much lies below each of `edges`."""
    order = np.argsort(probability)
    sums = np.concatenate([[0.0], np.cumsum(counts[order])])
    result: Numbers = sums[np.searchsorted(probability[order], edges, side="left")]
    return result


def doubt(probability: Numbers, threshold: float, share: float) -> Band:
    """The band about `threshold`, as wide in odds to both sides, that holds `share` of the pictures; it ends between two of them."""
    inside = int(share * len(probability))
    if inside == 0:
        return Band(low=threshold, high=threshold)
    middle = float(_logit(np.array(threshold)))
    away = np.abs(_logit(probability) - middle)
    last = np.sort(away)[inside - 1]
    beyond = away[away > last].min(initial=np.inf)
    width = float(min(MOST_DOUBT, (last + beyond) / 2, last + MOST_GAP))
    low, high = (1 / (1 + np.exp(-(middle + side * width))) for side in (-1, 1))
    return Band(low=min(float(low), threshold), high=max(float(high), threshold))


def _judged(
    vote: Vote, answers: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], bad: Flags, costs: Costs, counts: Numbers
) -> tuple[Vote, float, float]:
    """`vote` with the temperature and the threshold that suit it, its cost per picture and its cross-entropy."""
    vote = replace(vote, temperature=best_temperature(vote.mixed(answers), labels, counts))
    probability = vote.defect_probability(answers)
    threshold, cost = best_threshold(probability, bad, costs, counts)
    of_truth = np.where(bad, probability, 1 - probability)
    loss = float(np.average(-np.log(np.clip(of_truth, SMALLEST, 1)), weights=counts))
    return replace(vote, threshold=threshold, low=threshold, high=threshold), cost, loss


def _weights(voters: int) -> list[Numbers]:
    """Weights to be tried, each of sum 1 and with a share for every voter."""
    if voters == 1:
        return [np.ones(1)]
    if voters > 2:
        return [np.ones(voters) / voters]
    return [np.array([step, STEPS - step]) / STEPS for step in range(1, STEPS)]


def _logit(probability: Numbers) -> Numbers:
    kept = np.clip(probability, SMALLEST, 1 - SMALLEST)
    result: Numbers = np.log(kept / (1 - kept))
    return result
