"""The memory of a simulated board that a reset does not delete. A Mega uses its EEPROM for this.

The memory contains the run number, the committed settings, and the faults that no person has ended.
"""

from __future__ import annotations

import json
from pathlib import Path

from firmware.lane_settings import LaneSettings
from streams.atomic_file import write_atomically

MAX_RUN = 65535


class BoardMemory:
    """The memory of a simulated board. Its content is lost when the process ends."""

    def __init__(self) -> None:
        self.run = 0
        self.settings: dict[int, LaneSettings] = {}
        # For each lane, the codes of the faults that no person has ended yet.
        self.faults: dict[int, list[int]] = {}
        self.is_damaged = False

    def begin_run(self) -> int:
        """Counts a reset and returns the new run number. Must be called once for each reset."""
        self.run = self.run % MAX_RUN + 1
        self._save()
        return self.run

    def raise_run(self, run: int) -> None:
        """Stores a run number that is higher than the present one. The next reset adds 1 to this number."""
        self.run = run
        self._save()

    def store(self, lane: int, settings: LaneSettings) -> None:
        """Stores the settings of a lane if they differ from the stored ones."""
        if self.settings.get(lane) != settings:
            self.settings[lane] = settings
            self._save()

    def store_faults(self, lane: int, codes: list[int]) -> None:
        """Stores the faults of a lane that a person must end."""
        if self.faults.get(lane, []) != codes:
            self.faults[lane] = codes
            self._save()

    def _save(self) -> None:
        """Called after each change of the memory. The subclass FileBoardMemory overrides this method to write its file."""


class FileBoardMemory(BoardMemory):
    """The memory of a simulated board, stored in a JSON file.

    If the content of the file is not valid, `is_damaged` is true, and the board reports fault 51 (`settings-lost`).
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            content = json.loads(path.read_text())
            self.run = int(content["run"])
            self.settings = {int(lane): LaneSettings(values) for lane, values in content["settings"].items()}
            # A file that release 0.1.0 has written has no key `faults`.
            self.faults = {int(lane): [int(code) for code in codes] for lane, codes in content.get("faults", {}).items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            self.is_damaged = True

    def _save(self) -> None:
        content = {
            "run": self.run,
            "settings": {str(lane): settings.values for lane, settings in self.settings.items()},
            "faults": {str(lane): codes for lane, codes in self.faults.items()},
        }
        write_atomically(self._path, json.dumps(content))
