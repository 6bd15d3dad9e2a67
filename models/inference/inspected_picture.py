"""Judges decoded pictures. The inspector and all commands use this module, so a picture gets the same label from each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from models.anomaly.version_scorers import DetailInspection
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.pictures.part_finder import FoundPart, PartCheck, check_part
from models.pictures.regions import Mask

if TYPE_CHECKING:
    from models.inference.ensemble import Ensemble


class PixelPredictor(Protocol):
    """Predicts defects in a batch of reduced pictures. `models.inference.ensemble.Ensemble` implements this protocol."""

    def predict(
        self, pixels: npt.NDArray[np.uint8], parts: Sequence[FoundPart | None], masks: Sequence[Mask | None]
    ) -> list[Prediction]: ...


@dataclass(frozen=True, slots=True)
class InspectedPicture:
    """A reduced picture, shape (side_px, side_px), and what was found in it before the networks judge it.

    - `check`: whether the picture shows the whole part, or None if the version does not check this.
    - `inspection`: the result of the search for small defects, or None if the picture was not searched.
    - `mask`: the pixels that the anomaly scores may use, or None for the whole picture. The networks always judge the whole picture.
    """

    pixels: npt.NDArray[np.uint8]
    check: PartCheck | None = None
    inspection: DetailInspection | None = None
    mask: Mask | None = None


def inspect_picture(picture: DecodedPicture, ensemble: Ensemble) -> InspectedPicture:
    """Checks whether `picture` shows the whole part, and searches for small defects.

    If the version of `ensemble` cannot do one of these steps, the step is skipped.
    Raises ValueError if the version searches for small defects, but `picture` does not hold its original pixels.
    """
    check = None if ensemble.part_reference is None else check_part(picture.pixels, ensemble.part_reference)
    inspection = None if ensemble.details is None else ensemble.details.inspect_decoded(picture)
    return InspectedPicture(picture.pixels, check, inspection)


def judge_pictures(pictures: Sequence[InspectedPicture], predictor: PixelPredictor) -> list[Prediction | PartCheck]:
    """Returns the prediction for each of `pictures`, in order. All pictures are judged in one call of `predictor`.

    A picture that does not show the whole part is not judged. The result then holds its part check, which has the reason.
    """
    judged = [picture for picture in pictures if picture.check is None or not picture.check.reason]
    predictions: Iterator[Prediction] = iter(())
    if judged:
        parts = [picture.check.part if picture.check else None for picture in judged]
        masks = [picture.mask for picture in judged]
        predictions = iter(predictor.predict(np.stack([picture.pixels for picture in judged]), parts, masks))
    return [
        picture.check if picture.check is not None and picture.check.reason else _add_inspection(next(predictions), picture.inspection)
        for picture in pictures
    ]


def _add_inspection(prediction: Prediction, inspection: DetailInspection | None) -> Prediction:
    return prediction if inspection is None else prediction.add_score(inspection.name, inspection.score)
