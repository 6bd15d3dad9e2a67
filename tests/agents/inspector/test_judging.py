"""From decoded images to verdicts: their order, the isolation of a bad picture, and the verdict on an undecodable picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.inspector.decoding import DecodedImage
from agents.inspector.judging import INFERENCE_FAILED, JudgedImage, group_by_predictor, judge_images, make_verdict, name_kinds
from models.inference.soft_vote import Prediction
from models.pictures.part_finder import FoundPart, PartCheck, PartRefusal, learn_part_reference
from models.pictures.part_reference import PART_REFUSALS
from models.pictures.regions import Mask
from streams.errors import PictureError
from streams.settings import GateSettings, LineSettings
from tests.agents.inspector.images import CAPTURED_AT, make_decoded_image
from tests.rendered_pictures import pictures

LINE = LineSettings(name="line-1", gate=GateSettings(port="/dev/null", travel_mm=1000, belt_mm_per_s=500))
# A picture of this grey level makes the fake networks below fail, alone or in a batch.
POISON = 255


class FragileNetworks:
    """Calls a picture a defect by its grey level, and fails on a poison picture, which real networks cannot be made to do on purpose."""

    version_name = "fragile"
    threshold = 0.5

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def predict(self, pixels: npt.NDArray[np.uint8], parts: Sequence[FoundPart | None], masks: Sequence[Mask | None]) -> list[Prediction]:
        assert len(parts) == len(masks) == len(pixels)
        self.batch_sizes.append(len(pixels))
        greys = pixels[:, 0, 0]
        if (greys == POISON).any():
            raise RuntimeError("poisoned")
        return [Prediction("defect" if grey >= 128 else "ok", float(grey) / 255, {"alexnet": 0.9, "lenet": 0.1}) for grey in greys]


def make_images(greys: Sequence[int | None]) -> list[DecodedImage]:
    """One image for each grey level. None stands for a picture that cannot be decoded."""
    return [
        make_decoded_image(LINE, part, None if grey is None else np.full((8, 8), grey, np.uint8))
        for part, grey in enumerate(greys, start=1)
    ]


@given(st.lists(st.sampled_from([None, 0, 10, 127, 128, 200, POISON]), max_size=40))
def test_one_bad_picture_harms_one_picture(greys: list[int | None]) -> None:
    judged_images = judge_images(make_images(greys), FragileNetworks())
    assert [judged.decoded.record.part.part for judged in judged_images] == list(range(1, len(greys) + 1))
    for grey, judged in zip(greys, judged_images, strict=True):
        if grey is None:
            assert isinstance(judged.prediction, PictureError)
            assert judged.prediction.reason == "truncated"
        elif grey == POISON:
            assert isinstance(judged.prediction, PictureError)
            assert judged.prediction.reason == INFERENCE_FAILED
        else:
            assert isinstance(judged.prediction, Prediction)
            assert judged.label == ("defect" if grey >= 128 else "ok")


def test_a_sound_batch_is_one_call_and_a_bad_picture_costs_ten_more() -> None:
    sound, poisoned = FragileNetworks(), FragileNetworks()
    judge_images(make_images([0] * 32), sound)
    assert sound.batch_sizes == [32]
    judge_images(make_images([0] * 31 + [POISON]), poisoned)
    assert poisoned.batch_sizes == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_undecodable_pictures_cost_no_inference() -> None:
    networks = FragileNetworks()
    judge_images(make_images([None, None]), networks)
    assert networks.batch_sizes == []


def make_checked_image(reason: PartRefusal | Literal[""]) -> DecodedImage:
    return replace(make_images([200])[0], part=PartCheck(reason, None))


@pytest.mark.parametrize("reason", PART_REFUSALS)
def test_a_picture_without_the_whole_part_is_for_review_and_never_judged(reason: PartRefusal) -> None:
    networks = FragileNetworks()
    images = [make_checked_image(""), make_checked_image(reason), make_checked_image("")]
    judged_images = judge_images(images, networks)
    assert networks.batch_sizes == [2]
    assert [judged.label for judged in judged_images] == ["defect", "review", "defect"]
    verdict = make_verdict(judged_images[1], "fragile", 0.5, CAPTURED_AT)
    assert (verdict.label, verdict.reason, verdict.defect_probability, verdict.votes) == ("review", reason, None, {})
    assert verdict.image.width_px == 300


def test_a_part_reference_refuses_a_picture_without_a_part() -> None:
    castings = pictures()
    reference = learn_part_reference(castings[:40])
    images = [make_decoded_image(LINE, 1, pixels) for pixels in (castings[50], np.full_like(castings[50], 120))]
    reasons = [image.check(reference).part for image in images]
    assert [check and check.reason for check in reasons] == ["", "no-part"]
    checked = images[0].check(reference)
    assert checked.check(reference) is checked, "a picture is searched only once"
    assert checked.check(None).part is None, "a version without a reference needs no check"


def test_without_a_part_reference_every_picture_is_judged() -> None:
    (image,) = make_images([0])
    assert image.check(None) == image
    assert image.fits(8)
    assert not image.fits(16)
    assert judge_images([image.check(None)], FragileNetworks())[0].label == "ok"


def test_an_undecodable_picture_keeps_its_error_where_a_part_is_known() -> None:
    (image,) = make_images([None])
    checked = image.check(learn_part_reference(pictures()[:20]))
    assert checked.part is None
    assert judge_images([checked], FragileNetworks())[0].label == "review"


class GreyKindNamer:
    """Names the kind of a picture after its grey level, and fails on a poison picture."""

    def name_kinds(self, pixels: npt.NDArray[np.uint8]) -> list[str]:
        if (pixels == POISON).any():
            raise RuntimeError("poisoned")
        return [f"kind {picture[0, 0]}" for picture in pixels]


def test_only_pictures_with_the_label_defect_get_a_kind() -> None:
    judged = name_kinds(judge_images(make_images([10, 200, None, 130]), FragileNetworks()), GreyKindNamer())
    kinds = [make_verdict(image, "fragile", 0.5, CAPTURED_AT).kind for image in judged]
    assert kinds == ["", "kind 200", "", "kind 130"]


def test_verdicts_are_made_without_kinds_if_the_kinds_cannot_be_named() -> None:
    defective = [JudgedImage(image, Prediction("defect", 0.9, {})) for image in make_images([POISON, 200])]
    judged = name_kinds(defective, GreyKindNamer())
    assert [(image.label, make_verdict(image, "fragile", 0.5, CAPTURED_AT).kind) for image in judged] == [("defect", ""), ("defect", "")]


def test_images_of_lines_with_the_same_version_are_judged_in_one_call() -> None:
    first, second = FragileNetworks(), FragileNetworks()
    assert group_by_predictor([first, second, first, first, second]) == [(first, [0, 2, 3]), (second, [1, 4])]


def test_a_verdict_holds_label_votes_and_picture_and_its_id_recognises_a_repeat() -> None:
    (judged,) = judge_images(make_images([200]), FragileNetworks())
    verdict = make_verdict(judged, "v1", 0.5, CAPTURED_AT + timedelta(seconds=0.1))
    assert (verdict.label, verdict.reason, verdict.overdue) == ("defect", "", False)
    assert verdict.votes == {"alexnet": 0.9, "lenet": 0.1}
    assert (verdict.image.width_px, verdict.image.height_px, verdict.image.offset) == (300, 200, 1)
    repeat = make_verdict(judged, "v1", 0.5, CAPTURED_AT + timedelta(seconds=5))
    assert repeat.verdict_id == verdict.verdict_id
    assert make_verdict(judged, "v2", 0.5, CAPTURED_AT).verdict_id != verdict.verdict_id


def test_an_undecodable_picture_becomes_a_review_with_its_reason() -> None:
    (judged,) = judge_images(make_images([None]), FragileNetworks())
    verdict = make_verdict(judged, "v1", 0.5, CAPTURED_AT)
    assert (verdict.label, verdict.reason, verdict.defect_probability, verdict.votes) == ("review", "truncated", None, {})


def test_a_verdict_after_the_deadline_is_marked_overdue() -> None:
    """The belt takes 2 s to the gate, less 0.2 s for the way back to the board."""
    (judged,) = judge_images(make_images([0]), FragileNetworks())
    assert not make_verdict(judged, "v1", 0.5, CAPTURED_AT + timedelta(seconds=1.79)).overdue
    assert make_verdict(judged, "v1", 0.5, CAPTURED_AT + timedelta(seconds=1.81)).overdue
