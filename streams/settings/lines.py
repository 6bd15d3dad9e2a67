"""Settings of one line: its camera and its gate."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from streams.identity import LineName
from streams.settings.gate import GateSettings
from streams.settings.section import Section


class CameraSettings(Section):
    """[lines.camera]: where the line's pictures come from."""

    kind: Literal["folder", "drop", "http", "video"] = Field(
        description="`folder` replays pictures, `drop` watches a folder that a camera writes to, `http` takes uploads, `video` "
        "grabs from V4L2 or RTSP (needs the extra `video`)."
    )
    path: Path | None = Field(None, description="Folder of `folder` and `drop`.")
    address: str = Field("", description="Device or URL of `video`, such as /dev/video0 or rtsp://camera/stream.")
    trigger: Literal["free", "board"] = Field(
        "free",
        description="`free`: every picture is the next part of this gateway's own run. `board`: the board counts the parts "
        "and its sorter tells the gateway which part the next picture shows.",
    )
    rate_per_s: float = Field(2.0, gt=0, le=1000, description="Pictures a second of `folder` and `video` when free.")
    jitter: float = Field(0.0, ge=0, le=0.9, description="Random share of the time between two pictures of `folder`.")
    loop: bool = Field(True, description="`folder` begins again at its end.")
    shuffle: bool = Field(True, description="`folder` plays in an order drawn from `seed`, else sorted by path.")
    seed: int = Field(1, ge=0, description="Seed of shuffle and jitter.")
    settle_s: float = Field(0.5, ge=0.05, le=60, description="A file in `drop` is whole when it has not changed for so long.")
    match_window_s: float = Field(1.0, gt=0, le=60, description="With trigger `board`: longest time between part and picture.")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if self.kind in ("folder", "drop") and self.path is None:
            raise ValueError(f"a camera of kind {self.kind} wants a path")
        if self.kind == "video" and not self.address:
            raise ValueError("a camera of kind video wants an address")
        return self


class LineSettings(Section):
    """[[lines]]: one line of the foundry."""

    name: LineName = Field(description="Name of the line in topics, records and metrics: lower case, digits, hyphen.")
    camera: CameraSettings | None = Field(None, description="Absent: the pictures are sent by another producer.")
    gate: GateSettings | None = Field(None, description="Absent: verdicts only, nothing is moved.")
    deadline_s: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Time from picture to the last useful verdict; the gate's travel time less 0.2 s where absent.",
    )
    token: SecretStr = Field(SecretStr(""), description="Token for uploads to this line; none: uploads are refused.")

    def useful_s(self) -> float | None:
        """Time from picture to the last useful verdict, None where there is no gate and no deadline."""
        if self.deadline_s is not None:
            return self.deadline_s
        return max(0.05, self.gate.travel_s - 0.2) if self.gate else None
