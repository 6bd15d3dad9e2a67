"""What survives a reset: boot count and committed settings. The Mega keeps them in EEPROM, the simulated board in a small file."""

from __future__ import annotations

import json
from pathlib import Path

from firmware.board.lane_settings import LaneSettings

LAST_RUN = 65535


class Memory:
    """In memory alone; `boot` is called once a reset."""

    def __init__(self) -> None:
        self.run = 0
        self.settings: dict[int, LaneSettings] = {}
        self.damaged = False

    def boot(self) -> int:
        """The new run."""
        self.run = self.run % LAST_RUN + 1
        self.save()
        return self.run

    def store(self, lane: int, settings: LaneSettings) -> None:
        """Written only where something differs: EEPROM cells wear."""
        if self.settings.get(lane) != settings:
            self.settings[lane] = settings
            self.save()

    def save(self) -> None:
        """Nothing to do: this memory ends with the process."""


class FileMemory(Memory):
    """Kept in a JSON file, written whole and renamed, so that a kill in between leaves the old state."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            kept = json.loads(path.read_text())
            self.run = int(kept["run"])
            self.settings = {int(lane): LaneSettings(values) for lane, values in kept["settings"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            self.damaged = True

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        kept = {"run": self.run, "settings": {str(lane): settings.values for lane, settings in self.settings.items()}}
        partial.write_text(json.dumps(kept))
        partial.replace(self._path)
