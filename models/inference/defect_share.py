"""Estimates the share of defective parts on a line from the defect probabilities of its parts, and corrects it by people's reviews."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize, minimize_scalar  # type: ignore[import-untyped]  # no stubs
from scipy.special import expit, logit  # type: ignore[import-untyped]  # no stubs

from models.inference.soft_vote import MIN_PROBABILITY

MIN_REVIEWED = 20
# The most probable share of defects has the largest log-likelihood. At both ends of the 95 % interval, the log-likelihood is lower by this
# number.
_LIKELIHOOD_DROP = 1.92
# The log odds of an estimated share lie between minus and plus this number, so the share lies between 0.00003 % and 99.99997 %.
_MAX_LOG_ODDS = 15.0
# The log odds of a defect are modelled as offset + slope * x, where x is computed from the part's defect probability. People's reviews
# correct the offset and the slope. The prior distributions of offset and slope have these standard deviations. With smaller deviations,
# the reviews would change offset and slope less.
_OFFSET_DEVIATION, _SLOPE_DEVIATION = 2.0, 0.5
_DRAWS = 2000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DefectShareEstimate:
    """An estimated share of defective parts, 0..1, with its 95 % interval from `low` to `high`."""

    value: float
    low: float
    high: float


def estimate_from_probabilities(probability: FloatArray, training_share: float) -> DefectShareEstimate:
    """Returns the share of defects that best explains the defect probabilities (maximum likelihood).

    `probability`, shape (n,), holds the defect probabilities of the parts. They are calibrated for a line on which the share
    `training_share` of the parts is defective. The estimate is right only if the parts look like those in the training.
    Source: Saerens, Latinne, Decaestecker, Neural Computation 14(1), 2002, equation 2.9.
    """
    clipped = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    bad, good = clipped / training_share, (1 - clipped) / (1 - training_share)

    def negative_log_likelihood(log_odds: float) -> float:
        share = float(expit(log_odds))
        return -float(np.log(share * bad + (1 - share) * good).sum())

    limits = (-_MAX_LOG_ODDS, _MAX_LOG_ODDS)
    best = float(minimize_scalar(negative_log_likelihood, bounds=limits, method="bounded", options={"xatol": 1e-4}).x)
    highest = negative_log_likelihood(best) + _LIKELIHOOD_DROP
    low, high = (
        float(brentq(lambda at: negative_log_likelihood(at) - highest, *sorted((end, best))))
        if negative_log_likelihood(end) > highest
        else end
        for end in limits
    )
    return DefectShareEstimate(*(float(expit(one)) for one in (best, low, high)))


def correct_by_reviews(
    probability: FloatArray, training_share: float, reviewed: FloatArray, is_defect: npt.NDArray[np.bool_], seed: int = 1
) -> DefectShareEstimate:
    """Returns the share of defects on a line, after people have reviewed some of its parts.

    - `probability`, shape (n,): defect probabilities of parts without a review.
    - `training_share`: the share of defective parts for which the probabilities are calibrated.
    - `reviewed`, shape (m,): defect probabilities of reviewed parts.
    - `is_defect`, shape (m,): True for reviewed parts that people called defective.

    Raises ValueError if there are fewer than MIN_REVIEWED reviewed parts.
    """
    if len(reviewed) < MIN_REVIEWED:
        raise ValueError(f"expected at least {MIN_REVIEWED} reviewed parts, found {len(reviewed)}")
    everything = np.concatenate([probability, reviewed])
    prior = np.array([logit(estimate_from_probabilities(everything, training_share).value), 1.0])
    deviations = np.array([_OFFSET_DEVIATION, _SLOPE_DEVIATION])
    # The logarithm of each part's likelihood ratio. A ratio of 10 means: such pictures are 10 times as frequent among defective parts as
    # among good parts.
    ratio, reviewed_ratio = (
        logit(np.clip(some, MIN_PROBABILITY, 1 - MIN_PROBABILITY)) - logit(training_share) for some in (probability, reviewed)
    )

    def negative_log_posterior(curve: FloatArray) -> float:
        log_odds = curve[0] + curve[1] * reviewed_ratio
        log_losses = np.logaddexp(0, np.where(is_defect, -log_odds, log_odds)).sum()
        return float(log_losses + 0.5 * np.square((curve - prior) / deviations).sum())

    best = minimize(negative_log_posterior, prior, method="BFGS").x
    random = np.random.default_rng(seed)
    chance = expit(best[0] + best[1] * reviewed_ratio)
    inputs = np.stack([np.ones_like(reviewed_ratio), reviewed_ratio])
    precision = (inputs * (chance * (1 - chance))) @ inputs.T + np.diag(1 / deviations**2)
    curves = np.array([best, *random.multivariate_normal(best, np.linalg.inv(precision), _DRAWS)])
    # Parts with similar likelihood ratios are counted together, because a computation for each of millions of parts would take too long.
    counts, edges = np.histogram(ratio, bins=400)
    middles = (edges[:-1] + edges[1:]) / 2
    shares = (expit(curves[:, :1] + curves[:, 1:] * middles) @ counts + is_defect.sum()) / len(everything)
    # The given parts are only a sample of all parts of the line. So the interval is made wider if only few parts were given.
    drawn = random.beta(shares[1:] * len(everything) + 0.5, (1 - shares[1:]) * len(everything) + 0.5)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return DefectShareEstimate(float(shares[0]), float(low), float(high))
