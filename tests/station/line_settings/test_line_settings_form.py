"""What a person enters on the page of line settings becomes the record that `castline lines set` would write, or a sentence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.test import Client
from pydantic import ValidationError

from station.accounts.models import AuditEntry
from station.line_settings.line_settings_form import LineSettingsForm, LineSettingsRefusedError
from station.line_settings.views import check_record
from streams.records import LiveLineSettings, Region, RegionPoint

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 26, 18, 0, tzinfo=UTC)
TRIANGLE = Region(corners=(RegionPoint(x=0.1, y=0.1), RegionPoint(x=0.9, y=0.1), RegionPoint(x=0.5, y=0.75)))
RECORD = LiveLineSettings(
    line="line-1",
    inspect_regions=(TRIANGLE,),
    mm_per_px=0.125,
    defect_share=0.013,
    miss_risk=0.05,
    planned_stop_until=LATER,
    set_by="berta",
    set_at=NOW,
)


def make_record(**texts: str) -> LiveLineSettings:
    return replace(LineSettingsForm(), **texts).make_record(None, "line-1", "anna", NOW)


def test_a_form_that_nobody_edits_gives_the_same_settings_again() -> None:
    form = LineSettingsForm.from_record(RECORD)
    again = form.make_record(RECORD, "line-1", "berta", NOW)
    assert again == RECORD
    assert again.decision == RECORD.decision


def test_an_empty_field_removes_a_setting_but_not_the_planned_stop() -> None:
    assert make_record() == LiveLineSettings(line="line-1", set_by="anna", set_at=NOW)
    cleared = LineSettingsForm().make_record(RECORD, "line-1", "anna", NOW)
    assert (cleared.inspect_regions, cleared.defect_share, cleared.planned_stop_until) == ((), None, LATER)


def test_a_decimal_comma_is_a_decimal_point() -> None:
    record = make_record(mm_per_px="0,12", threshold="0,5", defect_percent="1,5")
    assert (record.mm_per_px, record.threshold, record.defect_share) == (0.12, 0.5, 0.015)


def test_the_button_of_the_estimate_replaces_only_the_share_of_defects() -> None:
    form = LineSettingsForm.from_post({"defect_percent": "5", "mm_per_px": "0.2", "estimated_percent": "1.25"})
    assert (form.defect_percent, form.mm_per_px) == ("1.25", "0.2")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({"threshold": "high"}, "Threshold: 'high' is not a number. Enter a number, or leave the field empty."),
        ({"threshold": "1.2"}, "Threshold: 1.2 is not possible. Enter a number from 0 to 1, or leave the field empty."),
        ({"threshold": "nan"}, "Threshold: nan is not possible."),
        ({"mm_per_px": "0"}, "Scale: 0 is not possible. Enter a number above 0 to 1000, or leave the field empty."),
        ({"defect_percent": "100"}, "Share of defects: 100 is not possible. Enter a number from 0.001 to 99.999"),
        ({"miss_risk_percent": "0"}, "Miss risk: 0 is not possible."),
        ({"inspect_regions": "{"}, "Region to inspect: the drawing could not be read."),
        ({"ignore_regions": "[[[0, 0], [1, 1]]]"}, "Region to ignore: the drawing could not be read. A region has 3 to 64 corners"),
        ({"ignore_regions": "[[[0, 0], [1, 1], [0.5, 1.1]]]"}, "Region to ignore: the drawing could not be read."),
        ({"inspect_regions": "[[[0.5, 0.5], [0.9, 0.5], [0.7, 0.5]]]"}, "Region to inspect 1: the region is too small."),
        (
            {"inspect_regions": f"[{', '.join(['[[0, 0], [1, 0], [1, 1]]'] * 33)}]"},
            "Region to inspect: there are 33 regions, but at most 32",
        ),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_label_of_its_field(texts: dict[str, str], sentence: str) -> None:
    with pytest.raises(LineSettingsRefusedError) as refused:
        make_record(**texts)
    (only,) = refused.value.sentences
    assert only.startswith(sentence)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"threshold": 1.0}, "would call no part defective"), ({"miss_risk": 0.01}, "no pass threshold can be computed")],
)
def test_settings_that_an_inspector_could_not_apply_are_refused_on_the_page_too(
    engineer: Client, given: dict[str, float], sentence: str
) -> None:
    """All lines have the version `demo`, which has no miss curve."""
    with pytest.raises(LineSettingsRefusedError, match=sentence):
        check_record(RECORD.model_copy(update={"miss_risk": None} | given))
    check_record(RECORD.model_copy(update={"miss_risk": None}))


def test_the_page_is_for_engineers_and_changes_nothing_without_kafka(engineer: Client, reviewer: Client) -> None:
    path = "/lines/line-1/settings/"
    assert reviewer.get(path).status_code == 403
    assert engineer.get("/lines/line-9/settings/").status_code == 404
    assert engineer.get("/lines/uploads/settings/").status_code == 404
    answer = engineer.post(path, {"threshold": "0.4", "inspect_regions": "[[[0,0],[1,0],[1,1]]]"})
    page = answer.content.decode()
    assert (answer.status_code, 'value="0.4"' in page, "[[[0,0],[1,0],[1,1]]]" in page) == (503, True, True)
    assert "Kafka does not answer" in page
    assert f'hx-get="{path}share-estimate"' in page
    assert "Kafka does not answer" in engineer.get(f"{path}share-estimate").content.decode()
    assert reviewer.get(f"{path}share-estimate").status_code == 403
    assert not AuditEntry.objects.exists()
    assert "/lines/line-1/settings/" in engineer.get("/lines/line-1/").content.decode()
    assert "/lines/line-1/settings/" not in reviewer.get("/lines/line-1/").content.decode()


def test_a_copy_of_a_record_is_checked() -> None:
    for changes in ({"mm_per_px": 0.0}, {"inspect_regions": (TRIANGLE,) * 33}, {"threshold": 1.5}):
        with pytest.raises(ValidationError):
            RECORD.copy_with(**changes)
    assert RECORD.copy_with(mm_per_px=0.3) == RECORD.model_copy(update={"mm_per_px": 0.3})
