"""Estimates how many good parts a version would reject on a line, and how many defects it would miss, in an hour.

People see these numbers before they change the settings of a line or choose a version for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.inference.line_threshold import estimate_shares, find_training_share, make_decision_rule
from models.registry.manifest import Manifest
from streams.errors import ModelError
from streams.records import LiveLineSettings

PARTS_PER_HOUR = 1000


@dataclass(frozen=True)
class Outlook:
    """The threshold and the review band of a line, and the expected numbers of false alarms, misses and reviews per hour.

    If the numbers cannot be estimated, they are None, and `note` says why. If the line also reviews parts because of their anomaly scores,
    `reviews_per_hour` does not contain these parts, and `note` gives their number.
    """

    threshold: float
    review_low: float
    review_high: float
    false_alarms_per_hour: float | None
    misses_per_hour: float | None
    reviews_per_hour: float | None
    note: str

    def describe(self) -> str:
        """Returns a sentence with the threshold, the review band, and the expected rejects and misses per hour."""
        if self.false_alarms_per_hour is None:
            return f"threshold {self.threshold:.4f}. {self.note}"
        band = f", review from {self.review_low:.4f} to {self.review_high:.4f}" if self.review_low < self.review_high else ""
        note = f". {self.note}" if self.note else ""
        return (
            f"threshold {self.threshold:.4f}{band}: per hour {self.false_alarms_per_hour:.2f} good parts rejected, "
            f"{self.misses_per_hour:.2f} defects missed, {self.reviews_per_hour:.2f} parts for review{note}"
        )


def make_outlook(manifest: Manifest, line: LiveLineSettings | None, share: float | None, parts_per_hour: float) -> Outlook:
    """Returns how many errors and reviews a line can expect in an hour.

    `line` holds the settings of the line, and `share` is its share of defects.

    Raises ModelError if the settings cannot be applied to the version (see `make_decision_rule`).
    """
    if not manifest.voters:
        note = f"Version {manifest.version} has no networks, so only its scorers decide. {_describe_alarms(manifest, parts_per_hour)}"
        return Outlook(manifest.threshold, manifest.band.low, manifest.band.high, None, None, None, note)
    rule = make_decision_rule(manifest, line.threshold, line.defect_share, line.miss_risk) if line else make_decision_rule(manifest)
    if share is None:
        note = "The share of defects on the line is not known, so rejects and misses cannot be estimated. Set --defect-share."
        return Outlook(rule.threshold, rule.low, rule.high, None, None, None, note)
    try:
        expected = estimate_shares(manifest, rule, share)
    except ModelError as error:
        return Outlook(rule.threshold, rule.low, rule.high, None, None, None, str(error))
    false_alarms, misses, reviews = (
        round(value * parts_per_hour, 3) for value in (expected.false_alarms, expected.misses, expected.reviews)
    )
    note = _describe_alarms(manifest, parts_per_hour) if line and line.review_anomalies and manifest.entries_by_scorer else ""
    return Outlook(rule.threshold, rule.low, rule.high, false_alarms, misses, reviews, note)


def _describe_alarms(manifest: Manifest, parts_per_hour: float) -> str:
    # Each scorer sends at most a known share of the good parts to review. Two scorers may send different parts, so the shares of all
    # scorers are added.
    highest = [entry.highest_alarm_share for entry in manifest.entries_by_scorer.values()]
    each = " for each of the scorers" if len(highest) > 1 else ""
    return (
        f"Of an hour's good parts, at most {min(1.0, sum(highest)) * parts_per_hour:.2f} go to review because of their scores (with 95 % "
        f"confidence{each})."
    )


def make_present_outlook(manifest: Manifest, line: LiveLineSettings | None, share: float | None, parts_per_hour: float) -> Outlook:
    """Returns how many errors and reviews the line can expect in an hour, as `make_outlook`, but never raises ModelError.

    If the settings of the line cannot be applied, the result has the version's own threshold and no numbers, and its note says why.
    """
    try:
        return make_outlook(manifest, line, share, parts_per_hour)
    except ModelError as error:
        note = f"The settings of the line cannot be applied, so the threshold of the version decides. {error}"
        own = make_outlook(manifest, None, share, parts_per_hour)
        return Outlook(own.threshold, own.review_low, own.review_high, None, None, None, note)


def find_share(manifest: Manifest, line: LiveLineSettings | None) -> float | None:
    """Returns a line's share of defective parts from its settings. If it is not set, returns the share among the training pictures.

    Returns None if neither share is known.
    """
    if line is not None and line.defect_share is not None:
        return line.defect_share
    try:
        return find_training_share(manifest)
    except ModelError:
        return None


@dataclass(frozen=True)
class VersionComparison:
    """The errors and reviews that are expected on `line` with the present version (`before`) and with another version (`after`).

    `line_share` is the share of defective parts on the line, or None if this share is not known. `before` is None if the manifest of the
    present version cannot be read.
    """

    line: str
    line_share: float | None
    parts_per_hour: float
    before: Outlook | None
    after: Outlook

    @property
    def title(self) -> str:
        """The heading of the comparison. It names the line, the number of parts an hour and the share of defects."""
        share = f" and {self.line_share:.3%} defects" if self.line_share is not None else ""
        return f"Expected on {self.line} at {self.parts_per_hour:g} parts an hour{share}"


def compare_versions(
    line: str, before: Manifest | None, after: Manifest, settings: LiveLineSettings | None, parts_per_hour: float = PARTS_PER_HOUR
) -> VersionComparison:
    """Compares the version `before`, which judges the line's parts now, with the version `after`. `settings` are the settings of the line.

    If the settings have no share of defects, the share in the training is used.
    """
    share = find_share(before or after, settings)
    present = make_present_outlook(before, settings, share, parts_per_hour) if before else None
    return VersionComparison(line, share, parts_per_hour, present, make_present_outlook(after, settings, share, parts_per_hour))


@dataclass(frozen=True)
class LineComparison:
    """The expected rejects and misses of a line before and after a change of its settings. `line_share` is the share of defective parts."""

    version: str
    line_share: float | None
    parts_per_hour: float
    before: Outlook
    after: Outlook

    @property
    def title(self) -> str:
        """The heading of the comparison. It names the version, the number of parts an hour and the share of defects."""
        share = f" and {self.line_share:.3%} defects" if self.line_share is not None else ""
        return f"Expected of version {self.version} at {self.parts_per_hour:g} parts an hour{share}"


def compare_settings(
    manifest: Manifest, before: LiveLineSettings, after: LiveLineSettings, parts_per_hour: float = PARTS_PER_HOUR
) -> LineComparison:
    """Estimates the false alarms, misses and reviews of a line with its old and with its new settings.

    Raises ModelError if the new settings change the decisions and cannot be applied to this version.
    """
    share = find_share(manifest, after if after.defect_share is not None else before)
    present = make_present_outlook(manifest, before, share, parts_per_hour)
    estimate = make_outlook if after.decision != before.decision else make_present_outlook
    return LineComparison(manifest.version, share, parts_per_hour, present, estimate(manifest, after, share, parts_per_hour))
