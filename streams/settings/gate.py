"""Settings of one line's gate: its serial port and the board's configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streams.settings.section import Section


class GateSettings(Section):
    """[lines.gate]: a line without this section has no gate and no sorter."""

    port: str = Field(description="Serial port of the board; best a path below /dev/serial/by-id/.")
    baud: int = Field(115200, ge=9600, le=1_000_000, description="Bits a second on the serial port.")
    travel_mm: float = Field(1000, gt=0, le=100_000, description="Belt length from photo-eye 1 (camera) to photo-eye 2 (gate).")
    belt_mm_per_s: float = Field(500, gt=0, le=10_000, description="Belt speed.")
    safe: Literal["divert", "pass", "stop"] = Field(
        "divert", description="What is done with a part whose verdict has not come, and when something is broken."
    )
    board: dict[str, int | str] = Field(
        {},
        description="Further settings of the board by the protocol's names, such as spacing_mm, dwell_mm, encoder or servo_ms: "
        "firmware/PROTOCOL.md has their table. They go before what travel_mm, belt_mm_per_s and safe say.",
    )
    on_review: Literal["divert", "pass"] = Field("divert", description="What is done with a `review` verdict.")

    @property
    def travel_s(self) -> float:
        """Time from photo-eye 1 to photo-eye 2 at belt speed."""
        return self.travel_mm / self.belt_mm_per_s
