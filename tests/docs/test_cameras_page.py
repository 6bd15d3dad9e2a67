"""The page about cameras names every setting, reason and status that a person can meet at a camera."""

from __future__ import annotations

import re

from agents.gateway import upload_camera
from models.pictures.refusal import RefusalReason
from streams import metrics
from streams.settings import CameraSettings
from tests.docs.pages import DOCS

PAGE = (DOCS / "cameras.md").read_text(encoding="utf-8")
# These settings need no word beside their description.
OBVIOUS = {"kind", "path", "trigger"}


def test_every_setting_of_a_camera_is_on_the_page() -> None:
    absent = [name for name in CameraSettings.model_fields if name not in OBVIOUS and f"lines.camera.{name}" not in PAGE]
    assert absent == []


def test_every_reason_of_a_refusal_is_explained() -> None:
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert {reason.value for reason in RefusalReason} <= rows
    assert {"spool-full", "too-large", "refused-by-kafka"} <= rows


def test_every_reason_of_a_complaint_is_explained() -> None:
    names = {reason for counter, reasons in metrics.GATEWAY_REASONS for reason in reasons}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


def test_the_statuses_of_an_upload_are_those_of_the_code() -> None:
    assert upload_camera.__doc__ is not None
    in_code = set(re.findall(r"^\| (\d{3}) \|", upload_camera.__doc__, re.MULTILINE))
    assert in_code == set(re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE))
