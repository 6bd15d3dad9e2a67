"""The demonstration's foundry: a run folder, free ports, settings as a plant would have them, and its processes."""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from deploy.supervisor import FileExists, RestartPolicy, Role, castline_command
from deploy.supervisor.plant_roles import BOARDS_STAGE, BOARDS_STOP, plant_roles
from deploy.supervisor.ports import free_ports, is_free
from models.registry import locate_version
from streams.errors import SettingsError
from streams.settings import LineSettings, Settings, StationSettings, load_settings

# The speed that the board's own defaults of gate and dwell fit: on a faster belt the blade would strike the castings.
# Six parts a second, the most that --rate takes, are 83 mm apart on it; closer than 65 mm the gate cannot change between two.
_BELT_MM_PER_S = 500
# A board follows 64 parts between its eyes; a few less, since they do not come evenly.
_MOST_ON_BELT = 56
# What an operator may tune in the demo by CASTLINE_*; the rest is the demo's own, so that it never meets a real plant.
_TUNABLE = ("CASTLINE_BATCH__", "CASTLINE_MODEL__RUNTIME", "CASTLINE_MODEL__THREADS", "CASTLINE_INSPECTOR__", "CASTLINE_SERVICE__LOG_LEVEL")
# A replayed picture shows its part however late the camera is told of it. On a machine that cannot keep up a part is then late, which the
# audit tells, and not without a picture; a real camera told so late would photograph another part.
_TOLD_WITHIN_S = 15.0
# Beyond the way from photo-eye 1 to the gate: to the blade, and the wait for the last acknowledgements.
_BOARD_DRAINS_S = 12.0
_ACCOUNT = "demo"
# The station's own port, where nobody else has it: a link that can be kept.
_PAGES_PORT = 18000
_GIVE_UP = RestartPolicy(first_s=0.5, longest_s=5, steady_s=30, give_up_after=5)


@dataclass(frozen=True)
class Wishes:
    """What the caller of the demo asked for."""

    lines: int = 3
    rate_per_s: float = 2.0  # parts a second and line
    travel_s: float = 3.0  # photo-eye 1 to photo-eye 2
    images: Path | None = None
    model: str = "demo"
    inspectors: int = 1
    seed: int = 1
    station: bool = True  # archive parts and serve pages
    avr: bool = False  # boards run the Mega's own firmware in an AVR simulator, else the simulated board in Python


@dataclass(frozen=True)
class Pages:
    """Where the station is, and who may log in there."""

    address: str
    account: str
    password: str

    def __str__(self) -> str:
        return f"{self.address}  log in as {self.account}, password {self.password}"


@dataclass(frozen=True)
class Foundry:
    """A run folder with everything in it."""

    folder: Path
    settings: Settings
    roles: tuple[Role, ...]
    pages: Pages | None = None

    @property
    def log(self) -> Path:
        """The one log of all processes."""
        return self.folder / "demo.log"

    @property
    def plant(self) -> Settings:
        """The settings without the line of uploaded pictures, which has no belt: what is watched and audited."""
        return self.settings.model_copy(update={"lines": tuple(line for line in self.settings.lines if line.gate)})

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(line.name for line in self.plant.lines)

    def board_log(self, line: str) -> Path:
        """What the simulated plant writes about each casting that left the belt."""
        return self.folder / f"board-{line}.jsonl"


def shed(environment: MutableMapping[str, str]) -> list[str]:
    """Takes a real plant's settings out of `environment`, which this process and its children read; returns their names."""
    foreign = sorted(name for name in environment if name.startswith("CASTLINE_") and not name.startswith(_TUNABLE))
    for name in foreign:
        del environment[name]
    return foreign


def found(wishes: Wishes, images: Path, folder: Path) -> Foundry:
    """Writes the settings of a foundry into `folder` and names its processes; starts nothing. Call `shed` before.

    Raises ModelError: for a model version that is not there or damaged. SettingsError: for more parts than a board can follow.
    """
    if wishes.rate_per_s * wishes.travel_s > _MOST_ON_BELT:
        raise SettingsError(
            f"--rate x --travel-s: expected at most {_MOST_ON_BELT} parts between camera and gate, which is what a board can follow; "
            f"found {wishes.rate_per_s * wishes.travel_s:.0f}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "castline.toml"
    file.write_text(tomli_w.dumps(_sections(wishes, images, folder)))
    settings = load_settings(file)
    gated = [line for line in settings.lines if line.gate]
    boards = [_board(file, line, wishes, number) for number, line in enumerate(gated, 1)]
    roles = plant_roles(file, settings, wishes.inspectors, _GIVE_UP, boards, wishes.station)
    if not wishes.station:
        return Foundry(folder, settings, tuple(roles))
    pages = Pages(f"http://{settings.station.host}:{settings.station.port}/", _ACCOUNT, f"casting-{secrets.token_hex(4)}")
    return Foundry(folder, settings, (*roles, _account(file, pages)), pages)


def _account(file: Path, pages: Pages) -> Role:
    """Makes the account that exists in the demo's own database only."""
    password = file.with_name("password")
    password.touch(mode=0o600)
    password.write_text(pages.password)
    arguments = ("station", "account", pages.account, "--role", "administrator", "--password-file", str(password))
    command = castline_command("--settings", str(file), *arguments)
    return Role("account", command, FileExists(password), 0, BOARDS_STOP, 5, _GIVE_UP, is_one_shot=True)


def _sections(wishes: Wishes, images: Path, folder: Path) -> dict[str, Any]:
    version = locate_version(wishes.model)
    lines = [
        {
            "name": f"line-{number}",
            "camera": {
                "kind": "folder",
                "path": str(images.resolve()),
                "trigger": "board",
                "seed": wishes.seed + number,
                "match_window_s": _TOLD_WITHIN_S,
            },
            "gate": {
                "port": str(folder / f"board-line-{number}"),
                "travel_mm": _BELT_MM_PER_S * wishes.travel_s,
                "belt_mm_per_s": _BELT_MM_PER_S,
            },
        }
        for number in range(1, wishes.lines + 1)
    ]
    station = {
        "port": _PAGES_PORT if is_free(_PAGES_PORT) else free_ports(1),
        "database": str(folder / "station.sqlite3"),
        "secret_key_file": str(folder / "station.key"),
    }
    # Judged like a line's pictures, by the same inspectors; without belt or gate.
    uploads = {"name": StationSettings().upload_line}
    return {
        "broker": {"port": free_ports(2), "data_dir": str(folder / "kafka")},
        "topics": {"image_hours": 2},
        "service": {"run_dir": str(folder / "run")},
        "store": {"url": str(folder / "store")},
        "gateway": {"port": free_ports(1), "token": secrets.token_hex(16), "spool_dir": str(folder / "spool")},
        "model": {"root": str(version.folder.parent), "version": version.name},
        "station": station,
        "lines": [*lines, uploads] if wishes.station else lines,
    }


def _board(file: Path, line: LineSettings, wishes: Wishes, number: int) -> Role:
    assert line.gate is not None
    command = castline_command(
        *("--settings", str(file), "board", "simulate", "--line", line.name, "--rate", f"{wishes.rate_per_s:g}"),
        *("--seed", str(wishes.seed + number), "--log", str(file.with_name(f"board-{line.name}.jsonl"))),
        *(("--avr",) if wishes.avr else ()),
    )
    ready = FileExists(Path(line.gate.port))
    grace_s = wishes.travel_s + _BOARD_DRAINS_S
    return Role(f"board {line.name}", command, ready, BOARDS_STAGE, BOARDS_STOP, grace_s, _GIVE_UP)
