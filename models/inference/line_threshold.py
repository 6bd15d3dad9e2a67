"""Computes the threshold of a line from the share of defects that is expected there, and estimates rejects and misses an hour.

A version is trained on many defects, often on as many defective as good pictures. On a line with one defect in a hundred parts, the
threshold of the version would therefore reject too many good parts. The module uses only NumPy, so it is quick to load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.pass_threshold import choose_pass_threshold
from models.inference.soft_vote import Label, choose_label
from models.registry.manifest import Histogram, Manifest
from streams.errors import ModelError

# The log odds of a threshold lie between -MAX_LOG_ODDS and MAX_LOG_ODDS. Even the highest threshold is below the largest possible
# probability of a defect, 1 - 1e-7, whose log odds are 16.1 (see `soft_vote.MIN_PROBABILITY`).
MAX_LOG_ODDS = 15.0
# The first bin of a histogram of probabilities has no lower edge, and the last bin has no upper edge. The log odds -8 and 8 (probabilities
# 0.0003 and 0.9997) are used as the missing edges.
_OUTER_LOG_ODDS = 8.0

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """The threshold and the review band that turn a calibrated defect probability into a label.

    The label is `review` if the probability is at least `low` and below `high`. Otherwise it is `defect` if the probability is at least
    `threshold`, and `ok` if not.
    """

    threshold: float
    low: float
    high: float

    def choose_label(self, defect_probability: float) -> Label:
        """Returns the label of a part with this calibrated defect probability: `ok`, `defect` or `review`."""
        return choose_label(defect_probability, self.threshold, self.low, self.high)


@dataclass(frozen=True, slots=True)
class ExpectedShares:
    """The errors and reviews that a decision rule is expected to cause on a line, as shares of all its parts, 0..1.

    `false_alarms` are good parts that get `defect`, `misses` are defective parts that get `ok`, and `reviews` are parts that get `review`.
    """

    false_alarms: float
    misses: float
    reviews: float


def find_training_share(manifest: Manifest) -> float:
    """Returns the share of defective pictures in the data of a version, above 0 and below 1.

    The probabilities of the version are calibrated for this share. Raises ModelError if the manifest does not give the share.
    """
    pictures = manifest.data.pictures
    total, good = sum(pictures.values()), pictures.get(manifest.classes[manifest.ok_class], 0)
    if not 0 < good < total:
        raise ModelError(
            f"The manifest of version {manifest.version} does not say how many of its pictures were good and how many defective, so no "
            "threshold can be computed from a share of defects. Set a threshold instead."
        )
    return (total - good) / total


def correct_for_share(probability: float | FloatArray, training_share: float, line_share: float) -> FloatArray:
    """Returns the defect probability `probability`, corrected for a line on which the share `line_share` of the parts is defective.

    `probability`, 0..1, is calibrated for pictures of which the share `training_share` is defective. Both shares are above 0 and below 1.
    The correction is right only if good parts look the same on the line as in the training, and defective parts too.

    The correction multiplies the odds of `probability` by the ratio of the prior odds:

        p' / (1 - p') = p / (1 - p) * [line_share / (1 - line_share)] / [training_share / (1 - training_share)]

    Source: Saerens, Latinne, Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities: a simple procedure, Neural
    Computation 14(1), 2002, equation 2.4, for two classes.
    """
    good = (1 - np.asarray(probability, np.float64)) * (1 - line_share) / (1 - training_share)
    bad = np.asarray(probability, np.float64) * line_share / training_share
    result: FloatArray = bad / (good + bad)
    return result


def choose_line_threshold(manifest: Manifest, line_share: float) -> float:
    """Returns the threshold with the lowest cost of misses and false alarms, if the share `line_share` of the parts is defective.

    Let p be the defect probability of a part after `correct_for_share`. On average, rejecting the part costs (1 - p) * false_alarm, and
    passing it costs p * miss. So the best threshold for p is false_alarm / (miss + false_alarm) (Elkan, The foundations of cost-sensitive
    learning, IJCAI 2001, equation 2).

    The function converts this threshold back to the calibrated probabilities of the version, so that it can be compared with the field
    `defect_probability` of a verdict.

    Raises ModelError if the manifest does not give the share of defects for which its probabilities are calibrated.
    """
    training_share = find_training_share(manifest)
    ideal = manifest.costs.false_alarm / (manifest.costs.miss + manifest.costs.false_alarm)
    log_odds = _logit(ideal) + _logit(training_share) - _logit(line_share)
    return _probability(float(np.clip(log_odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)))


def make_decision_rule(
    manifest: Manifest, threshold: float | None = None, line_share: float | None = None, miss_risk: float | None = None
) -> DecisionRule:
    """Returns the decision rule of a line.

    If `threshold` is given, the rule uses it. Otherwise the threshold is computed from `line_share`, the share of defects on the line. If
    neither is given, the rule has the threshold of the version. If the threshold is not the version's own, the review band moves with it
    and keeps its width in log odds.

    If `miss_risk` is given, a part passes only if its probability is also below the pass threshold for this risk (`choose_pass_threshold`).
    Parts from the pass threshold up to the threshold are then for review.

    Raises ModelError if the manifest lacks the numbers for the share or for the risk, or if the settings would call every part defective,
    or none, or would let no part pass (`check_rule`).
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
    """Raises ModelError if `rule` would call every part defective, or none, or would let no part pass without a person.

    The histograms of the validation pictures decide. Where a bin does not say on which side of the rule its pictures lie, the rule is
    accepted. For a version without histograms, only rules that no probability can fulfil are refused.
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
            f"No part would pass without a person: no good validation picture of version {manifest.version} has a defect probability below "
            f"{rule.low:.6g}. {advice}"
        )
    if not _may_reach(bad, rule.threshold):
        raise ModelError(
            f"The threshold {rule.threshold:.6g} would call no part defective: no defective validation picture of version "
            f"{manifest.version} has a defect probability as high. {advice}"
        )


def _may_lie_below(histogram: Histogram, probability: float) -> bool:
    """Tells whether a value of `histogram` may be below `probability`: whether a bin that begins below `probability` holds values."""
    starts = (0.0, *histogram.edges)
    return any(share > 0 and start < probability for start, share in zip(starts, histogram.shares, strict=True))


def _may_reach(histogram: Histogram, probability: float) -> bool:
    """Tells whether a value of `histogram` may be `probability` or more: whether a bin that ends above `probability` holds values."""
    ends = (*histogram.edges, 1.0)
    return any(share > 0 and end > probability for end, share in zip(ends, histogram.shares, strict=True))


def estimate_shares(manifest: Manifest, rule: DecisionRule, line_share: float) -> ExpectedShares:
    """Estimates the shares of false alarms, misses and reviews under `rule` on a line with the share `line_share` of defects.

    The estimate uses the histograms of the version's validation pictures. It assumes that the values in a bin are spread evenly in log
    odds.

    Raises ModelError if the version has no such histograms.
    """
    reference = manifest.reference
    if reference is None or reference.good is None or reference.bad is None:
        raise ModelError(
            f"Version {manifest.version} has no histograms of its validation pictures, so rejects and misses cannot be estimated. Add them "
            'with "castline models reference".'
        )
    good = reference.good_detail or reference.good
    bad = reference.bad_detail or reference.bad
    # If there is a review band, parts above the band are rejected and parts below it pass.
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
