"""Defines the options of a training. The defaults are the recipe whose figures on real castings stand in docs/RESULTS.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.networks.factory import make_voter
from models.registry.manifest import NetworkOption, Voter


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """Holds the hyperparameters for training one network. Each field has the meaning of the field of TrainingOptions."""

    batch: int
    epochs: int
    patience: int
    rate: float
    weight_decay: float
    seed: int
    turned: Literal["free", "quarter"] = "free"


class TrainingOptions(BaseModel):
    """Holds all that decides the result of a training, except the pictures. A stopped training resumes only with the same options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side_px: int = Field(192, ge=64, le=512, description="Side in pixels that pictures are resampled to, and that AlexNet takes.")
    lenet_side_px: int = Field(128, ge=16, le=512, description="Side in pixels that LeNet takes.")
    lenet_width: int = Field(2, ge=1, le=16, description="LeNet has this multiple of the paper's 6 and 16 feature maps.")
    dense_width: int = Field(256, ge=8, le=8192, description="Units of each fully connected layer of AlexNet.")
    dense_layers: int = Field(2, ge=0, le=4, description="Number of AlexNet's fully connected layers before the output layer.")
    maps: float = Field(0.25, ge=0.05, le=2, description="AlexNet's convolutions have this share of the paper's feature maps.")
    normalisation: Literal["batch", "local-response"] = Field("batch", description="Kind of AlexNet's two normalisation layers.")
    head: Literal["softmax", "logistic"] = Field("softmax", description="Kind of the output layer; logistic is for two classes only.")
    epochs: int = Field(50, ge=1, le=1000, description="Largest number of epochs of AlexNet.")
    lenet_epochs: int = Field(50, ge=1, le=1000, description="Largest number of epochs of LeNet.")
    patience: int = Field(
        0, ge=0, le=1000, description="A network stops early after this many epochs without a lower validation loss. 0 never stops early."
    )
    batch: int = Field(32, ge=1, le=1024, description="Pictures in one training step.")
    rate: float = Field(1e-3, gt=0, le=1, description="AlexNet's learning rate after the warm-up; from there it falls along a cosine.")
    dropout: float = Field(
        0.3, ge=0, lt=1, description="Dropout of AlexNet's fully connected layers. With the paper's 0.5, narrow layers did not learn."
    )
    lenet_rate: float = Field(2e-3, gt=0, le=1, description="LeNet's learning rate after the warm-up.")
    weight_decay: float = Field(1e-3, ge=0, le=1, description="Weight decay of AdamW.")
    balance: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How much more often an epoch repeats the pictures of small folders and lists: 0 not at all, "
        "1 as often as those of the largest, but at most 16 times.",
    )
    turned: Literal["free", "quarter"] = Field(
        "free", description="Rotations of the augmentation: by any angle, or by right angles only, which suits textures."
    )
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of the split, the first weights and the augmentation.")
    validation_share: float = Field(0.2, gt=0, le=0.5, description="Share of the pictures that validate and do not teach.")
    near_bits: int = Field(
        40, ge=0, le=512, description="Pictures whose perceptual hashes differ in at most this many of 512 bits are near-duplicates."
    )
    near_rings: float = Field(
        0.045,
        ge=0,
        le=1,
        description="Pictures whose ring spectra lie at most this far apart are near-duplicates turned by any angle. 0 compares no rings.",
    )
    cost_miss: float = Field(10, gt=0, description="Cost of a defect that is judged good.")
    cost_false_alarm: float = Field(1, gt=0, description="Cost of a good part that is judged a defect.")
    review_share: float = Field(
        0.01, ge=0, le=0.5, description="Share of the validation pictures whose defect probability is left to a person's review."
    )
    precision: Literal["auto", "float32", "mixed_bfloat16"] = Field(
        "auto", description="Number type of the training. auto takes bfloat16 where the machine computes faster with it."
    )
    half: bool = Field(False, description="Save the weights in half precision, which takes half the disk space.")
    start: str | None = Field(None, description="Version whose weights, classes and picture sides the training starts from (fine-tuning).")

    def voters(self) -> tuple[Voter, ...]:
        """Returns the networks to train. LeNet comes first, because it takes minutes and shows early if the pictures teach nothing."""
        small: dict[str, NetworkOption] = {"width": self.lenet_width, "head": self.head}
        large: dict[str, NetworkOption] = {
            "dense_width": self.dense_width,
            "dense_layers": self.dense_layers,
            "normalisation": self.normalisation,
            "dropout": self.dropout,
            "head": self.head,
        }
        if self.maps != 1:
            large["maps"] = self.maps
        return (make_voter("lenet", self.lenet_side_px, small), make_voter("alexnet", self.side_px, large))

    def recipe_of(self, network: str) -> NetworkRecipe:
        """Returns the recipe of "alexnet" or "lenet"."""
        is_alexnet = network == "alexnet"
        return NetworkRecipe(
            batch=self.batch,
            epochs=self.epochs if is_alexnet else self.lenet_epochs,
            patience=self.patience,
            rate=self.rate if is_alexnet else self.lenet_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
            turned=self.turned,
        )
