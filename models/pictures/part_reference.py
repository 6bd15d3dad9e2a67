"""Defines the part reference: the limits by which `models.pictures.part_finder` decides whether a picture shows a whole casting.

This module imports nothing that is slow to load, because each program that reads the manifest of a version imports it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# The reasons for which a picture is refused: it shows no part, only a piece of the part, or a part of another kind than the line makes.
# Never rename these words, because verdicts contain them.
PartRefusal = Literal["no-part", "partly-in-view", "unknown-part"]
PART_REFUSALS: tuple[PartRefusal, ...] = ("no-part", "partly-in-view", "unknown-part")
# Number of rings around the centre of a part. A signature has the mean and the spread of the grey levels in each ring.
SIGNATURE_RINGS = 20
SIGNATURE_LENGTH = 2 * SIGNATURE_RINGS
MAX_SIGNATURES = 48

Share = Annotated[float, Field(ge=0, le=1)]
Signature = Annotated[tuple[float, ...], Field(min_length=SIGNATURE_LENGTH, max_length=SIGNATURE_LENGTH)]


class PartReference(BaseModel):
    """Limits that are learned from good parts. They tell whether a picture shows a whole part of the kind that the line makes.

    `algorithm` is the version of the part finder. The limits are valid only for measures from this version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    algorithm: Literal[1] = 1
    pictures: int = Field(ge=1, description="Number of pictures from which the reference was learned.")
    least_size: float = Field(
        gt=0, description="Smallest size of the part: the mean radius of its outline, as a share of the picture's longer side."
    )
    most_size: float = Field(
        gt=0, description="Largest size of the part: the mean radius of its outline, as a share of the picture's longer side."
    )
    least_aspect: Share = Field(description="Smallest ratio of the shorter axis to the longer axis of the part's outline.")
    border: Literal["square", "picture"] = Field(
        default="square",
        description="The border from which `most_overhang` is measured. `picture` is the border of the camera's picture, and `square` is "
        "the border of the square into which the picture is padded. Older versions do not have this field. They use the square.",
    )
    most_overhang: float = Field(ge=0, description="The part may extend at most this far beyond `border`, as a share of its radius.")
    most_offset: float = Field(
        ge=0,
        description="Largest distance between the part's centre and the picture's centre, as a share of the picture's longer side. The "
        "distance is checked only if the part extends beyond the picture's border.",
    )
    least_support: Share = Field(description="An edge must be seen along at least this share of the part's outline.")
    most_asymmetry: float = Field(
        ge=0,
        description="The part is divided into 8 sectors. The brightness of a sector may differ at most this much from the whole part. The "
        "sector that differs most is ignored. The unit is the standard deviation of the rings' mean grey levels.",
    )
    least_detail: float = Field(
        ge=0,
        description="A picture is blurred if its detail is below this limit. The detail is the sum of all changes of the grey level from "
        "the part's centre to its rim. The unit is the standard deviation of the rings' mean grey levels.",
    )
    most_distance: float = Field(
        gt=0,
        description="The signature of a picture may differ at most this much from the most similar signature in `signatures`. The unit is "
        "the standard deviation of the rings' mean grey levels.",
    )
    signatures: tuple[Signature, ...] = Field(
        min_length=1,
        max_length=MAX_SIGNATURES,
        description="Signatures of good parts that differ much from each other. A signature holds the mean and then the standard "
        "deviation of the grey levels of each ring, from the centre to the rim. Before that, all grey levels are scaled so that the ring "
        "means have the mean 0 and a standard deviation near 1.",
    )

    @cached_property
    def signature_array(self) -> npt.NDArray[np.float32]:
        """The list `signatures` as an array, shape (n, SIGNATURE_LENGTH). The array is cached, because each picture is compared with it."""
        import numpy as np

        return np.array(self.signatures, np.float32)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.least_size > self.most_size:
            raise ValueError(f"expected least_size to be at most most_size, found {self.least_size} > {self.most_size}")
        return self
