"""Settings of the station and of the archivist, who share a database."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, model_validator

from streams.identity import LineName
from streams.settings.section import Section


class StationSettings(Section):
    """[station]: the pages that people work with, and the database behind them."""

    host: str = Field("127.0.0.1", description="Address that the pages are served on; 0.0.0.0 for all of this machine's.")
    port: int = Field(18000, ge=0, le=65535, description="Port of the pages; 0 takes a free one.")
    hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost", "[::1]"), description="Names the station may be called by: what the browser's address bar shows."
    )
    behind_tls: bool = Field(
        False,
        description="A proxy before the station speaks TLS and sets X-Forwarded-Proto: cookies are for TLS only, and HSTS is sent. "
        "The station must then be reached through that proxy alone.",
    )
    proxies: int = Field(0, ge=0, le=8, description="Proxies before the station that add to X-Forwarded-For; 0 takes no such header.")
    database: str = Field(
        "var/station.sqlite3",
        min_length=1,
        description="File of an SQLite database, or postgresql://user@host:port/name.",
    )
    database_password: SecretStr = Field(
        SecretStr(""), description="Password of PostgreSQL; better as CASTLINE_STATION__DATABASE_PASSWORD or database_password_file."
    )
    database_password_file: Path | None = Field(None, description="File that holds PostgreSQL's password.")
    secret_key: SecretStr = Field(SecretStr(""), description="Signs sessions; CASTLINE_STATION__SECRET_KEY, else from secret_key_file.")
    secret_key_file: Path = Field(
        Path("var/station.key"), description="Holds the secret key; made at the first start, readable by its owner alone."
    )
    session_hours: float = Field(12, gt=0, le=720, description="A log-in lasts so long without a click.")
    log_in_failures: int = Field(5, ge=2, le=100, description="So many wrong passwords for one account from one address lock it there.")
    log_in_lock_minutes: float = Field(15, gt=0, le=1440, description="How long such a lock lasts.")
    upload_line: LineName = Field("uploads", description="Line that uploaded pictures are judged under; it has neither camera nor gate.")
    upload_bytes: int = Field(128 * 2**20, ge=2**20, le=2**32, description="Largest upload, all its pictures together, bytes.")
    upload_files: int = Field(64, ge=1, le=1000, description="Most pictures in one upload.")
    uploads_per_minute: int = Field(
        600, ge=1, le=100_000, description="Most pictures that one account may send for inspection in a minute."
    )
    time_zone: str = Field("UTC", description="The plant's clock, such as Europe/Berlin: times on pages, and when shifts begin.")
    shifts: tuple[time, ...] = Field((time(6), time(14), time(22)), max_length=24, description="When shifts begin; none: a shift is a day.")

    @model_validator(mode="after")
    def _tells_the_time(self) -> Self:
        if self.time_zone not in available_timezones():
            raise ValueError(f"time_zone: expected the name of a time zone such as Europe/Berlin, found {self.time_zone!r}")
        if list(self.shifts) != sorted(set(self.shifts)) or any(begin.tzinfo for begin in self.shifts):
            raise ValueError("shifts: expected rising times of day such as 06:00, without a zone")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The plant's clock."""
        return ZoneInfo(self.time_zone)

    @model_validator(mode="after")
    def _keeps_secrets_out_of_addresses(self) -> Self:
        scheme, separator, rest = self.database.partition("://")
        if separator and scheme not in ("postgresql", "postgres"):
            raise ValueError(f"database: expected a file, or postgresql://user@host:port/name; found the scheme {scheme}")
        if separator and ":" in rest.rpartition("@")[0]:
            raise ValueError("database: expected no password in the address; put it into CASTLINE_STATION__DATABASE_PASSWORD")
        return self

    def secret(self) -> str:
        """PostgreSQL's password, from the setting or its file; empty where none is set."""
        if self.database_password_file is not None:
            try:
                return self.database_password_file.read_text().strip()
            except OSError as error:
                raise ValueError(f"database_password_file {self.database_password_file} cannot be read: {error.strerror}") from None
        return self.database_password.get_secret_value()


class ArchivistSettings(Section):
    """[archivist]: what is kept of the parts, and for how long."""

    buffer: int = Field(2048, ge=64, le=65536, description="Records fetched ahead: bounds the worker's memory.")
    batch: int = Field(256, ge=1, le=256, description="Most records written in one transaction.")
    max_wait_s: float = Field(0.2, gt=0, le=10, description="Longest a record waits for company before it is written.")
    ok_share: float = Field(0.02, ge=0, le=1, description="Share of the good parts whose picture is kept; defect and review are kept all.")
    keep_days: float = Field(90, gt=0, le=36600, description="Kept pictures and heat maps are dropped when their part is older.")
    keep_bytes: int = Field(50 * 10**9, ge=2**20, description="The oldest kept pictures are dropped when they are more than this, bytes.")
    keep_rows_days: float = Field(730, gt=0, le=36600, description="Parts are forgotten when they are older.")
    sweep_s: float = Field(300, gt=0, le=86400, description="Time between two looks for what is too old or too much.")
