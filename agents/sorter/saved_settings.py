"""Files with the settings of a line's board. When a board is exchanged, the new board gets the settings from such a file.

The sorter keeps a file of the settings that the board used last. `castline board save` writes a file from a board that still works.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tomli_w

from firmware.lane_settings import LaneSettings, SettingValue
from streams.atomic_file import write_atomically
from streams.errors import SettingsError

_FORMAT = "castline.board-settings.v1"
_TITLE = "# Settings of a line's board. The command castline board restore reads this file. To change a setting, change castline.toml.\n"
Lanes = Mapping[int, Mapping[str, SettingValue]]


def settings_path(journal_dir: Path, line: str) -> Path:
    """Returns the file in which the sorter of `line` keeps the settings that its board used last."""
    return journal_dir / f"{line}.board.toml"


@dataclass(frozen=True)
class SavedSettings:
    """The content of the file of saved settings: the settings that a board uses for the lanes of `line`.

    `port` is the serial port of the board.
    """

    line: str
    port: str
    saved_at: datetime
    lanes: Lanes

    def write(self, file: Path) -> None:
        """Writes the settings to `file` as TOML. Raises OSError if the file cannot be written."""
        lanes = {str(lane): dict(values) for lane, values in self.lanes.items()}
        content = {"format": _FORMAT, "line": self.line, "port": self.port, "saved_at": self.saved_at, "lanes": lanes}
        write_atomically(file, _TITLE + tomli_w.dumps({"checksum": _checksum(content), **content}), mode=0o640)

    def lane_settings(self) -> dict[int, LaneSettings]:
        """Returns the saved settings by lane. A setting that was not saved gets its default.

        Raises SettingsError if this release does not know a setting or its value.
        """
        try:
            return {lane: LaneSettings(values) for lane, values in self.lanes.items()}
        except ValueError as error:
            raise SettingsError(
                f"The saved settings of {self.line} do not fit this release of Castline: {error}. Use the release that saved them."
            ) from None


def keep_settings(file: Path, line: str, port: str, settings_by_lane: Mapping[int, LaneSettings]) -> None:
    """Writes the settings to `file`, unless the file already has them. Raises OSError if the file cannot be written."""
    lanes = {lane: settings.values for lane, settings in settings_by_lane.items()}
    try:
        kept = read_saved_settings(file, line, lanes)
        if (kept.port, kept.lanes) == (port, lanes):
            return
    except SettingsError:
        pass
    SavedSettings(line, port, datetime.now(UTC).replace(microsecond=0), lanes).write(file)


def read_saved_settings(file: Path, line: str, lanes: Collection[int]) -> SavedSettings:
    """Reads the saved settings of `line`. `lanes` are the lanes of the board to which the gates of the line are wired.

    Raises SettingsError with a message for a person if the file is damaged, was changed by hand, or belongs to another line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(f"There is no file {file} with saved settings. Name another file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read the saved settings {file}: {error}. Name another file.") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        content = {}
    if content.get("format") != _FORMAT:
        raise _refusal(file, "It holds no saved settings of a board, or it is damaged")
    if content.pop("checksum", None) != _checksum(content):
        raise _refusal(file, "Its checksum is wrong, so it was damaged or changed by hand")
    if content["line"] != line:
        raise _refusal(file, f"It holds the settings of {content['line']}, and not those of {line}")
    saved = {int(lane): values for lane, values in content["lanes"].items()}
    if saved.keys() != set(lanes):
        raise _refusal(
            file, f"It holds lane {_join(saved)} of the board, but {line} has lane {_join(lanes)}. Correct the lanes in castline.toml first"
        )
    return SavedSettings(line, content["port"], content["saved_at"], saved)


def _checksum(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _join(lanes: Collection[int]) -> str:
    return ", ".join(map(str, sorted(lanes)))


def _refusal(file: Path, reason: str) -> SettingsError:
    return SettingsError(f"The file {file} is not used. {reason}. Nothing was changed.")
