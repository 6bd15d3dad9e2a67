"""From decoded images to verdicts: their order, the isolation of a bad picture, undecodable pictures, and the rules of lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.inspector.decoding import DecodedImage
from agents.inspector.judging import INFERENCE_FAILED, JudgedImage, LineRules, group_by_predictor, judge_images, make_verdict, name_kinds
from models.inference.line_threshold import DecisionRule, choose_line_threshold
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.pictures.part_finder import FoundPart, PartCheck, PartRefusal, learn_part_reference
from models.pictures.part_reference import PART_REFUSALS
from models.pictures.regions import Mask, Regions
from models.registry import Version
from streams.errors import PictureError
from streams.live_line_settings import LiveSettingsByLine
from streams.records import LiveLineSettings
from streams.settings import GateSettings, LineSettings
from tests.agents.inspector.images import CAPTURED_AT, make_decoded_image, make_judged_image
from tests.models.inference.test_line_threshold import make_manifest, make_measured_manifest
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
        self.thresholds: list[float | None] = []

    def predict(
        self,
        pixels: npt.NDArray[np.uint8],
        parts: Sequence[FoundPart | None],
        masks: Sequence[Mask | None],
        rules: Sequence[DecisionRule | None],
    ) -> list[Prediction]:
        assert len(parts) == len(masks) == len(rules) == len(pixels)
        self.batch_sizes.append(len(pixels))
        self.thresholds += [rule.threshold if rule else None for rule in rules]
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
    shown = [DecodedPicture(castings[50], 300, 300), DecodedPicture(np.full_like(castings[50], 120), 300, 300)]
    # In the second last picture, the upper and the lower quarter are margins that the decoder has added.
    shown += [DecodedPicture(castings[50], 300, 150), DecodedPicture(castings[50], 150, 300)]
    images = [replace(make_decoded_image(LINE, 1, None), picture=picture) for picture in shown]
    reasons = [image.check(reference).part for image in images]
    assert [check and check.reason for check in reasons] == ["", "no-part", "partly-in-view", "partly-in-view"]
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
    picture = DecodedPicture(np.full((8, 8), 200, np.uint8), 300, 200)
    (judged,) = judge_images([replace(make_images([200])[0], picture=picture)], FragileNetworks())
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


VERSION = Version(Path("v1"), make_manifest())
PIXELS = np.zeros((8, 8), np.uint8)


def make_rules(**given: Any) -> LineRules:
    """Rules with these settings of line-1."""
    rules = LineRules()
    record = LiveLineSettings(line="line-1", set_by="anna", set_at=datetime(2026, 1, 31, tzinfo=UTC), **given)
    rules.follow(LiveSettingsByLine({"line-1": record}))
    return rules


def test_the_networks_know_the_rule_of_the_line_of_each_picture() -> None:
    """A cascade needs the rule, because the first network alone must not decide about a picture near the thresholds of its line."""
    networks = FragileNetworks()
    rules = [make_rules(threshold=share).find("line-1", VERSION) for share in (0.2, 0.3, 0.4)]
    judge_images(make_images([10, None, 20]), networks, rules)
    assert networks.thresholds == [0.2, 0.4]


def test_a_line_without_settings_keeps_the_labels_and_the_verdict_ids_of_the_version() -> None:
    for rules, line in ((LineRules(), "line-1"), (make_rules(threshold=0.0), "line-2"), (make_rules(mm_per_px=0.1), "line-1")):
        judged, rule = make_judged_image(line, 1, PIXELS), rules.find(line, VERSION)
        assert rule.apply(judged) is judged
        verdict = make_verdict(judged, "v1", rule.threshold, CAPTURED_AT, rule.decision)
        assert (verdict.threshold, verdict.decision) == (0.3, "")
        assert verdict.verdict_id == make_verdict(judged, "v1", 0.3, CAPTURED_AT).verdict_id


def test_a_threshold_changes_the_label_and_the_id_and_leaves_the_probability() -> None:
    rules = make_rules(threshold=0.005)
    judged = rules.find("line-1", VERSION).apply(make_judged_image("line-1", 1, PIXELS))
    assert judged.label == "defect"
    assert isinstance(judged.prediction, Prediction)
    assert (judged.prediction.defect_probability, judged.prediction.reason) == (0.01, "")
    rule = rules.find("line-1", VERSION)
    verdict = make_verdict(judged, "v1", rule.threshold, CAPTURED_AT, rule.decision)
    assert verdict.threshold == 0.005
    assert verdict.verdict_id != make_verdict(judged, "v1", 0.3, CAPTURED_AT).verdict_id


def test_a_share_of_defects_gives_the_threshold_of_each_version() -> None:
    rules = make_rules(defect_share=0.01)
    cheap = Version(Path("v2"), make_manifest(version="v2", costs={"miss": 1, "false_alarm": 1}))
    for version in (VERSION, cheap):
        rule = rules.find("line-1", version)
        assert rule.threshold == choose_line_threshold(version.manifest, 0.01)
    assert rules.find("line-1", cheap).threshold > rules.find("line-1", VERSION).threshold


def test_a_label_in_the_moved_review_band_has_the_reason_doubt() -> None:
    version = Version(Path("v3"), make_manifest(band={"low": 0.25, "high": 0.35}))
    prediction = make_rules(threshold=0.01).find("line-1", version).apply(make_judged_image("line-1", 1, PIXELS)).prediction
    assert isinstance(prediction, Prediction)
    assert (prediction.label, prediction.reason) == ("review", "doubt")


def test_a_picture_that_could_not_be_judged_stays_for_review() -> None:
    judged = make_judged_image("line-1", 1, None)
    assert make_rules(threshold=1.0).find("line-1", VERSION).apply(judged) is judged


def test_a_version_that_cannot_take_a_share_into_account_keeps_its_threshold(caplog: pytest.LogCaptureFixture) -> None:
    uncounted = Version(Path("v4"), make_manifest(data={"sha256": "0" * 64, "pictures": {}, "split": "none"}))
    rule = make_rules(defect_share=0.01).find("line-1", uncounted)
    assert (rule.threshold, rule.rule) == (0.3, None)
    assert "so the threshold of version v1 stays active" in caplog.text


@pytest.mark.parametrize("given", [{"threshold": 0.0}, {"threshold": 1.0}, {"miss_risk": 0.01}])
def test_settings_that_would_call_every_part_the_same_keep_the_threshold_of_the_version(
    given: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """The version has no histograms, so that a miss risk cannot be applied to it either."""
    rule = make_rules(**given).find("line-1", VERSION)
    assert (rule.threshold, rule.rule) == (0.3, None)
    assert rule.decision
    assert "The settings of line line-1 cannot be used" in caplog.text


def test_with_a_miss_risk_a_part_passes_only_if_it_is_certain_enough() -> None:
    rules = make_rules(miss_risk=0.05)
    version = Version(Path("v5"), make_measured_manifest((0.001, 0.1), (0.005, *[0.9] * 19), version="v5"))
    prediction = rules.find("line-1", version).apply(make_judged_image("line-1", 1, PIXELS)).prediction
    assert isinstance(prediction, Prediction)
    assert (prediction.label, prediction.reason, prediction.defect_probability) == ("review", "doubt", 0.01)
    assert rules.find("line-1", version).threshold == 0.3


def test_new_settings_replace_the_old_ones() -> None:
    rules = make_rules(threshold=0.005)
    before = rules.find("line-1", VERSION)
    rules.follow(LiveSettingsByLine())
    assert before.threshold == 0.005, "a batch that has begun keeps its rule"
    assert rules.find("line-1", VERSION).threshold == 0.3


def test_regions_change_the_decision_and_no_threshold() -> None:
    corners = [{"x": x, "y": y} for x, y in ((0, 0), (0.5, 0), (0.5, 1), (0, 1))]
    rules = make_rules(inspect_regions=[{"corners": corners}])
    rule = rules.find("line-1", VERSION)
    assert (rule.threshold, rule.rule) == (0.3, None)
    assert rule.decision
    assert rule.regions == rules.find_regions("line-1") == Regions(inspect=(((0, 0), (0.5, 0), (0.5, 1), (0, 1)),))
    assert rules.find_regions("line-2") is None


@pytest.mark.parametrize(
    ("review_anomalies", "score", "threshold", "expected"),
    [
        (True, 0.51, None, ("review", "anomaly")),
        (True, 0.5, None, ("ok", "")),
        (False, 0.99, None, ("ok", "")),
        (None, 0.99, None, ("ok", "")),
        (True, 0.99, 0.005, ("defect", "")),
    ],
)
def test_a_score_above_the_cut_off_changes_ok_to_review_where_the_line_says_so(
    review_anomalies: bool | None, score: float, threshold: float | None, expected: tuple[str, str]
) -> None:
    rules = make_rules(review_anomalies=review_anomalies, threshold=threshold)
    judged = make_judged_image("line-1", 1, PIXELS)
    assert isinstance(judged.prediction, Prediction)
    scored = replace(judged, prediction=replace(judged.prediction, scores={"golden-template": score}))
    rule = rules.find("line-1", VERSION)
    verdict = make_verdict(rule.apply(scored), "v1", rule.threshold, CAPTURED_AT, rule.decision)
    assert (verdict.label, verdict.reason) == expected
    assert verdict.votes == {"alexnet": 0.01, "golden-template": score}
    assert bool(rule.decision) == (review_anomalies is not None or threshold is not None)


def test_no_threshold_changes_the_label_of_a_version_without_networks() -> None:
    entry = {
        "name": "golden-template",
        "files": ["s.npz"],
        "side_px": 64,
        "cut_off": 2.0,
        "alarm_share": 0.05,
        "highest_alarm_share": 0.1,
        "good_pictures": 20,
    }
    files = {file: {"sha256": "0" * 64, "bytes": 0} for file in ("s.npz", "g.npz")}
    version = Version(Path("v5"), make_manifest(voters=[], scorers=[entry], threshold=0.5, files=files))
    judged = make_judged_image("line-1", 1, PIXELS)
    scored = replace(judged, prediction=Prediction("review", None, {}, "anomaly", scores={"golden-template": 0.7}))
    rule = make_rules(threshold=0.0, defect_share=0.5).find("line-1", version)
    assert rule.apply(scored) is scored
    assert rule.threshold == 0.5
