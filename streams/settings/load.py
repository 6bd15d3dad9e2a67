"""Reads the settings: file, then environment; refuses what it does not know."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import SettingsError
from streams.settings.gate import refuse_conflicts_at_boards
from streams.settings.kafka import BrokerSettings, KafkaSettings, TopicSettings
from streams.settings.lines import LineSettings
from streams.settings.review import ReviewSettings
from streams.settings.roles import (
    BatchSettings,
    GatewaySettings,
    InspectorSettings,
    ModelSettings,
    PictureSettings,
    ServiceSettings,
    SorterSettings,
    StoreSettings,
)
from streams.settings.station import ArchivistSettings, StationSettings

PREFIX = "CASTLINE_"
FILE_VARIABLE = "CASTLINE_SETTINGS_FILE"
DEFAULT_FILE = Path("castline.toml")


class Settings(BaseSettings):
    """All settings of Castline. Sections are the tables of `castline.toml`; `CASTLINE_BATCH__SIZE=16` sets `batch.size`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    kafka: KafkaSettings = Field(KafkaSettings(), description="The cluster, and how to be let in.")
    broker: BrokerSettings = Field(BrokerSettings(), description="The embedded broker of this machine.")
    topics: TopicSettings = Field(TopicSettings(), description="Names and keeping of topics.")
    service: ServiceSettings = Field(ServiceSettings(), description="What every process shares.")
    pictures: PictureSettings = Field(PictureSettings(), description="What is taken for a picture.")
    store: StoreSettings = Field(StoreSettings(), description="The object store of large and kept pictures.")
    gateway: GatewaySettings = Field(GatewaySettings(), description="From camera to Kafka.")
    batch: BatchSettings = Field(BatchSettings(), description="How pictures are gathered for one call of the networks.")
    model: ModelSettings = Field(ModelSettings(), description="Which version judges.")
    inspector: InspectorSettings = Field(InspectorSettings(), description="The worker that judges.")
    sorter: SorterSettings = Field(SorterSettings(), description="The worker that tells the boards.")
    station: StationSettings = Field(StationSettings(), description="The pages that people work with, and their database.")
    archivist: ArchivistSettings = Field(ArchivistSettings(), description="What is kept of the parts, and for how long.")
    review: ReviewSettings = Field(ReviewSettings(), description="Which parts people are asked about.")
    lines: tuple[LineSettings, ...] = Field((), description="The lines of the foundry.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file comes in through init_settings (see load_settings); the environment overrides it.
        return env_settings, init_settings

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        names = [line.name for line in self.lines]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"lines: expected each name once, found {', '.join(twice)} more than once")
        refuse_conflicts_at_boards({line.name: line.gate for line in self.lines if line.gate})
        if self.pictures.max_bytes + 16384 > self.topics.max_message_bytes:
            raise ValueError(
                f"pictures.max_bytes: expected at least 16384 below topics.max_message_bytes {self.topics.max_message_bytes}, "
                f"found {self.pictures.max_bytes}"
            )
        return self

    @property
    def bootstrap(self) -> str:
        """host:port list of the cluster; of the embedded broker where that is set."""
        return f"127.0.0.1:{self.broker.port}" if self.kafka.bootstrap == "embedded" else self.kafka.bootstrap

    def line(self, name: str) -> LineSettings:
        """The line called `name`. Raises SettingsError: when the settings have no such line."""
        for line in self.lines:
            if line.name == name:
                return line
        known = ", ".join(line.name for line in self.lines) or "none"
        raise SettingsError(f"lines: expected one of {known}, found {name!r}")


def load_settings(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings from `file` (else CASTLINE_SETTINGS_FILE, else castline.toml where it exists) and the environment.

    Relative paths in the settings count from the folder the process runs in.
    Raises SettingsError: for a file that cannot be read, an unknown name or a bad value; one line each.
    """
    named = file or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    path = named or DEFAULT_FILE
    content: dict[str, Any] = {}
    if named is not None or path.exists():
        content = _read(path)
    _refuse_unknown_variables(environment)
    try:
        return Settings(**content)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error, path.name))) from None
    except ValueError as error:  # the environment source: JSON that is none
        raise SettingsError(f"environment: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path}: expected TOML: {error}") from None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    # pydantic-settings passes over variables whose first name is no field: a misspelt one would be silently the default.
    known = {name.upper() for name in Settings.model_fields}
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable != FILE_VARIABLE:
            section = variable.removeprefix(PREFIX).split("__")[0]
            if section not in known:
                raise SettingsError(
                    f"environment: expected {PREFIX}<SECTION>__<NAME> with a section of {', '.join(sorted(known))}; found {variable}"
                )


def _sentences(error: ValidationError, source: str) -> list[str]:
    found = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(step) for step in problem["loc"]) or source
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            found.append(f"{name}: expected a known setting (castline settings schema lists them), found an unknown name")
        elif problem["type"] == "missing":
            found.append(f"{name}: expected a value, found none")
        elif problem["type"] == "value_error":
            found.append(f"{name}: {message}" if problem["loc"] else message)
        else:
            found.append(f"{name}: expected: {message[0].lower()}{message[1:]}; found {str(problem['input'])[:80]!r}")
    return found
