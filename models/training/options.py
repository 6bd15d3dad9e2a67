"""What a training was asked to do; a resumed one must be asked the same.

The defaults are the recipe whose figures on real castings stand in docs/RESULTS.md.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.networks.building import voter
from models.registry.manifest import Option, Voter


class Options(BaseModel):
    """All that decides the outcome of a training besides the pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side_px: int = Field(192, ge=64, le=512, description="Side that pictures are resampled to; AlexNet's own.")
    lenet_side_px: int = Field(128, ge=16, le=512, description="Side that LeNet takes.")
    lenet_width: int = Field(2, ge=1, le=16, description="Multiple of LeNet's 6 and 16 maps.")
    dense_width: int = Field(256, ge=8, le=8192, description="Width of AlexNet's fully connected layers.")
    dense_layers: int = Field(2, ge=0, le=4, description="Number of AlexNet's fully connected layers before the head.")
    maps: float = Field(0.25, ge=0.05, le=2, description="Share of the paper's maps that AlexNet's convolutions keep.")
    normalisation: Literal["batch", "local-response"] = Field("batch", description="AlexNet's two normalisations.")
    head: Literal["softmax", "logistic"] = "softmax"
    epochs: int = Field(50, ge=1, le=1000, description="Most epochs of AlexNet.")
    lenet_epochs: int = Field(50, ge=1, le=1000, description="Most epochs of LeNet.")
    patience: int = Field(0, ge=0, le=1000, description="Epochs without a better validation loss before a voter stops early; 0: never.")
    batch: int = Field(32, ge=1, le=1024)
    rate: float = Field(1e-3, gt=0, le=1, description="AlexNet's learning rate after warming up; it falls along a cosine.")
    dropout: float = Field(0.3, ge=0, lt=1, description="AlexNet's; the paper's 0.5 was found to keep narrow layers from learning.")
    lenet_rate: float = Field(2e-3, gt=0, le=1, description="LeNet's.")
    weight_decay: float = Field(1e-3, ge=0, le=1)
    balance: float = Field(
        1.0, ge=0, le=1, description="How far small roots of pictures come more often: 0 not, 1 as often as the largest, up to 16 times."
    )
    turned: Literal["free", "quarter"] = Field("free", description="Turns of the augmentation: any angle, or right ones, for textures.")
    seed: int = Field(1, ge=0, le=2**31 - 1)
    validation_share: float = Field(0.2, gt=0, le=0.5)
    near_bits: int = Field(40, ge=0, le=512, description="Difference of perceptual hashes up to which pictures are one group.")
    near_rings: float = Field(0.045, ge=0, le=1, description="Distance of the rings up to which turned pictures are one group; 0: none.")
    cost_miss: float = Field(10, gt=0, description="Cost of a defect taken for good.")
    cost_false_alarm: float = Field(1, gt=0, description="Cost of a good part taken for a defect.")
    review_share: float = Field(0.01, ge=0, le=0.5, description="Share of the validation pictures that the band of doubt holds.")
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    half: bool = Field(False, description="Save the weights in half precision, for half the disk space.")
    start: str | None = Field(None, description="Version to go on from (fine-tuning): its weights, classes and sides.")

    def voters(self) -> tuple[Voter, ...]:
        """The voters to be trained, LeNet first: it is done in minutes, and something is wrong where it learns nothing."""
        small: dict[str, Option] = {"width": self.lenet_width, "head": self.head}
        large: dict[str, Option] = {
            "dense_width": self.dense_width,
            "dense_layers": self.dense_layers,
            "normalisation": self.normalisation,
            "dropout": self.dropout,
            "head": self.head,
        }
        if self.maps != 1:
            large["maps"] = self.maps
        return (voter("lenet", self.lenet_side_px, small), voter("alexnet", self.side_px, large))

    def rate_of(self, network: str) -> float:
        """Highest learning rate of that network."""
        return self.rate if network == "alexnet" else self.lenet_rate

    def epochs_of(self, network: str) -> int:
        """Most epochs of that network."""
        return self.epochs if network == "alexnet" else self.lenet_epochs
