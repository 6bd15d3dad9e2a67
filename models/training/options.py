"""Defines the options of a training run. docs/RESULTS.md lists the accuracy that the default options reach on real castings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.networks.factory import make_voter
from models.registry.manifest import NetworkOption, Voter
from streams.errors import ModelError

if TYPE_CHECKING:
    from models.anomaly.scorer import CutOffObjective


# These options are used only to choose the cut-offs of the scorer and of the search for small defects.
CUT_OFF_OPTIONS = ("alarm_share", "alarms_per_hour", "parts_per_hour", "defect_share")


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """Holds the hyperparameters for training one network. TrainingOptions has the same fields and describes them."""

    batch: int
    epochs: int
    patience: int
    rate: float
    weight_decay: float
    seed: int
    turned: Literal["free", "quarter"] = "free"
    handed: bool = False
    min_steps: int = 0


class TrainingOptions(BaseModel):
    """Holds the options of a training run. The options and the pictures together determine its result.

    A stopped training run can be resumed only with the same options. The options in CUT_OFF_OPTIONS may differ, because they have no effect
    on the networks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side_px: int = Field(192, ge=64, le=512, description="Side of the resampled pictures and of AlexNet's input, in pixels.")
    depth_bits: int | None = Field(
        None, ge=8, le=16, description="Number of bits per pixel that the camera really uses, for files with more than 8."
    )
    lenet_side_px: int = Field(128, ge=16, le=512, description="Side of LeNet's input in pixels.")
    lenet_width: int = Field(
        2, ge=1, le=16, description="Factor for the number of feature maps in LeNet's convolutions (6 and 16 in the paper)."
    )
    dense_width: int = Field(256, ge=8, le=8192, description="Number of units in each fully connected layer of AlexNet.")
    dense_layers: int = Field(2, ge=0, le=4, description="Number of AlexNet's fully connected layers before the output layer.")
    maps: float = Field(
        0.25,
        ge=0.05,
        le=2,
        description="Factor for the number of feature maps in AlexNet's convolutions. 0.5 means half of those in the paper.",
    )
    normalisation: Literal["batch", "local-response"] = Field("batch", description="Kind of AlexNet's two normalisation layers.")
    head: Literal["softmax", "logistic"] = Field("softmax", description="Kind of the output layer. logistic is for two classes only.")
    epochs: int = Field(50, ge=1, le=1000, description="Train AlexNet for at most this many epochs.")
    lenet_epochs: int = Field(50, ge=1, le=1000, description="Train LeNet for at most this many epochs.")
    patience: int = Field(
        0,
        ge=0,
        le=1000,
        description="Stop the training of a network after this many epochs without a lower validation loss. 0: never stop early.",
    )
    batch: int = Field(32, ge=1, le=1024, description="Number of pictures in one training step.")
    rate: float = Field(1e-3, gt=0, le=1, description="AlexNet's highest learning rate. It is reached after the warm-up.")
    dropout: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Dropout of AlexNet's fully connected layers. The paper has 0.5, but narrow layers learned nothing with 0.5.",
    )
    lenet_rate: float = Field(2e-3, gt=0, le=1, description="LeNet's highest learning rate. It is reached after the warm-up.")
    weight_decay: float = Field(1e-3, ge=0, le=1, description="Weight decay of AdamW.")
    balance: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Repeats the pictures of small folders and lists in an epoch. With 0, no picture is repeated. With 1, each folder or "
        "list gets the influence of the largest one, but no picture is used more than 16 times.",
    )
    turned: Literal["free", "quarter"] = Field(
        "free",
        description="Random rotation of training pictures. free: by any angle. quarter: by right angles, for example for "
        "pictures of a texture, which would be blurred at other angles.",
    )
    handed: bool = Field(
        False,
        description="Never mirror training pictures. Needed if a mirrored good part is a different part, like a left and a right glove.",
    )
    min_steps: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Minimum number of training steps of each network. With few pictures, an epoch uses each picture several times to "
        "reach this number. 0: no minimum.",
    )
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of all random choices: the split, the initial weights and the augmentation.")
    validation_share: float = Field(
        0.2, gt=0, le=0.5, description="Share of the pictures that are used for validation and not for training."
    )
    near_bits: int = Field(
        40, ge=0, le=512, description="Two pictures are near-duplicates if their perceptual hashes differ in at most this many of 512 bits."
    )
    near_rings: float = Field(
        0.045,
        ge=0,
        le=1,
        description="Two pictures are near-duplicates if the distance of their ring spectra is at most this. A ring spectrum says how the "
        "grey levels vary along rings around the centre, so it finds copies that are turned by any angle. 0: do not compare ring spectra.",
    )
    cost_miss: float = Field(10, gt=0, description="Cost of a defect that is judged good.")
    cost_false_alarm: float = Field(1, gt=0, description="Cost of a good part that is judged a defect.")
    review_share: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="Share of the validation pictures that are in the review band. A person decides about such pictures.",
    )
    precision: Literal["auto", "float32", "mixed_bfloat16"] = Field(
        "auto", description="Number type of the training. auto: bfloat16 if the machine computes faster with it, else float32."
    )
    half: bool = Field(False, description="Save the weights as float16, which needs half the disk space.")
    scorer: bool = Field(
        False,
        description="Also learn a scorer from the good pictures alone. The settings of a line decide whether the scorer changes labels.",
    )
    details: bool = Field(
        False,
        description="Also search the original pixels of large pictures for small defects. The search learns from the good pictures alone.",
    )
    alarm_share: float = Field(
        0.05,
        gt=0,
        le=0.5,
        description="Largest share of the good parts whose score may be above the cut-off of the scorer. Not used if "
        "another option sets the cut-off.",
    )
    alarms_per_hour: float | None = Field(
        None,
        gt=0,
        description="Largest number of good parts an hour whose score may be above the cut-off of the scorer. Needs `parts_per_hour`.",
    )
    parts_per_hour: float | None = Field(None, gt=0, description="Number of parts an hour on the line, for `alarms_per_hour`.")
    defect_share: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="Share of defective parts on the line. If it is set, the scorer gets the cut-off at which misses "
        "and reviews together cost least.",
    )
    start: str | None = Field(
        None, description="Version from which the training starts (fine-tuning). Its weights, classes and picture sizes are used."
    )

    def voters(self) -> tuple[Voter, ...]:
        """Returns the networks to train. LeNet comes first: its training takes only minutes and shows whether the pictures are useful."""
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

    def choose_objective(self) -> CutOffObjective:
        """Returns the objective for the cut-off of the scorer: a share of alarms, alarms an hour, or the lowest costs.

        Raises ModelError if two objectives are given, or if only one of `alarms_per_hour` and `parts_per_hour` is given.
        """
        # This import is not at the top of the file, because it takes long.
        from models.anomaly.scorer import AlarmShare, AlarmsPerHour, ExpectedCosts

        if self.alarms_per_hour is not None and self.defect_share is not None:
            raise ModelError("The options --alarms-per-hour and --defect-share give two objectives for one cut-off. Leave out one option.")
        if (self.alarms_per_hour is None) != (self.parts_per_hour is None):
            raise ModelError("The options --alarms-per-hour and --parts-per-hour belong together. Give both, or neither.")
        if self.alarms_per_hour is not None and self.parts_per_hour is not None:
            return AlarmsPerHour(self.alarms_per_hour, self.parts_per_hour)
        if self.defect_share is not None:
            return ExpectedCosts(self.cost_miss, self.cost_false_alarm, self.defect_share)
        return AlarmShare(self.alarm_share)

    def expect_useful_objective(self) -> None:
        """Raises ModelError if the options for the cut-off contradict each other, or are set although the run learns no cut-off."""
        if self.scorer or self.details:
            self.choose_objective().compute_alarm_share()
            return
        names = [name for name in CUT_OFF_OPTIONS if name in self.model_fields_set and getattr(self, name) is not None]
        if names:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in names)
            raise ModelError(
                f"{options} can only choose a cut-off, but this training has no cut-off, because it has neither a scorer nor a search for "
                f"small defects. Add --scorer or --details, or leave out {options}."
            )

    def recipe_of(self, network: str) -> NetworkRecipe:
        """Returns the hyperparameters for training `network`, which is "alexnet" or "lenet"."""
        is_alexnet = network == "alexnet"
        return NetworkRecipe(
            batch=self.batch,
            epochs=self.epochs if is_alexnet else self.lenet_epochs,
            patience=self.patience,
            rate=self.rate if is_alexnet else self.lenet_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
            turned=self.turned,
            handed=self.handed,
            min_steps=self.min_steps,
        )
