"""Compares saved settings with a board and with the settings file, for `castline board restore`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agents.sorter.decisions import grade_settings, lane_settings
from agents.sorter.teaching import change_gate
from deploy.cli.settings_file import Value, describe_changes, edit_gate
from firmware.lane_settings import BY_KEY, LaneSettings, SettingValue
from streams.atomic_file import replace_atomically
from streams.errors import SettingsError
from streams.settings import VARIABLE_PREFIX, GateSettings

_STEP = ("step_um", "step_nm")


@dataclass(frozen=True)
class FileEdit:
    """A planned change of the settings file. `text` is the new content. `changes` maps names such as `travel_mm` to the new values."""

    file: Path
    text: str
    changes: Mapping[str, Value]

    def write(self) -> None:
        """Replaces the text of the settings file. Raises OSError if the file cannot be written."""
        replace_atomically(self.file, self.text)


def find_differences(used: Mapping[int, Mapping[str, object]], saved: Mapping[int, LaneSettings]) -> Iterator[tuple[str, str, str]]:
    """Yields name, present value and saved value of each setting that differs.

    Old firmware does not know some newer settings, and acts as if they had their default values. For such a setting, the default counts as
    the present value.
    """
    for lane, settings in saved.items():
        for key, value in settings.values.items():
            present = used[lane].get(key, BY_KEY[key].default)
            if str(present) != str(value):
                yield key if len(saved) == 1 else f"lane {lane} {key}", str(present), str(value)


def plan_edit(file: Path | None, line: str, gate: GateSettings, saved: Mapping[int, LaneSettings]) -> FileEdit | None:
    """Plans how to write the saved settings into the settings file. Returns None if the file already has these settings.

    Raises SettingsError if a person must change the file. The message names the settings to change.
    """
    changes = _find_changes(gate, saved[gate.lane])
    # Check the additional gates of the line. They use the line's setting `safe`, so a change of `safe` can also change these gates.
    other_gates = [
        f"lane {lane}: {name} = {value}"
        for lane, settings in grade_settings(change_gate(gate, changes)).items()
        for name, _, value in find_differences({lane: settings.values}, {lane: saved[lane]})
    ]
    if other_gates:
        raise SettingsError(
            f"In the settings file, the additional gates of {line} have other values than in the saved settings. Nothing was changed. "
            f"Write these values into [[lines.gate.grades]]: {'; '.join(other_gates)}. Then repeat this command."
        )
    if not changes:
        return None
    try:
        if file is None:
            raise ValueError("there is no settings file")
        if any(variable.startswith(f"{VARIABLE_PREFIX}LINES") for variable in os.environ):
            raise ValueError(f"an environment variable {VARIABLE_PREFIX}LINES… overrides the sections [[lines]] of the file")
        return FileEdit(file, edit_gate(file.read_text(encoding="utf-8"), line, changes), changes)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"This command cannot write the saved settings into the settings file: {error}. Nothing was changed. Put these lines "
            f"into the settings file, then repeat this command:\n{describe_changes(line, changes)}"
        ) from None


def _find_changes(gate: GateSettings, saved: LaneSettings) -> dict[str, Value]:
    """Returns the settings that must change so that the section [lines.gate] equals `saved`, with their new values."""
    present = lane_settings(gate).values
    differing = {key: value for key, value in saved.values.items() if value != present[key]}
    changes: dict[str, Value] = {}
    if "eye_gap_mm" in differing and "eye_gap_mm" not in gate.board:
        changes["travel_mm"] = differing.pop("eye_gap_mm")
    if differing.keys() & {*_STEP} and not saved.number("encoder") and "step_um" not in gate.board:
        speed_mm_s = saved.step_nm / 1000
        changes["belt_mm_per_s"] = int(speed_mm_s) if speed_mm_s.is_integer() else speed_mm_s
        differing = {key: value for key, value in differing.items() if key not in _STEP}
    if saved.word("safe") == saved.word("no_verdict") and not {"safe", "no_verdict"} & gate.board.keys() and "safe" in differing:
        changes["safe"] = differing.pop("safe")
        differing.pop("no_verdict", None)
    if saved.number("encoder") and "step_um" not in gate.board:
        differing |= {key: saved.values[key] for key in _STEP}
    changes |= {f"board.{key}": value for key, value in differing.items()}
    return changes if _gives(gate, changes, saved) else {f"board.{key}": value for key, value in saved.values.items()}


def _gives(gate: GateSettings, changes: Mapping[str, Value], saved: LaneSettings) -> bool:
    try:
        return lane_settings(change_gate(gate, changes)) == saved
    except ValueError:
        return False


def read_values(texts: Mapping[str, object]) -> dict[str, SettingValue]:
    """Converts the settings that a board sent as text. A text of digits becomes a whole number, as in the settings file."""
    return {key: int(str(text)) if str(text).isdecimal() else str(text) for key, text in texts.items()}
