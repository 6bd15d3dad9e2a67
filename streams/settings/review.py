"""Settings of the review: which parts people are asked about, and what they may call a defect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from streams.settings.section import Section

# What becomes a folder's name and a word in a list.
ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z -]{0,39}$")]


class ReviewSettings(Section):
    """[review]: which parts people are asked about, and what becomes of their answers."""

    kinds: tuple[Kind, ...] = Field(
        ("blow hole", "shrinkage", "cold shut", "chipping", "flash", "scratch"),
        min_length=1,
        max_length=9,
        description="Types of defect, in the order of the keys 1 to 9.",
    )
    least_doubt: float = Field(
        0.25, ge=0, le=0.5, description="Parts of at least this doubt are asked about: 0 is certain, 0.5 is a probability on the threshold."
    )
    audit_share: float = Field(0.002, ge=0, le=1, description="Share of all parts drawn at random for a person's look.")
    audit_seed: int = Field(1, ge=0, description="Decides which parts the draw takes.")
    second_opinion: bool = Field(
        True, description="Who contradicts the model is seconded by another person; where two differ, a third decides."
    )
    lease_minutes: float = Field(5, gt=0, le=240, description="A part that one person looks at is shown to nobody else for so long.")
    overdue_hours: float = Field(24, gt=0, le=8760, description="A part that has waited longer for its review is overdue.")
    data_sets: Path = Field(Path("var/data-sets"), description="Folder of the data sets made of reviewed parts.")
    ok_class: ClassName = Field("ok_front", description="Name of the class of good parts in data sets; begins with `ok`.")
    defect_class: ClassName = Field("def_front", description="Name of the class of bad parts in data sets.")

    @model_validator(mode="after")
    def _tells_classes_apart(self) -> Self:
        if not self.ok_class.lower().startswith("ok") or self.defect_class.lower().startswith("ok"):
            raise ValueError(f"ok_class: expected ok_class alone to begin with `ok`, found {self.ok_class} and {self.defect_class}")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds: expected each type of defect once")
        return self
