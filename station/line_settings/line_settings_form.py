"""Reads the form of the page of line settings, and turns what a person entered into a record for the topic `castings.lines`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from streams.identity import format_time
from streams.records import MAX_REGIONS, MIN_REGION_AREA, LiveLineSettings, Region, RegionPoint

# Longer JSON texts with regions are cut off. A valid text has at most 32 regions with 64 corners each, which need about 60,000 characters.
_MAX_REGION_CHARACTERS = 200_000

Value = TypeVar("Value")


@dataclass(frozen=True)
class LineSettingsForm:
    """The texts in the fields of the form. If a field is empty, the line does not have this setting.

    Regions are JSON texts. For example, `[[[0, 0], [1, 0], [1, 1]]]` is one region with three corners `[x, y]`. The x coordinate is 0 at
    the left and 1 at the right of the picture. The y coordinate is 0 at the top and 1 at the bottom.
    """

    inspect_regions: str = "[]"
    ignore_regions: str = "[]"
    mm_per_px: str = ""
    threshold: str = ""
    defect_percent: str = ""
    miss_risk_percent: str = ""
    shown_at: str = ""

    @classmethod
    def from_post(cls, fields: Mapping[str, str]) -> LineSettingsForm:
        """Returns the form that a browser sent. Missing fields are empty.

        If the person pressed the button "Take this share", the estimated share of defects replaces the text in `defect_percent`.
        """
        regions = {name: fields.get(name, "")[:_MAX_REGION_CHARACTERS] or "[]" for name in ("inspect_regions", "ignore_regions")}
        names = ("mm_per_px", "threshold", "defect_percent", "miss_risk_percent", "shown_at")
        numbers = {name: fields.get(name, "").strip()[:40] for name in names}
        if taken := fields.get("estimated_percent", ""):
            numbers["defect_percent"] = taken[:40]
        return cls(**regions, **numbers)

    @classmethod
    def from_record(cls, record: LiveLineSettings | None) -> LineSettingsForm:
        """Returns the form with the settings in `record`, or an empty form if `record` is None."""
        if record is None:
            return cls()
        return cls(
            inspect_regions=_format_regions(record.inspect_regions),
            ignore_regions=_format_regions(record.ignore_regions),
            mm_per_px=_format_number(record.mm_per_px),
            threshold=_format_number(record.threshold),
            defect_percent=_format_percent(record.defect_share),
            miss_risk_percent=_format_percent(record.miss_risk),
            shown_at=format_time(record.set_at),
        )

    def make_record(self, before: LiveLineSettings | None, line: str, set_by: str, at: datetime) -> LiveLineSettings:
        """Returns a record with the settings of the form. `before` is the record that the new record replaces, or None.

        Settings that the form does not contain are copied from `before`. Raises LineSettingsRefusedError with a sentence for each wrong
        field.
        """
        problems: list[str] = []
        values = {
            "inspect_regions": _collect(problems, lambda: _parse_regions(self.inspect_regions, "Region to inspect")),
            "ignore_regions": _collect(problems, lambda: _parse_regions(self.ignore_regions, "Region to ignore")),
            "mm_per_px": _collect(problems, lambda: _parse_number(self.mm_per_px, "Scale", above=0, most=1000)),
            "threshold": _collect(problems, lambda: _parse_number(self.threshold, "Threshold", least=0, most=1)),
            "defect_share": _collect(problems, lambda: _parse_percent(self.defect_percent, "Share of defects")),
            "miss_risk": _collect(problems, lambda: _parse_percent(self.miss_risk_percent, "Miss risk")),
        }
        if problems:
            raise LineSettingsRefusedError(problems)
        unchanged = before or LiveLineSettings(line=line, set_by=set_by, set_at=at)
        return unchanged.copy_with(**values, set_by=set_by, set_at=at)


class LineSettingsRefusedError(ValueError):
    """Raised if the form contains wrong values. `sentences` has an error message for each wrong value, which the page can show."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences


def _collect(problems: list[str], parse: Callable[[], Value]) -> Value | None:
    try:
        return parse()
    except LineSettingsRefusedError as error:
        problems += error.sentences
        return None


def _parse_regions(text: str, label: str) -> tuple[Region, ...]:
    try:
        regions = tuple(Region(corners=tuple(RegionPoint(x=x, y=y) for x, y in corners)) for corners in json.loads(text))
    except (ValueError, TypeError, ValidationError, RecursionError):
        raise LineSettingsRefusedError(
            [f"{label}: the drawing could not be read. A region has 3 to 64 corners inside the picture. Draw the region again."]
        ) from None
    if len(regions) > MAX_REGIONS:
        raise LineSettingsRefusedError([f"{label}: there are {len(regions)} regions, but at most {MAX_REGIONS} are possible. Delete some."])
    small = [
        f"{label} {number}: the region is too small. Draw it larger, or delete it."
        for number, region in enumerate(regions, 1)
        if region.area < MIN_REGION_AREA
    ]
    if small:
        raise LineSettingsRefusedError(small)
    return regions


def _parse_number(text: str, label: str, least: float | None = None, above: float | None = None, most: float = 1) -> float | None:
    """Returns the number in `text`, or None if `text` is empty. Accepts "0,5" as well as "0.5"."""
    if not text:
        return None
    range_text = f"from {least:g}" if least is not None else f"above {above:g}"
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise LineSettingsRefusedError([f"{label}: {text[:40]!r} is not a number. Enter a number, or leave the field empty."]) from None
    if not ((least is None or value >= least) and (above is None or value > above) and value <= most):
        raise LineSettingsRefusedError(
            [f"{label}: {text[:40]} is not possible. Enter a number {range_text} to {most:g}, or leave the field empty."]
        )
    return value


def _parse_percent(text: str, label: str) -> float | None:
    percent = _parse_number(text, label, least=0.001, most=99.999)
    return None if percent is None else round(percent / 100, 14)


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.15g}"


def _format_percent(share: float | None) -> str:
    return _format_number(None if share is None else round(100 * share, 12))


def _format_regions(regions: tuple[Region, ...]) -> str:
    return json.dumps([[[corner.x, corner.y] for corner in region.corners] for region in regions])


def describe_settings(record: LiveLineSettings | None) -> dict[str, Any]:
    """Returns the settings in `record` for the audit log. Leaves out settings without a value."""
    if record is None:
        return {}
    return record.model_dump(mode="json", exclude_defaults=True, exclude={"schema_", "line", "set_by", "set_at"})
