"""Prepares the demo: renders castings, writes the settings of a simulated plant, and lists the processes to start."""

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
# Increase this number when the renderer changes. Then the demo renders new pictures instead of using those in the cache.
_RENDERER_VERSION = 1
# Share of defective castings. It is higher than in a real foundry, so that a short demo shows moving gates.
_DEFECT_SHARE = 0.3

# The speed of the simulated belts. At this speed and the highest --rate, six parts a second, the parts are 83 mm apart. A gate needs at
# least 65 mm between two parts.
_BELT_MM_PER_S = 500
# Largest mean number of parts on a belt. Parts come at irregular times, so at some moments more parts are on the belt. A board can follow
# at most 64 parts.
_MAX_PARTS_ON_BELT = 56
# The demo keeps the environment variables whose names begin with one of these texts. It removes all other variables CASTLINE_…, so that
# it never connects to a real plant.
_PASSED_VARIABLES = (
    "CASTLINE_BATCH__",
    "CASTLINE_MODEL__RUNTIME",
    "CASTLINE_MODEL__THREADS",
    "CASTLINE_INSPECTOR__",
    "CASTLINE_SERVICE__LOG_LEVEL",
)
# The demo's value of the setting `match_window_s`: the longest time between the report of a part and its picture, in seconds. This time is
# longer than in a plant, because a busy machine can delay the simulated camera.
_MATCH_WINDOW_S = 15.0
# Seconds that a simulated board gets to send its last events when the belt is empty.
_BOARD_DRAIN_S = 12.0
_ACCOUNT = "demo"
# The preferred port of the station. If it is in use, the station gets a free port.
_STATION_PORT = 18000
_RESTARTS = RestartPolicy(first_s=0.5, longest_s=5, steady_s=30, give_up_after=5)


@dataclass(frozen=True)
class DemoOptions:
    """The options of the demo.

    - `rate_per_s`: parts a second on each line.
    - `travel_s`: seconds from camera to gate.
    - `station`: if True, the demo archives the parts and serves the station's pages.
    - `avr`: if True, the simulated boards run the Mega's firmware in an AVR simulator.
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
    """The address of the station, and an account with its password."""

    address: str
    account: str
    password: str

    def __str__(self) -> str:
        return f"{self.address}  log in as {self.account}, password {self.password}"


@dataclass(frozen=True)
class Foundry:
    """A foundry that is ready to start.

    - `folder`: the folder with settings, topics and logs.
    - `roles`: the processes to start.
    - `station`: None if the station is not started.
    """

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
        """The settings with only the lines that have a gate. The demo shows and audits only these lines."""
        return self.settings.model_copy(update={"lines": tuple(line for line in self.settings.lines if line.gate)})

    @property
    def lines(self) -> tuple[str, ...]:
        """The names of the lines with a gate."""
        return tuple(line.name for line in self.gated_settings.lines)

    def board_log(self, line: str) -> Path:
        """Returns the log file of the simulated board of `line`. The log names each casting that leaves the belt."""
        return self.folder / f"board-{line}.jsonl"


def render_castings(seed: int, on_casting: Callable[[int, int], object], cache: Path | None = None, count: int = CASTINGS_COUNT) -> Path:
    """Renders `count` castings and returns their folder, which has a subfolder for each class. A second call finds them in the cache.

    `on_casting` is called with the number of finished castings and with `count`.
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
        # Delete the masks that mark the defects. Otherwise the simulated camera would send the masks as pictures.
        shutil.rmtree(partial / MASK_FOLDER)
        if not folder.is_dir():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def remove_plant_variables(environment: MutableMapping[str, str]) -> list[str]:
    """Removes the settings of a real plant from `environment`, so that child processes do not inherit them. Returns their names."""
    names = sorted(name for name in environment if name.startswith("CASTLINE_") and not name.startswith(_PASSED_VARIABLES))
    for name in names:
        del environment[name]
    return names


def make_foundry(options: DemoOptions, images: Path, folder: Path) -> Foundry:
    """Writes the settings of a foundry into `folder`. Call `remove_plant_variables` first.

    `images` is a folder of pictures with a subfolder for each class. Raises ModelError if the model version is missing or damaged, and
    SettingsError if there would be too many parts on a belt.
    """
    parts_on_belt = options.rate_per_s * options.travel_s
    if parts_on_belt > _MAX_PARTS_ON_BELT:
        raise SettingsError(
            f"There would be {parts_on_belt:.0f} parts between camera and gate, but a board can follow at most "
            f"{_MAX_PARTS_ON_BELT}. Give a lower --rate or --travel-s."
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
    # This line gets the pictures that people upload on a page of the station. It has no camera and no gate.
    uploads = {"name": StationSettings().upload_line}
    return {
        "broker": {"port": free_ports(2), "data_dir": str(folder / "kafka")},
        "topics": {"image_hours": 2},
        "service": {"run_dir": str(folder / "run")},
        "store": {"url": str(folder / "store")},
        "gateway": {"port": free_ports(1), "token": secrets.token_hex(16), "spool_dir": str(folder / "spool")},
        "sorter": {"journal_dir": str(folder / "journal")},
        "model": {"root": str(version.folder.parent), "version": version.name},
        "station": station,
        # Only pages of the station show heat maps, so a demo without a station makes none.
        "inspector": {"localise": options.station},
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
