"""Prepares the demo's foundry: rendered castings, a run folder, free ports, the settings of a plant, and the roles of its processes."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, MutableMapping
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
from streams.user_cache import user_cache_folder

CASTINGS_COUNT = 300
# Raise this number with every change of the renderer that changes pictures, so that old pictures in the cache are not used any more.
_RENDERER_VERSION = 1
# A real foundry has far fewer defects than 30 %, but then a short demo would rarely show a gate that moves.
_DEFECT_SHARE = 0.3

# A belt speed of 500 mm/s fits the board's default times of gate and dwell. On a faster belt the blade would strike the castings. At six
# parts a second, the most that --rate allows, the parts are 83 mm apart. Between parts less than 65 mm apart the gate cannot change.
_BELT_MM_PER_S = 500
# A board can follow 64 parts between its photo-eyes. The limit is 56 because the parts do not come evenly.
_MAX_PARTS_ON_BELT = 56
# The settings in these environment variables reach the demo. All other settings are removed, so that the demo never meets a real plant.
_PASSED_VARIABLES = (
    "CASTLINE_BATCH__",
    "CASTLINE_MODEL__RUNTIME",
    "CASTLINE_MODEL__THREADS",
    "CASTLINE_INSPECTOR__",
    "CASTLINE_SERVICE__LOG_LEVEL",
)
# A replayed picture shows its part even if the camera is triggered late. On a slow machine the part is then late, which the audit
# reports, but it has its picture. A real camera that was triggered so late would photograph another part.
_MATCH_WINDOW_S = 15.0
# Draining a belt takes longer than the way from camera to gate, because the board also waits for the last acknowledgements.
_BOARD_DRAIN_S = 12.0
_ACCOUNT = "demo"
# The station uses port 18000 if it is free, so that its address is the same in every run.
_STATION_PORT = 18000
_RESTARTS = RestartPolicy(first_s=0.5, longest_s=5, steady_s=30, give_up_after=5)


@dataclass(frozen=True)
class DemoOptions:
    """What the caller of the demo asked for. `rate_per_s` is the rate of each line, `travel_s` the way from camera to gate.

    With `station` the parts are archived and the station serves its pages. With `avr` the boards run the Mega's own firmware in an AVR
    simulator, otherwise the simulated board in Python.
    """

    lines: int = 3
    rate_per_s: float = 2.0
    travel_s: float = 3.0
    model: str = "demo"
    inspectors: int = 1
    seed: int = 1
    station: bool = True
    avr: bool = False


@dataclass(frozen=True)
class StationLogIn:
    """The address of the station, and the account that may log in there."""

    address: str
    account: str
    password: str

    def __str__(self) -> str:
        return f"{self.address}  log in as {self.account}, password {self.password}"


@dataclass(frozen=True)
class Foundry:
    """A run folder with its settings, the roles of all processes, and the log-in of the station if there is one."""

    folder: Path
    settings: Settings
    roles: tuple[Role, ...]
    station: StationLogIn | None = None

    @property
    def log(self) -> Path:
        """The file with the log of all processes."""
        return self.folder / "demo.log"

    @property
    def gated_settings(self) -> Settings:
        """The settings with the gated lines only. The line of uploaded pictures has no belt and is neither watched nor audited."""
        return self.settings.model_copy(update={"lines": tuple(line for line in self.settings.lines if line.gate)})

    @property
    def lines(self) -> tuple[str, ...]:
        """The names of the lines with a gate."""
        return tuple(line.name for line in self.gated_settings.lines)

    def board_log(self, line: str) -> Path:
        """Returns the file to which the simulated board of `line` writes each casting that left the belt."""
        return self.folder / f"board-{line}.jsonl"


def render_castings(seed: int, on_casting: Callable[[int, int], object], cache: Path | None = None, count: int = CASTINGS_COUNT) -> Path:
    """Returns a folder of rendered castings, sorted into class folders. The castings are rendered once and kept in the user's cache.

    `on_casting` is called after each rendered casting with the castings done and the castings in all.
    """
    from models.synthetic.casting import MASK_FOLDER, write_castings

    root = cache or user_cache_folder()
    folder = root / f"castings-r{_RENDERER_VERSION}-s{seed}-n{count}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    # The castings are rendered into a temporary folder, so that an interrupted demo leaves no incomplete folder in the cache.
    partial = Path(tempfile.mkdtemp(prefix="castings-", dir=root))
    try:
        write_castings(partial, count, seed, _DEFECT_SHARE, on_casting=on_casting)
        # The camera replays every picture below the folder, and a mask is no photograph.
        shutil.rmtree(partial / MASK_FOLDER)
        if not folder.is_dir():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def remove_plant_variables(environment: MutableMapping[str, str]) -> list[str]:
    """Removes the settings of a real plant from `environment`, which the child processes inherit. Returns the removed names."""
    names = sorted(name for name in environment if name.startswith("CASTLINE_") and not name.startswith(_PASSED_VARIABLES))
    for name in names:
        del environment[name]
    return names


def make_foundry(options: DemoOptions, images: Path, folder: Path) -> Foundry:
    """Writes the settings of a foundry into `folder` and lists its roles. Starts nothing. Call `remove_plant_variables` first.

    `images` holds the pictures in class folders. Raises ModelError if the model version is missing or damaged, and SettingsError if the
    options put more parts on a belt than a board can follow.
    """
    parts_on_belt = options.rate_per_s * options.travel_s
    if parts_on_belt > _MAX_PARTS_ON_BELT:
        raise SettingsError(
            f"--rate and --travel-s put {parts_on_belt:.0f} parts between camera and gate, but a board can follow at most "
            f"{_MAX_PARTS_ON_BELT}. Lower one of the two options."
        )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "castline.toml"
    file.write_text(tomli_w.dumps(_make_sections(options, images, folder)))
    settings = load_settings(file)
    gated = [line for line in settings.lines if line.gate]
    boards = [_make_board_role(file, line, options, number) for number, line in enumerate(gated, 1)]
    roles = plant_roles(file, settings, options.inspectors, _RESTARTS, boards, options.station)
    if not options.station:
        return Foundry(folder, settings, tuple(roles))
    address = f"http://{settings.station.host}:{settings.station.port}/"
    station = StationLogIn(address, _ACCOUNT, f"casting-{secrets.token_hex(4)}")
    return Foundry(folder, settings, (*roles, _make_account_role(file, station)), station)


def _make_account_role(file: Path, station: StationLogIn) -> Role:
    password = file.with_name("password")
    password.touch(mode=0o600)
    password.write_text(station.password)
    arguments = ("station", "account", station.account, "--role", "administrator", "--password-file", str(password))
    command = castline_command("--settings", str(file), *arguments)
    return Role("account", command, FileExists(password), 0, BOARDS_STOP, 5, _RESTARTS, is_one_shot=True)


def _make_sections(options: DemoOptions, images: Path, folder: Path) -> dict[str, Any]:
    version = locate_version(options.model)
    lines = [
        {
            "name": f"line-{number}",
            "camera": {
                "kind": "folder",
                "path": str(images.resolve()),
                "trigger": "board",
                "seed": options.seed + number,
                "match_window_s": _MATCH_WINDOW_S,
            },
            "gate": {
                "port": str(folder / f"board-line-{number}"),
                "travel_mm": _BELT_MM_PER_S * options.travel_s,
                "belt_mm_per_s": _BELT_MM_PER_S,
            },
        }
        for number in range(1, options.lines + 1)
    ]
    station = {
        "port": _STATION_PORT if is_free(_STATION_PORT) else free_ports(1),
        "database": str(folder / "station.sqlite3"),
        "secret_key_file": str(folder / "station.key"),
    }
    # The same inspectors judge uploaded pictures, on a line of their own without belt and gate.
    uploads = {"name": StationSettings().upload_line}
    return {
        "broker": {"port": free_ports(2), "data_dir": str(folder / "kafka")},
        "topics": {"image_hours": 2},
        "service": {"run_dir": str(folder / "run")},
        "store": {"url": str(folder / "store")},
        "gateway": {"port": free_ports(1), "token": secrets.token_hex(16), "spool_dir": str(folder / "spool")},
        "model": {"root": str(version.folder.parent), "version": version.name},
        "station": station,
        "lines": [*lines, uploads] if options.station else lines,
    }


def _make_board_role(file: Path, line: LineSettings, options: DemoOptions, number: int) -> Role:
    assert line.gate is not None
    command = castline_command(
        *("--settings", str(file), "board", "simulate", "--line", line.name, "--rate", f"{options.rate_per_s:g}"),
        *("--seed", str(options.seed + number), "--log", str(file.with_name(f"board-{line.name}.jsonl"))),
        *(("--avr",) if options.avr else ()),
    )
    ready = FileExists(Path(line.gate.port))
    grace_s = options.travel_s + _BOARD_DRAIN_S
    return Role(f"board {line.name}", command, ready, BOARDS_STAGE, BOARDS_STOP, grace_s, _RESTARTS)
