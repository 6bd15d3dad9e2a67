"""Trains a segmentation head for a version, and writes a new version that has the head."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from models.inference.segmentation import Segmentation
from models.networks.framework import keras
from models.networks.segmentation import load_segmentation_network, save_segmentation_weights, trace_head
from models.registry import BUNDLED_VERSIONS, LocalRegistry, Version, write_manifest
from models.registry.manifest import SegmentationMember
from models.training.learned_pictures import LearnedPictures, warn_of_unknown_pictures
from models.training.marked_pictures import MarkedPictures
from models.training.near_duplicates import group_near_duplicates
from models.training.segmentation import SegmentationRecipe, describe_member, train_segmentation
from streams.errors import ModelError

# The smallest number of pictures with marked defects. From fewer pictures, a segmentation head learns almost nothing.
MIN_DEFECTIVE = 10
LEARNED_FILE = "segmentation-pictures.npz"
OnStep = Callable[[int, int, float], object]
MeasureHead = Callable[[Segmentation, MarkedPictures], dict[str, float]]


@dataclass(frozen=True)
class SegmentationRun:
    """Trains a segmentation head and adds it to a copy of `version`. The copy is the new version `root`/`name`.

    If `version` has a segmentation head already, the training begins with the weights of this head. If it has none, the head of the version
    `start` is used. If `start` has none either, the training begins with random weights.

    A share of the pictures, `validation_share`, is kept for the validation. Pictures that an older head has learned are used only for the
    training. A group of near-duplicates is used either for the training or for the validation.
    """

    version: Version
    root: Path
    name: str
    recipe: SegmentationRecipe
    validation_share: float
    measure: MeasureHead
    command: str
    start: Version | None = None

    def run(self, pictures: MarkedPictures, on_step: OnStep = lambda done, total, loss: None, replace: bool = False) -> Version:
        """Trains the segmentation head on `pictures`, and writes the new version. The pictures must have the side `recipe.side_px`.

        - `on_step`: see `train_segmentation`.
        - `replace`: replaces an existing version `name`.

        An interrupted training writes nothing. Raises ModelError in these cases:

        - Too few pictures have marked defects, or none of them is left for the training.
        - The pictures cannot be divided into training and validation pictures.
        - The version exists, and `replace` is False.
        """
        final = self.root / self.name
        if final.exists() and not replace:
            raise ModelError(f"{final} exists already. Choose another --out, because versions are never changed once written.")
        defective = int((~pictures.is_good).sum())
        if defective < MIN_DEFECTIVE:
            raise ModelError(
                f"Defects are marked in only {defective} pictures, and at least {MIN_DEFECTIVE} are needed. Mark more pictures."
            )
        training, validation = self._split(pictures)
        recipe = replace_fields(self.recipe, handed=self.recipe.handed or self.version.manifest.handed)
        member = describe_member(training, recipe, self.command)
        start = self.find_first_head()
        first = load_segmentation_network(start.version, start.member) if start else None
        network = train_segmentation(training, recipe, first, on_step)
        if validation is not None:
            head = Segmentation(trace_head(network, member, self.recipe.side_px), member, self.recipe.side_px)
            warnings = start.describe_unknown_pictures(pictures.rendered) if start else ()
            member = member.model_copy(update={"figures": self.measure(head, validation), "warnings": warnings})
        learned = (start.learned if start else LearnedPictures()).extend(training.checksums)
        return add_segmentation(self.version, self.root, self.name, network, member, replace, learned)

    def _split(self, pictures: MarkedPictures) -> tuple[MarkedPictures, MarkedPictures | None]:
        """Returns the training pictures and the validation pictures.

        Returns None in place of the validation pictures if none of them has a mask, or if `validation_share` is 0.
        """
        if self.validation_share == 0:
            return pictures, None
        groups = group_near_duplicates(pictures.pixels, pictures.checksums)
        if len(np.unique(groups)) < 2:
            raise ModelError("All pictures are near-duplicates of each other, so none can be used for validation. Add other pictures.")
        start = self.find_first_head()
        is_learned = (start.learned if start else LearnedPictures()).find_groups(pictures.checksums, groups)
        others = np.flatnonzero(~is_learned)
        if len(np.unique(groups[others])) < 2:
            raise ModelError(
                f"The segmentation head with which the training begins has already learned {is_learned.sum()} of the {len(pictures)} "
                "pictures or near-duplicates of them. Too few are left for the validation. Add other pictures, or give --validation-share "
                "0."
            )
        split = GroupShuffleSplit(1, test_size=self.validation_share, random_state=self.recipe.seed)
        _, test = next(split.split(others, groups=groups[others]))
        is_validation = np.zeros(len(pictures), np.bool_)
        is_validation[others[test]] = True
        training, validation = pictures.select(~is_validation), pictures.select(is_validation)
        if training.is_good.all():
            raise ModelError("No picture with a marked defect is left for the training. Mark more pictures, or give --validation-share 0.")
        return training, validation if validation.has_mask.any() else None

    def find_first_head(self) -> FirstHead | None:
        """Returns the segmentation head with which the training begins, or None if the training begins with random weights."""
        for version in (self.version, self.start):
            if version is not None and (member := version.manifest.segmentation) is not None:
                return FirstHead(version, member, LearnedPictures.load(version, member.learned, _comes_with_castline(version, member)))
        return None


@dataclass(frozen=True, slots=True)
class FirstHead:
    """The segmentation head with which the training begins, and the pictures that this head has learned."""

    version: Version
    member: SegmentationMember
    learned: LearnedPictures

    def describe_unknown_pictures(self, rendered: int) -> tuple[str, ...]:
        """Returns a warning if the segmentation head has perhaps learned some of the validation pictures. Otherwise returns an empty tuple.

        `rendered` is the number of validation pictures that Castline has rendered. Some lists of learned pictures miss such pictures.
        """
        if not self.learned.may_miss(rendered):
            return ()
        head = f"the segmentation head of version {self.version.name}"
        return (warn_of_unknown_pictures(head, "the figures of the new segmentation head are too good"),)


def _comes_with_castline(version: Version, member: SegmentationMember) -> bool:
    """Returns whether the head comes from a version that was installed with Castline. Such a head has learned only rendered pictures."""
    bundled = LocalRegistry(BUNDLED_VERSIONS)
    for name in bundled.list_names():
        manifest = bundled.read_manifest(name)
        head = manifest.segmentation
        if head is not None and manifest.files[head.weights_file] == version.manifest.files[member.weights_file]:
            return True
    return False


def add_segmentation(
    version: Version,
    root: Path,
    name: str,
    network: keras.Model,
    member: SegmentationMember,
    replace: bool = False,
    learned: LearnedPictures | None = None,
) -> Version:
    """Writes a copy of `version` with the segmentation head `network` as the new version `root`/`name`, and returns the new version.

    - `learned`: the list of the pictures that the head has learned. It is stored in the new version.
    - `replace`: if True, an existing version `name` is replaced.

    The weights of the head are stored as float16.
    """
    manifest = version.manifest
    old = manifest.segmentation
    replaced = set() if old is None else {old.weights_file, *([old.learned.file] if old.learned else [])}
    with LocalRegistry(root).write_version(name, replace=replace) as folder:
        kept = [file for file in manifest.files if file not in replaced]
        with version.copy_files(*kept) as copies:
            for file in kept:
                shutil.copyfile(copies / file, folder / file)
        save_segmentation_weights(folder / member.weights_file, network, member)
        member = member.model_copy(update={"learned": learned.save(folder, LEARNED_FILE) if learned else None})
        fields = manifest.model_dump(by_alias=True, exclude={"files"}) | {"version": name, "segmentation": member}
        if name != manifest.version:
            fields["created"] = datetime.now(UTC)
        written = write_manifest(folder, fields)
    return Version(root / name, written)
