"""Tests of the demo's foundry: its settings and roles, free ports, cached pictures, and no settings of a real plant."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from PIL import Image

from deploy.demo.foundry import DemoOptions, make_foundry, remove_plant_variables, render_castings
from deploy.supervisor.ports import free_ports
from streams.errors import ModelError, SettingsError


def test_a_foundry_follows_the_options(tmp_path: Path) -> None:
    foundry = make_foundry(DemoOptions(lines=2, rate_per_s=4, travel_s=2, inspectors=3), tmp_path, tmp_path / "run")
    assert foundry.lines == ("line-1", "line-2")
    names = [role.name for role in foundry.roles]
    assert names[:2] == ["broker", "topics"]
    assert sum(name.startswith("inspector") for name in names) == 3
    assert {"gateway", "sorter line-1", "sorter line-2", "board line-1", "board line-2"} < set(names)
    gates = [line.gate for line in foundry.settings.lines if line.gate]
    assert [gate.travel_s for gate in gates] == [2, 2]
    assert foundry.settings.gateway.token.get_secret_value()
    assert [line.name for line in foundry.settings.lines if not line.gate] == ["uploads"]
    assert foundry.station is not None
    assert foundry.station.address == f"http://127.0.0.1:{foundry.settings.station.port}/"
    assert {"localiser", "archivist", "station", "account"} < set(names)


def test_without_a_station_there_is_neither_archivist_nor_account(tmp_path: Path) -> None:
    foundry = make_foundry(DemoOptions(lines=1, station=False), tmp_path, tmp_path / "run")
    assert foundry.station is None
    assert [line.name for line in foundry.settings.lines] == ["line-1"]
    assert not {"localiser", "archivist", "station", "account"} & {role.name for role in foundry.roles}


def test_boards_stop_first_and_the_broker_last(tmp_path: Path) -> None:
    roles = {role.name: role for role in make_foundry(DemoOptions(lines=1), tmp_path, tmp_path / "run").roles}
    order = ["board line-1", "gateway", "inspector-1", "localiser", "archivist", "broker"]
    assert [roles[name].stop_order for name in order] == sorted({roles[name].stop_order for name in order})
    assert roles["sorter line-1"].stop_order == roles["localiser"].stop_order
    assert roles["localiser"].stage >= roles["sorter line-1"].stage, "a slow localiser must not delay the sorters"
    assert roles["sorter line-1"].stage > roles["gateway"].stage > roles["topics"].stage > roles["broker"].stage


def test_settings_of_a_real_plant_are_removed_from_the_environment() -> None:
    environment = {"PATH": "/bin", "CASTLINE_KAFKA__BOOTSTRAP": "plant:9092", "CASTLINE_BATCH__SIZE": "8", "CASTLINE_SETTINGS_FILE": "x"}
    assert remove_plant_variables(environment) == ["CASTLINE_KAFKA__BOOTSTRAP", "CASTLINE_SETTINGS_FILE"]
    assert environment == {"PATH": "/bin", "CASTLINE_BATCH__SIZE": "8"}


def test_a_missing_model_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such"):
        make_foundry(DemoOptions(model="no-such"), tmp_path, tmp_path / "run")


def test_more_parts_than_a_board_can_follow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="would be 120 parts between camera and gate, but a board can follow at most 56"):
        make_foundry(DemoOptions(rate_per_s=6, travel_s=20), tmp_path, tmp_path / "run")


def test_ports_in_a_row_are_free() -> None:
    first = free_ports(2)
    for port in (first, first + 1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_castings_are_rendered_once_into_class_folders(tmp_path: Path) -> None:
    rendered: list[int] = []
    folder = render_castings(3, lambda done, total: rendered.append(done), tmp_path, count=12)
    assert len(rendered) == 12
    pictures = sorted(folder.rglob("*.jp*g"))
    assert len(pictures) == 12
    assert {picture.parent.name for picture in pictures} == {"ok_front", "def_front"}
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.size == (300, 300)
    assert not list(folder.rglob("*.png")), "the camera would replay the masks"
    assert render_castings(3, lambda done, total: rendered.append(done), tmp_path, count=12) == folder
    assert len(rendered) == 12
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupted_rendering_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_castings(3, interrupt, tmp_path, count=3)
    assert not list(tmp_path.iterdir())
