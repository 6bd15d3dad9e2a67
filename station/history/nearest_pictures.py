"""Finds the training pictures that look most like the picture of a part, and says in sentences what can be concluded from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from models.inference.training_index import TrainingPicture
from models.registry import Manifest
from station.archive.models import Part
from station.kafka_producer import KafkaUnavailableError
from station.manifests import find_training_index
from station.pictures.part_picture_reader import get_picture_reader
from streams.errors import ModelError, PictureError

SHOWN_PICTURES = 6


@dataclass(frozen=True)
class NearestPictures:
    """The training pictures that are most similar to a part, most similar first, and sentences about them for the page."""

    sentences: list[str]
    pictures: list[TrainingPicture]


def find_nearest_pictures(part: Part, manifest: Manifest | None, account: int | None = None) -> NearestPictures:
    """Compares the picture of `part` with the training pictures of the version that judged the part.

    If they cannot be compared, returns a sentence with the reason and no pictures. `manifest` describes the version, or is None if the
    version cannot be read. `account` is the primary key of the user's account.
    """
    if manifest is None:
        return NearestPictures([f"The version {part.model or '(unknown)'} cannot be read, so its training pictures are unknown."], [])
    if manifest.training_index is None:
        sentence = (
            f"The version {manifest.version} has no index of its training pictures, because an earlier release made it. Versions that are "
            "trained now have one."
        )
        return NearestPictures([sentence], [])
    try:
        index = find_training_index(manifest)
        pixels = get_picture_reader().read_pixels(part, manifest.preprocessing.side_px, account)
    except (ModelError, PictureError, KafkaUnavailableError) as error:
        return NearestPictures([f"The picture cannot be compared with the training pictures. {error}"], [])
    if pixels is None:
        return NearestPictures(["The picture of this part was deleted, so it cannot be compared with the training pictures."], [])
    pictures, is_unusual = index.find_nearest(pixels, SHOWN_PICTURES)
    return NearestPictures(describe_nearest(manifest, pictures, is_unusual), pictures)


def describe_nearest(manifest: Manifest, pictures: list[TrainingPicture], is_unusual: bool) -> list[str]:
    """Returns sentences about the classes of the nearest training pictures.

    `is_unusual` is true if even the most similar picture does not look like the part.
    """
    counts = Counter(picture.class_name for picture in pictures).most_common()
    classes = " and ".join(f"{count} of class {name}" for name, count in counts)
    many = manifest.training_index.pictures if manifest.training_index else 0
    sentences = [f"Of {many} training pictures, these look most like the part: {classes}."]
    if is_unusual:
        sentences.append(
            "Even the most similar training picture looks different. The version has hardly seen such a picture, so its verdict is less "
            "certain."
        )
    return sentences
