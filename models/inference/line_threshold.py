"""Computes the threshold of a line from its expected share of defects, and estimates rejects and misses per hour.

A version is trained on many defects. On a line with few defects, the threshold of the version would reject too many good parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.pass_threshold import choose_pass_threshold
from models.inference.soft_vote import Label, choose_label
from models.registry.manifest import Histogram, Manifest
from streams.errors import ModelError

# Largest log odds of a threshold. A defect probability has log odds of at most 16.1. With a threshold above 16.1, no part could get the
# label `defect`.
MAX_LOG_ODDS = 15.0
# The first bin of a histogram begins at the log odds -8 (a probability of 0.0003), and the last bin ends at 8 (0.9997).
_OUTER_LOG_ODDS = 8.0

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """The threshold and the review band that turn a calibrated defect probability into a label.

    A part gets `review` if `low` <= probability < `high`. Any other part gets `defect` if the probability is at least `threshold`, and
    otherwise `ok`.
    """

    threshold: float
    low: float
    high: float

    def choose_label(self, defect_probability: float) -> Label:
        """Returns the label of a part with this calibrated defect probability: `ok`, `defect` or `review`."""
        return choose_label(defect_probability, self.threshold, self.low, self.high)


@dataclass(frozen=True, slots=True)
class ExpectedShares:
    """The errors and reviews that a decision rule is expected to cause on a line, as shares of all parts, 0..1.

    - `false_alarms`: good parts that get `defect`.
    - `misses`: defective parts that get `ok`.
    """

    false_alarms: float
    misses: float
    reviews: float


def find_training_share(manifest: Manifest) -> float:
    """Returns the share of defective pictures in the training data of a version, above 0 and below 1.

    The probabilities of the version are calibrated for this share. Raises ModelError if the manifest does not give the share.
    """
    pictures = manifest.data.pictures
    total, good = sum(pictures.values()), pictures.get(manifest.classes[manifest.ok_class], 0)
    if not 0 < good < total:
        raise ModelError(
            f"The manifest of version {manifest.version} does not give its numbers of good and defective pictures, so no "
            "threshold can be computed from a share of defects. Set a threshold instead."
        )
    return (total - good) / total


def correct_for_share(probability: float | FloatArray, training_share: float, line_share: float) -> FloatArray:
    """Returns the defect probability `probability`, 0..1, corrected for a line with the share `line_share` of defects.

    `probability` is calibrated for `training_share`. Both shares are above 0 and below 1.

        p' / (1 - p') = p / (1 - p) * [line_share / (1 - line_share)] / [training_share / (1 - training_share)]

    Source: Saerens, Latinne, Decaestecker, 2002, equation 2.4.
    """
    good = (1 - np.asarray(probability, np.float64)) * (1 - line_share) / (1 - training_share)
    bad = np.asarray(probability, np.float64) * line_share / training_share
    result: FloatArray = bad / (good + bad)
    return result


def choose_line_threshold(manifest: Manifest, line_share: float) -> float:
    """Returns the threshold with the lowest cost of misses and false alarms. `line_share` is the share of defects on the line.

    Source: Elkan, IJCAI 2001, equation 2. Raises ModelError if the manifest does not say how many training pictures were defective.
    """
    training_share = find_training_share(manifest)
    ideal = manifest.costs.false_alarm / (manifest.costs.miss + manifest.costs.false_alarm)
    log_odds = _logit(ideal) + _logit(training_share) - _logit(line_share)
    return _probability(float(np.clip(log_odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)))


def make_decision_rule(
    manifest: Manifest, threshold: float | None = None, line_share: float | None = None, miss_risk: float | None = None
) -> DecisionRule:
    """Returns the decision rule of a line. Raises ModelError if the rule cannot be made.

    - `threshold`: if None, the threshold follows from `line_share`.
    - `line_share`: the share of defects on the line. If this is None, too, the threshold of the version is used.
    - `miss_risk`: the largest accepted share of the defective parts that get the label `ok`, or None for no limit. To keep this limit, more
      parts may get the label `review`.
    """
    rule = _make_cost_rule(manifest, threshold, line_share)
    if miss_risk is not None:
        rule = DecisionRule(rule.threshold, min(rule.low, choose_pass_threshold(manifest, miss_risk)), rule.high)
    if (threshold, line_share, miss_risk) != (None, None, None):
        check_rule(manifest, rule)
    return rule


def _make_cost_rule(manifest: Manifest, threshold: float | None, line_share: float | None) -> DecisionRule:
    band = manifest.band
    if threshold is None:
        if line_share is None:
            return DecisionRule(manifest.threshold, min(band.low, manifest.threshold), max(band.high, manifest.threshold))
        threshold = choose_line_threshold(manifest, line_share)
    if band.low == band.high:
        return DecisionRule(threshold, threshold, threshold)
    moved_by = _logit(threshold) - _logit(manifest.threshold)
    low, high = (_probability(_logit(end) + moved_by) for end in (band.low, band.high))
    return DecisionRule(threshold, min(low, threshold), max(high, threshold))


def check_rule(manifest: Manifest, rule: DecisionRule) -> None:
    """Raises ModelError if `rule` would call every part defective, call no part defective, or let no part pass without a review.

    The function looks at the histograms of the validation pictures. Without histograms, it refuses only impossible rules.
    """
    reference = manifest.reference
    anything = Histogram(edges=(), shares=(1.0,))
    good = (reference.good_detail or reference.good or anything) if reference else anything
    bad = (reference.bad_detail or reference.bad or anything) if reference else anything
    advice = "Choose another threshold, share of defects or miss risk."
    if not _may_lie_below(good, rule.high):
        raise ModelError(
            f"The threshold {rule.threshold:.6g} would call every part defective: no good validation picture of version {manifest.version} "
            f"has a lower defect probability. {advice}"
        )
    if not _may_lie_below(good, rule.low):
        raise ModelError(
            f"No part would pass without a review: no good validation picture of version {manifest.version} has a defect probability below "
            f"{rule.low:.6g}. {advice}"
        )
    if not _may_reach(bad, rule.threshold):
        raise ModelError(
            f"The threshold {rule.threshold:.6g} would call no part defective: no defective validation picture of version "
            f"{manifest.version} has such a high defect probability. {advice}"
        )


def _may_lie_below(histogram: Histogram, probability: float) -> bool:
    starts = (0.0, *histogram.edges)
    return any(share > 0 and start < probability for start, share in zip(starts, histogram.shares, strict=True))


def _may_reach(histogram: Histogram, probability: float) -> bool:
    ends = (*histogram.edges, 1.0)
    return any(share > 0 and end > probability for end, share in zip(ends, histogram.shares, strict=True))


def estimate_shares(manifest: Manifest, rule: DecisionRule, line_share: float) -> ExpectedShares:
    """Estimates the shares of false alarms, misses and reviews with `rule`. `line_share` is the share of defects on the line.

    The estimate comes from the histograms of the validation pictures. Raises ModelError if there are none.
    """
    reference = manifest.reference
    if reference is None or reference.good is None or reference.bad is None:
        raise ModelError(
            f"Version {manifest.version} has no histograms of its validation pictures, so rejects and misses cannot be estimated. Run "
            '"castline models reference" to add them.'
        )
    good = reference.good_detail or reference.good
    bad = reference.bad_detail or reference.bad
    # A part is rejected if its defect probability is above the review band. A part passes if its defect probability is below the band.
    pass_below, reject_from = min(rule.low, rule.threshold), max(rule.high, rule.threshold)
    false_alarms = (1 - line_share) * (1 - share_below(good, reject_from))
    misses = line_share * share_below(bad, pass_below)
    reviewed_good = share_below(good, reject_from) - share_below(good, pass_below)
    reviewed_bad = share_below(bad, reject_from) - share_below(bad, pass_below)
    return ExpectedShares(false_alarms, misses, (1 - line_share) * reviewed_good + line_share * reviewed_bad)


def share_below(histogram: Histogram, probability: float) -> float:
    """Returns the share of the values of `histogram` that are below `probability`, 0..1.

    The function assumes that the values in a bin are spread evenly in log odds.
    """
    edges = [-_OUTER_LOG_ODDS, *(_logit(edge) for edge in histogram.edges), _OUTER_LOG_ODDS]
    sums = np.concatenate([[0.0], np.cumsum(histogram.shares)])
    return float(np.clip(np.interp(_logit(probability), np.maximum.accumulate(edges), sums / max(sums[-1], 1e-12)), 0, 1))


def _logit(probability: float) -> float:
    limit = 1 / (1 + np.exp(MAX_LOG_ODDS))
    clipped = min(max(probability, limit), 1 - limit)
    return float(np.log(clipped / (1 - clipped)))


def _probability(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))
