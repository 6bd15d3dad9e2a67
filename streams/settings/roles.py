"""Settings of the roles: gateway, inspector, sorter, and what all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from streams.identity import LineName
from streams.settings.section import Section


class ServiceSettings(Section):
    """[service]: what every process shares."""

    host: str = Field("127.0.0.1", description="Address that /metrics, /healthz and /readyz are served on.")
    run_dir: Path = Field(Path("var/run"), description="Folder of slot locks and of the files that Prometheus discovers targets by.")
    grace_s: float = Field(10, gt=0, le=300, description="Time that a process takes at most to finish its work after SIGTERM.")
    stall_s: float = Field(30, gt=1, le=3600, description="With work waiting, no progress for so long means unhealthy.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="`json` for machines, `text` for a terminal.")


class PictureSettings(Section):
    """[pictures]: what is taken for a picture."""

    max_bytes: int = Field(8 * 2**20 - 2**16, ge=1024, le=256 * 2**20, description="Largest encoded picture, bytes.")
    max_pixels: int = Field(50_000_000, ge=1, le=1_000_000_000, description="Largest picture, pixels, before it is decoded.")
    inline_bytes: int = Field(2**20, ge=1024, description="Larger pictures travel as a claim check: the record holds an address.")


class StoreSettings(Section):
    """[store]: the object store of large and of kept pictures."""

    url: str = Field("var/store", description="A folder, or an fsspec address such as s3://bucket/castline (extra `s3`).")


class GatewaySettings(Section):
    """[gateway]: from camera to Kafka."""

    host: str = Field("127.0.0.1", description="Address that uploads and the sorter's part reports come to.")
    port: int = Field(18080, ge=0, le=65535, description="Port of uploads and part reports; 0 takes a free one.")
    token: SecretStr = Field(SecretStr(""), description="Token of the sorter's part reports (CASTLINE_GATEWAY__TOKEN).")
    spool_dir: Path = Field(Path("var/spool"), description="Folder that pictures wait in while Kafka is away.")
    spool_max_bytes: int = Field(2 * 2**30, ge=2**20, description="Largest spool; a full one refuses pictures and says so.")
    in_flight: int = Field(64, ge=1, le=10_000, description="Most pictures sent and not yet confirmed.")


class BatchSettings(Section):
    """[batch]: how pictures are gathered for one call of the networks."""

    size: int = Field(32, ge=1, le=256, description="Most pictures in a batch.")
    max_wait_s: float = Field(0.02, gt=0, le=5, description="Longest a picture waits for company, counted from the first of its batch.")
    shapes: tuple[int, ...] = Field(
        (1, 2, 4, 8, 16, 32), description="Batch sizes that are padded to, rising; the last is at least `size`."
    )
    deadline_margin_s: float = Field(
        0.3, ge=0, le=10, description="A batch goes out at once when a part in it has less time left than this."
    )

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if not self.shapes or list(self.shapes) != sorted(set(self.shapes)) or self.shapes[0] < 1:
            raise ValueError("shapes: expected rising batch sizes of at least 1")
        if self.shapes[-1] < self.size:
            raise ValueError(f"shapes: expected the last to be at least size {self.size}, found {self.shapes[-1]}")
        return self


class ModelSettings(Section):
    """[model]: which version judges."""

    root: Path = Field(
        Path("models/versions"), description="Folder of the versions, or an fsspec address such as s3://bucket/versions (extra `s3`)."
    )
    version: str = Field(
        "demo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Version in force where no choice was published.",
    )
    runtime: str = Field("auto", description="Runtime of the networks; `auto` takes the one that the version records as fastest here.")
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Processor threads of the runtime in all, shared by two batches side by side; 0: one for each processor.",
    )
    cascade: bool = Field(False, description="LeNet alone where it is certain, AlexNet for the rest only; castline evaluate --cascade.")
    cascade_low: float | None = Field(None, ge=0, le=1, description="LeNet certain of a good part below; else as the version records.")
    cascade_high: float | None = Field(None, ge=0, le=1, description="LeNet certain of a defect from here on; else as recorded.")

    @property
    def band(self) -> tuple[float, float] | None:
        """Where LeNet is in doubt, when both edges are set."""
        return None if self.cascade_low is None or self.cascade_high is None else (self.cascade_low, self.cascade_high)

    @model_validator(mode="after")
    def _both_edges(self) -> Self:
        if (self.cascade_low is None) != (self.cascade_high is None):
            raise ValueError("cascade_low and cascade_high: expected both or neither")
        if self.cascade_low is not None and self.cascade_high is not None and self.cascade_low > self.cascade_high:
            raise ValueError(f"cascade_low: expected at most cascade_high, found {self.cascade_low} and {self.cascade_high}")
        return self


class InspectorSettings(Section):
    """[inspector]: the worker that judges."""

    buffer: int = Field(256, ge=8, le=4096, description="Pictures fetched ahead by one worker: bounds its memory.")
    decoders: int = Field(2, ge=1, le=64, description="Threads that decode pictures.")
    localise: bool = Field(True, description="Heat map and boxes of suspicious pictures, made in time that no verdict needs.")
    explain_lines: tuple[LineName, ...] = Field(
        ("uploads",), description="Lines whose every picture gets a heat map, before those of other lines."
    )


class SorterSettings(Section):
    """[sorter]: the worker that tells the boards."""

    gateway_url: str = Field("", description="Where part reports go; empty: the gateway of this machine.")
    window: int = Field(8, ge=1, le=64, description="Most commands to one board not yet answered.")
