"""Settings of one line's gates: the board's serial port and lane, its configuration, and which gate takes which parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from streams.settings.section import Section

LANES = 4  # of a board: firmware/PROTOCOL.md


class GradeSettings(Section):
    """[[lines.gate.grades]]: a further gate of the same belt, which takes the parts of some labels."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$", description="What falls there, such as `review` or `rework`.")
    lane: int = Field(ge=1, le=LANES, description="Lane of the board whose servo pin moves this gate; it is no belt of its own then.")
    takes: tuple[Literal["defect", "review"], ...] = Field(min_length=1, description="Labels of the verdicts whose parts it takes.")
    least_probability: float = Field(
        0, ge=0, le=1, description="It takes only verdicts of at least this defect probability; the first grade that takes a part has it."
    )
    gate_mm: float = Field(ge=1, le=2000, description="Photo-eye 2 to the place of a part's leading edge when this gate begins to move.")
    board: dict[str, int | str] = Field(
        {}, description="Further settings of this gate by the protocol's names: dwell_mm, servo_ms, out_us."
    )


class GateSettings(Section):
    """[lines.gate]: a line without this section has no gate and no sorter."""

    port: str = Field(description="Serial port of the board; best a path below /dev/serial/by-id/. Lines may share a board.")
    lane: int = Field(1, ge=1, le=LANES, description="Lane of the board that this line is wired to.")
    baud: int = Field(115200, ge=9600, le=1_000_000, description="Bits a second on the serial port; the same for all lines of a board.")
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
    grades: tuple[GradeSettings, ...] = Field(
        (), max_length=LANES - 1, description="Further gates on this belt; what none of them takes falls at the line's own gate."
    )

    @model_validator(mode="after")
    def _grades_fit_together(self) -> Self:
        for what, found in (("name", [each.name for each in self.grades]), ("lane", [str(lane) for lane in self.lanes])):
            if twice := sorted({each for each in found if found.count(each) > 1}):
                raise ValueError(f"grades: expected each gate of a belt with a {what} of its own, found {', '.join(twice)} more than once")
        if self.on_review == "pass" and (takers := [each.name for each in self.grades if "review" in each.takes]):
            raise ValueError(f"grades: expected no grade that takes review where on_review is pass, found {', '.join(takers)}")
        return self

    @property
    def travel_s(self) -> float:
        """Time from photo-eye 1 to photo-eye 2 at belt speed."""
        return self.travel_mm / self.belt_mm_per_s

    @property
    def lanes(self) -> list[int]:
        """All lanes of the board that this line takes: its own first."""
        return [self.lane, *(grade.lane for grade in self.grades)]


def refuse_conflicts_at_boards(gates: Mapping[str, GateSettings]) -> None:
    """Raises ValueError: when two lines (gates by line's name) want the same lane of a board, or its port at different speeds."""
    taken: dict[str, dict[int, str]] = defaultdict(dict)
    bauds: dict[str, tuple[int, str]] = {}
    for line, gate in gates.items():
        baud, first = bauds.setdefault(gate.port, (gate.baud, line))
        if gate.baud != baud:
            raise ValueError(f"lines.gate.baud: expected one speed at {gate.port}, found {baud} for {first} and {gate.baud} for {line}")
        for lane in gate.lanes:
            if lane in taken[gate.port]:
                raise ValueError(
                    f"lines.gate.lane: expected each lane of the board at {gate.port} for one gate, "
                    f"found lane {lane} for {taken[gate.port][lane]} and for {line}"
                )
            taken[gate.port][lane] = line
