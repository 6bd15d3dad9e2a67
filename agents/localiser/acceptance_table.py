"""Reads the acceptance table of a part, and decides whether the defects found on a part are accepted.

An acceptance table is a TOML file that the foundry writes. Its limits are agreed with the customer, because the surface standards
ASTM A802 and ISO 11971 give no limits in millimetres. In this example, `other_kinds` rejects every kind of defect without a rule:

    name = "impeller 17, customer drawing 4711-B"
    other_kinds = "rejected"

    [[rules]]
    name = "gas porosity, C 2"
    kinds = ["blow hole", "hole"]
    max_length_mm = 3.0
    max_area_mm2 = 8.0
    max_number = 5
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.inference.heat_map import MAX_DEFECTS
from streams.errors import SettingsError
from streams.records import Acceptance, Box

Text = Field(min_length=1, max_length=100)


class AcceptanceRule(BaseModel):
    """The limits for some kinds of defect. A defect at a limit is still accepted.

    - `kinds`: the kinds of defect. `unknown` stands for defects whose kind is not sure.
    - `max_number`: the largest number of defects of these kinds on the part. If it is 0, every defect of these kinds is rejected. It must
      be less than MAX_DEFECTS, because a finding names at most MAX_DEFECTS defects, even if the part has more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Text
    kinds: tuple[str, ...] = Field(min_length=1)
    max_length_mm: float | None = Field(None, gt=0)
    max_area_mm2: float | None = Field(None, gt=0)
    max_number: int | None = Field(None, ge=0)

    @field_validator("max_number")
    @classmethod
    def _check_number(cls, number: int | None) -> int | None:
        if number is not None and number >= MAX_DEFECTS:
            raise ValueError(
                f"at most {MAX_DEFECTS - 1} defects can be allowed, because a finding marks no more than {MAX_DEFECTS}. Found {number}"
            )
        return number

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.max_length_mm is None and self.max_area_mm2 is None and self.max_number is None:
            raise ValueError("a rule needs at least one of max_length_mm, max_area_mm2 and max_number")
        return self

    def find_violations(self, boxes: Sequence[Box]) -> list[str]:
        """Returns a sentence for each limit that the defects in `boxes` exceed. Ignores kinds of defects that the rule does not name."""
        own = [box for box in boxes if (box.kind or "unknown") in self.kinds]
        violations = []
        if self.max_number is not None and len(own) > self.max_number:
            violations.append(f"{self.name}: {len(own)} defects, at most {self.max_number} allowed.")
        for limit, unit, sizes in (
            (self.max_length_mm, "mm long", [box.length_mm for box in own if box.length_mm is not None]),
            (self.max_area_mm2, "mm2 large", [box.area_mm2 for box in own if box.area_mm2 is not None]),
        ):
            if limit is not None and max(sizes, default=0.0) > limit:
                violations.append(f"{self.name}: a defect is {max(sizes):.3g} {unit}, at most {limit:g} allowed.")
        return violations

    def find_unmeasured(self, boxes: Sequence[Box]) -> bool:
        """Returns True if the rule limits the size of defects, but the size of a defect is unknown.

        Ignores kinds of defects that the rule does not name.
        """
        needs_size = self.max_length_mm is not None or self.max_area_mm2 is not None
        return needs_size and any((box.kind or "unknown") in self.kinds and box.length_mm is None for box in boxes)


class AcceptanceTable(BaseModel):
    """The acceptance table for the parts of a line.

    `other_kinds` is `accepted` or `rejected`: whether a defect is accepted if no rule names its kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Text
    other_kinds: Literal["accepted", "rejected"]
    rules: tuple[AcceptanceRule, ...] = Field(min_length=1, max_length=100)

    def grade(self, boxes: Sequence[Box], has_more_defects: bool) -> Acceptance:
        """Returns whether a part with the defects `boxes` is accepted, and the rules that decided.

        A part without defects is accepted. A part is rejected if one rule rejects it, even if another rule could not be applied.

        If `has_more_defects` is True, the part has defects that are missing from `boxes`. Such a part is never accepted. It is rejected if
        a rule rejects it, and otherwise it is not graded.
        """
        violations = [sentence for rule in self.rules for sentence in rule.find_violations(boxes)]
        named = {kind for rule in self.rules for kind in rule.kinds}
        others = sorted({box.kind or "unknown" for box in boxes} - named)
        if others and self.other_kinds == "rejected":
            violations.append(f"No rule allows a defect of this type: {', '.join(others)}.")
        if violations:
            return Acceptance(table=self.name, result="rejected", rules=tuple(violations))
        if has_more_defects:
            sentence = f"The picture has more suspicious areas than the {len(boxes)} that are marked, so the part cannot be accepted."
            return Acceptance(table=self.name, result="not-graded", rules=(sentence,))
        unmeasured = [rule.name for rule in self.rules if rule.find_unmeasured(boxes)]
        if unmeasured:
            sentence = f"The scale of the line's pictures is not set, so these rules cannot be applied: {', '.join(unmeasured)}."
            return Acceptance(table=self.name, result="not-graded", rules=(sentence,))
        return Acceptance(table=self.name, result="accepted")


def read_acceptance_table(path: Path) -> AcceptanceTable:
    """Reads the acceptance table in the TOML file `path`. Raises SettingsError if the file cannot be read or holds no valid table."""
    try:
        return AcceptanceTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(
            f"The acceptance table {path} cannot be read: {error.strerror}. Correct the setting `acceptance_table`."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The acceptance table {path} is no TOML file: {error}. Correct the file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise SettingsError(f"The acceptance table {path} is not valid: {field}: {first['msg']}. Correct the file.") from error
