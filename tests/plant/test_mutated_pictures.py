"""Mutated pictures of all formats sent through running roles: each has exactly one answer, and no role crashes or hangs."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MakeSettings
from tests.picture_mutations import mutated_pictures
from tests.role_campaign import FOLDER, STATION, RoleCampaign, make_lines, make_sections


def test_mutated_pictures_are_answered_once_by_the_running_roles_and_crash_none(make_settings: MakeSettings, tmp_path: Path) -> None:
    """300 pictures, each once as a record and once through the gateway or the station; `make campaign-pictures` sends 10,000."""
    # Heat maps need several seconds of processor time. The campaign makes them.
    sections = make_sections(tmp_path)
    # The networks get decoded pictures, so a mutation does not reach them. LiteRT needs less processor time. The campaign uses TensorFlow.
    sections["model"]["runtime"] = "litert"
    settings = make_settings(lines=make_lines(tmp_path), **sections, inspector={"localise": False})
    with RoleCampaign(settings, tmp_path, print) as campaign:
        campaign.run(mutated_pictures(seed=16, count=300), page_samples=12)
    print(campaign.answers.describe())
    assert campaign.answers.shortcomings == []
    ways = campaign.answers.ways
    assert all(way.judged and way.unreadable for way in ways.values())
    assert ways[STATION].refused
    assert ways[FOLDER].left, "some files are no pictures by name and content"
